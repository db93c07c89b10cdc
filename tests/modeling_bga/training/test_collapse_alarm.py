"""The alarm, in real trainings: of a generator that was collapsed on purpose, and of one that was not."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import Trainer, TrainingArguments

from bga_mner import CollapseAlarmCallback


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [r.getMessage() for r in caplog.records if "nearly the same features" in r.getMessage()]


@pytest.fixture
def rows(make_batch):
    batch = make_batch(lengths=(7, 7, 7, 7))
    return [{name: tensor[row] for name, tensor in batch.items()} for row in range(4)]


def train(model, rows, folder, alarm, steps=4):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        logging_steps=1,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        learning_rate=0.0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[alarm])
    trainer.train()
    return [entry["generated_spread"] for entry in trainer.state.log_history if "generated_spread" in entry]


def collapse(model):
    """Cut the generator off from its source: it can only give one answer then."""
    generator = model.bga_mner.text_branch.generator
    with torch.no_grad():
        for layer in generator.layers:
            layer.cross_attention.value.weight.zero_()
    return model


def test_it_fires_for_a_collapsed_generator(make_model, rows, tmp_path, warnings):
    alarm = CollapseAlarmCallback(patience=3)
    model = collapse(make_model(generator_dropout=0.0))
    values = train(model, rows, tmp_path, alarm)
    assert len(values) == 4
    assert max(values) < 1e-4
    assert alarm.collapsed
    assert len(warnings()) == 1  # once, and not at every log
    assert "3 logs in a row" in warnings()[0]
    assert not model._forward_hooks


def test_it_is_silent_for_a_generator_that_reads_its_text(make_model, rows, tmp_path, warnings):
    model = make_model(generator_dropout=0.0)
    with torch.no_grad():
        model.bga_mner.text_branch.generator.layers[0].cross_attention.output.weight.mul_(10)
    alarm = CollapseAlarmCallback(threshold=1e-3, patience=1)
    values = train(model, rows, tmp_path, alarm)
    assert min(values) > 1e-3
    assert not alarm.collapsed
    assert not warnings()


def test_it_is_patient(make_model, rows, tmp_path, warnings):
    alarm = CollapseAlarmCallback(patience=5)
    train(collapse(make_model(generator_dropout=0.0)), rows, tmp_path, alarm)
    assert not alarm.collapsed
    assert not warnings()


def test_what_stands_for_a_missing_image_is_not_measured(make_model, rows, tmp_path):
    model = make_model(generator_dropout=0.0, use_context_sampler=False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    without = train(model, rows[:2], tmp_path, CollapseAlarmCallback(), steps=1)
    for row in rows[2:]:
        row["image_mask"] = torch.tensor(False)
    assert train(model, rows, tmp_path, CollapseAlarmCallback(), steps=1) == pytest.approx(without, rel=1e-4)


def test_text_alone_is_not_measured(make_model, rows, tmp_path):
    for row in rows:
        del row["pixel_values"], row["image_mask"]
    assert train(make_model(), rows, tmp_path, CollapseAlarmCallback()) == []


def test_lengths_that_the_distance_leaves_free_do_not_count(make_model, rows, tmp_path, warnings):
    model = make_model(generator_dropout=0.0, reconstruction_distance="cosine")
    generator = model.bga_mner.text_branch.generator
    with torch.no_grad():
        generator.layers[0].cross_attention.output.weight.mul_(10)
    short = generator.register_forward_hook(lambda module, given, output: output * 1e-2)
    alarm = CollapseAlarmCallback(threshold=1e-3, patience=1)
    assert min(train(model, rows, tmp_path, alarm)) > 1e-3
    assert not warnings()
    short.remove()
    # features of great length hide no collapse
    generator.register_forward_hook(lambda module, given, output: output * 1e3)
    train(collapse(model), rows, tmp_path, alarm)
    assert alarm.collapsed


def test_targets_that_are_not_returned_are_refused(make_model, rows, tmp_path):
    model = make_model(visual_target="layer")
    with pytest.raises(ValueError, match=r"visual_target=.pooled. or .last., .*got 'layer'\. Leave"):
        train(model, rows, tmp_path, CollapseAlarmCallback())
    assert not model._forward_hooks


def test_refuses_what_could_never_fire():
    with pytest.raises(ValueError, match="leave the callback out"):
        CollapseAlarmCallback(threshold=0)
