from __future__ import annotations

import pytest
from transformers import Trainer, TrainingArguments

from bga_mner import LossPartsCallback


@pytest.fixture
def rows(make_batch):
    batch = make_batch(lengths=(7, 7, 7, 7))
    del batch["picture_mask"]
    return [{name: tensor[row] for name, tensor in batch.items()} for row in range(4)]


def train(model, rows, folder, **options):
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=4,
        logging_steps=2,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[LossPartsCallback()])
    trainer.train()
    return trainer


def test_trainer_logs_the_parts_and_they_add_up(make_model, rows, tmp_path):
    model = make_model(reconstruction_weight=0.5, cycle_weight=0.25)
    trainer = train(model, rows, tmp_path)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 2
    for entry in logs:
        total = entry["crf_loss"] + 0.5 * entry["reconstruction_loss"] + 0.25 * entry["cycle_loss"]
        assert entry["loss"] == pytest.approx(total, rel=1e-3)
    assert not model._forward_hooks


def test_accumulation_is_averaged_and_not_summed(make_model, rows, tmp_path):
    # Trainer would take a model that accepts loss arguments to have divided by all tokens of the accumulated batches
    trainer = train(make_model(), rows, tmp_path, gradient_accumulation_steps=2, learning_rate=0.0)
    plain = train(make_model(), rows, tmp_path, learning_rate=0.0)
    first, second = (
        next(entry["loss"] for entry in run.state.log_history if "loss" in entry) for run in (trainer, plain)
    )
    assert first == pytest.approx(second, rel=0.3)


def test_text_alone_logs_the_crf_part_only(make_model, rows, tmp_path):
    for row in rows:
        del row["pixel_values"]
    trainer = train(make_model(), rows, tmp_path)
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert "crf_loss" in entry
    assert "reconstruction_loss" not in entry
