from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from model_changes import without_dropout
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertModel,
    ViTImageProcessorPil,
    ViTModel,
    pipeline,
)
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from bga_mner import (
    BgaMnerConfig,
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerModel,
    BgaMnerProcessor,
    DataCollatorForMner,
    layerwise_parameter_groups,
    mark_target,
)
from bga_mner.configuration.encoder_families import TEXT_FAMILIES
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


LABELS = ["negative", "neutral", "positive"]


@pytest.fixture
def make_classifier(make_config):
    """Return a function that makes a tiny classifier whose text reads much of what it generates."""

    def make(*families, **options):
        options = {"id2label": dict(enumerate(LABELS)), "gate_initial_bias": 0.0} | options
        return BgaMnerForSequenceClassification(make_config(*families, **options)).eval()

    return make


@pytest.fixture
def make_pairs(make_batch):
    """Return a function that makes a batch with a label and a target for each text."""

    def make(**options):
        batch = make_batch(**options)
        batch["labels"] = torch.arange(len(batch["labels"])) % len(LABELS)
        batch["target_mask"] = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
        batch["target_mask"][:, 1:3] = True
        return batch

    return make


def inputs_of(batch, *names):
    return {name: tensor for name, tensor in batch.items() if name in ("input_ids", "attention_mask", *names)}


def test_a_new_classifier_has_options_of_its_own(make_config):
    config = make_config()
    text = BertModel(config.text_config, add_pooling_layer=False)
    vision = ViTModel(config.vision_config, add_pooling_layer=False)

    def new(model_class, **options):
        config = model_class.from_text_vision_pretrained(text, vision, labels=LABELS, **options).config
        return config.reconstruction_weight, config.generators_learn_from_labels

    defaults = BgaMnerConfig()
    of_tagger = new(BgaMnerForTokenClassification)
    assert of_tagger == (defaults.reconstruction_weight, defaults.generators_learn_from_labels) == (10.0, False)
    assert new(BgaMnerForSequenceClassification) == (1.0, True)
    # what is asked for is what is built
    asked = {"reconstruction_weight": 3.0, "generators_learn_from_labels": False}
    assert new(BgaMnerForSequenceClassification, **asked) == (3.0, False)
    paper = BgaMnerConfig.paper()
    of_paper = new(BgaMnerForSequenceClassification, preset="paper")
    assert of_paper == (paper.reconstruction_weight, paper.generators_learn_from_labels)


def test_loss_is_the_weighted_sum_of_its_parts(make_classifier, make_pairs):
    output = make_classifier(reconstruction_weight=0.3, cycle_weight=0.2)(**make_pairs())
    parts = output.classification_loss + 0.3 * output.reconstruction_loss + 0.2 * output.cycle_loss
    assert torch.allclose(output.loss, parts)
    assert min(output.classification_loss, output.reconstruction_loss, output.cycle_loss) > 0
    assert output.logits.shape == (3, 3)


