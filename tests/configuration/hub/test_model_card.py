"""The card that is written beside a saved model: true, valid for the Hub, and never in the way."""

from __future__ import annotations

import copy
import json
import logging
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerModel, score_with_interval
from bga_mner.configuration.hub.model_card import build_model_card, card_template, write_model_card


ROOT = Path(__file__).resolve().parents[3]
SCORES = score_with_interval(
    [["B-PER", "I-PER", "O"], ["B-LOC", "O", "O"], ["O", "B-PER"]],
    [["B-PER", "I-PER", "O"], ["B-LOC", "B-PER", "O"], ["O", "B-LOC"]],
    samples=50,
)
SUMMARY = {
    "name": "tweets",
    "repository": "someone/tweets",
    "language": ["en"],
    "license": "cc-by-4.0",
    "datasets": ["someone/tweet-texts"],
    "widget_texts": ['She said "hi" in Rome'],
    "date": "2026-01-31",
    "base_models": {
        "text encoder": {"name": "google-bert/bert-base-cased", "on_hub": True, "description": "bert, 12 layers"},
        "vision encoder": {"name": "my-vit", "on_hub": False, "frozen": True},
    },
    "parameters": 1234567,
    "longest_text": 512,
    "data": {
        "train": {
            "source": "train|1.txt",
            "sha256": "ab" * 32,
            "sentences": 1200,
            "words": 20000,
            "entities": {"PER": 1000, "LOC": 7},
            "images": {"found": 1190, "missing": 4, "broken": {"empty": 5, "truncated": 1}, "checked": True},
            "notes": ["3 words without a tag"],
        },
        "test": {"sentences": 3},
    },
    "trained_with_images": True,
    "hyperparameters": {"learning_rate": 5e-05, "seed": 13},
    "progress": {"steps": 750, "epochs": 5.0, "seconds": 4000.0, "best_step": 600, "chosen_by": "f1", "resumed": True},
    "hardware": {"device": "cpu: Some CPU", "processes": 2},
    "versions": {"torch": "2.13.0", "python": "3.11.7"},
    "scores": {"validation": {"precision": 1 / 3, "recall": 0.1 + 0.2, "f1": 1e-05, "types": {}}, "test": SCORES},
}


def save(model, folder, summary=None):
    model.config.training_summary = copy.deepcopy(summary)
    model.save_pretrained(folder)
    return (folder / "README.md").read_text(encoding="utf-8")


def tables(card: str) -> list[list[list[str]]]:
    """Read the Markdown tables of a card: rows of cells, without the line under the heading."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        assert len({len(row) for row in rows}) == 1, block
        assert set("".join(rows[1])) == {"-"}, block
        found.append([rows[0], *rows[2:]])
    return found


def check_metadata(folder: Path) -> dict:
    """Check the front matter against what the Hub's documentation and huggingface_hub require."""
    metadata = metadata_load(folder / "README.md")
    assert ModelCardData(**metadata).to_dict() == metadata
    for name in ("language", "tags", "datasets", "metrics", "base_model"):
        values = metadata.get(name, [])
        assert isinstance(values, list)
        assert all(isinstance(value, str) for value in values)
    for name in ("license", "pipeline_tag", "library_name"):
        assert isinstance(metadata.get(name, ""), str)
    for item in metadata.get("widget", []):
        assert set(item) == {"text"}
    for model in metadata.get("model-index", []):
        assert isinstance(model["name"], str)
        assert model["results"]
        for result in model["results"]:
            assert result["task"]["type"] == "token-classification"
            assert {"type", "name", "split"} <= set(result["dataset"])
            for metric in result["metrics"]:
                assert isinstance(metric["value"], float)
    return metadata


def test_the_template_in_the_repository_is_the_one_that_is_filled_and_is_installed():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert "model_card.md" in setup["options.package_data"]["bga_mner"].split()
    assert (ROOT / "model_card.md").read_text(encoding="utf-8") == card_template()


def test_front_matter_holds_the_measured_numbers_to_the_last_digit(make_model, tmp_path):
    save(make_model(), tmp_path, SUMMARY)
    metadata = check_metadata(tmp_path)
    assert metadata["pipeline_tag"] == "token-classification"
    assert metadata["library_name"] == "transformers"
    assert (metadata["language"], metadata["license"]) == (["en"], "cc-by-4.0")
    # a folder is no model of the Hub
    assert metadata["base_model"] == ["google-bert/bert-base-cased"]
    assert metadata["datasets"] == ["someone/tweet-texts"]
    assert metadata["widget"] == [{"text": 'She said "hi" in Rome'}]
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "tweets"
    found = {(result.dataset_split, result.metric_type): result.metric_value for result in results}
    metrics = ("precision", "recall", "f1", "accuracy")
    assert found == {
        (part, metric): values[metric]
        for part, values in SUMMARY["scores"].items()
        for metric in metrics
        if metric in values
    }


