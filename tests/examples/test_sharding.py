"""What a training needs whose weights are spread; that two processes with FSDP go on: test_several_processes.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from model_changes import without_dropout
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from bga_mner.examples.fine_tuning.sharding import CompleteStatesCallback, complete_states


@pytest.mark.parametrize("options", [{}, {"use_image_to_text": False}, {"visual_source": "none"}])
def test_all_weights_have_a_state_and_train_as_without(make_model, make_batch, options):
    """Some get no gradient: the last vision layer, or all that deals with images."""
    trained = {}
    for completes in (False, True):
        torch.manual_seed(0)
        noiseless = {"use_context_sampler": False, "generator_dropout": 0.0}
        model = without_dropout(make_model("bert", "clip_vision_model", **noiseless | options).train())
        weights = list(model.parameters())
        groups = [{"params": weights[::2], "lr": 1e-2}, {"params": weights[1::2], "lr": 1e-3}]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(**make_batch()).loss.backward()
            optimizer.step()
            if completes:
                complete_states(optimizer)
                assert all(optimizer.state.get(weight) for weight in weights)
                assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-3]
        assert all(optimizer.state.get(weight) for weight in weights) == completes
        trained[completes] = model.state_dict()
    for name, weight in trained[False].items():
        assert torch.equal(weight, trained[True][name]), name


class Halves(torch.nn.Module):
    """Learns with one of its two weights."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))

    def forward(self, labels):
        loss = (self.used - labels).square().mean()
        return {"loss": loss, "logits": labels}


def make_trainer(folder, **options):
    given = {"max_steps": 6, "per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, **options}
    rows = [{"labels": torch.full((2,), float(number))} for number in range(6)]
    data = {"train_dataset": rows, "eval_dataset": rows, "callbacks": [CompleteStatesCallback]}
    return Trainer(Halves(), TrainingArguments(folder, disable_tqdm=True, **given), **data)


@pytest.mark.parametrize("strategy", ["steps", "epoch", "best"])
def test_each_checkpoint_of_the_trainer_has_all_states(tmp_path, strategy):
    evaluation = "steps" if strategy == "best" else strategy
    options = {"save_strategy": strategy, "eval_strategy": evaluation, "save_steps": 2, "eval_steps": 2}
    make_trainer(tmp_path, **options, metric_for_best_model="loss").train()
    saved = list(tmp_path.glob("checkpoint-*/optimizer.pt"))
    assert saved
    for file in saved:
        assert set(torch.load(file, weights_only=True)["state"]) == {0, 1}


def test_an_optimizer_without_states_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"SGD without momentum\. Pass --optim adamw_torch"):
        make_trainer(tmp_path, optim="sgd", save_strategy="no").train()
    make_trainer(tmp_path, optim="sgd", optim_args="momentum=0.9", save_strategy="no").train()


def test_states_are_completed_before_a_checkpoint_alone(tmp_path):
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.AdamW([used, unused])
    used.grad = torch.ones(2)
    optimizer.step()
    arguments = TrainingArguments(output_dir=tmp_path, report_to="none")
    for saves in (False, True):
        control = TrainerControl(should_save=saves)
        CompleteStatesCallback().on_step_end(
            arguments, TrainerState(), control, optimizer=SimpleNamespace(optimizer=optimizer)
        )
        assert bool(optimizer.state.get(unused)) == saves
    assert torch.equal(used.grad, torch.ones(2))
    assert unused.grad is None
    assert torch.equal(unused, torch.ones(2))