PROBLEMS = {
    "single_label_classification": (3, torch.tensor([0, 2, 1])),
    "multi_label_classification": (3, torch.tensor([[0.0, 1, 1], [0, 0, 0], [1, 0, 1]])),
    "regression": (1, torch.tensor([0.5, -2.0, 1.0])),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problem_types_are_those_of_transformers(make_classifier, make_pairs, tmp_path, problem):
    count, labels = PROBLEMS[problem]
    model = make_classifier(id2label=dict(enumerate(LABELS[:count])))
    before = model.config.to_dict()
    output = model(**make_pairs(images=False) | {"labels": labels})
    assert model.config.to_dict() == before
    # which writes into the configuration what labels are
    assert torch.allclose(
        output.loss, ForSequenceClassificationLoss(labels, output.logits, copy.deepcopy(model.config))
    )
    # told to the stock pipeline, where it would take them for numbers of labels
    model.save_pretrained(tmp_path)
    saved = BgaMnerForSequenceClassification.from_pretrained(tmp_path).config.problem_type
    assert saved == (None if problem == "single_label_classification" else problem)
    assert model.config.problem_type is None


def test_regression_of_several_values(make_classifier, make_pairs):
    model = make_classifier(problem_type="regression")
    labels = torch.randn(3, 3)
    output = model(**make_pairs(images=False) | {"labels": labels})
    assert torch.allclose(output.loss, ((output.logits - labels) ** 2).mean())


@pytest.mark.parametrize("problem", PROBLEMS)
def test_texts_without_a_label_add_nothing(make_classifier, make_pairs, problem):
    count, labels = PROBLEMS[problem]
    model = make_classifier(id2label=dict(enumerate(LABELS[:count])), problem_type=problem)
    unknown = torch.full_like(labels[0], math.nan if labels.is_floating_point() else -100)
    batch = make_pairs(images=False)
    known = {name: tensor[[0, 2]] for name, tensor in batch.items()} | {"labels": labels[[0, 2]]}
    partly = batch | {"labels": torch.stack([labels[0], unknown, labels[2]])}
    assert torch.allclose(model(**partly).loss * 3, model(**known).loss * 2)
    loss = model(**batch | {"labels": torch.stack([unknown] * 3)}).loss
    assert loss == 0
    loss.backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        ("regression", [3, -100, -2]),
        ("regression", [[3, -100, -100], [-100, -100, -100], [1, 2, 0]]),
        ("multi_label_classification", [[1, -100, 0], [-100, -100, -100], [1, 0, 0]]),
    ],
)
def test_minus_100_among_whole_numbers_is_unknown_as_nan_among_floats(make_classifier, make_pairs, problem, labels):
    labels = torch.tensor(labels)
    model = make_classifier(id2label=dict(enumerate(LABELS[: labels[0].numel()])), problem_type=problem)
    batch = make_pairs(images=False)
    floats = torch.where(labels == -100, math.nan, labels.float())
    assert torch.equal(model(**batch | {"labels": labels}).loss, model(**batch | {"labels": floats}).loss)


UNKNOWN = [
    ("single_label_classification", 3, 1),
    ("multi_label_classification", 3, [0.0, 1.0, 1.0]),
    ("regression", 1, 2),
    ("regression", 1, 0.5),
]


@pytest.mark.parametrize("is_given", [True, False])
@pytest.mark.parametrize(("problem", "count", "label"), UNKNOWN)
def test_a_batch_that_knows_no_label_is_read_where_processes_share_a_model(
    make_classifier, problem, count, label, is_given
):
    tokenizer = build_tokenizer([text.split() for text in TEXTS])
    processor = BgaMnerProcessor(ViTImageProcessorPil(size={"height": 16, "width": 16}), tokenizer)
    collate = DataCollatorForMner(processor, image_shape=(3, 16, 16))
    options = {"id2label": dict(enumerate(LABELS[:count])), "problem_type": problem if is_given else None}
    model = make_classifier(text_options={"vocab_size": len(tokenizer)}, **options)

    def batch(*labels):
        columns = {"text": TEXTS, "label": labels, "image": [None, None], "target": [(12, 22), None]}
        encoded = processor.encode_examples(columns)
        return collate([{name: column[row] for name, column in encoded.items()} for row in range(2)])

    for training in (False, True):
        model.zero_grad()
        output = model.train(training)(**batch(None, None))
        output.loss.backward()
        assert output.classification_loss == 0
        # its layers take part, as they do in the other processes
        assert (model.classifier.weight.grad == 0).all()
    # what is unknown does not decide what labels are
    output = model(**batch(None, label))
    assert model.config.problem_type == (problem if is_given else None)
    assert output.classification_loss.isfinite()
    assert output.classification_loss > 0
    assert model(**batch(None, None)).classification_loss == 0


