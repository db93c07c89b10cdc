"""What the page on formats tells to type is typed, and its table names every format."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from bga_mner.processing.data.formats.reading import FORMATS


ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how_to" / "data_formats.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def printed(run_in, workplace) -> list[str]:
    """Run the Python examples, which go on from each other; return what they print."""
    return run_in(workplace, [sys.executable, "-c", "\n".join(blocks("python"))]).splitlines()


def test_the_python_examples_print_what_the_page_says(printed):
    text = "\n".join(printed)
    for line in (
        "['Kawhi', 'Leonard', 'wins', 'in', 'Seattle', '!'] ['B-PER', 'I-PER', 'O', 'O', 'B-LOC', 'O']",
        "1 spans ended inside a word and were widened to whole words, for example: 2: ORG 1-3 'NB'",
        "['B-ORG', 'O'] IOB1",
        "[['B-PER', 'I-PER', 'O', 'B-LOC']]",
        "[['B-PER', 'I-PER', 'O']]",
        "['B-PER', 'O']",
        "['O', 'O', 'O', 'O', 'O', 'B-LOC', 'O']",
    ):
        assert line in text, text


@pytest.mark.slow
def test_the_command_runs(run_in, workplace, printed):
    (command,) = blocks("bash")
    words = shlex.split(command.replace("\\\n", ""))
    words[:2] = [sys.executable, str(ROOT / words[1])]
    run_in(workplace, [*words, "--max_steps", "1", "--use_cpu", "true"])
    assert (workplace / "outputs" / "from_doccano" / "model.safetensors").exists()


def test_every_format_and_flag_is_named():
    table = re.findall(r"^\| `([\w-]+)` \|", PAGE, flags=re.MULTILINE)
    assert tuple(table[1:]) == FORMATS  # below the head of the table
    flags = (ROOT / "examples" / "fine_tuning" / "arguments.py").read_text(encoding="utf-8")
    for flag in re.findall(r"`--(\w+)", PAGE):
        assert f"    {flag}: " in flags
