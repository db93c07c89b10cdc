"""What docs/explanation/paper_to_code.md names exists, and it names all that the model computes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "paper_to_code.md").read_text(encoding="utf-8")
# Files without a folder are in tests/modeling_bga, as the page says.
NAMED = re.findall(r"`([\w/]+\.py)(?:::([\w.]+))?`", PAGE)
# Files of modeling_bga/ that compute nothing of the model: training, saving, loading, and what they are made of.
NOT_OF_THE_MODEL = {
    "__init__.py",
    "checkpoint_files.py",
    "encoder_loading.py",
    "input_checks.py",
    "lora.py",
    "model_card_mixin.py",
    "objective_check.py",
    "offloaded_weights.py",
    "open_clip_encoders.py",
    "outputs.py",
    "parameter_groups.py",
    "pretrained_encoders.py",
    "pretrained_model.py",
    "tokenizer_limit.py",
    "training_callbacks.py",
}


def names_in(path: Path) -> set[str]:
    """Return what a file defines: functions, classes, and methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("file", "symbol"), sorted(set(NAMED)))
def test_what_it_names_is_there(file, symbol):
    path = ROOT / ("" if "/" in file else "tests/modeling_bga") / file
    assert path.is_file(), f"{file} is not there"
    assert not symbol or symbol in names_in(path), f"{file} has no {symbol}"


def test_each_line_has_all_its_cells():
    headers = 0
    for line in re.findall(r"^\|(.*)\|$", PAGE, flags=re.MULTILINE):
        cells = [cell.strip() for cell in line.split("|")]
        if cells[0] == "concept":
            width, headers = len(cells), headers + 1
            continue
        assert len(cells) == width, line
        assert all(cells), line
        if not set(line) <= set("|-"):
            assert "/" in cells[2], f"no code: {line}"
            assert "::" in cells[2], f"no symbol: {line}"
            assert "`test_" in cells[3], f"no test: {line}"
    assert headers == 2


def test_every_file_that_computes_something_of_the_model_is_named():
    files = {path.name for path in (ROOT / "modeling_bga").glob("*.py")}
    assert files >= NOT_OF_THE_MODEL
    named = {Path(file).name for file, _ in NAMED if file.startswith("modeling_bga/")}
    assert named == files - NOT_OF_THE_MODEL