def test_accumulated_small_batches_equal_one_large_batch(make_classifier, make_pairs):
    model = make_classifier()
    batch = make_pairs(lengths=(7, 7, 7, 7))
    batch["image_mask"][0], batch["labels"][3] = False, -100
    model(**batch).loss.backward()
    large = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        (model(**{name: tensor[half] for name, tensor in batch.items()}).loss / 2).backward()
    for name, parameter in model.named_parameters():
        if name in large:
            assert torch.allclose(parameter.grad, large[name], atol=1e-5), name


@pytest.mark.parametrize("text", TEXT_FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(make_classifier, make_pairs, text, side):
    model = make_classifier(text)
    padding = model.config.text_config.pad_token_id
    batch = make_pairs(lengths=(7, 7), pad_token_id=padding)
    before = model(**batch)
    width = (6, 0) if side == "left" else (0, 6)
    longer = dict(batch)
    for name, value in (("input_ids", padding), ("attention_mask", 0), ("target_mask", False)):
        longer[name] = torch.nn.functional.pad(batch[name], width, value=value)
    if side == "left" and "roberta" not in text and text != "mpnet":  # these count positions by themselves
        longer["position_ids"] = (longer["attention_mask"].cumsum(1) - 1).clamp(min=0)
        if text == "distilbert":  # has no argument for them
            return
    after = model(**longer)
    assert torch.allclose(after.logits, before.logits, atol=1e-5)
    for part in ("classification_loss", "reconstruction_loss", "cycle_loss"):
        assert torch.allclose(getattr(after, part), getattr(before, part), atol=1e-5), part


def test_a_batch_gives_what_single_texts_give(make_classifier, make_pairs):
    model = make_classifier(visual_source="real", hybrid_attention="both")
    batch = make_pairs()
    batch["image_mask"][1] = False
    together = model(**batch).logits
    assert (together[0] - together[1]).abs().max() > 1e-3
    for row, length in enumerate((9, 6, 4)):
        single = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        for name in ("input_ids", "attention_mask", "target_mask"):
            single[name] = single[name][:, :length]
        assert torch.allclose(together[row], model(**single).logits[0], atol=1e-5)


def test_inference_needs_texts_alone_and_reads_what_they_generate(make_classifier, make_pairs):
    model, batch = make_classifier(), make_pairs()
    ran = []
    model.bga_mner.vision_encoder.register_forward_hook(lambda *arguments: ran.append("vision"))
    with torch.no_grad():
        texts_alone = model(**inputs_of(batch))
        assert texts_alone.vision_last_hidden_state is None
        assert not ran
        assert torch.allclose(model(**batch).logits, texts_alone.logits, atol=1e-6)
        assert not torch.allclose(model(**inputs_of(batch), visual_source="none").logits, texts_alone.logits)
        real = model(**inputs_of(batch, "pixel_values"), visual_source="real").logits
    assert not torch.allclose(real, texts_alone.logits)


def test_all_that_is_trained_gets_a_gradient(make_classifier, make_pairs):
    # the image is read, and not only generated
    model = make_classifier(entity_replacement_probability=0.5, replaced_entities_read="real").train()
    for _ in range(3):  # replaced and not
        model(**make_pairs()).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0] == []


