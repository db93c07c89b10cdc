"""The commands of the experiments page run, on the tiny models and files of the other pages."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from bga_mner.configuration.configuration_bga_mner import PAPER
from bga_mner.examples import run_mner
from bga_mner.examples.fine_tuning.model import build_model


ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "experiments.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
ABLATIONS = re.findall(r"^\| .* \| `(--[^`]+)` \|$", PAGE, flags=re.MULTILINE)


@pytest.fixture
def here(workplace, tmp_path) -> Path:
    (tmp_path / "bert-base-uncased").symlink_to(workplace / "bert-base-cased")
    (tmp_path / "openai").symlink_to(workplace / "openai")
    data = tmp_path / "twitter2017"
    data.mkdir()
    (data / "images").symlink_to(workplace / "images")
    for name, source in (("train", "train"), ("valid", "valid"), ("test", "valid")):
        (data / f"{name}.txt").symlink_to(workplace / f"{source}.txt")
    return tmp_path


def words_of(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", ""))[1:]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=["as in the paper", "own recipe"])
def test_the_commands_run(run_in, here, command):
    script, *words = words_of(command)
    words[words.index("--seeds") + 1] = "0,1"
    run_in(here, [sys.executable, str(ROOT / script), *words, "--max_steps", "2", "--use_cpu", "true"])
    output = Path(words[words.index("--output_dir") + 1])
    found = json.loads((here / output / "seeds.json").read_text(encoding="utf-8"))
    assert "test" in json.dumps(found)


def test_the_paper_s_model_and_the_plain_tagger_are_options(here, monkeypatch):
    monkeypatch.chdir(here)
    _, _, _, _, *words = words_of(COMMANDS[0])
    (raw,) = re.findall(r"`(--config_overrides normalize_targets=[^`]*)`", PAGE)
    arguments = run_mner.read_arguments([*words, *raw.split(), "--use_cpu", "true"])[0]
    config = build_model(arguments, ["O", "B-PER", "I-PER"], images=True, max_length=None)[0].config
    assert not config.normalize_targets
    assert config.num_bga_layers == min(config.depths)
    assert {name: getattr(config, name) for name in PAPER} == PAPER
    (left_out,) = re.findall(r"\*first\* command without (.*?)\. The model", " ".join(PAGE.split()))
    for flag in re.findall(r"`(--\w+)", left_out):
        place = words.index(flag)
        del words[place : place + 2]
    arguments = run_mner.read_arguments([*words, "--use_cpu", "true"])[0]
    config = build_model(arguments, ["O", "B-PER", "I-PER"], images=False, max_length=None)[0].config
    assert config.visual_source == "none"


def test_there_are_ablations():
    assert len(ABLATIONS) == 6


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_ablations_are_options(here, monkeypatch, ablation):
    monkeypatch.chdir(here)
    _, _, _, _, *words = words_of(COMMANDS[0])
    words += shlex.split(ablation.replace("layers 2", "layers 1"))
    model_arguments = run_mner.read_arguments([*words, "--use_cpu", "true"])[0]
    changed, _ = build_model(model_arguments, ["O", "B-PER", "I-PER"], images=True, max_length=None)
    plain_arguments = run_mner.read_arguments([*words[: -len(ablation.split())], "--use_cpu", "true"])[0]
    plain, _ = build_model(plain_arguments, ["O", "B-PER", "I-PER"], images=True, max_length=None)
    differing = {name for name, value in changed.config.to_dict().items() if plain.config.to_dict()[name] != value}
    name, _, value = ablation.removeprefix("--config_overrides ").partition("=")
    assert differing == {name if value else ablation.split()[0].removeprefix("--")}