def test_the_text_says_what_the_summary_says(make_model, tmp_path):
    card = save(make_model(), tmp_path, SUMMARY)
    by_heading = {tuple(table[0]): table[1:] for table in tables(card)}
    data = by_heading["set", "source", "SHA-256", "sentences", "words", "entities"]
    assert data == [
        ["train", "`train\\|1.txt`", f"`{'ab' * 32}`", "1,200", "20,000", "1,007"],
        ["test", "", "", "3", "", ""],
    ]
    assert by_heading["set", "LOC", "PER"] == [["train", "7", "1,000"]]
    assert by_heading["set", "found", "missing", "broken"] == [["train", "1,190", "4", "6 (5 empty, 1 truncated)"]]
    training = dict(by_heading["", ""])
    assert training["text encoder"] == "`google-bert/bert-base-cased` (bert, 12 layers)"
    assert training["vision encoder"] == "`my-vit` (kept frozen)"
    assert training["`learning_rate`"] == "5e-05"
    assert training["training time"] == "67 min after it was resumed; before that not recorded"
    assert training["steps made"] == "750 (5 epochs)"
    assert training["checkpoint kept"] == "step 600, the best by `f1`"
    assert training["versions"] == "python 3.11.7, torch 2.13.0"
    assert training["processes"] == "2"
    types = by_heading["type", "precision", "recall", "F1", "interval of F1", "entities"]
    assert types == [
        [
            kind,
            *(f"{values[name]:.3f}" for name in ("precision", "recall", "f1")),
            f"{values['f1_low']:.3f} to {values['f1_high']:.3f}",
            str(values["number"]),
        ]
        for kind, values in sorted(SCORES["types"].items())
    ]
    sets = by_heading["set", "precision", "recall", "F1", "interval of F1", "accuracy (words)"]
    assert [row[0] for row in sets] == ["validation", "test"]
    assert sets[0] == ["validation", "0.333", "0.300", "0.000", "", ""]
    low, high = SCORES["f1_low"], SCORES["f1_high"]
    assert f"**F1 {SCORES['f1']:.3f}** (95% interval: {low:.3f} to {high:.3f}) on\ntest, strict" in card
    assert "95% bootstrap intervals, from 50 resamples" in card
    assert "one seed (13)" in card
    assert "optimistic" in card
    assert "train: 3 words without a tag" in card


@pytest.mark.parametrize("left_out", sorted(SUMMARY))
def test_what_is_not_known_is_left_out(make_config, left_out):
    summary = {name: value for name, value in SUMMARY.items() if name != left_out}
    card = build_model_card(make_config(training_summary=summary))
    assert not re.search(r"None|[Uu]ndefined|\{[{%]|[%}]\}", card)
    assert ModelCardData(**ModelCard(card).data.to_dict()).to_dict() == ModelCard(card).data.to_dict()
    assert card != build_model_card(make_config(training_summary=SUMMARY))
    tables(card)


def test_a_model_without_a_record_says_so(make_model, tmp_path):
    card = save(make_model(), tmp_path)
    metadata = check_metadata(tmp_path)
    assert "Nothing is recorded about the training" in card
    assert "Its quality has not been recorded. Measure it on your own texts" in card
    for name in ("model-index", "base_model", "license", "language", "datasets", "metrics"):
        assert name not in metadata
    assert not {"## Data", "## Training", "## Evaluation"} & set(card.splitlines())
    assert "None" not in card


@pytest.mark.parametrize(
    ("options", "images", "expected"),
    [
        ({}, True, "trained on texts with images. It needs no image: it generates"),
        ({}, False, "It was trained on text alone. It needs no image"),
        ({}, None, "Whether images were used in training is not recorded. It needs no image"),
        ({"visual_source": "real"}, True, "It reads the image of a text. If a text has no image, it generates"),
        ({"visual_source": "real"}, True, "If a text has no image, it generates the visual features."),
        (
            {"visual_source": "real", "use_text_to_image": False},
            True,
            "If a text has no image, it reads the words alone.",
        ),
        ({"visual_source": "none"}, True, "It needs no image: it reads text alone"),
        ({"hybrid_attention": "none"}, True, "It needs no image: it reads text alone"),
    ],
)
def test_what_it_says_of_images_is_true_of_the_model(make_config, options, images, expected):
    summary = {**SUMMARY, "trained_with_images": images}
    card = build_model_card(make_config(training_summary=summary, **options))
    assert expected in card
    assert ("never run" in card) == (images is False)


