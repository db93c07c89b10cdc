"""The search for hyperparameters and the repetition with several seeds, on tiny models."""

from __future__ import annotations

import json
import statistics

import pytest

from bga_mner.examples import sweep


@pytest.fixture
def argv(mner_arguments, run_script, tmp_path):
    given = mner_arguments | {"output_dir": tmp_path / "out", "max_steps": 2, "report_to": "none", "logging_steps": 5}
    return run_script.argv({name: value for name, value in given.items() if name != "do_train"})


def test_a_search_tries_what_it_was_told_and_goes_on(argv, tmp_path, capsys):
    space = "learning_rate=1e-4..1e-2:log,cycle_weight=0.1..0.5,lr_scheduler_type=linear|cosine"
    first = sweep.main(["search", "--trials", "2", "--space", space, *argv])
    assert "2 trials, best first" in capsys.readouterr().out
    found = sweep.main(["search", "--trials", "3", "--space", space, *argv])
    assert json.loads((tmp_path / "out" / "search.json").read_text()) == found
    assert found["trials"][:2] == first["trials"]
    assert len(found["trials"]) == 3
    assert found["best"]["f1"] == max(trial["f1"] for trial in found["trials"])
    sampled = [trial["learning_rate"] for trial in found["trials"]]
    assert len(set(sampled)) == 3
    for trial in found["trials"]:
        assert trial.keys() == {"f1", "learning_rate", "cycle_weight", "lr_scheduler_type"}
        assert 1e-4 <= trial["learning_rate"] <= 1e-2
        assert 0.1 <= trial["cycle_weight"] <= 0.5


def test_options_of_the_model_reach_the_model(argv, monkeypatch):
    built = []
    build = sweep.build_model

    def watch(*arguments):
        built.append(build(*arguments))
        return built[-1]

    monkeypatch.setattr(sweep, "build_model", watch)
    found = sweep.main(["search", "--trials", "1", "--space", "cycle_weight=0.1..0.5", *argv])
    assert built[-1][0].config.cycle_weight == pytest.approx(found["best"]["cycle_weight"])
    assert built[-1][0].config.cycle_weight != built[0][0].config.cycle_weight


@pytest.mark.parametrize("space", ["no_such_option=1..2", "learning_rate=2..1", "learning_rate=1e-4", "seed=a..b"])
def test_a_space_that_is_none_is_refused(space, argv):
    with pytest.raises(ValueError, match="--space"):
        sweep.main(["search", "--space", space, *argv])


def test_a_search_of_adapters_is_refused(argv, tmp_path):
    with pytest.raises(ValueError, match="no --lora_rank in a search"):
        sweep.main(["search", "--trials", "1", *argv, "--lora_rank", "2"])
    assert not (tmp_path / "out" / "search.db").exists()


def test_seeds_have_a_mean_and_an_interval_and_are_not_run_again(argv, tmp_path, monkeypatch, capsys):
    found = sweep.main(["seeds", "--seeds", "0,1", *argv])
    values = [results["eval_f1"] for results in found["seeds"].values()]
    summary = found["f1"]
    assert summary["mean"] == pytest.approx(statistics.fmean(values))
    assert summary["low"] <= summary["mean"] <= summary["high"]
    assert f"{summary['mean']:.4f}" in capsys.readouterr().out
    losses = {results["train_loss"] for results in found["seeds"].values()}
    assert len(losses) == 2
    ran = []
    train = sweep.run_mner.main
    monkeypatch.setattr(sweep.run_mner, "main", lambda given: ran.append(given) or train(given))
    again = sweep.main(["seeds", "--seeds", "0,1,2", *argv])
    assert len(ran) == 1
    assert [again["seeds"][seed]["eval_f1"] for seed in (0, 1)] == values


def test_the_interval_is_student_s():
    # 12.706 is the 97.5 % quantile of Student's t with one degree of freedom
    mean, low, high = sweep.mean_interval([0.0, 1.0])
    assert mean == 0.5
    assert high - mean == pytest.approx(12.7062 * 0.5, rel=1e-4)
    assert mean - low == pytest.approx(high - mean)
    with pytest.raises(ValueError, match="two seeds or more"):
        sweep.mean_interval([1.0])
