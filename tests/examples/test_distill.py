"""Teaching a student from files: what is written, what is read, what goes on, and what is refused."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from transformers import pipeline

from bga_mner import BgaMnerForSequenceClassification, BgaMnerForTokenClassification, BgaMnerProcessor
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def teacher_dir(mner_files, mner_corpus, tmp_path_factory):
    """Save a tagger that was built of the encoders beside the files, and its processor."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    labels = list(mner_corpus.labels)
    bert, vit = str(mner_files / "bert"), str(mner_files / "vit")
    model = BgaMnerForTokenClassification.from_text_vision_pretrained(bert, vit, labels=labels)
    tokenizer = build_tokenizer(mner_corpus.sentences(), model_max_length=64)
    model.save_pretrained(folder)
    BgaMnerProcessor(None, tokenizer, label2id=model.config.label2id).save_pretrained(folder)
    return folder


@pytest.fixture
def arguments(teacher_dir, tmp_path):
    given = {"teacher": teacher_dir, "output_dir": tmp_path / "student", "num_train_epochs": 1, "use_cpu": True}
    given |= {"per_device_train_batch_size": 8, "disable_tqdm": True, "learning_rate": 1e-3}
    return given


@pytest.fixture
def run(script, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(arguments, **more):
        pairs = [(f"--{name}", str(value)) for name, value in {**arguments, **more}.items() if value is not None]
        return script.main([word for pair in pairs for word in pair])

    return run


def test_files_give_a_plain_model_with_a_card(run, arguments, mner_files, tmp_path):
    texts = tmp_path / "more.txt"
    texts.write_text("Kawhi wins.\n\n  \nAnd again\n", encoding="utf-8")
    files = {"train_file": mner_files / "train.txt", "test_file": mner_files / "test.txt", "text_file": texts}
    report = run(arguments, **files, license="mit", name="pupil", widget_text="Kawhi wins")
    output = arguments["output_dir"]
    assert report == json.loads((output / "distillation.json").read_text())
    assert {"teacher", "student", "student_by_words", "agreement", "texts", "contradictions", "data"} == set(report)
    assert report["texts"] == 6
    card = (output / "README.md").read_text()
    # 24 sentences and two lines that aren't empty
    assert re.search(r"\| texts \| 26 \|", card)
    assert "# pupil" in card
    assert "license: mit" in card
    assert pipeline("token-classification", model=str(output)).model.config.num_labels == 9
    assert not list(output.glob("*.py"))


def test_a_half_from_json_lines_with_known_labels(run, arguments, mner_files, tmp_path):
    (tmp_path / "more.jsonl").write_text('{"text": "Kawhi wins", "id": 7}\n{"text": null, "id": 8}\n', encoding="utf-8")
    run(
        arguments, text_file=tmp_path / "more.jsonl", train_file=mner_files / "train.txt", num_layers=1, gold_weight=0.5
    )
    config = json.loads((arguments["output_dir"] / "config.json").read_text())
    assert config["num_hidden_layers"] == 1
    card = (arguments["output_dir"] / "README.md").read_text()
    assert "| started from | 1 layers of the teacher's text encoder |" in card
    assert "| texts | 25 |" in card
    assert "## Evaluation" not in card


def test_another_encoder_learns_from_a_stream(run, arguments, mner_files, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    # of different lengths, and one beyond what the student reads
    rows = [{"tokens": ["Kawhi", "wins"] * number, "ner_tags": ["B-PER", "O"] * number} for number in (1, 2, 60)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    more = {"dataset_name": folder, "streaming": True, "max_steps": 4, "student": mner_files / "bert"}
    run(arguments, **more)
    card = (arguments["output_dir"] / "README.md").read_text()
    assert "| texts | a stream |" in card
    assert "| steps | 4 |" in card


def test_a_run_goes_on_from_its_checkpoint(run, arguments, mner_files, tmp_path, caplog):
    files = {"train_file": mner_files / "train.txt", "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    run(arguments, **files)
    output = arguments["output_dir"]
    unbroken = (output / "model.safetensors").read_bytes()
    # as it was when it was cut off
    shutil.rmtree(output / "checkpoint-4")
    (output / "model.safetensors").unlink()
    with caplog.at_level("INFO", logger="run_mner"):
        run(arguments, **files)
    assert re.search("Continuing from .*checkpoint-2;", caplog.text)
    assert (output / "model.safetensors").read_bytes() == unbroken
    other = tmp_path / "other.txt"
    other.write_text("Kawhi wins\n", encoding="utf-8")
    for change in ({"gold_weight": 0.5}, {"temperature": 3}, {"max_length": 20}, {"text_file": other}):
        with pytest.raises(ValueError, match=f"{next(iter(change))}|texts"):
            run(arguments, **files, **change)
    run(arguments, **files, gold_weight=0.5, overwrite_output_dir=True)
    assert (output / "model.safetensors").read_bytes() != unbroken


def test_the_teacher_is_asked_once(run, arguments, mner_files, monkeypatch):
    asked = []
    forward = BgaMnerForTokenClassification.forward
    monkeypatch.setattr(
        BgaMnerForTokenClassification, "forward", lambda *args, **rest: asked.append(1) or forward(*args, **rest)
    )
    files = {"train_file": mner_files / "train.txt", "max_steps": 1, "save_strategy": "no"}
    run(arguments, **files)
    number = len(asked)
    run(arguments, **files)
    assert len(asked) == number > 0


def test_tags_that_the_teacher_lacks_do_not_matter(run, arguments, tmp_path):
    (tmp_path / "train.txt").write_text("Kawhi\tB-MASCOT\nwins\tO\n", encoding="utf-8")
    run(arguments, train_file=tmp_path / "train.txt", max_steps=1)
    with pytest.raises(ValueError, match="got 'B-MASCOT'"):
        run(arguments, train_file=tmp_path / "train.txt", max_steps=1, gold_weight=0.5, overwrite_output_dir=True)


def test_long_texts_count_once(run, arguments, tmp_path):
    (tmp_path / "long.txt").write_text(" ".join(["Kawhi wins"] * 90) + "\n", encoding="utf-8")
    run(arguments, text_file=tmp_path / "long.txt", student=None)
    assert "| texts | 1 |" in (arguments["output_dir"] / "README.md").read_text()


def test_a_classifier_teaches_too(run, arguments, mner_files, mner_corpus, tmp_path):
    folder = tmp_path / "classifier"
    model = BgaMnerForSequenceClassification.from_text_vision_pretrained(
        str(mner_files / "bert"), str(mner_files / "vit"), labels=["bad", "good"]
    )
    model.save_pretrained(folder)
    BgaMnerProcessor(None, build_tokenizer(mner_corpus.sentences(), 64)).save_pretrained(folder)
    rows = [{"text": "Kawhi wins", "target": [0, 5], "label": "good"}, {"text": "And again", "label": None}]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = run(arguments, teacher=folder, text_file=tmp_path / "more.jsonl", test_text_file=tmp_path / "more.jsonl")
    assert report["texts"] == 2
    assert report["teacher"]["number"] == report["student"]["number"] == 1
    classify = pipeline("text-classification", model=str(arguments["output_dir"]))
    assert classify("Kawhi")[0]["label"] in ("bad", "good")
    assert "pipeline_tag: text-classification" in (arguments["output_dir"] / "README.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"teacher": None}, "Expected --teacher, got none"),
        ({"teacher": "nowhere"}, r"as --teacher, got 'nowhere'.*Check the path"),
        ({}, "Expected texts to learn from, got none"),
        ({"text_file": "texts.pdf"}, r"as --text_file, got 'texts\.pdf'"),
        ({"text_file": "missing.txt"}, r"as --text_file, got 'missing\.txt'"),
        ({"gold_weight": -1}, "Expected --gold_weight of at least 0, got -1"),
        ({"temperature": 0}, "Expected --temperature above 0, got 0"),
        ({"gold_weight": 2}, "Expected --gold_weight of at most 1, got 2"),
        ({"eval_strategy": "steps"}, "Expected no --eval_strategy"),
        ({"dataset_name": "data", "streaming": True}, "Expected --max_steps beside --streaming"),
    ],
)
def test_what_is_wrong_is_said(run, arguments, more, message):
    with pytest.raises(ValueError, match=message):
        run(arguments, **more)


def test_a_file_without_texts_is_refused(run, arguments, tmp_path):
    (tmp_path / "more.jsonl").write_text('{"content": "Kawhi"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"Expected a column 'text' in .*got \['content'\]"):
        run(arguments, text_file=tmp_path / "more.jsonl")
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Expected texts in .*blank\.txt', got none"):
        run(arguments, text_file=tmp_path / "blank.txt")
    for name in ("empty.txt", "empty.jsonl", "empty.csv", "empty.parquet"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=rf"Expected texts in .*{name}', got none"):
            run(arguments, text_file=tmp_path / name)
    (tmp_path / "broken.jsonl").write_text('{"text": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.jsonl', which can't be read"):
        run(arguments, text_file=tmp_path / "broken.jsonl")


def test_a_teacher_is_not_written_over(run, arguments, tmp_path):
    (tmp_path / "more.txt").write_text("Kawhi wins\n", encoding="utf-8")
    shutil.copytree(arguments["teacher"], tmp_path / "student")
    before = {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}
    for more in ({}, {"overwrite_output_dir": True}):
        with pytest.raises(ValueError, match="which holds a model of bga_mner"):
            run(arguments, text_file=tmp_path / "more.txt", **more)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}


def test_rows_that_are_not_read_are_counted_and_no_comparison_is_said(run, arguments, tmp_path, caplog):
    (tmp_path / "more.jsonl").write_text('{"text": "Kawhi wins"}\n{"text": ""}\n{"text": null}\n', encoding="utf-8")
    with caplog.at_level("WARNING"):
        assert run(arguments, text_file=tmp_path / "more.jsonl", max_steps=1) == {}
    assert "2 of 3 rows of more.jsonl hold no text" in caplog.text
    assert "Nothing to compare on" in caplog.text


def test_a_length_is_refused_before_the_teacher_is_asked(run, arguments, tmp_path):
    (tmp_path / "more.txt").write_text("Kawhi wins\n", encoding="utf-8")
    with pytest.raises(ValueError, match="max_length of at most"):
        run(arguments, text_file=tmp_path / "more.txt", max_length=1000)
    assert not (arguments["output_dir"] / "taught").exists()


def test_texts_that_are_numbers(run, arguments, tmp_path):
    (tmp_path / "numbers.csv").write_text("text\n1234\n5\n", encoding="utf-8")
    run(arguments, text_file=tmp_path / "numbers.csv", max_steps=1)
    assert "| texts | 2 |" in (arguments["output_dir"] / "README.md").read_text()
