"""The fine-tuning script from files to files: train, resume, predict, with and without images."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import (
    CLIPImageProcessorPil,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    predict_tags,
    read_conll,
    score_tags,
    write_conll,
)
from bga_mner.configuration.hub.remote_code import code_files
from bga_mner.examples import run_mner
from bga_mner.examples.synthetic.corpus import LABELS


SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "run_mner.py"
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
QUICK = {"per_device_train_batch_size": 8, "num_train_epochs": 1, "learning_rate": 1e-3, "use_cpu": True}
QUICK |= {"disable_tqdm": True, "logging_steps": 1, "dataloader_pin_memory": False}
OUTPUTS = {"model.safetensors", "config.json", "tokenizer.json", "train_results.json", "eval_results.json"}
OUTPUTS |= {"test_results.json", "data_report.json", "predictions.conll", "predictions.jsonl", "trainer_state.json"}


def run(**options):
    argv = []
    for name, value in {**QUICK, **options}.items():
        if value is True:
            argv += [f"--{name}", "true"]
        elif value is not None and value is not False:
            argv += [f"--{name}", str(value)]
    return run_mner.main(argv)


def results(folder, name):
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def files(write_mner_files, mner_corpus):
    """Write files to learn from; of the training set one image is missing, and one broken."""
    # Like DINOv2's checkpoints: the configuration speaks of larger images than the image processor makes.
    sizes = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
    folder = write_mner_files(32, CLIPImageProcessorPil(**sizes))
    missing, broken = mner_corpus.train["id"][:2]
    (folder / "images" / f"{missing}.png").unlink()
    (folder / "images" / f"{broken}.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def texts(files):
    return {"train_file": files / "train.txt", "validation_file": files / "valid.txt", "test_file": files / "test.txt"}


@pytest.fixture(scope="module")
def encoders(files):
    return {"text_model": files / "bert", "vision_model": files / "vit"}


ALL_OPTIONS = {
    "num_bga_layers": 1,
    "reconstruction_weight": 0.5,
    "cycle_weight": 0.25,
    "entity_replacement_probability": 0.3,
    "freeze_vision_encoder": True,
    "language": "en",
    "license": "cc-by-4.0",
    "config_overrides": "generator_dropout=0.0,normalize_targets=false,visual_target=layer",
}


@pytest.fixture(scope="module")
def trained(files, texts, encoders, tmp_path_factory):
    """Train once with images and all options of the loss; return folder and results."""
    folder = tmp_path_factory.mktemp("trained")
    found = run(**texts, **encoders, **ALL_OPTIONS, image_dir=files / "images", output_dir=folder)
    return folder, found


def check_predictions(folder, source):
    given, written = read_conll(source), read_conll(folder / "predictions.conll")
    assert written["id"] == given["id"]
    assert written["tokens"] == given["tokens"]
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == list(given["id"])
    for line, tags in zip(lines, written["ner_tags"], strict=True):
        assert len(line["entities"]) == sum(tag.startswith("B-") for tag in tags)
        for entity in line["entities"]:
            assert line["text"][entity["start"] : entity["end"]] == entity["word"]
            assert 0 <= entity["score"] <= 1


def test_writes_everything(files, trained, texts, mner_corpus):
    folder, found = trained
    assert {path.name for path in folder.iterdir()} >= OUTPUTS
    assert results(folder, "train_results.json")["train_loss"] == found["train_loss"]
    assert results(folder, "eval_results.json")["eval_f1"] == found["eval_f1"]
    assert results(folder, "test_results.json")["test_f1"] == found["test_f1"]
    check_predictions(folder, texts["test_file"])
    config = BgaMnerForTokenClassification.from_pretrained(folder).config
    assert list(config.label2id) == list(LABELS)
    assert (config.image_size, config.num_bga_layers, config.visual_target) == (16, 1, "layer")
    assert (config.reconstruction_weight, config.cycle_weight, config.generator_dropout) == (0.5, 0.25, 0.0)
    assert config.normalize_targets is False
    assert config.entity_replacement_probability == 0.3
    history = results(folder, "trainer_state.json")["log_history"]
    assert {"crf_loss", "reconstruction_loss", "cycle_loss"} <= set(history[0])
    assert sum("eval_f1" in entry for entry in history) == 1


def test_frozen_encoder_keeps_its_weights(files, trained):
    before, after = load_file(files / "vit" / "model.safetensors"), load_file(trained[0] / "model.safetensors")
    kept = {name: tensor for name, tensor in after.items() if name.startswith("bga_mner.vision_encoder.")}
    # the names of a ViT's weights differ from version to version of transformers, so compare sums
    expected = sum(tensor.double().sum() for name, tensor in before.items() if not name.startswith("pooler"))
    torch.testing.assert_close(sum(tensor.double().sum() for tensor in kept.values()), expected)


def test_cached_vision_states_train_the_same(files, trained, texts, encoders, tmp_path):
    options = ALL_OPTIONS | {"cache_vision_states": True, "image_dir": files / "images"}
    found = run(**texts, **encoders, **options, output_dir=tmp_path)
    assert found["train_loss"] == pytest.approx(trained[1]["train_loss"], rel=1e-4)
    report = results(tmp_path, "data_report.json")["train"]
    assert report == results(trained[0], "data_report.json")["train"]


def test_data_report_counts_images(trained, mner_corpus, texts):
    report = results(trained[0], "data_report.json")
    missing, broken = mner_corpus.train["id"][:2]
    train = report["train"]
    assert (train["sentences"], train["images_found"], train["images_missing"]) == (24, 22, 1)
    assert train["images_broken"] == {"empty": 1}
    assert train["examples"] == {"image missing": [missing], "image empty": [broken]}
    assert report["test"]["images_missing"] == 6
    assert len(train["sha256"]) == 64
    assert train["path"] == str(texts["train_file"])
    assert report["labels"] == list(LABELS)


def test_the_model_card_says_what_was_measured(files, trained, texts):
    folder, _ = trained
    card, test = ModelCard.load(folder / "README.md"), results(folder, "test_results.json")
    assert (card.data.language, card.data.license) == (["en"], "cc-by-4.0")
    # both encoders are folders
    assert card.data.base_model is None
    evaluation = results(folder, "eval_results.json")
    expected = {
        (part, name): found[f"{prefix}_{name}"]
        for part, prefix, found in (("validation", "eval", evaluation), ("test", "test", test))
        for name in ("f1", "precision", "recall", "accuracy")
    }
    assert {(item.dataset_split, item.metric_type): item.metric_value for item in card.data.eval_results} == expected
    for part in ("train", "validation", "test"):
        content = texts[f"{part}_file"].read_bytes()
        assert f"| {part} | `{texts[f'{part}_file'].name}` | `{hashlib.sha256(content).hexdigest()}` |" in card.text
    assert "| train | 22 | 1 | 1 (1 empty) |" in card.text
    # the table by type, read back, against the file
    table = card.text.partition("By type, on test:")[2].partition("\n\n- ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")][2:]
    kinds = sorted(name.removeprefix("test_number_") for name in test if name.startswith("test_number_"))
    assert rows == [
        [
            kind,
            *(f"{test[f'test_{name}_{kind}']:.3f}" for name in ("precision", "recall", "f1")),
            f"{test[f'test_f1_low_{kind}']:.3f} to {test[f'test_f1_high_{kind}']:.3f}",
            str(test[f"test_number_{kind}"]),
        ]
        for kind in kinds
    ]
    assert {"LOC", "MISC", "ORG", "PER"} >= set(kinds) != set()
    assert f"{test['test_f1_low']:.3f} to {test['test_f1_high']:.3f}" in card.text
    assert str(files) not in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_model_card_s_examples_run(trained):
    programs = re.findall(r"```python\n(.*?)```", (trained[0] / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert programs
    for program in programs:
        program = program.replace("FOLDER_OR_HUB_NAME", str(trained[0]))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_adapters_are_trained_resumed_and_merged(texts, encoders, files, tmp_path):
    options = {**texts, **encoders, "image_dir": files / "images", "num_bga_layers": 1, "lora_rank": 2}
    found = run(**options, output_dir=tmp_path)
    assert {"train_loss", "eval_f1", "test_f1"} <= set(found)
    checkpoints = list(tmp_path.glob("checkpoint-*"))
    assert checkpoints
    for checkpoint in checkpoints:
        assert (checkpoint / "adapter_model.safetensors").is_file()
        assert not (checkpoint / "model.safetensors").exists()
    weights = load_file(tmp_path / "model.safetensors")
    assert not [name for name in weights if "lora" in name]
    before = load_file(files / "bert" / "model.safetensors")
    moved = {
        name
        for name, tensor in before.items()
        if not torch.equal(weights.get(f"bga_mner.text_encoder.{name}", tensor), tensor)
    }
    assert moved
    assert all(name.endswith(("query.weight", "key.weight", "value.weight")) for name in moved)
    check_predictions(tmp_path, texts["test_file"])
    assert BgaMnerForTokenClassification.from_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| `lora_rank` | 2 |" in card
    assert "kept frozen" not in card
    with pytest.raises(ValueError, match="lora_rank was 2 and is None"):
        run(**options | {"lora_rank": None}, output_dir=tmp_path)
    run(**options | {"num_train_epochs": 2}, output_dir=tmp_path)
    history = results(tmp_path, "trainer_state.json")["log_history"]
    assert [entry["step"] for entry in history if "loss" in entry] == list(range(1, 7))


def test_refuses_a_checkpoint_of_other_labels(trained, texts, encoders, tmp_path):
    (checkpoint := tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    config = json.loads((trained[0] / "config.json").read_text())
    config |= {"id2label": {"0": "O", "1": "B-X", "2": "I-X"}, "label2id": {"O": 0, "B-X": 1, "I-X": 2}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "trainer_state.json").write_text("{}")  # the last file that a stock Trainer writes
    with pytest.raises(ValueError, match="--overwrite_output_dir"):
        run(**texts, **encoders, output_dir=tmp_path / "out")


def test_predicts_only(trained, texts, tmp_path):
    untagged = tmp_path / "new.txt"
    test = read_conll(texts["test_file"])
    write_conll(untagged, test["tokens"], [None] * len(test), test["id"])
    found = run(model_name_or_path=trained[0], test_file=untagged, do_predict=True, output_dir=tmp_path / "out")
    assert found == {}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"data_report.json", "predictions.conll", "predictions.jsonl"}
    check_predictions(tmp_path / "out", untagged)
    # The saved model is the one whose scores were written.
    assert (tmp_path / "out" / "predictions.conll").read_text() == (trained[0] / "predictions.conll").read_text()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_eval_metrics": True},
        {"eval_do_concat_batches": "false"},
        {"eval_accumulation_steps": 1},
        {"include_for_metrics": "loss"},
        {"bf16_full_eval": True},
    ],
)
def test_evaluates_what_predict_tags_finds(learned, mner_files, options, tmp_path):
    file = mner_files / "valid.txt"
    given = {"model_name_or_path": learned, "validation_file": file, "test_file": file, "output_dir": tmp_path}
    found = run(**given, do_eval=True, do_predict=True, per_device_eval_batch_size=3, **options)
    model = BgaMnerForTokenClassification.from_pretrained(learned)
    if "bf16_full_eval" in options:
        model = model.bfloat16()
    rows = read_conll(file)
    tags = predict_tags(model, BgaMnerProcessor.from_pretrained(learned), rows, show_progress=False)
    expected = score_tags(tags, rows["ner_tags"])
    assert 0 < expected["overall_f1"] < 1
    for name in ("precision", "recall", "f1", "accuracy"):
        assert found[f"eval_{name}"] == found[f"test_{name}"] == expected[f"overall_{name}"], name
    check_predictions(tmp_path, file)
    assert read_conll(tmp_path / "predictions.conll")["ner_tags"] == tags


def test_no_images_at_all(texts, files, tmp_path, caplog):
    arguments = {key: str(value) for key, value in texts.items() if key != "test_file"}
    arguments |= {"text_model": str(files / "bert"), "output_dir": str(tmp_path / "out"), **QUICK, "max_steps": 2}
    (tmp_path / "arguments.json").write_text(json.dumps(arguments))
    found = run_mner.main([str(tmp_path / "arguments.json")])
    assert "stands in" in caplog.text
    assert {"train_loss", "eval_f1"} <= set(found)
    assert not any(name.startswith("test_") for name in found)
    check_predictions(tmp_path / "out", texts["validation_file"])  # there is no test set
    model = BgaMnerForTokenClassification.from_pretrained(tmp_path / "out")
    assert model.config.visual_source == "none", "nothing has learned to generate"


def test_continues_from_a_saved_model_with_another_loss(trained, texts, tmp_path):
    run(
        model_name_or_path=trained[0],
        train_file=texts["train_file"],
        output_dir=tmp_path,
        cycle_weight=0.0,
        max_steps=1,
    )
    saved = results(tmp_path, "config.json")
    assert (saved["cycle_weight"], saved["reconstruction_weight"]) == (0.0, 0.5)


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_reads_datasets(kind, mner_corpus, encoders, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    columns = ["id", "tokens", "ner_tags", "image"]
    names = {"id": "tweet", "tokens": "words", "ner_tags": "tags", "image": "photo"}
    train = mner_corpus.train.select_columns(columns).map(
        lambda row, i: row if i else row | {"image": None}, with_indices=True
    )
    valid = mner_corpus.validation.select_columns(columns)
    for name, part in (("train", train), ("dev", valid)):
        part = part.rename_columns(names)
        if kind == "parquet":
            tags = datasets.List(datasets.ClassLabel(names=list(LABELS)))
            part = part.cast_column("tags", tags).cast_column("photo", datasets.Image())
            part.to_parquet(folder / f"{name}.parquet")
        else:
            for row in part:
                if row["photo"] is not None:
                    (folder / f"{row['tweet']}.bin").write_bytes(row["photo"]["bytes"])
            rows = [row | {"photo": row["photo"] and f"{row['tweet']}.bin"} for row in part]
            (folder / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))
    flags = {f"{flag}_column": names[name] for flag, name in
             (("tokens", "tokens"), ("tags", "ner_tags"), ("image", "image"), ("id", "id"))}  # fmt: skip
    flags |= {"dataset_name": folder, "output_dir": tmp_path / "out", "max_steps": 2, "validation_split": "validation"}
    flags |= {"image_dir": folder} if kind == "json" else {}
    run(**encoders, **flags)
    report = results(tmp_path / "out", "data_report.json")
    assert (report["train"]["images_found"], report["train"]["images_missing"]) == (23, 1)
    assert report["labels"] == list(LABELS)
    assert report["train"]["unknown_tags"] == sum(len(row["tokens"]) for row in train if row["ner_tags"] is None)
    written = read_conll(tmp_path / "out" / "predictions.conll")
    assert (list(written["id"]), list(written["tokens"])) == (list(valid["id"]), list(valid["tokens"]))
    history = results(tmp_path / "out", "trainer_state.json")["log_history"]
    assert "reconstruction_loss" in history[0]
    with pytest.raises(ValueError, match="--tokens_column"):
        run(**encoders, **{**flags, "tokens_column": "nothing"})
    with pytest.raises(ValueError, match="--test_split"):
        run(**encoders, **flags, test_split="nothing")


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"train_file": None, "validation_file": None, "test_file": None}, "Give --train_file"),
        ({"dataset_name": "somewhere"}, "got both"),
        ({"text_model": None}, "--text_model"),
        ({"output_dir": None}, "--output_dir"),
        ({"do_train": True, "train_file": None}, "train set for --do_train"),
        ({"do_predict": True}, "--model_name_or_path"),
        ({"vision_model": None, "image_dir": "images"}, "Expected --vision_model"),
        ({"model_name_or_path": "somewhere"}, "Drop one"),
        ({"config_overrides": "no_such_option=1"}, "--config_overrides"),
        ({"image_size": 20}, "makes square images"),
        ({"max_length": 1000}, "at most 64"),
        ({"vision_model": "bert"}, "image_processor.save_pretrained"),
        ({"num_bga_layers": 9}, "num_bga_layers"),
        ({"cache_vision_states": True}, "Expected --freeze_vision_encoder beside"),
        ({"label_smoothing_factor": 0.1}, "Expected --label_smoothing_factor 0"),
        ({"prediction_loss_only": True}, "Expected --prediction_loss_only false"),
        ({"label_names": "tags"}, "Expected --label_names"),
        ({"bf16_full_eval": True}, "--model_name_or_path <output_dir> --do_eval"),
        ({"fp16_full_eval": True}, "--model_name_or_path <output_dir> --do_eval"),
        (
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": '{"use_reentrant": true}'},
            "use_reentrant=False, got True",
        ),
    ],
)
def test_says_what_to_mend(options, fix, texts, encoders, files, tmp_path):
    options = {**texts, **encoders, "output_dir": tmp_path, **options}
    for name in ("image_dir", "vision_model"):
        if isinstance(options.get(name), str):
            options[name] = files / options[name]
    if "image_size" in options:
        ViTModel(ViTConfig(image_size=16, patch_size=8, **TINY)).save_pretrained(tmp_path / "fixed")
        ViTImageProcessorPil(do_resize=False).save_pretrained(tmp_path / "fixed")
        options["vision_model"] = tmp_path / "fixed"
    with pytest.raises(ValueError, match=fix):
        run(**options)


def test_refuses_data_that_do_not_fit(trained, texts, encoders, files, tmp_path):
    (tmp_path / "other.txt").write_text("IMGID:1\nKawhi\tB-FOO\n\n")
    (tmp_path / "plain.txt").write_text("IMGID:1\nKawhi\tO\n\n")
    with pytest.raises(ValueError, match="Rename them in the data"):
        run(model_name_or_path=trained[0], train_file=tmp_path / "other.txt", output_dir=tmp_path)
    with pytest.raises(ValueError, match="no tag but 'O'"):
        run(**encoders, train_file=tmp_path / "plain.txt", output_dir=tmp_path)
    with pytest.raises(ValueError, match="These can be changed"):
        run(model_name_or_path=trained[0], **texts, output_dir=tmp_path, num_bga_layers=1)
    with pytest.raises(ValueError, match=r"5 modality queries .* got 'pooled' with 2"):
        run(model_name_or_path=trained[0], **texts, output_dir=tmp_path, config_overrides="visual_target=pooled")
    with pytest.raises(ValueError, match="no --preset beside --model_name_or_path"):
        run(model_name_or_path=trained[0], **texts, output_dir=tmp_path, preset="paper")


def test_an_encoder_or_a_slip_in_place_of_a_saved_model_is_named(texts, files, tmp_path):
    with pytest.raises(ValueError, match="got 'bert'"):
        run(model_name_or_path=files / "bert", **texts, output_dir=tmp_path)
    with pytest.raises(ValueError, match="Check the path, or train first"):
        run(model_name_or_path=tmp_path / "mnre", **texts, output_dir=tmp_path)


def test_what_is_odd_about_the_data_is_said(texts, encoders, files, tmp_path, caplog):
    (tmp_path / "images").mkdir()
    other = tmp_path / "valid.txt"
    other.write_text((files / "valid.txt").read_text().replace("-PER", "-PERSON"))
    given = {**texts, **encoders, "validation_file": other, "image_dir": tmp_path / "images", "max_steps": 1}
    given |= {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "no"}
    with caplog.at_level("WARNING", logger="run_mner"):
        run(**given, output_dir=tmp_path / "out")
        assert "No image of the training set was found" in caplog.text
        assert "validation set that the training set hasn't: PERSON (it has LOC, MISC, ORG, PER)" in caplog.text
        assert "Nothing was left to train" not in caplog.text
        run(**given, output_dir=tmp_path / "out")
        assert "Nothing was left to train: the checkpoint is of the last step, 1." in caplog.text
        caplog.clear()
        run(**{**texts, "train_file": files / "train.txt"}, **encoders, max_steps=1, output_dir=tmp_path / "other")
    assert "training set" not in caplog.text


def test_image_size(encoders, texts, files, tmp_path):
    run(**encoders, **texts, image_dir=files / "images", image_size=24, max_steps=1, output_dir=tmp_path)
    saved = BgaMnerForTokenClassification.from_pretrained(tmp_path)
    assert saved.config.image_size == 24
    processor = results(tmp_path, "processor_config.json")["image_processor"]
    assert (processor["size"], processor["crop_size"]) == ({"shortest_edge": 30}, {"height": 24, "width": 24})


def test_strategies_follow_each_other():
    def strategies(**given):
        argv = [item for name, value in given.items() for item in (f"--{name}", str(value))]
        training = run_mner.read_arguments(["--output_dir", "out", *argv])[2]
        return training.eval_strategy.value, training.save_strategy.value, training.load_best_model_at_end

    assert strategies() == ("epoch", "epoch", True)
    assert strategies(eval_strategy="steps", eval_steps=7) == ("steps", "steps", True)
    assert strategies(save_strategy="no") == ("epoch", "no", False)
    assert strategies(eval_strategy="no") == ("no", "epoch", False)
    assert strategies(load_best_model_at_end="false") == ("epoch", "epoch", False)
    shutil.rmtree("out", ignore_errors=True)


@pytest.mark.slow
# with "checkpoint": the first commit, the epoch's, its checkpoint, and the last
@pytest.mark.parametrize(("strategy", "commits"), [("end", 2), ("checkpoint", 4)])
def test_what_trainer_pushes_is_a_whole_repository(
    files, texts, encoders, loopback_hub, run_python, tmp_path, strategy, commits
):
    given = {**QUICK, **texts, **encoders, "image_dir": files / "images", "output_dir": tmp_path / "out"}
    given |= {"push_to_hub": True, "hub_model_id": "org/mner", "hub_strategy": strategy}
    (tmp_path / "arguments.json").write_text(json.dumps(given, default=str))
    code = "from run_mner import main; main(['arguments.json'])"
    environment = loopback_hub.environment(tmp_path / "home") | {"PYTHONPATH": str(SCRIPT.parent)}
    run_python(code, environment=environment)

    assert (tmp_path / "out" / "training_args.bin").is_file()
    needed = {*code_files(), "config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}
    repository = loopback_hub.repositories["org/mner"]
    assert len(repository.commits) >= commits
    for pushed in list(repository.commits.values())[1:]:
        assert needed <= set(pushed)
        assert not [name for name in pushed if name.endswith("training_args.bin")]
    pushed = loopback_hub.files("org/mner")
    assert ({f"last-checkpoint/{name}" for name in needed} <= set(pushed)) is (strategy == "checkpoint")
    for name, data in pushed.items():
        if "/" not in name:
            (tmp_path / "fetched" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "fetched" / name).write_bytes(data)
            assert not name.endswith((".bin", ".pt", ".pth", ".pkl"))
    fetched = BgaMnerForTokenClassification.from_pretrained(tmp_path / "fetched")
    kept = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(weight, kept[name]) for name, weight in fetched.state_dict().items() if name in kept)
    assert BgaMnerProcessor.from_pretrained(tmp_path / "fetched").label2id == fetched.config.label2id


def test_a_model_of_the_text_branch_learns_on(files, texts, trained, tmp_path):
    BgaMnerForTokenClassification.from_pretrained(trained[0]).save_pretrained(tmp_path / "text_only", text_only=True)
    processor = BgaMnerProcessor.from_pretrained(trained[0])
    BgaMnerProcessor(None, processor.tokenizer, processor.label2id).save_pretrained(tmp_path / "text_only")
    found = run(**texts, model_name_or_path=tmp_path / "text_only", output_dir=tmp_path / "out")
    assert 0 <= found["test_f1"] <= 1
    assert BgaMnerForTokenClassification.from_pretrained(tmp_path / "out").config.text_only
