"""What the scripts say of a mistake at the command line: one line, and exit code 2. No traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from conftest import clean_environment
from transformers import BertModel, ViTModel

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, labels_from_tags
from bga_mner.examples import command_line
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRAIN = "--train_file train.txt --text_model bert --output_dir out --use_cpu true"
LONG = "x" * 3000


@pytest.fixture(scope="module")
def folder(mner_files, tmp_path_factory):
    """Make a folder with files to learn from, two encoders, a saved model, and what is none of them."""
    folder = tmp_path_factory.mktemp("command_line")
    for path in mner_files.iterdir():
        (folder / path.name).symlink_to(path)
    labels = labels_from_tags([["B-LOC", "B-MISC", "B-ORG", "B-PER"]])
    text, vision = BertModel.from_pretrained(folder / "bert"), ViTModel.from_pretrained(folder / "vit")
    model = BgaMnerForTokenClassification.from_text_vision_pretrained(text, vision, labels=labels, num_bga_layers=1)
    processor = BgaMnerProcessor(None, build_tokenizer([["Kawhi"]]), label2id=model.config.label2id)
    for name in ("model", "without_weights", "broken_config", "other_model"):
        (model if name != "other_model" else text).save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    (folder / "without_weights" / "model.safetensors").unlink()
    (folder / "broken_config" / "config.json").write_text("{")
    (folder / "empty_folder").mkdir()
    (folder / "no_model").mkdir()
    (folder / "no_model" / "config.json").write_text('{"hidden_size": 4}')
    for name, content in {
        "empty.txt": "",
        "file": "a file",
        "broken.json": '{"output_dir": ',
        "list.json": "[1]",
        "unknown.json": '{"output_dir": "out", "lerning_rate": 1e-3}',
        "type.json": '{"output_dir": "out", "num_train_epochs": "many"}',
        "bool.json": '{"output_dir": "out", "do_train": "perhaps"}',
        "texts.jsonl": '{"text": "Kawhi"}\n',
        "texts.csv": "id,body\n1,Kawhi\n",
        "texts.txt": "Kawhi\n",
        "utf16.csv": "",
    }.items():
        (folder / name).write_text(content)
    (folder / "utf16.csv").write_text("text\nKawhi\n", encoding="utf-16")
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Look nowhere but here; what the environment variable says was read when these were imported."""
    for package in ("huggingface_hub.constants", "datasets.config"):
        monkeypatch.setattr(f"{package}.HF_HUB_OFFLINE", True)