def test_options_that_are_not_the_defaults_are_named(make_config):
    card = build_model_card(make_config(cycle_weight=0.25, use_context_sampler=False))
    assert "`cycle_weight=0.25`" in card
    assert "`use_context_sampler=false`" in card
    assert "use_image_to_text" not in card


def test_what_defaults_become_is_no_option_that_was_changed(make_config):
    parts = make_config()
    encoders = {"text_config": parts.text_config, "vision_config": parts.vision_config, "id2label": parts.id2label}
    card = build_model_card(BgaMnerConfig(**encoders))
    assert "Options that differ" not in card
    card = build_model_card(BgaMnerConfig(**encoders, num_bga_layers=1, image_size=32))
    assert "differ from the defaults, in `config.json`: `num_bga_layers=1`, `image_size=32`." in card


def test_a_base_model_has_no_tagger_s_card(make_model, tmp_path):
    model = make_model()
    model.config.training_summary = copy.deepcopy(SUMMARY)
    model.bga_mner.save_pretrained(tmp_path)
    metadata = check_metadata(tmp_path)
    assert metadata["pipeline_tag"] == "feature-extraction"
    assert not {"model-index", "widget"} & set(metadata)
    assert "without tag scores" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert isinstance(BgaMnerModel.from_pretrained(tmp_path), BgaMnerModel)


def test_a_classifier_s_card_tells_labels_and_accuracy(make_config):
    config = make_config(id2label={0: "negative", 1: "positive"}, architectures=["BgaMnerForSequenceClassification"])
    card = build_model_card(config)
    assert "This model classifies text (negative, positive)." in card
    assert "AutoModelForSequenceClassification.from_pretrained" in card
    assert "named-entity-recognition" not in card
    assert "Its quality has not been recorded" in card
    config.training_summary = {"scores": {"test": {"accuracy": 0.875}}, "trained_with_images": True}
    card = build_model_card(config)
    assert "**Accuracy 0.875** on test." in card
    assert "| test | 0.875 |" in card
    for word in ("F1", "entit", "person"):
        assert word not in card.replace("bga-mner", "")
    (result,) = ModelCard(card).data.eval_results
    assert (result.task_type, result.metric_type, result.metric_value) == ("text-classification", "accuracy", 0.875)
    assert ModelCard(card).data.metrics == ["accuracy"]


def test_a_tagger_s_accuracy_alone_is_no_f1(make_config):
    scores = {"validation": {"f1": 0.5, "precision": 0.5, "recall": 0.5}, "test": {"accuracy": 0.875, "types": {}}}
    card = build_model_card(make_config(training_summary={"scores": {"test": scores["test"]}}))
    assert "**F1" not in card
    assert tables(card)[-1][-1] == ["test", "", "", "", "0.875"]
    assert "**F1 0.500** on\nvalidation" in build_model_card(make_config(training_summary={"scores": scores}))


