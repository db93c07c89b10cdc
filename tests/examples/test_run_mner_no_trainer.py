"""The plain loop, from files to files."""

from __future__ import annotations

import json

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from bga_mner import BgaMnerForTokenClassification, read_conll
from bga_mner.examples import run_mner_no_trainer


def reset_accelerate():
    """Forget the mixed precision of an earlier test, which the whole process shares with every Trainer."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture
def run(mner_arguments, mner_files, run_script, tmp_path):
    def call(**others):
        given = mner_arguments | {"output_dir": tmp_path / "out", "test_file": mner_files / "test.txt"} | others
        return run_mner_no_trainer.main(run_script.argv({**given, "do_train": others.get("do_train")}))

    reset_accelerate()
    yield call
    reset_accelerate()


# of a model that is given whole
NONE_TO_BUILD = dict.fromkeys(("text_model", "vision_model", "num_bga_layers", "entity_replacement_probability"))


def test_writes_everything(run, mner_files, learned, tmp_path):
    given = {"model_name_or_path": learned, "num_train_epochs": 2}
    found = run(**NONE_TO_BUILD, **given, language="en", warmup_steps=2, weight_decay=0.1)
    out = tmp_path / "out"
    names = {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "train_results.json",
        "eval_results.json",
        "log.jsonl",
    }
    names |= {"test_results.json", "data_report.json", "predictions.conll", "predictions.jsonl", "README.md"}
    assert names <= {path.name for path in out.iterdir()}
    assert {path.name for path in out.glob("checkpoint-*")} == {"checkpoint-6", "checkpoint-12"}
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rates = [entry["learning_rate"] for entry in log if "learning_rate" in entry]
    assert rates == pytest.approx([0, 5e-4, *(1e-3 * left / 10 for left in range(10, 0, -1))])
    scores = {entry["step"]: entry["eval_f1"] for entry in log if "eval_f1" in entry}
    assert scores.keys() == {6, 12}
    # the weights are those of the better epoch
    best = max(scores, key=scores.__getitem__)
    assert found["eval_f1"] == pytest.approx(scores[best])
    assert 0 < scores[best] < 1
    saved, kept = (load_file(folder / "model.safetensors") for folder in (out, out / f"checkpoint-{best}"))
    assert all(torch.equal(weight, kept[name]) for name, weight in saved.items())
    assert json.loads((out / "test_results.json").read_text())["test_f1"] == found["test_f1"]
    assert read_conll(out / "predictions.conll")["tokens"][:] == read_conll(mner_files / "test.txt")["tokens"][:]
    card = ModelCard.load(out / "README.md")
    measured = {item.dataset_split: item.metric_value for item in card.data.eval_results if item.metric_type == "f1"}
    assert measured == {"validation": found["eval_f1"], "test": found["test_f1"]}
    assert "weight_decay" in card.text
    # what was saved is what predicted
    unseen = {"train_file": None, "validation_file": None, "output_dir": tmp_path / "again"}
    again = run(**NONE_TO_BUILD, **unseen, model_name_or_path=out)
    assert again["test_f1"] == found["test_f1"]
    assert (tmp_path / "again" / "predictions.conll").read_text() == (out / "predictions.conll").read_text()


def test_half_precision(run, tmp_path):
    found = run(mixed_precision="bf16", validation_file=None, max_steps=2)
    assert found["train_steps"] == 2
    model = BgaMnerForTokenClassification.from_pretrained(tmp_path / "out")
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert model.dtype == torch.float32
    assert "bf16" in (tmp_path / "out" / "README.md").read_text()


def test_batches_of_different_sizes_add_up(make_model, make_batch):
    batch = make_batch((9, 6, 4, 4))
    batch["image_mask"][1] = False
    rows = {"whole": [slice(0, 4)], "parts": [slice(0, 3), slice(3, 4)]}
    accelerator, found = Accelerator(cpu=True), {}
    for name, parts in rows.items():
        torch.manual_seed(0)
        model = make_model(use_context_sampler=False).eval()  # no dropout
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model, optimizer = accelerator.prepare(model, optimizer)
        window = [{key: value[part] for key, value in batch.items()} for part in parts]
        loss = run_mner_no_trainer.take_step(accelerator, model, optimizer, window, 0)
        found[name] = loss, [weight.detach().clone() for weight in model.parameters()]
    torch.testing.assert_close(found["parts"], found["whole"], rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped(make_model, make_batch):
    accelerator = Accelerator(cpu=True)
    model = make_model(use_context_sampler=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [weight.detach().clone() for weight in model.parameters()]
    model, optimizer = accelerator.prepare(model, optimizer)
    run_mner_no_trainer.take_step(accelerator, model, optimizer, [make_batch()], 1e-3)
    moved = [(weight - old).norm() for weight, old in zip(model.parameters(), before, strict=True)]
    assert torch.stack(moved).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_says_what_to_mend(run, tmp_path):
    with pytest.raises(ValueError, match="--output_dir"):
        run(output_dir=None)
    with pytest.raises(ValueError, match="Give --model_name_or_path"):
        run(train_file=None, validation_file=None)
    with pytest.raises(ValueError, match=r"run_mner\.py alone takes"):
        run(lora_rank=2)
