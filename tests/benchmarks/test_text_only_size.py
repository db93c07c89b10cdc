"""The sizes that the benchmark reports, of tiny encoders."""

import json

from bga_mner import BgaMnerConfig


def test_the_text_branch_is_smaller_than_the_whole_and_larger_than_a_plain_tagger(benchmark, make_config, make_model):
    sizes = benchmark.measure(make_config("bert", "clip_vision_model"))
    model = make_model("bert", "clip_vision_model")
    weights = 4 * sum(weight.numel() for weight in model.state_dict().values())
    assert weights < sizes["whole"] < weights + 40_000  # names and shapes
    assert sizes["plain_tagger"] < sizes["text_only"] < sizes["whole"]
    assert sizes["text_only_ratio"] == sizes["text_only"] / sizes["whole"]


def test_the_command(benchmark, make_config, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        benchmark, "BgaMnerConfig", lambda **options: asked.append(options) or make_config("bert", "vit")
    )
    sizes = benchmark.main(["--num_bga_layers", "2", "--json"])
    assert asked[0]["num_bga_layers"] == 2
    assert BgaMnerConfig(id2label=asked[0]["id2label"]).num_labels == 9
    shown = capsys.readouterr().out.splitlines()
    assert json.loads(shown[-1]) == sizes
    assert f"{sizes['text_only_ratio']:.3f} of the whole" in shown[-3]
