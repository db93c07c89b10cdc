"""The commands and examples of README and of the guides run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from bga_mner.examples.synthetic.drawings import concept_images


ROOT = Path(__file__).resolve().parents[2]
# in the order in which their Python examples go on from each other
PAGES = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / page
        for page in (
            "how_to/train_from_python.md",
            "how_to/annotate.md",
            "how_to/pairs_without_labels.md",
            "how_to/sentiment.md",
            "how_to/configurations.md",
            "how_to/hub.md",
            "how_to/publish_a_student.md",
            "how_to/robustness.md",
            "how_to/looking_inside.md",
            "how_to/serve_without_torch.md",
            "explanation/what_images_teach.md",
        )
    ),
]
TRAINING = (ROOT / "docs" / "how_to" / "training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Blocks of code of that language; one that two pages share comes once."""
    found = [
        re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL) for page in PAGES
    ]
    return list(dict.fromkeys(block for of_page in found for block in of_page))


@pytest.fixture(scope="module")
def fine_tuned(run_in, workplace) -> Path:
    (command,) = [block for block in blocks("bash") if "run_mner.py" in block]
    words = shlex.split(command.replace("\\\n", ""))
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("outputs/mner")] = "outputs/by_command"
    run_in(workplace, [*words, "--max_steps", "3", "--use_cpu", "true"])
    return workplace / "outputs" / "by_command"


def test_the_python_examples_run_in_order(run_in, workplace, fine_tuned):
    (workplace / "outputs" / "mner").symlink_to(fine_tuned)  # what README's command writes there
    # the student is made by a command
    own = [example for example in blocks("python") if "outputs/student" not in example]
    examples = [example for example in own if "trust_remote_code" not in example]
    assert len(examples) == 9
    assert "multimodal-ner" in examples[0]
    run_in(workplace, [sys.executable, "-c", "\n".join(examples)])
    assert (workplace / "outputs" / "from_python" / "model.safetensors").exists()
    assert "text-classification" in (workplace / "outputs" / "sentiment" / "README.md").read_text(encoding="utf-8")
    card = (workplace / "outputs" / "from_python" / "README.md").read_text(encoding="utf-8")
    assert "## Evaluation" in card
    assert "| train | `train.txt` |" in card
    (tutorial,) = [example for example in examples if "pairs.jsonl" in example]
    assert len(tutorial.splitlines()) < 40


def test_the_fine_tuning_command_runs(fine_tuned):
    assert (fine_tuned / "predictions.conll").exists()


def test_the_command_that_predicts_later_runs(run_in, workplace, fine_tuned):
    (command,) = re.findall(r"`(python examples/run_mner\.py --model_name_or_path [^`]*)`", PAGES[0].read_text("utf-8"))
    words = shlex.split(command)
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("outputs/mner")] = str(fine_tuned)
    (workplace / "new.txt").write_text("IMGID:1\nKawhi\nwins\n")  # "no tags and no images are needed"
    run_in(workplace, [*words, "--use_cpu", "true"])
    assert (workplace / "outputs" / "predicted" / "predictions.conll").read_text().startswith("IMGID:1\nKawhi\t")


