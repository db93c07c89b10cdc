"""The shape of the house: imports go one way, without circles; folders, modules and functions stay small."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from tokenize import generate_tokens

import pytest


ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ("configuration", "modeling_bga", "processing")
LAYERS = (*PACKAGE, "examples", "benchmarks", "tests")
MOST_MODULES, MOST_LINES, LONGEST_FUNCTION = 12, 600, 80


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[Path]:
    """Yield the package's files that a file imports, wherever the import stands: in a function, for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = path.parents[node.level - 1]
            elif (node.module or "").split(".")[0] == "bga_mner":
                base = ROOT
            else:
                continue
            parts = [part for part in (node.module or "").split(".") if part not in ("", "bga_mner")]
            for name in node.names:
                for target in (base.joinpath(*parts, name.name), base.joinpath(*parts)):
                    if (file := target.with_suffix(".py")).is_file():
                        yield file
                        break


def import_graph(*folders: str) -> dict[Path, set[Path]]:
    return {path: set(imported(path)) for path in python_files(*folders)}


def test_no_file_imports_itself_by_way_of_others():
    try:
        TopologicalSorter(import_graph(*PACKAGE)).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(str(path.relative_to(ROOT)) for path in reversed(error.args[1])))


def test_the_graph_sees_imports_in_functions_and_for_types(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "configuration").mkdir()
    (tmp_path / "configuration" / "a.py").write_text("def late():\n    from .b import name\n")
    (tmp_path / "configuration" / "b.py").write_text(
        "if TYPE_CHECKING:\n    from bga_mner.configuration.a import late\n"
    )
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph("configuration")).prepare()


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_one_way(layer):
    above = LAYERS[LAYERS.index(layer) + 1 :]
    upward = [
        f"{path.relative_to(ROOT)} -> {target.relative_to(ROOT)}"
        for path, targets in import_graph(layer).items()
        for target in targets
        if target.relative_to(ROOT).parts[0] in above
    ]
    assert not upward


def test_folders_hold_few_modules():
    folders = {path.parent for path in python_files(*PACKAGE)}
    many = {
        str(folder.relative_to(ROOT)): len(modules)
        for folder in folders
        if len(modules := [path for path in folder.glob("*.py") if path.stem != "__init__"]) > MOST_MODULES
    }
    assert not many


def test_modules_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(*LAYERS)}
    assert not {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > MOST_LINES}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield functions with their lines, docstrings left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = ast.get_docstring(node) is not None
            first = node.body[0]
            docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if said else 0
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def test_functions_are_short():
    long = {
        f"{path.relative_to(ROOT)}:{name}": lines
        for path in python_files(*LAYERS)
        for name, lines in functions(path)
        if lines > LONGEST_FUNCTION
    }
    assert not long


# The field's word in place of each: image, end or after, sampled, ablation.
OTHER_WORDS = {"picture", "pictures", "behind", "drawn", "removal"}


def test_names_use_the_words_of_the_field():
    named = {
        f"{path.relative_to(ROOT)}: {token.string}"
        for path in python_files(*LAYERS[:-1])
        for token in generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        if token.type == tokenize.NAME and OTHER_WORDS & set(token.string.lower().split("_"))
    }
    assert not named
