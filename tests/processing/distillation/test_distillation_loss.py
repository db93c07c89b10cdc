"""The loss is the cross-entropy to probabilities; batches that make one step together weigh as one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments

from bga_mner import distillation_loss


def make_targets(*shape):
    targets = torch.rand(*shape).softmax(dim=-1)
    targets[0, 2:] = -100
    return targets


@pytest.mark.parametrize("temperature", [1.0, 3.0, 0.5])
def test_it_is_the_divergence_up_to_the_entropy_of_the_teacher(temperature):
    logits, targets = torch.randn(2, 5, 4), make_targets(2, 5, 4)
    known = targets[..., 0] != -100
    softened = targets[known] ** (1 / temperature)
    softened /= softened.sum(dim=-1, keepdim=True)
    entropy = -(softened * softened.log()).sum(dim=-1).mean()
    divergence = F.kl_div((logits[known] / temperature).log_softmax(dim=-1), softened, reduction="batchmean")
    expected = temperature**2 * (divergence + entropy)
    for outputs in ({"logits": logits}, (logits,)):
        torch.testing.assert_close(distillation_loss(outputs, targets, temperature=temperature), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_of_certain_targets_it_is_the_usual_loss(temperature):
    logits, labels = torch.randn(3, 4, requires_grad=True), torch.tensor([0, 3, 1])
    targets = F.one_hot(labels, 4).float()
    loss = distillation_loss({"logits": logits}, targets, temperature=temperature)
    torch.testing.assert_close(loss, temperature**2 * F.cross_entropy(logits / temperature, labels))
    loss.backward()
    assert logits.grad.isfinite().all()


def test_without_any_target_it_is_zero_and_has_a_gradient():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = distillation_loss({"logits": logits}, torch.full((1, 3, 4), -100.0))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_half_precision_is_summed_in_float32():
    logits, targets = torch.randn(2, 3, 4), make_targets(2, 3, 4)
    half = distillation_loss({"logits": logits.bfloat16()}, targets)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, distillation_loss({"logits": logits.bfloat16().float()}, targets))


@pytest.mark.parametrize("lengths", [(6, 2), (3, 3)])
def test_accumulated_batches_weigh_as_one(tmp_path, lengths):
    targets = make_targets(2, 6, 3)
    rows = [
        {"input_ids": torch.arange(1, length + 1), "labels": targets[row, :length]}
        for row, length in enumerate(lengths)
    ]

    def collate(features):
        longest = max(len(row["input_ids"]) for row in features)
        padded = [F.pad(row["input_ids"], (0, longest - len(row["input_ids"]))) for row in features]
        labels = [F.pad(row["labels"], (0, 0, 0, longest - len(row["labels"])), value=-100) for row in features]
        ids = torch.stack(padded)
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": torch.stack(labels)}

    def weights(batch_size, accumulation):
        torch.manual_seed(0)
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        config = BertConfig(vocab_size=10, num_labels=3, **sizes, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
        model = BertForTokenClassification(config)
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_steps=2,
            learning_rate=0.5,
            optim="sgd",
            max_grad_norm=0,
            lr_scheduler_type="constant",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collate, compute_loss_func=distillation_loss
        )
        trainer.train()
        return model.state_dict()

    at_once, in_parts = weights(2, 1), weights(1, 2)
    for name, weight in at_once.items():
        torch.testing.assert_close(in_parts[name], weight)