def outcome(script, words, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.run_main(script.main, words)
    shown = capsys.readouterr()
    return ended.value.code, shown.out + shown.err


def check(code, shown, said, expected=2):
    assert code == expected, shown
    assert "Traceback" not in shown
    lines = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, shown
    assert len(lines[0]) < 1000
    assert shown.rstrip().endswith(lines[0])
    assert re.search(said, lines[0]), lines[0]


MISTAKES = [
    # arguments
    ("run_mner", "--lerning_rate 1 --output_dir out", "'--lerning_rate'; did you mean --learning_rate"),
    ("run_mner", "--text-modle bert --output_dir out", "'--text-modle'; did you mean --text_model"),
    ("run_mner", "bert", "'bert', which is not a file"),
    ("run_mner", "bert vit", "unknown argument 'bert'"),
    ("run_mner", TRAIN + " stray", "unknown argument 'stray'"),
    ("run_mner", "", "--output_dir, got none"),
    ("run_mner", TRAIN + " --num_train_epochs many", "num_train_epochs.*'many'"),
    ("run_mner", TRAIN + " --learning_rate -1", "learning_rate of at least 0, got -1"),
    ("run_mner", TRAIN + " --learning_rate nan", "learning_rate of at least 0, got nan"),
    ("run_mner", TRAIN + " --per_device_train_batch_size 0", "per_device_train_batch_size of at least 1, got 0"),
    ("run_mner", TRAIN + " --max_length 0", "max_length of at least 1, got 0"),
    ("run_mner", TRAIN + " --max_length 4000", "max_length of at most 64.*got 4000"),
    ("run_mner", TRAIN + " --num_bga_layers 9", "num_bga_layers.*9"),
    ("run_mner", TRAIN + " --eval_strategy sometimes", "sometimes"),
    ("run_mner", TRAIN + " --lr_scheduler_type lineer", "lineer"),
    ("run_mner", TRAIN + " --optim adamm", "adamm"),
    ("run_mner", TRAIN + " --metric_for_best_model f2", "'f1', .*--metric_for_best_model, got 'f2'"),
    ("run_mner", TRAIN + " --gradient_checkpointing_kwargs {bad", "JSON as --gradient_checkpointing_kwargs"),
    ("run_mner", TRAIN + " --validation_split dev", "--dataset_name beside --validation_split"),
    ("run_mner", TRAIN + " --tags_column tags", "--dataset_name beside --tags_column"),
    ("run_mner", TRAIN + " --deepspeed file", r"the package 'deepspeed'.*Run: pip install deepspeed"),
    ("run_mner", TRAIN + " --lr 1", "unknown argument '--lr' \\(--help"),
    ("run_mner", TRAIN.replace("bert", "vit"), "a text encoder of one of bert, .* got 'vit' in 'vit'"),
    ("run_mner_no_trainer", TRAIN.replace("bert", "model"), "saved model, for --model_name_or_path"),
    ("run_mner", TRAIN + " --image_dir images --vision_model bert", "'bert', got none .*no text model"),
    ("run_mner", TRAIN + " --do_train perhaps", "perhaps"),
    ("run_mner", TRAIN + " --config_overrides layers=3", "layers=3"),
    ("run_mner", TRAIN + " --config_overrides hybrid_attention=neither", "neither"),
    ("run_mner", TRAIN + f" --config_overrides {LONG}=1", "xxxx"),
    ("run_mner", TRAIN + f" --{LONG}", "unknown argument.*xxxx"),
    ("run_mner", TRAIN + f" --optim {LONG}", "xxxx"),
    # one JSON file of them
    ("run_mner", "nowhere.json", "'nowhere.json', which is not a file"),
    ("run_mner", "broken.json", "'broken.json'.*can't be read"),
    ("run_mner", "empty.txt", "'empty.txt'.*can't be read"),
    ("run_mner", "list.json", "'list.json', got \\[1\\]"),
    ("run_mner", "unknown.json", "'--lerning_rate'; did you mean --learning_rate"),
    ("run_mner", "type.json", "num_train_epochs.*'many'"),
    ("run_mner", "bool.json", "perhaps"),
    # files and folders
    ("run_mner", TRAIN.replace("train.txt", "nowhere.txt"), "nowhere.txt"),
    ("run_mner", TRAIN.replace("train.txt", "images"), "images"),
    ("run_mner", TRAIN.replace("train.txt", "empty.txt"), "empty.txt"),
    ("run_mner", TRAIN.replace("train.txt", LONG), "xxxx"),
    ("run_mner", TRAIN + " --image_dir nowhere", "nowhere"),
    ("run_mner", TRAIN + " --image_dir file --vision_model vit", "file"),
    ("run_mner", TRAIN.replace("bert", "nowhere"), "--text_model.*'nowhere'"),
    ("run_mner", TRAIN.replace("bert", "/no/where"), "--text_model.*'/no/where'"),
    ("run_mner", TRAIN.replace("bert", "file"), "--text_model.*'file'"),
    ("run_mner", TRAIN.replace("bert", "empty_folder"), "--text_model.*'empty_folder'"),
    ("run_mner", TRAIN.replace("bert", "no_model"), "--text_model.*'no_model'"),
    ("run_mner", TRAIN.replace("bert", "broken_config"), "--text_model.*'broken_config'"),
    ("run_mner", TRAIN.replace("bert", "vit"), "vit"),
    ("run_mner", TRAIN + " --image_dir images --vision_model nowhere", "'nowhere'"),
    ("run_mner", TRAIN + " --image_dir images --vision_model bert", "bert"),
    ("run_mner", TRAIN + " --image_dir images --vision_model no_model", "no_model"),
    ("run_mner", TRAIN.replace("_dir out", "_dir file"), "as --output_dir, got the file 'file'"),
    ("run_mner", TRAIN.replace("_dir out", "_dir file/out"), "as --output_dir, got the file 'file'"),
    ("run_mner", "--output_dir out --dataset_name nowhere --text_model bert", "nowhere"),
    ("run_mner", "--output_dir out --dataset_name images --text_model bert", "images|'tokens'"),
    ("run_mner", TRAIN + " --resume_from_checkpoint nowhere", "nowhere"),
    *(
        ("run_mner", f"--test_file test.txt --output_dir out --model_name_or_path {name}", name)
        for name in ("nowhere", "empty_folder", "without_weights", "broken_config", "no_model", "bert", "file")
    ),
    # the plain loop takes the same
    ("run_mner_no_trainer", "--lerning_rate 1 --output_dir out", "'--lerning_rate'; did you mean --learning_rate"),
    ("run_mner_no_trainer", "unknown.json", "'--lerning_rate'; did you mean --learning_rate"),
    ("run_mner_no_trainer", "broken.json", "'broken.json'.*can't be read"),
    ("run_mner_no_trainer", "", "--output_dir, got none"),
    ("run_mner_no_trainer", TRAIN + " --learning_rate fast", "'fast'"),
    ("run_mner_no_trainer", TRAIN + " --lr_scheduler_type lineer", "lineer"),
    ("run_mner_no_trainer", TRAIN + " --mixed_precision half", "half"),
    ("run_mner_no_trainer", TRAIN + " --save_total_limit 0", "save_total_limit of at least 1, got 0"),
    ("run_mner_no_trainer", TRAIN + " --logging_steps 0", "logging_steps of at least 1, got 0"),
    ("run_mner_no_trainer", TRAIN + " --gradient_accumulation_steps -2", "got -2"),
    ("run_mner_no_trainer", TRAIN.replace("_dir out", "_dir file"), "as --output_dir, got the file 'file'"),
    ("run_mner_no_trainer", TRAIN.replace("bert", "nowhere"), "--text_model.*'nowhere'"),
    ("run_mner_no_trainer", TRAIN.replace("train.txt", "nowhere.txt"), "nowhere.txt"),
    ("run_mner_no_trainer", TRAIN + " --resume_from_checkpoint nowhere", "nowhere"),
    ("run_mner_no_trainer", TRAIN + " --resume_from_checkpoint empty_folder", "empty_folder"),
    # annotation
    *(
        ("annotate", f"--output out --input texts.jsonl --model {name}", f"'{name}'")
        for name in ("nowhere", "empty_folder", "without_weights", "broken_config", "no_model", "other_model", "file")
    ),
    ("annotate", "--output out --model model --input nowhere", "'nowhere'"),
    ("annotate", "--output out --model model --input empty_folder", "'empty_folder'"),
    ("annotate", "--output out --model model --input texts.txt", "'texts.txt'"),
    ("annotate", "--output out --model model --input texts.csv", "'text' in 'texts.csv', got 'id', 'body'"),
    ("annotate", "--output out --model model --input utf16.csv", "utf16.csv.*UTF-16"),
    ("annotate", "--output out --model model", "files or the name of a dataset, got neither"),
    ("annotate", "--output out --model model --dataset_name nowhere --split train", "nowhere"),
    ("annotate", "--output out --model model --input texts.jsonl --batch_size 0", "'0'"),
    ("annotate", "--output out --model model --input texts.jsonl --rows_per_part -5", "'-5'"),
    ("annotate", "--output out --model model --input texts.jsonl --max_bad_fraction 2", "at most 1, got '2'"),
    ("annotate", "--output out --model model --input texts.jsonl --stride -1", "'-1'"),
    ("annotate", "--output out --model model --input texts.jsonl --max_length 9 --stride 9", "stride"),
    ("annotate", "--output out --model model --input texts.jsonl --dtype float8", "'float8'"),
    ("annotate", "--output out --model model --input texts.jsonl --device gpu", "'gpu'"),
    ("annotate", "--output out --model model --input texts.jsonl --device cuda:77", "'cuda:77'"),
    ("annotate", "--output out --model model --input texts.jsonl --batchsize 3", "did you mean --batch_size"),
    ("annotate", f"--output out --model {LONG} --input texts.jsonl", "xxxx"),
    # the others
    ("export_onnx", "--model nowhere --output out", "'nowhere'"),
    ("export_onnx", "--model empty_folder --output out", "'empty_folder'"),
    ("export_onnx", "--model broken_config --output out", "'broken_config'"),
    ("export_onnx", "--model no_model --output out", "'no_model'"),
    ("export_onnx", "--model model --output file/out", "got the file 'file'"),
    ("export_onnx", "--model model", "--output"),
    ("export_onnx", "--model model --output out --intt8", "did you mean --int8"),
    ("push_to_hub", "--model_dir nowhere --repo_id a/b --dry_run", "'nowhere'"),
    ("push_to_hub", "--model_dir broken_config --repo_id a/b --dry_run", "broken_config"),
    ("push_to_hub", "--model_dir without_weights --repo_id a/b --dry_run", "without_weights"),
    ("push_to_hub", "--model_dir no_model --repo_id a/b --dry_run", "'no_model'"),
    ("push_to_hub", "--model_dir model --repo_id a/b/c/d --dry_run", "'a/b/c/d'"),
    ("push_to_hub", "--model_dir model", "--repo_id"),
    ("visualize", "--model_dir nowhere --generated", "'nowhere'"),
    ("visualize", "--model_dir without_weights --generated", "without_weights"),
    ("visualize", "--model_dir model --limit 0 --generated", "'0'"),
    ("visualize", "--model_dir model --conll_file nowhere.txt --image_dir images", "nowhere.txt"),
    ("visualize", "--model_dir model --text Kawhi --image nowhere.png", "nowhere.png"),
    ("visualize", "--model_dir model --text Kawhi --image file", "file"),
    ("visualize", "--model_dir model --generated --output_dir file", "got the file 'file'"),
    ("evaluate_robustness", "", "command"),
    ("evaluate_robustness", "tset", "'tset'"),
    ("evaluate_robustness", "test --model_dir model --test_fil test.txt --batchsize 3", "did you mean --batch_size"),
    ("evaluate_robustness", "test --model_dir nowhere --test_file test.txt --output_dir out", "'nowhere'"),
    ("evaluate_robustness", "test --model_dir model --test_file nowhere.txt --output_dir out", "nowhere.txt"),
    ("evaluate_robustness", "test --model_dir model --test_file test.txt --output_dir file", "got the file 'file'"),
    ("evaluate_robustness", "test --model_dir model --test_file test.txt --confidence 95", "'95'"),
    ("evaluate_robustness", "test --model_dir model --test_file test.txt --samples 0", "'0'"),
    ("evaluate_robustness", "test --model_dir model --test_file test.txt --output_dir out --label_map PER", "'PER'"),
    ("evaluate_robustness", "train --steps 0", "'0'"),
    ("quickstart", "--output_dir file", "got the file 'file'"),
    ("quickstart", "--steps -1", "'-1'"),
    ("quickstart", "--step 1 --images many", "'many'"),
    ("quickstart", "--outputdir out", "did you mean --output_dir"),
    ("compare_encoders", "--encoders nowhere --quick", "'nowhere'"),
    ("compare_encoders", "--seeds 0;1", "'0;1'"),
    ("compare_encoders", "--steps 0", "'0'"),
    ("compare_encoders", "--batchsize 1", "did you mean --batch_size"),
    ("sweep", "", "what"),
    ("sweep", "serch", "'serch'"),
    ("sweep", "search --trials 0", "'0'"),
    ("sweep", "search --space learning_rate=3..1 " + TRAIN, "learning_rate=3..1"),
    ("sweep", "search --space lerning_rate=1..3 " + TRAIN, "lerning_rate"),
    ("sweep", "search " + TRAIN, "validation set"),
    ("sweep", "seeds --seeds one " + TRAIN, "'one'"),
    ("sweep", "seeds --seeds 1 " + TRAIN, "two seeds"),
    ("sweep", "seeds --sedes 1,2 " + TRAIN, "'--sedes'"),
]


@pytest.mark.parametrize(("name", "words", "said"), MISTAKES, ids=lambda value: value[:60] or "nothing")
def test_a_mistake_is_one_line(folder, offline, tmp_path, monkeypatch, capsys, name, words, said):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # for tracebacks
    own = [str(tmp_path / word) if word == "out" else word for word in words.split()]
    check(*outcome(import_module(f"bga_mner.examples.{name}"), own, capsys), said)


CAPTIONS = "--data_dir nowhere --text_model nowhere --vision_model nowhere"
BENCHMARK_MISTAKES = [
    ("alignment", "--seeds one", "'one'"),
    ("alignment", "--seeds 3,1,3", "expected each value once, got 3 twice"),
    ("alignment", "--variants full,full", "got full twice"),
    ("alignment", "--variants full,half", "got half "),
    ("alignment", "--config {", "'{'"),
    ("alignment", "--mismatch_rate 2", "'2'"),
    ("alignment", "--images nowhere --steps 1", "nowhere"),
    ("annotate", "--rows 0", "'0'"),
    ("calibration", "--epochs -1", "'-1'"),
    ("compilation", "--what guessing", "'guessing'"),
    ("crf", "--shapes 8x64", "8x64"),
    ("frontier", f"{CAPTIONS} --variants small", "got small "),
    ("frontier", f"{CAPTIONS} --seeds 1.5", "'1.5'"),
    ("frontier", f"{CAPTIONS} --plot out.png", "Expected --seeds with --plot"),
    ("frontier", f"{CAPTIONS} --figure out.png", "Expected --seeds with --figure"),
    ("frontier", f"{CAPTIONS} --results empty_folder", "got the folder 'empty_folder'"),
    ("inference", "--models 13", "got 13 "),
    ("memory", "--size large", "'large'"),
    ("onnx_runtime", "--data_dir nowhere", "'nowhere'"),
    ("precision", "--sise tiny", "did you mean --size"),
    ("real_text", "--data_dir nowhere", "'nowhere'"),
    ("real_text", "--data_dir . --models ours", "got ours "),
    ("scaling", "--axes colour", "got colour "),
    ("sentiment", "--config [1]", "\\[1\\]"),
    ("text_only_size", "--num_bga_layers 0", "'0'"),
    ("throughput", "--texts many", "'many'"),
    ("accelerator", "--parts speed,noise", "got noise "),
    ("training", "--repeats 0", "'0'"),
    ("vision_cache", "--threads 0", "'0'"),
]


@pytest.mark.parametrize(("name", "words", "said"), BENCHMARK_MISTAKES, ids=lambda value: value[:60])
def test_a_benchmark_says_so_too(folder, monkeypatch, capsys, name, words, said):
    monkeypatch.chdir(folder)
    check(*outcome(import_module(f"bga_mner.benchmarks.{name}"), words.split(), capsys), said)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in EXAMPLES.glob("*.py") if "run_main(main)" in path.read_text())
)
def test_help_works(capsys, name):
    code, shown = outcome(import_module(f"bga_mner.examples.{name}"), ["--help"], capsys)
    assert code == 0
    assert shown.startswith("usage: ")
    assert "--debug" in shown