def test_the_loop_s_command_runs(run_in, workplace):
    (command,) = re.findall(r"```bash\n(python examples/run_mner_no_trainer\.py.*?)```", TRAINING, flags=re.DOTALL)
    words = shlex.split(command.replace("\\\n", ""))
    words[:2] = [sys.executable, str(ROOT / words[1])]
    run_in(workplace, [*words, "--max_steps", "3", "--use_cpu", "true"])
    assert (workplace / "outputs" / "loop" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_hub_section_runs(run_in, workplace, fine_tuned, loopback_hub, bare_python, run_python, tmp_path):
    (commands,) = [block for block in blocks("bash") if "hf auth login" in block]
    login, *pushes = commands.splitlines()
    assert login == "hf auth login"
    environment = loopback_hub.environment(tmp_path / "home")  # which has the token
    for number, command in enumerate(pushes):
        words = shlex.split(command)
        arguments = [str(fine_tuned) if word == "outputs/mner" else word for word in words[2:]]
        script = str(ROOT / words[1])
        run_python(
            f"import runpy, sys; sys.argv[1:] = {arguments}\nrunpy.run_path({script!r}, run_name='__main__')",
            environment=environment,
        )
        assert len(loopback_hub.repositories) == number  # after a dry run none
    (example,) = [block for block in blocks("python") if "trust_remote_code" in block]
    assert run_python(example, bare_python, environment).splitlines()[-1].startswith("[")


@pytest.mark.slow
def test_the_commands_that_serve_without_torch_run_in(run_in, workplace, fine_tuned):
    (commands,) = [block for block in blocks("bash") if "export_onnx.py" in block]
    export, export_int8, annotate = map(shlex.split, commands.splitlines())
    for words in (export, export_int8):
        words[:2] = [sys.executable, str(ROOT / words[1])]
        words[words.index("outputs/mner")] = str(fine_tuned)
        run_in(workplace, words)
    annotate[0] = sys.executable
    assert json.loads(run_in(workplace, annotate))["text"] == annotate[-1]


@pytest.mark.slow
def test_the_student_s_commands_and_example_run(run_in, workplace, fine_tuned):
    commands, in_browser = [block for block in blocks("bash") if "distill.py" in block]
    distill, push = map(shlex.split, commands.replace("\\\n", "").splitlines())
    for words in (distill, push):
        words[:2] = [sys.executable, str(ROOT / words[1])]
    distill[distill.index("outputs/mner")] = str(fine_tuned)
    short = ["--max_steps", "3", "--use_cpu", "true"]
    assert "Agreement on" in run_in(workplace, [*distill, *short])
    # the other commands are run by tests/examples/test_browser.py
    export = shlex.split(in_browser.replace("\\\n", "").splitlines()[0])
    export = [sys.executable, str(ROOT / export[1]), *export[2:]]
    export[export.index("outputs/mner")] = str(fine_tuned)
    run_in(workplace, [*export, *short])
    assert (workplace / "outputs" / "student" / "onnx" / "model_quantized.onnx").exists()
    assert "Nothing was pushed to org/student" in run_in(workplace, push)
    (example,) = [block for block in blocks("python") if "outputs/student" in block]
    run_in(workplace, [sys.executable, "-c", example])


def test_the_annotation_command_runs(run_in, workplace, fine_tuned):
    (command,) = [block for block in blocks("bash") if "annotate.py" in block]
    words = shlex.split(command)
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("outputs/mner")] = str(fine_tuned)
    (workplace / "texts").mkdir()
    (workplace / "texts" / "a.jsonl").write_text('{"id": "x", "text": "Kawhi wins"}\n')
    assert "1  rows" in run_in(workplace, words)
    assert (workplace / "outputs" / "annotated" / "entities" / "part-00000000.parquet").exists()


@pytest.mark.slow
def test_the_robustness_command_runs(run_in, workplace, fine_tuned):
    (command,) = [block for block in blocks("bash") if "evaluate_robustness.py" in block]
    words = shlex.split(command)
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("outputs/mner")] = str(fine_tuned)
    assert "mismatched" in run_in(workplace, [*words, "--samples", "20", "--output_dir", "outputs/robustness"])


@pytest.mark.slow
@pytest.mark.parametrize("command", [block for block in blocks("bash") if "benchmarks/alignment.py" in block])
def test_the_benchmark_commands_run(run_in, workplace, tmp_path, command):
    words = shlex.split(command.replace("\\\n", ""))
    words[:2] = [sys.executable, str(ROOT / words[1])]
    words[words.index("--seeds") + 1] = "10"
    if "--images" in words:
        drawings, concepts = concept_images(16, image_size=32)
        for number, (image, concept) in enumerate(zip(drawings, concepts, strict=True)):
            folder = tmp_path / str(concept)
            folder.mkdir(exist_ok=True)
            image.save(folder / f"{number}.jpg")
        words[words.index("FOLDER")] = str(tmp_path)
    short = ["steps=2", "vision_steps=2", "drawings=40", "pairs=24", "names_per_type=2", "test_sentences=8"]
    last = run_in(workplace, [*words, *(f"--{flag}" for flag in short)]).splitlines()[-1]
    assert set(json.loads(last)["alignment"]) == set(words[words.index("--variants") + 1].split(","))


def test_each_promise_of_security_names_a_test_that_is_there():
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = page.split("## Promises")[1].split("## Not promised")[0].split("\n- ")[1:]
    assert len(promises) == 6
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for promise in promises:
        named = re.findall(r"`(test_\w+)`", promise)
        assert named, promise
        assert all(f"\ndef {name}(" in tests for name in named), promise


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pages = [page.read_text(encoding="utf-8") for page in (*PAGES, ROOT / "CONTRIBUTING.md")]
    targets = {target for page in pages for target in re.findall(r"^make ([\w-]+)", page, flags=re.MULTILINE)}
    tests = {"test", "test-all", "space-test", "browser-test", "pythons-test", "oldest-test", "newest-test"}
    assert targets == {"install", "demo", "lint", "docs", "coverage", "mutants", "fuzz"} | tests
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
