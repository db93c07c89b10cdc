"""What docs/explanation/paper_to_code.md names exists, and it names all that the model computes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "paper_to_code.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)(?:::([\w.]+))?`", PAGE)
# Files of modeling_bga/ that compute nothing of the model: training, saving, loading, and what they are made of.
NOT_OF_THE_MODEL = {
    "crf/tensor_checks.py",
    "encoders/from_pretrained.py",
    "encoders/open_clip.py",
    "input_checks.py",
    "outputs.py",
    "pretrained_model.py",
    "saving/checkpoint_files.py",
    "saving/model_card_mixin.py",
    "saving/offloaded_weights.py",
    "saving/tokenizer_limit.py",
    "training/callbacks.py",
    "training/frozen_parts.py",
    "training/lora.py",
    "training/objective_check.py",
    "training/parameter_groups.py",
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
    # a name without a folder is of a test, as the page says
    paths = [ROOT / file] if "/" in file else list((ROOT / "tests" / "modeling_bga").rglob(file))
    assert len(paths) == 1, f"{file} names {len(paths)} files"
    (path,) = paths
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
    folder = ROOT / "modeling_bga"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if path.stem != "__init__"}
    assert files >= NOT_OF_THE_MODEL
    named = {file.removeprefix("modeling_bga/") for file, _ in NAMED if file.startswith("modeling_bga/")}
    assert named == files - NOT_OF_THE_MODEL