def run(words, folder, **environment):
    """Run a script as a user does; return exit code, output and errors."""
    given = clean_environment() | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **environment}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=given, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("flags", "variable"), [(["--debug"], ""), ([], "1")])
def test_debug_shows_the_traceback_too(offline, monkeypatch, capsys, flags, variable):
    monkeypatch.setenv(command_line.DEBUG, variable)
    words = ["--model", "nowhere", "--output", "out", *flags]
    code, shown = outcome(import_module("bga_mner.examples.export_onnx"), words, capsys)
    assert code == 2
    assert "Traceback (most recent call last)" in shown
    assert re.fullmatch("error: .*'nowhere', which can't be loaded.*", shown.splitlines()[-1])


def test_debug_with_a_value_is_that_of_the_trainer(monkeypatch):
    for words, ours in ((["--debug"], True), (["--debug", "--x"], True), (["--debug", "underflow_overflow"], False)):
        monkeypatch.setattr(os, "environ", {})
        seen = []
        with pytest.raises(SystemExit, match="0"):
            command_line.run_main(seen.append, words)
        assert (command_line.DEBUG in os.environ, "--debug" in seen[0]) == (ours, not ours)


@pytest.mark.parametrize(
    ("missing", "words", "said"),
    [
        ("rich", ["quickstart.py", "--steps", "1"], r"package 'rich'.*bga-mner\[examples\]"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("optuna", ["sweep.py", "search", *TRAIN.split()], r"package 'optuna'.*bga-mner\[sweep\]"),
                ("seqeval", ["run_mner.py", *TRAIN.split()], "package 'seqeval'.*pip install seqeval"),
                ("onnx", ["export_onnx.py", "--model", "model", "--output", "out"], r"onnx.*bga-mner\[onnx\]"),
            )
        ),
    ],
)
def test_a_missing_package_is_named_with_its_extra(folder, tmp_path, missing, words, said):
    # what an interpreter reads first, and finds nothing in
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    code, out, shown = run([EXAMPLES / words[0], *words[1:]], folder, PYTHONPATH=str(tmp_path))
    check(code, out + shown, said)


