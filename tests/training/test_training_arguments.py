"""What TrainingArguments change, and what they don't: docs/reference/training_arguments.md names these tests."""

import inspect
from importlib.util import find_spec
from itertools import chain

import numpy as np
import pytest
import torch
from slow_cases import mostly_slow
from torch.utils.data import Dataset
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

from bga_mner import LossPartsCallback


# transformers: the old name of activation_checkpointing
pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing.*deprecated:FutureWarning")


def trained(trainer):
    trainer.train()
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_same(found, expected, **tolerance):
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


NO_CHANGE = {
    "average_tokens_across_devices": {"average_tokens_across_devices": False},
    "auto_find_batch_size": {"auto_find_batch_size": True},
    "bf16_full_eval": {"bf16_full_eval": True},
    "dataloader_in_order": {"dataloader_num_workers": 1, "dataloader_in_order": False},
    "dataloader workers": {
        "dataloader_num_workers": 2,
        "dataloader_persistent_workers": True,
        "dataloader_prefetch_factor": 3,
    },
    "dispatch_batches": {"accelerator_config": {"dispatch_batches": True}},
    "split_batches": {"accelerator_config": {"split_batches": True}},
    "enable_jit_checkpoint": {"enable_jit_checkpoint": True},
    "fp16": {"fp16": True},  # on CPU
    "full_determinism": {"full_determinism": True},
    "include_num_input_tokens_seen": {"include_num_input_tokens_seen": "all"},
    "label_names": {"label_names": ["labels"]},
    "logging_nan_inf_filter": {"logging_nan_inf_filter": False},
    "skip_memory_metrics": {"skip_memory_metrics": False},
    "tf32": {"tf32": False},
    "torch_empty_cache_steps": {"torch_empty_cache_steps": 1},
    "use_cache": {"use_cache": True},
    "activation_checkpointing": {"activation_checkpointing": True},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "use_reentrant": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "every_n_layers": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"every_n_layers": 2}},
    "other checkpointing_kwargs": {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"determinism_check": "none"},
    },
    "Seq2SeqTrainer": {"kind": Seq2SeqTrainer, "arguments": Seq2SeqTrainingArguments},
}
PLAIN = {}


@pytest.fixture
def plain(make_tagger, make_trainer):
    """Return the weights after two steps with dropout and samplers' noise."""
    if not PLAIN:
        PLAIN.update(trained(make_trainer(make_tagger(noise=True))))
        torch.manual_seed(0)
    return PLAIN


@pytest.fixture
def restored_determinism(monkeypatch):
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, False


@pytest.mark.parametrize("name", mostly_slow(NO_CHANGE, "activation_checkpointing", "dispatch_batches", "fp16"))
def test_what_changes_no_weight(plain, make_tagger, make_trainer, restored_determinism, name):
    found = trained(make_trainer(make_tagger(noise=True), **NO_CHANGE[name]))
    assert_same(found, plain, rtol=1e-6, atol=1e-7)


def test_small_batches_added_up_are_a_large_one(make_tagger, make_trainer):
    start = make_tagger().state_dict()

    def run(size, steps):
        model = make_tagger()
        model.load_state_dict(start)
        return trained(make_trainer(model, per_device_train_batch_size=size, gradient_accumulation_steps=steps))

    assert_same(run(2, 4), run(8, 1), rtol=1e-4, atol=1e-5)


def test_a_large_batch_counts_all_sentences_alike(make_tagger, make_trainer):
    model = make_tagger().train()
    trainer = make_trainer(model)
    features = [trainer.train_dataset[row] for row in range(8)]
    alone = [model(**trainer.data_collator([feature])).loss for feature in features]
    torch.testing.assert_close(model(**trainer.data_collator(features)).loss, torch.stack(alone).mean())


def test_bf16_is_near_float32(make_tagger, make_trainer):
    start = make_tagger().state_dict()
    losses = {}
    for name in ("bf16", "float32"):
        model = make_tagger()
        model.load_state_dict(start)
        trainer = make_trainer(model, bf16=name == "bf16", max_steps=4)
        losses[name] = trainer.train().training_loss
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=1e-2)
    assert losses["bf16"] != losses["float32"]


@pytest.mark.parametrize(("option", "dtype"), [("bf16_full_eval", torch.bfloat16), ("fp16_full_eval", torch.float16)])
def test_an_evaluation_in_half_precision_is_near_and_lasts(make_trainer, option, dtype):
    trainer = make_trainer()
    exact = trainer.evaluate()
    half = make_trainer(trainer.model, **{option: True}).evaluate()
    assert half["eval_loss"] == pytest.approx(exact["eval_loss"], rel=1e-2)
    # what is saved now is saved like this
    for name, parameter in trainer.model.named_parameters():
        assert parameter.dtype == (torch.float32 if "crf" in name else dtype), name


