"""The CRF benchmark, shortened to where only its machinery is tested, and its check of what is computed."""

from __future__ import annotations

import json
import math

import pytest
import torch

from bga_mner.modeling_bga.crf.crf import ConditionalRandomField


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_prints_speedups_last(benchmark, capsys):
    found = benchmark.main(["--shapes", "2x6x3,3x5x5", "--repeats", "3", "--threads", "1", "--json"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert json.loads(lines[-1]) == {"crf": found}
    assert [(one["batch"], one["length"], one["tags"]) for one in found] == [(2, 6, 3), (3, 5, 5)]
    for one in found:
        for prefix in ("", "ragged_"):
            assert one[f"{prefix}nll_backward_speedup"] > 0
            assert one[f"{prefix}decode_speedup"] > 0
            assert one[f"{prefix}log_marginals_ms"] > 0
            assert one[f"{prefix}log_marginals_to_nll_backward"] > 0
    table = "\n".join(lines[:-1])
    assert "3x5x5" in table
    assert f"{found[1]['decode_speedup']:.1f} / {found[1]['ragged_decode_speedup']:.1f}" in table


def test_prints_how_time_grows(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "GROWTH", {"batch": [1, 2], "length": [2, 8], "tags": [3, 5]})
    monkeypatch.setattr(benchmark, "STEEPEST", {"length": math.inf, "tags": math.inf})
    monkeypatch.setattr(benchmark, "BASE", {"batch": 2, "length": 4, "tags": 3})
    found = benchmark.main(["--scaling", "--repeats", "2", "--threads", "1", "--json"])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == {"crf_scaling": found}
    for axis, sizes in benchmark.GROWTH.items():
        assert found[axis]["sizes"] == sizes
        for name in ("nll_backward", "decode", "log_marginals"):
            first, second = found[axis]["ms"][name]
            slope = math.log(second / first) / math.log(sizes[1] / sizes[0])
            assert found[axis]["exponents"][name] == pytest.approx(slope)


def test_exponents(benchmark):
    assert benchmark.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
    slow = {"tags": {"exponents": {"decode": 2.5}}, "length": {"exponents": {"decode": 1.0}}}
    with pytest.raises(RuntimeError, match=r"decode to grow as tags to the power of 2\.2 at most, got 2\.50"):
        benchmark.check_growth(slow)
    benchmark.check_growth({"length": {"exponents": {"decode": 1.1}}})


@pytest.mark.parametrize("ragged", [False, True])
def test_sampled_tags_follow_the_bio_scheme(benchmark, ragged):
    _, tags, mask = benchmark.make_batch(50, 20, 9, ragged)
    assert set(tags.flatten().tolist()) == set(range(9))
    for row in tags.tolist():
        for before, tag in zip([0, *row], row, strict=False):
            assert tag == 0 or tag % 2 or before in (tag, tag - 1)
    lengths = mask.sum(1)
    assert lengths[0] == 20
    assert (lengths.min() < 10) == ragged
    assert torch.equal(mask, torch.arange(20) < lengths.unsqueeze(1))


class _Wrong(ConditionalRandomField):
    """A CRF that does one thing wrong."""

    def __init__(self, wrong: str) -> None:
        super().__init__(5)
        self.wrong = wrong

    def forward(self, emissions, tags, mask):
        loss = super().forward(emissions, tags, mask)
        large = emissions.abs().max() > 100
        if self.wrong == "loss":
            return loss + 1e-3
        if self.wrong == "gradient":
            return loss + 1e-3 * (emissions - emissions.detach()).sum((1, 2))
        if self.wrong == "all gradients":
            return loss.detach() + 1.001 * (loss - loss.detach())
        if self.wrong == "not a number at large scores" and large:
            return loss * math.nan
        if self.wrong == "padding" and not mask.all():
            return super().forward(emissions, tags, torch.ones_like(mask))
        return loss

    def decode(self, emissions, mask):
        path = super().decode(emissions, mask)
        if self.wrong == "path":
            path[0, 0] = (path[0, 0] + 1) % 5
        return path


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("loss", r"Expected the loss \(2x6x5, ordinary scores, full mask\) to within"),
        ("gradient", r"Expected the gradient to emissions.*ordinary scores, full mask"),
        ("all gradients", r"Expected the gradient to.*ordinary scores, full mask"),
        ("not a number at large scores", r"Expected the loss.*large scores, full mask.*a difference of nan"),
        ("padding", r"Expected the loss.*ordinary scores, ragged mask"),
        ("path", r"Expected a path of the score.*ordinary scores, full mask"),
    ],
)
def test_check_refuses_a_wrong_crf(benchmark, wrong, message):
    benchmark.check(_Wrong("nothing"), 2, 6, 5)
    with pytest.raises(RuntimeError, match=message):
        benchmark.check(_Wrong(wrong), 2, 6, 5)


def test_a_wrong_crf_is_not_timed(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "ConditionalRandomField", lambda tags: _Wrong("loss"))
    monkeypatch.setattr(benchmark, "compare", lambda *_: pytest.fail("timed"))
    with pytest.raises(SystemExit, match=r"Expected the loss .* to within"):
        benchmark.main(["--shapes", "2x6x5", "--threads", "1", "--json"])
    assert "crf" not in capsys.readouterr().out


@pytest.mark.parametrize("shapes", ["8x64", "8x64x8", "0x4x3", "axbxc"])
def test_says_which_shapes_there_are(benchmark, shapes, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--shapes", shapes])
    assert f"with commas between, got {shapes}" in capsys.readouterr().err