def test_without_the_package_python_names_it(bare_python, tmp_path):
    environment = clean_environment()
    done = subprocess.run(
        [bare_python, EXAMPLES / "export_onnx.py"], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"ModuleNotFoundError: No module named 'bga_mner'"


def test_ctrl_c_ends_it_without_a_traceback(capsys):
    def stopped(words):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command_line.run_main(stopped, [])
    assert ended.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == "stopped\n"


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for broken in (KeyError("a"), RuntimeError("b"), TypeError("c")):

        def fail(words, broken=broken):
            raise broken

        with pytest.raises(type(broken)):
            command_line.run_main(fail, [])
    with pytest.raises(SystemExit, match="2"):
        command_line.run_main(lambda words: json.loads(words[0]), ["{"])
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    (log,) = tmp_path.iterdir()
    assert f"[traceback: {log}]" in shown
    assert "decoder.py" in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["run_mner.py", "run_mner_no_trainer.py"])
def test_of_several_processes_the_first_says_it(folder, tmp_path, script):
    words = TRAIN.replace("train.txt", "nowhere.txt").replace(" out", f" {tmp_path / 'out'}").split()
    launcher = [*["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"], EXAMPLES / script]
    code, out, shown = run([*launcher, *words], folder, OMP_NUM_THREADS="1")
    assert code == 1  # torchrun's own
    lines = [line for line in (out + shown).splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, shown
    assert "nowhere.txt" in lines[0]
    assert "exitcode  : 2" in shown


def test_a_later_process_that_fails_alone_says_it(monkeypatch, capsys):
    monkeypatch.setattr(command_line, "SECONDS_OF_SILENCE", 0.5)
    monkeypatch.setenv("RANK", "1")
    start = time.monotonic()
    command_line.show(ValueError("here alone"))
    assert time.monotonic() - start >= 0.5
    assert capsys.readouterr().err == "error: here alone\n"


@pytest.mark.slow
def test_a_refused_token_is_one_line(folder, tmp_path, loopback_hub):
    words = [EXAMPLES / "push_to_hub.py", "--model_dir", "model", "--repo_id", "org/x"]
    code, out, shown = run(words, folder, **loopback_hub.environment(tmp_path / "home", "hf_wrong"), HF_HUB_OFFLINE="0")
    check(code, out + shown, "takes 'org/x', got: .*401.*token")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(folder, tmp_path, monkeypatch, capsys):
    tmp_path.chmod(0o500)
    words = ["--output_dir", str(tmp_path / "out"), "--steps", "1"]
    check(*outcome(import_module("bga_mner.examples.quickstart"), words, capsys), "Permission denied: '.*out'")