class Recording:
    """Remember which rows came in which batch."""

    def __init__(self, collator, rows):
        self.collator, self.batches = collator, []
        self.numbers = {tuple(row["input_ids"]): number for number, row in enumerate(rows)}

    def __call__(self, features):
        self.batches.append([self.numbers[tuple(feature["input_ids"])] for feature in features])
        return self.collator(features)


@pytest.mark.parametrize("has_lengths", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "strategy", mostly_slow(["random", "sequential", "group_by_length", "batch_rebalance"], "group_by_length")
)
def test_each_row_comes_once_an_epoch(make_trainer, rows, strategy, has_lengths):
    lengths = [len(words) + 2 for words in rows["tokens"]]
    data = rows.add_column("length", lengths) if has_lengths else rows
    trainer = make_trainer(
        data=data, train_sampling_strategy=strategy, per_device_train_batch_size=2, max_steps=-1, num_train_epochs=2
    )
    trainer.data_collator = recording = Recording(trainer.data_collator, trainer.train_dataset)
    trainer.train()
    for epoch in (recording.batches[:4], recording.batches[4:]):
        assert sorted(chain.from_iterable(epoch)) == list(range(8))
    if strategy == "sequential":
        assert list(chain.from_iterable(recording.batches)) == [*range(8), *range(8)]
    if strategy == "group_by_length":
        assert list(trainer._get_train_sampler().lengths) == lengths


def test_a_smaller_last_batch_may_be_left_out(make_trainer):
    trainer = make_trainer(dataloader_drop_last=True, per_device_train_batch_size=3, max_steps=-1, num_train_epochs=1)
    trainer.data_collator = recording = Recording(trainer.data_collator, trainer.train_dataset)
    trainer.train()
    assert list(map(len, recording.batches)) == [3, 3]


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_made_smaller(make_trainer):
    trainer = make_trainer(auto_find_batch_size=True, per_device_train_batch_size=5, callbacks=[LossPartsCallback()])
    collator = trainer.data_collator

    def collate(features):
        if len(features) > 4:
            raise RuntimeError("CUDA out of memory.")
        return collator(features)

    trainer.data_collator = collate
    trainer.train()
    assert trainer._train_batch_size <= 4
    assert trainer.state.global_step == 2


def test_neftune_noise_is_on_the_tokens_in_training_alone(make_tagger, make_trainer):
    trainer = make_trainer(make_tagger(), neftune_noise_alpha=5.0)
    embeddings, seen = trainer.model.get_input_embeddings(), []
    # after the hook of Trainer, which comes first
    trainer.add_callback(type("Watch", (LossPartsCallback,), {}))
    activate = trainer._hp_search_setup
    trainer._hp_search_setup = lambda trial: (
        activate(trial),
        embeddings.register_forward_hook(lambda module, given, made: seen.append((given[0], made.detach()))),
    )
    trainer.args.max_steps = 1
    weight = embeddings.weight.detach().clone()
    trainer.train()
    ids, made = seen[0]
    noise = made - weight[ids]
    limit = 5.0 / np.sqrt(noise.shape[1] * noise.shape[2])
    assert 0.9 * limit < noise.abs().max() <= limit * (1 + 1e-5)
    seen.clear()
    trainer.evaluate()
    assert all(torch.equal(made, embeddings.weight[ids]) for ids, made in seen)


