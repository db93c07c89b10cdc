from __future__ import annotations

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from bga_mner import LossPartsCallback


@pytest.fixture
def rows(make_batch):
    batch = make_batch(lengths=(7, 7, 7, 7))
    del batch["image_mask"]
    return [{name: tensor[row] for name, tensor in batch.items()} for row in range(4)]


def train(model, rows, folder, **options):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        logging_steps=2,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"per_device_train_batch_size": 2, **options},
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


def test_accumulated_gradients_are_those_of_a_large_batch(make_model, rows, tmp_path):
    # Trainer would take a model that accepts loss arguments to have divided by all tokens of the accumulated batches
    norms = []
    model = make_model(generator_dropout=0.0, use_context_sampler=False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for sizes in ((2, 2), (4, 1)):
        options = {"per_device_train_batch_size": sizes[0], "gradient_accumulation_steps": sizes[1]}
        run = train(model, rows, tmp_path, learning_rate=0.0, weight_decay=0.0, **options)
        norms.append(next(entry["grad_norm"] for entry in run.state.log_history if "grad_norm" in entry))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_reporters_see_the_parts_of_a_callback_that_stands_first(make_model, rows, tmp_path):
    seen = []

    class Reporter(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    arguments = TrainingArguments(str(tmp_path), max_steps=2, logging_steps=1, report_to="none", use_cpu=True)
    arguments.remove_unused_columns = False
    trainer = Trainer(model=make_model(), args=arguments, train_dataset=rows, callbacks=[Reporter()])
    trainer.callback_handler.callbacks.insert(0, LossPartsCallback())
    trainer.train()
    assert all("cycle_loss" in logs for logs in seen if "loss" in logs)


def test_text_alone_logs_the_crf_part_only(make_model, rows, tmp_path):
    for row in rows:
        del row["pixel_values"]
    trainer = train(make_model(), rows, tmp_path)
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert "crf_loss" in entry
    assert "reconstruction_loss" not in entry