def test_loading_and_saving_keeps_the_card(make_model, tmp_path):
    card = save(make_model(), tmp_path / "first", SUMMARY)
    program = (
        "import sys; from bga_mner import BgaMnerForTokenClassification as Model\n"
        "Model.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "first", tmp_path / "second"], check=True)
    assert (tmp_path / "second" / "README.md").read_text(encoding="utf-8") == card
    assert json.loads((tmp_path / "second" / "config.json").read_text())["training_summary"] == SUMMARY


def test_a_new_summary_replaces_our_own_card(make_model, tmp_path):
    model = make_model()
    before = save(model, tmp_path)
    after = save(model, tmp_path, SUMMARY)
    assert "Nothing is recorded" in before
    assert after == save(make_model(), tmp_path / "new", SUMMARY)


@pytest.mark.parametrize(
    "edit",
    [
        lambda card: card.replace("## Limits", "## Limits\n\n- It fails on lower case."),
        lambda card: card.replace("library_name:", "license: mit\nlibrary_name:"),
        lambda card: re.sub("<!--.*-->", "", card),
        lambda card: "My model.\n",
        lambda card: "---\n: [broken\n---\n" + card,
        lambda card: "",
    ],
    ids=["text", "front matter", "without the mark", "another text", "broken front matter", "empty"],
)
def test_what_a_person_wrote_or_changed_is_kept(make_model, tmp_path, edit):
    model = make_model()
    edited = edit(save(model, tmp_path))
    (tmp_path / "README.md").write_text(edited, encoding="utf-8")
    assert save(model, tmp_path, SUMMARY) == edited
    assert BgaMnerForTokenClassification.from_pretrained(tmp_path).config.training_summary == SUMMARY


def test_a_kept_card_is_warned_of(make_model, tmp_path, warnings_of):
    (tmp_path / "README.md").write_text("My model.\n", encoding="utf-8")
    with warnings_of("model_card") as messages:
        save(make_model(), tmp_path, SUMMARY)
    assert len(messages) == 1
    assert "kept as it is" in messages[0]


@pytest.mark.parametrize(
    "summary",
    [
        {"scores": {"test": {"f1": "high"}}},
        {"data": [1]},
        {"progress": {"steps": "many"}},
        {"base_models": {"text": 1}},
    ],
)
def test_a_card_that_cannot_be_written_does_not_stop_a_save(make_model, tmp_path, warnings_of, summary):
    model = make_model()
    model.config.training_summary = summary
    with warnings_of("model_card") as messages:
        model.save_pretrained(tmp_path)
    assert len(messages) == 1
    assert "No model card was written" in messages[0]
    assert not (tmp_path / "README.md").exists()
    assert BgaMnerForTokenClassification.from_pretrained(tmp_path).config.training_summary == summary


def test_tags_of_the_existing_card_stay(make_config, tmp_path):
    config = make_config()
    write_model_card(tmp_path, config, tags=["my-tag"])
    assert metadata_load(tmp_path / "README.md")["tags"][-1] == "my-tag"
    # as transformers does when it pushes
    card = ModelCard.load(tmp_path / "README.md")
    card.data.tags.append("added")
    card.save(tmp_path / "README.md")
    write_model_card(tmp_path, make_config(training_summary=SUMMARY))
    metadata = metadata_load(tmp_path / "README.md")
    assert metadata["tags"][-2:] == ["my-tag", "added"]
    assert "model-index" in metadata


def test_code_beside_the_weights_is_named_where_there_is_any(make_config, tmp_path):
    config = make_config(training_summary=SUMMARY)
    assert "trust_remote_code" not in build_model_card(config, tmp_path)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["custom_pipelines"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    card = build_model_card(config, tmp_path)
    assert card.count("trust_remote_code=True") == 2
    assert "pipeline(" not in card
    saved["custom_pipelines"] = {"multimodal-ner": {"impl": "pipeline.MultimodalNerPipeline"}}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    card = build_model_card(config, tmp_path)
    assert 'pipeline("multimodal-ner", model="someone/tweets", trust_remote_code=True)' in card
    for program in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        compile(program, "card", "exec")


def test_scores_of_another_reading_are_left_out(make_config):
    summary = {**SUMMARY, "reads": "real"}
    assert "## Evaluation" in build_model_card(make_config(training_summary=summary, visual_source="real"))
    card = build_model_card(make_config(training_summary=summary))
    assert "## Evaluation" not in card
    assert "model-index" not in ModelCard(card).data.to_dict()
    assert 'measured while it read other features ("real"),' in card


def test_no_english_example_is_shown_for_another_language(make_config):
    def widget(**summary):
        return ModelCard(build_model_card(make_config(training_summary=summary))).data.get("widget")

    assert widget(language=["de"]) is None
    assert widget(language=["de"], widget_texts=["Anna in Rom"]) == [{"text": "Anna in Rom"}]
    assert len(widget(language=["de", "en"])) == len(widget(name="x")) == 1


def test_weights_of_the_text_branch_alone_are_called_so(make_config):
    config = make_config()
    assert "without its vision encoder" not in build_model_card(config)
    config.text_only = True
    assert "without its vision encoder" in build_model_card(config)


@pytest.fixture
def warnings_of():
    """Return a context manager that collects what a module of ours warns of."""
    from contextlib import contextmanager

    @contextmanager
    def collect(module: str):
        messages: list[str] = []

        class Collector(logging.Handler):
            def emit(self, record):
                messages.append(record.getMessage())

        (name,) = [name for name in logging.root.manager.loggerDict if name.endswith(f".{module}")]
        handler = Collector(level=logging.WARNING)
        logging.getLogger(name).addHandler(handler)
        yield messages
        logging.getLogger(name).removeHandler(handler)

    return collect
