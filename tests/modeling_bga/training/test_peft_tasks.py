"""peft's task types: what is trained, what a plain configuration leaves frozen, what is saved, and what is refused."""

from __future__ import annotations

import logging

import pytest
import torch
from peft import (
    AutoPeftModelForSequenceClassification,
    AutoPeftModelForTokenClassification,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from slow_cases import mostly_slow
from transformers.utils import logging as transformers_logging

from bga_mner import BgaMnerForSequenceClassification, BgaMnerForTokenClassification, lora_config


CLASSES = {"TOKEN_CLS": BgaMnerForTokenClassification, "SEQ_CLS": BgaMnerForSequenceClassification}
AUTO = {"TOKEN_CLS": AutoPeftModelForTokenClassification, "SEQ_CLS": AutoPeftModelForSequenceClassification}
QUERY = {"target_modules": ["query", "value"]}
CONFIGURATIONS = {
    "lora_config": lambda model, task: lora_config(model, 2, task_type=task),
    "dora": lambda model, task: lora_config(model, 2, task_type=task, use_dora=True),
    "text alone": lambda model, task: lora_config(model, 2, encoders=["text"], task_type=task),
    "tokens": lambda model, task: lora_config(
        model, 2, task_type=task, trainable_token_indices={"word_embeddings": [1]}
    ),
    "plain LoRA": lambda model, task: LoraConfig(task_type=task, r=2, **QUERY),
    "plain IA3": lambda model, task: IA3Config(task_type=task, feedforward_modules=[], **QUERY),
    "plain LoHa": lambda model, task: LoHaConfig(task_type=task, r=2, **QUERY),
}


@pytest.fixture
def warnings_of_models(caplog):
    """Return the lines that models warn of; each line is told once a process."""
    logger = transformers_logging.get_logger("bga_mner.modeling_bga.training.frozen_parts")
    type(logger).warning_once.cache_clear()
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def make(make_config, make_batch, task, path):
    """Save a base model, since adapters are loaded onto it; return it as loaded, and a batch."""
    base = CLASSES[task](make_config())
    # statistics of images would go on changing, and a plain adapter doesn't hold them
    base.bga_mner.pooled_target.images_seen.fill_(10**6)
    base.save_pretrained(path / "base")
    batch = make_batch()
    if task == "SEQ_CLS":
        batch["labels"] = torch.tensor([0, 3, 1])
    return CLASSES[task].from_pretrained(path / "base"), batch


def trained_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("configuration", mostly_slow(CONFIGURATIONS, "lora_config", "plain LoRA"))
def test_what_a_task_type_trains_comes_back_to_the_bit(make_config, make_batch, tmp_path, task, configuration):
    model, batch = make(make_config, make_batch, task, tmp_path)
    adapted = get_peft_model(model, CONFIGURATIONS[configuration](model, task)).train()
    before = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(**batch).loss.backward()
        optimizer.step()
    moved = {name for name, parameter in adapted.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved <= trained_names(adapted)
    assert any("classifier.modules_to_save" in name for name in moved)
    if not configuration.startswith("plain"):
        new = ["text_branch.modules_to_save", "vision_branch.modules_to_save"]
        new += ["crf.modules_to_save"] if task == "TOKEN_CLS" else []
        assert all(any(part in name for name in moved) for part in new)
    adapted.eval().save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(CLASSES[task].from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    by_name = AUTO[task].from_pretrained(tmp_path / "adapter")
    with torch.no_grad():  # attention has other kernels where gradients are wanted
        expected = adapted(**batch)
        for other in (loaded, by_name):
            found = other.eval()(**batch)
            assert torch.equal(found.logits, expected.logits)
            assert torch.equal(found.loss, expected.loss)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(**batch).logits, expected.logits, rtol=1e-4, atol=1e-4)
        merged.save_pretrained(tmp_path / "merged")
        again = CLASSES[task].from_pretrained(tmp_path / "merged")
        assert torch.equal(again(**batch).logits, merged(**batch).logits)


@pytest.mark.parametrize(
    ("options", "frozen"),
    [
        ({"task_type": "TOKEN_CLS", **QUERY}, {"crf", "text_branch", "vision_branch"}),
        ({**QUERY}, {"classifier", "crf", "text_branch", "vision_branch"}),
        ({"modules_to_save": ["crf", "classifier"], **QUERY}, {"text_branch", "vision_branch"}),
        (None, set()),
    ],
)
def test_training_says_which_new_parts_a_configuration_leaves_frozen(make_model, warnings_of_models, options, frozen):
    model = make_model()
    adapted = get_peft_model(model, lora_config(model) if options is None else LoraConfig(r=2, **options))
    adapted.eval()
    assert warnings_of_models() == []
    adapted.train()
    if not frozen:
        assert warnings_of_models() == []
        return
    (line,) = warnings_of_models()
    named = line.partition("are frozen: ")[2].partition(". No")[0].split(", ")
    assert {name.partition(".")[0] for name in named} == frozen
    assert "bga_mner.lora_config(model)" in line
    adapted.eval()
    adapted.train()  # as Trainer does after each evaluation
    assert len(warnings_of_models()) == 1


def test_nobody_is_warned_without_adapters(make_model, warnings_of_models):
    model = make_model()
    model.crf.requires_grad_(False)
    model.train()
    adapted = get_peft_model(make_model(), LoraConfig(r=2, **QUERY))
    adapted.merge_and_unload().requires_grad_(True).train()
    assert warnings_of_models() == []


def test_prompts_before_texts_are_refused_by_name(make_model, make_batch):
    batch = make_batch()
    prompted = get_peft_model(make_model(), PromptTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=3)).eval()
    with pytest.raises(ValueError, match=r"Expected labels of the shape .* prompt tuning"):
        prompted(**batch)
    del batch["labels"]
    emissions = prompted(**batch).emissions
    with pytest.raises(ValueError, match=r"Expected attention_mask of the shape .* prompt tuning"):
        prompted.span_probabilities(emissions, batch["attention_mask"], [])
    with pytest.raises(ValueError, match="past key values"):
        get_peft_model(make_model(), PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=3))(**batch)


@pytest.mark.parametrize("which", ["tagger", "classifier", "base"])
def test_attention_weights_are_refused(make_model, make_batch, which):
    tagger, batch = make_model(), make_batch(images=False)
    del batch["labels"]
    models = {"tagger": tagger, "base": tagger.bga_mner, "classifier": BgaMnerForSequenceClassification(tagger.config)}
    model = models[which].eval()
    for harmless in (None, False):
        model(**batch, output_attentions=harmless)
    with pytest.raises(ValueError, match="output_attentions"):
        model(**batch, output_attentions=True)


def test_attention_weights_are_refused_of_a_configuration(make_model, make_batch):
    model, batch = make_model(output_attentions=True), make_batch(images=False)
    with pytest.raises(ValueError, match="output_attentions"):
        model(**batch)
    model(**batch, output_attentions=False)