def watch_replacement(model):
    """Collect what the base model is told to replace."""
    seen = []
    model.bga_mner.register_forward_pre_hook(
        lambda module, arguments, options: seen.append(options["replaced"]), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("reads", ["real", "generated"])
def test_targets_of_labelled_texts_are_replaced_in_training(make_classifier, make_pairs, reads):
    model = make_classifier(entity_replacement_probability=1.0, replaced_entities_read=reads).train()
    batch, seen = make_pairs(), watch_replacement(model)
    batch["labels"][2] = -100
    for _ in range(10):
        model(**batch)
    assert all(replaced.chosen.tolist() == [True, True, False] for replaced in seen)
    changed = torch.stack([replaced.input_ids != batch["input_ids"] for replaced in seen]).any(0)
    assert torch.equal(changed, batch["target_mask"] & (batch["labels"] != -100)[:, None])
    # labels of several classes, of which one is known
    model.config.problem_type = "multi_label_classification"
    nan = math.nan
    model(**batch | {"labels": torch.tensor([[1.0, nan, nan], [nan, nan, nan], [0.0, 0.0, 1.0]])})
    assert seen[-1].chosen.tolist() == [True, False, True]
    seen.clear()
    model.config.problem_type = "single_label_classification"
    model.eval()(**batch)
    model.train()(**{name: tensor for name, tensor in batch.items() if name != "target_mask"})
    assert seen == [None, None]


def test_a_replaced_target_is_read_beside_what_the_true_words_generate(make_classifier, make_pairs):
    options = {"use_context_sampler": False, "generator_dropout": 0.0}
    model = make_classifier(entity_replacement_probability=1.0, **options)
    model = without_dropout(model).train()
    batch = make_pairs(images=False)
    with torch.no_grad():
        logits = [model(**batch).logits for _ in range(2)]
        assert not torch.allclose(*logits)  # random words
        batch["target_mask"][:] = False
        logits = [model(**batch).logits for _ in range(2)]
        assert torch.allclose(*logits)


def test_saved_and_loaded(make_classifier, make_pairs, tmp_path):
    model, batch = make_classifier(), inputs_of(make_pairs())
    model.save_pretrained(tmp_path / "whole")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    assert isinstance(loaded, BgaMnerForSequenceClassification)
    with torch.no_grad():
        expected = model(**batch)
        assert torch.equal(loaded(**batch).logits, expected.logits)
        base = AutoModel.from_pretrained(tmp_path / "whole")
        assert isinstance(base, BgaMnerModel)
        states = model.bga_mner(**batch).last_hidden_state
        assert torch.equal(base(**batch).last_hidden_state, states)
        # one that was aligned for another task gives its base
        model.bga_mner.save_pretrained(tmp_path / "base")
        begun = BgaMnerForSequenceClassification.from_pretrained(tmp_path / "base")
        assert torch.equal(begun.bga_mner(**batch).last_hidden_state, states)
        model.save_pretrained(tmp_path / "text", text_only=True)
        alone = BgaMnerForSequenceClassification.from_pretrained(tmp_path / "text")
        assert alone.bga_mner.vision_encoder is None
        assert torch.equal(alone(**batch).logits, expected.logits)
    assert isinstance(model(**batch, return_dict=False), tuple)
    embeddings = model.get_input_embeddings()
    assert embeddings.weight is model.bga_mner.text_encoder.embeddings.word_embeddings.weight
    model.resize_token_embeddings(len(embeddings.weight) + 2)
    assert model.bga_mner.text_encoder.embeddings.word_embeddings.weight.shape[0] == model.config.text_config.vocab_size


def test_parameter_groups_and_a_frozen_vision_encoder(make_classifier, make_pairs):
    model = make_classifier()
    groups = layerwise_parameter_groups(model, 0.1, decay=0.5, new_learning_rate=3.0)
    rates = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    assert rates[model.classifier.weight] == 3.0
    model.freeze_vision_encoder()
    model.train()(**make_pairs()).loss.backward()
    assert not model.bga_mner.vision_encoder.training
    assert all(parameter.grad is None for parameter in model.bga_mner.vision_encoder.parameters())
    assert model.classifier.weight.grad.abs().sum() > 0


@pytest.fixture
def saved(make_classifier, tmp_path):
    """Return a function that saves a classifier with its processor: from options to folder, model and processor."""

    def save(**options):
        tokenizer = build_tokenizer([text.split() for text in TEXTS])
        model = make_classifier(text_options={"vocab_size": len(tokenizer)}, **options)
        processor = BgaMnerProcessor(ViTImageProcessorPil(size={"height": 16, "width": 16}), tokenizer)
        model.save_pretrained(tmp_path / "model")
        processor.save_pretrained(tmp_path / "model")
        return tmp_path / "model", model, processor

    return save


TEXTS = ["Kawhi beats the Sixers in Toronto", "what a night for Toronto"]
MARKED = [mark_target(TEXTS[0], 12, 22), mark_target(TEXTS[1], 17, 24), TEXTS[0]]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_stock_pipeline_reads_plain_and_marked_text(saved, problem):
    count, _ = PROBLEMS[problem]
    folder, model, processor = saved(id2label=dict(enumerate(LABELS[:count])), problem_type=problem)
    classify = pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    found = classify(MARKED, batch_size=2)
    batch = processor([*TEXTS, TEXTS[0]], targets=[(12, 22), (17, 24), None], return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    scores = {
        "single_label_classification": logits.softmax(-1),
        "multi_label_classification": logits.sigmoid(),
        "regression": logits,
    }[problem]
    for labels, expected in zip(found, scores.tolist(), strict=True):
        by_name = {entry["label"]: entry["score"] for entry in labels}
        assert [by_name[label] for label in LABELS[:count]] == pytest.approx(expected, abs=1e-5)
    # the mark is seen
    assert found[0] != found[2]


WITHOUT_THE_PACKAGE = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor, pipeline

torch.set_num_threads(1)
trusted = {"trust_remote_code": True}
model = AutoModelForSequenceClassification.from_pretrained("org/sentiment", **trusted)
processor = AutoProcessor.from_pretrained("org/sentiment", **trusted)
with torch.no_grad():
    logits = model(**processor(TEXTS, targets=[(12, 22), None], return_tensors="pt")).logits.tolist()
stock = pipeline("text-classification", model="org/sentiment", **trusted)(TEXTS)
assert not any(name.startswith("bga_mner") for name in sys.modules)
print("\\n" + json.dumps([logits, stock]))
"""


@pytest.mark.slow
def test_a_repository_lives_without_the_package(saved, loopback_hub, bare_python, run_python, tmp_path):
    folder, model, processor = saved()
    push = f"""
from bga_mner import BgaMnerForSequenceClassification, BgaMnerProcessor
for kind in (BgaMnerForSequenceClassification, BgaMnerProcessor):
    kind.from_pretrained({str(folder)!r}).push_to_hub("org/sentiment")
"""
    run_python(push, environment=loopback_hub.environment(tmp_path / "home"))
    code = WITHOUT_THE_PACKAGE.replace("TEXTS", repr(TEXTS))
    printed = run_python(code, bare_python, loopback_hub.environment(tmp_path / "other"))
    logits, stock = json.loads(printed.splitlines()[-1])
    with torch.no_grad():
        expected = model(**processor(TEXTS, targets=[(12, 22), None], return_tensors="pt")).logits
    assert logits == expected.tolist()
    assert stock == pipeline("text-classification", model=model, tokenizer=processor.tokenizer)(TEXTS)
    card = loopback_hub.files("org/sentiment")["README.md"].decode()
    assert "pipeline_tag: text-classification" in card
    assert 'pipeline("text-classification", model="org/sentiment", trust_remote_code=True)' in card
    assert "entities" not in card


@pytest.mark.parametrize(
    ("problem", "labels", "message"),
    [
        (None, torch.tensor([0, 1, 3]), r"labels 0 to 2, or -100 for unknown, got \[0, 1, 3\]"),
        (None, torch.zeros(3, 9, dtype=torch.long), r"Expected labels as integers of shape \(3,\)"),
        ("multi_label_classification", torch.tensor([0, 1, 2]), r"Expected labels as floats of shape \(3, 3\)"),
        ("single_label_classification", torch.rand(3), "Expected labels as integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(make_classifier, make_pairs, problem, labels, message):
    with pytest.raises(ValueError, match=message):
        make_classifier(problem_type=problem)(**make_pairs(images=False) | {"labels": labels})
