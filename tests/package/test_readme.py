"""What README tells to type is typed here, on tiny models in folders of the names that it uses."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import (
    BertConfig,
    BertModel,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from bga_mner import write_conll
from bga_mner.processing.generated_corpus import build_tokenizer, concept_pictures, generate_corpus
from bga_mner.processing.generated_sentiment import generate_sentiment_corpus


ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    corpus = generate_corpus(names_per_type=4, train_labelled=24, train_unlabelled=8, test_sentences=8)
    tokenizer = build_tokenizer(corpus.sentences())
    tokenizer.save_pretrained(folder / "bert-base-cased")
    text = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SIZES))
    text.save_pretrained(folder / "bert-base-cased")
    vision_folder = folder / "openai" / "clip-vit-base-patch32"
    CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=16, **SIZES)).save_pretrained(vision_folder)
    side = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side).save_pretrained(vision_folder)
    (folder / "pictures").mkdir()
    for name, dataset in (("train", corpus.train), ("valid", corpus.validation)):
        labelled = dataset.filter(lambda row: row["ner_tags"] is not None)
        write_conll(folder / f"{name}.txt", labelled["tokens"], labelled["ner_tags"], labelled["id"])
        for row in labelled:
            (folder / "pictures" / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
    with (folder / "pairs.jsonl").open("w") as file:
        for row in corpus.train.filter(lambda row: row["ner_tags"] is None):
            path = folder / "pictures" / f"{row['id']}.png"
            path.write_bytes(row["image"]["bytes"])
            file.write(json.dumps({"text": " ".join(row["tokens"]), "image": f"pictures/{path.name}"}) + "\n")
    opinions = generate_sentiment_corpus(
        names_per_sentiment=2, train_labelled=12, train_unlabelled=12, test_sentences=3
    )
    with (folder / "opinions.jsonl").open("w") as file:
        for row in opinions.train:
            path = folder / "pictures" / f"{row['id']}.png"
            path.write_bytes(row["image"]["bytes"])
            first, behind = row["target"]
            start = len(" ".join([*row["tokens"][:first], ""]))
            target = [start, start + len(" ".join(row["tokens"][first:behind]))]
            values = {"text": " ".join(row["tokens"]), "target": target, "label": row["label"]}
            file.write(json.dumps(values | {"image": f"pictures/{path.name}"}) + "\n")
    return folder


def run(workplace: Path, command: list[str]) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_python_examples_run_in_order(workplace):
    examples = [example for example in blocks("python") if "trust_remote_code" not in example]
    assert len(examples) == 6
    run(workplace, [sys.executable, "-c", "\n".join(examples)])
    assert (workplace / "outputs" / "mner" / "model.safetensors").exists()
    assert "text-classification" in (workplace / "outputs" / "sentiment" / "README.md").read_text(encoding="utf-8")
    card = (workplace / "outputs" / "mner" / "README.md").read_text(encoding="utf-8")
    assert "## Evaluation" in card
    assert "| train | `train.txt` |" in card
    (tutorial,) = [example for example in examples if "pairs.jsonl" in example]
    assert len(tutorial.splitlines()) < 40


@pytest.fixture(scope="module")
def fine_tuned(workplace) -> Path:
    (command,) = [block for block in blocks("bash") if "run_mner.py" in block]
    words = shlex.split(command.replace("\\\n", " "))
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("outputs/mner")] = "outputs/by_command"
    run(workplace, [*words, "--max_steps", "3", "--use_cpu", "true"])
    return workplace / "outputs" / "by_command"


def test_the_fine_tuning_command_runs(fine_tuned):
    assert (fine_tuned / "predictions.conll").exists()


def test_the_loop_s_command_runs(workplace):
    (command,) = [block for block in blocks("bash") if "run_mner_no_trainer.py" in block]
    words = shlex.split(command.replace("\\\n", " "))
    words[:2] = [sys.executable, str(ROOT / words[1])]
    run(workplace, [*words, "--max_steps", "3", "--use_cpu", "true"])
    assert (workplace / "outputs" / "loop" / "model.safetensors").exists()


def test_the_hub_section_runs(workplace, fine_tuned, loopback_hub, bare_python, run_python, tmp_path):
    (commands,) = [block for block in blocks("bash") if "push_to_hub.py" in block]
    login, *pushes = commands.splitlines()
    assert login == "hf auth login"
    environment = loopback_hub.environment(tmp_path / "home")  # which has the token
    for number, command in enumerate(pushes):
        words = shlex.split(command)
        arguments = [str(fine_tuned) if word == "outputs/mner" else word for word in words[2:]]
        run_python(
            f"import runpy; runpy.run_path({str(ROOT / words[1])!r})['main']({arguments})", environment=environment
        )
        assert len(loopback_hub.repositories) == number  # after a dry run none
    (example,) = [block for block in blocks("python") if "trust_remote_code" in block]
    assert run_python(example, bare_python, environment).splitlines()[-1].startswith("[")


def test_the_commands_that_serve_without_torch_run(workplace, fine_tuned):
    (commands,) = [block for block in blocks("bash") if "export_onnx.py" in block]
    export, export_int8, annotate = map(shlex.split, commands.splitlines())
    for words in (export, export_int8):
        words[:2] = [sys.executable, str(ROOT / words[1])]
        words[words.index("outputs/mner")] = str(fine_tuned)
        run(workplace, words)
    annotate[0] = sys.executable
    assert json.loads(run(workplace, annotate))["text"] == annotate[-1]


def test_the_annotation_command_runs(workplace, fine_tuned):
    (command,) = [block for block in blocks("bash") if "annotate.py" in block]
    words = shlex.split(command)
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("outputs/mner")] = str(fine_tuned)
    (workplace / "texts").mkdir()
    (workplace / "texts" / "a.jsonl").write_text('{"id": "x", "text": "Kawhi wins"}\n')
    assert "1  rows" in run(workplace, words)
    assert (workplace / "outputs" / "annotated" / "entities" / "part-00000000.parquet").exists()


def test_the_robustness_command_runs(workplace, fine_tuned):
    (command,) = [block for block in blocks("bash") if "evaluate_robustness.py" in block]
    words = shlex.split(command)
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("outputs/mner")] = str(fine_tuned)
    assert "mismatched" in run(workplace, [*words, "--samples", "20", "--output_dir", "outputs/robustness"])


@pytest.mark.parametrize("pictures", [False, True])
def test_the_benchmark_commands_run(workplace, tmp_path, pictures):
    (command,) = [
        block for block in blocks("bash") if "benchmarks/alignment.py" in block and ("--pictures" in block) == pictures
    ]
    words = shlex.split(command.replace("\\\n", " "))
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("--seeds") + 1] = "10"
    if pictures:
        drawn, concepts = concept_pictures(16, picture_size=32)
        for number, (picture, concept) in enumerate(zip(drawn, concepts, strict=True)):
            folder = tmp_path / str(concept)
            folder.mkdir(exist_ok=True)
            picture.save(folder / f"{number}.jpg")
        words[words.index("FOLDER")] = str(tmp_path)
    short = ["steps=2", "vision_steps=2", "drawings=40", "pairs=24", "names_per_type=2", "test_sentences=8"]
    last = run(workplace, [*words, *(f"--{flag}" for flag in short)]).splitlines()[-1]
    assert set(json.loads(last)["alignment"]) == set(words[words.index("--variants") + 1].split(","))


def test_each_promise_of_security_names_a_test_that_is_there():
    section = re.search(r"^## Security\n(.*?)^## ", README, flags=re.DOTALL | re.MULTILINE)
    assert section
    promises = section[1].split("Not promised")[0].split("\n- ")[1:]
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for promise in promises:
        named = re.findall(r"`(test_\w+)`", promise)
        assert named, promise
        assert all(f"\ndef {name}(" in tests for name in named), promise


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {target for block in blocks("bash") for target in re.findall(r"^make (\w+)", block, flags=re.MULTILINE)}
    assert targets == {"demo", "test", "lint", "package"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
