"""The tutorial, followed to the letter; only the encoders are tiny ones in folders of the real ones' names."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest


pytestmark = pytest.mark.slow


ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial" / "first_model.md").read_text(encoding="utf-8")


def block(language: str, having: str) -> str:
    (found,) = [
        block for block in re.findall(rf"```{language}\n(.*?)```", TUTORIAL, flags=re.DOTALL) if having in block
    ]
    return found


@pytest.mark.parametrize("with_images", [True, False])
def test_what_it_says_can_be_typed(run_in, workplace, tmp_path, with_images):
    for name in ("distilbert-base-cased", "openai", "images"):
        (tmp_path / name).symlink_to(workplace / name)
    for name in ("train.txt", "valid.txt"):
        (tmp_path / name).write_text(block("text", "IMGID:1"), encoding="utf-8")
    words = shlex.split(block("bash", "run_mner.py").replace("\\\n", ""))
    words[:2] = [sys.executable, str(ROOT / words[1])]
    if not with_images:  # "Without images leave out"
        for flag in ("--image_dir", "--vision_model"):
            place = words.index(flag)
            del words[place : place + 2]
    words[words.index("--num_train_epochs") + 1] = "2"
    run_in(tmp_path, [*words, "--use_cpu", "true"])
    for name in ("README.md", "predictions.conll"):
        assert (tmp_path / "outputs" / "first" / name).exists()
    run_in(tmp_path, [sys.executable, "-c", block("python", "multimodal-ner")])


def test_the_model_is_shared_as_the_guide_does_it():
    guide = (ROOT / "docs" / "how_to" / "hub.md").read_text(encoding="utf-8")
    commands = block("bash", "push_to_hub.py").replace("outputs/first", "outputs/mner")
    assert commands.replace("you/first-model", "org/bga-mner") in guide