def test_a_gradient_is_cut_to_its_norm(make_tagger, make_trainer):
    model = make_tagger()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    options = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_steps": 1}
    after = trained(make_trainer(model, max_grad_norm=0.01, **options))
    moved = torch.cat([(after[name] - weight).flatten() for name, weight in before.items()])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "optim",
    mostly_slow(["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"], "adamw_torch"),
)
def test_every_optimizer_trains_every_weight(make_tagger, make_trainer, optim):
    model = make_tagger(noise=True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = make_trainer(model, optim=optim, max_steps=4)
    after = trained(trainer)
    assert all(weight.isfinite().all() for weight in after.values())
    outputs = model.train()(**trainer.data_collator([trainer.train_dataset[row] for row in range(8)]))
    model.zero_grad()
    outputs.loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.abs().max() > 1e-3:
            assert not torch.equal(after[name], before[name]), name


@pytest.mark.parametrize(("how", "expected"), [("non_padding", 2 * (8 * 2 + 34)), ("no", 0)])
def test_tokens_are_counted(make_trainer, rows, how, expected):
    trainer = make_trainer(per_device_train_batch_size=8, include_num_input_tokens_seen=how)
    assert sum(map(len, rows["tokens"])) == 34
    trainer.train()
    assert trainer.state.num_input_tokens_seen == expected


def test_the_best_checkpoint_is_loaded_at_the_end(make_tagger, make_trainer, tmp_path):
    best = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    best |= {"load_best_model_at_end": True, "metric_for_best_model": "f1", "batch_eval_metrics": True}
    trainer = make_trainer(make_tagger(), max_steps=5, learning_rate=0.3, lr_scheduler_type="constant", **best)
    trainer.train()
    scores = [log["eval_f1"] for log in trainer.state.log_history if "eval_f1" in log]
    assert trainer.state.best_metric == max(scores)
    assert trainer.evaluate()["eval_f1"] == max(scores)


def test_a_run_goes_on_with_its_callbacks(make_tagger, make_trainer, tmp_path):
    start = make_tagger().state_dict()
    models = [make_tagger(), make_tagger()]
    for model in models:
        model.load_state_dict(start)
    options = {"save_strategy": "steps", "save_steps": 2, "restore_callback_states_from_checkpoint": True}
    whole = make_trainer(models[0], max_steps=4, callbacks=[LossPartsCallback()], **options)
    expected = trained(whole)
    resumed = make_trainer(models[1], max_steps=4, callbacks=[LossPartsCallback()], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert_same(dict(resumed.model.named_parameters()), expected, rtol=1e-5, atol=1e-6)


DOORS = {
    "Trainer": lambda model, make: make(
        model, activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": True}
    ).train(),
    "Trainer, old name": lambda model, make: make(
        model, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True}
    ).train(),
    "with offload": lambda model, make: make(
        model, activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": True, "offload": True}
    ).train(),
    "the model": lambda model, make: model.activation_checkpointing_enable({"use_reentrant": True}),
    "the model, old name": lambda model, make: model.gradient_checkpointing_enable({"use_reentrant": True}),
    "the base model": lambda model, make: model.bga_mner.activation_checkpointing_enable({"use_reentrant": True}),
}


@pytest.mark.parametrize("door", DOORS)
def test_reentrant_checkpointing_is_refused(make_tagger, make_trainer, door):
    with pytest.raises(ValueError, match=r"use_reentrant=False, got True.*activation_checkpointing_kwargs"):
        DOORS[door](make_tagger(), make_trainer)


class Rows(Dataset):
    """Rows of a dataset that isn't one of `datasets`."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number]


UNENCODED = {
    "no column of the model's": (lambda rows: rows, True),
    "a column of the model's": (lambda rows: rows.add_column("label", [0] * 8), True),
    "a column that is called labels": (lambda rows: rows.add_column("labels", [0] * 8), True),
    "another dataset": (Rows, False),
    "a stream": (lambda rows: rows.to_iterable_dataset(), False),
}


@pytest.mark.parametrize("name", UNENCODED)
def test_dropped_columns_are_missed_by_name(make_trainer, rows, name):
    change, encode = UNENCODED[name]
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        make_trainer(data=change(rows), encode=encode, remove_unused_columns=True).train()


def test_encoded_columns_are_kept(make_tagger, make_trainer, rows):
    start = make_tagger(noise=True).state_dict()
    found = []
    for removes in (False, True):
        torch.manual_seed(0)
        model = make_tagger(noise=True)
        model.load_state_dict(start)
        encode = make_trainer(model).train_dataset.format["format_kwargs"]["transform"]
        encoded = rows.map(encode, batched=True, remove_columns=[] if removes else rows.column_names)
        found.append(trained(make_trainer(model, encoded, encode=False, remove_unused_columns=removes)))
    assert_same(found[1], found[0], rtol=0, atol=0)


REFUSED = {
    "tf32": ({"tf32": True}, ValueError),
    "fsdp": ({"fsdp": True}, ValueError),
    "use_liger_kernel": ({"use_liger_kernel": True}, ImportError),
    "deepspeed": ({"deepspeed": {"zero_optimization": {"stage": 2}}}, ImportError),
    "adamw_8bit": ({"optim": "paged_adamw_8bit"}, ImportError),
}
NEEDED = {"use_liger_kernel": "liger_kernel", "deepspeed": "deepspeed", "adamw_8bit": "bitsandbytes"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_this_machine_lacks_is_named_by_transformers(make_trainer, name):
    if find_spec(NEEDED.get(name, "no_such_package")) or torch.cuda.is_available():
        pytest.skip(f"this machine has what {name} needs")
    options, error = REFUSED[name]
    with pytest.raises(error, match=NEEDED.get(name, name).replace("liger_kernel", "liger-kernel")):
        make_trainer(**options).train()


def test_label_names_of_others_give_no_scores(make_trainer):
    assert "eval_f1" not in make_trainer(label_names=["tags"]).evaluate()


def test_the_forward_takes_no_other_labels():
    # find_labels, which label_names default to, goes by the names of arguments
    from transformers.utils import find_labels

    from bga_mner import BgaMnerForSequenceClassification, BgaMnerForTokenClassification

    for head in (BgaMnerForTokenClassification, BgaMnerForSequenceClassification):
        assert find_labels(head) == ["labels"]
        assert "num_items_in_batch" not in inspect.signature(head.forward).parameters
        assert head.accepts_loss_kwargs is False
    assert issubclass(Seq2SeqTrainer, Trainer)
