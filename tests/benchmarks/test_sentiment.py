"""The sentiment benchmark, shortened to where only its machinery is tested."""

from __future__ import annotations

import json

import pytest


SHORT = ["--steps", "2", "--vision_steps", "2", "--drawings", "30", "--pairs", "24", "--names_per_sentiment", "2"]
SHORT += ["--test_sentences", "9", "--batch_size", "8", "--quiet", "--json"]


@pytest.mark.slow
def test_prints_every_variant_for_every_seed(benchmark, capsys):
    names = list(benchmark.VARIANTS)
    found = benchmark.main([*SHORT, "--seeds", "3,4", "--variants", ",".join(names)])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"sentiment": found}
    assert list(found) == names
    for values in found.values():
        assert set(values) == {"accuracy", "labelled_accuracy"}
        assert all(len(of_seeds) == 2 for of_seeds in values.values())
        assert all(0 <= value <= 1 for of_seeds in values.values() for value in of_seeds)


@pytest.mark.slow
def test_images_teach_and_take_nothing_from_labels(benchmark, capsys):
    sizes = ["--steps", "300", "--vision_steps", "400", "--drawings", "4000", "--pairs", "1200"]
    found = benchmark.main(
        [*sizes, "--names_per_sentiment", "10", "--test_sentences", "90", "--quiet", "--threads", "1"]
    )
    [with_images], [labelled] = found["full"].values()
    [without], [labelled_without] = found["text_only"].values()
    # one of three is chance; with a tagger's weight of reconstruction, names with labels have 0.57
    assert without < 0.45 < 0.5 < with_images
    assert min(labelled, labelled_without) > 0.8


def test_text_alone_has_no_images_and_the_others_do(benchmark, tmp_path):
    setting = benchmark.Benchmark(benchmark._parse(SHORT), 0, tmp_path)
    for name, has_images in (("full", True), ("text_only", False)):
        trainer = setting.train(name)
        assert ("reconstruction_loss" in trainer.state.log_history[0]) == has_images
        assert set(setting.scores(trainer)) == {"accuracy", "labelled_accuracy"}
        # labels are hidden of half of the rows, and the vision encoder isn't trained
        assert sum(row["label"] is None for row in setting.rows) == 12
        assert not any(p.requires_grad for p in trainer.model.bga_mner.vision_encoder.parameters())


def test_unknown_variants_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--variants", "fulll"])
    assert "got fulll" in capsys.readouterr().err
