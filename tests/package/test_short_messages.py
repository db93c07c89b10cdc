"""Error messages and warnings stay short, whatever comes in: what they show of values is cut."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("configuration", "modeling_bga", "processing", "examples")
WARNS = {"warnings.warn", "warn", "logger.warning", "logger.warning_once"}
# They cut what they are given; a shape has few numbers.
CUT = {"shown", "listed", "brief", "len", "_cut", "_one_line"}
GATHER = {"list", "sorted", "tuple", "dict", "set", "str", "repr", "map"}
# Values that were checked to be one of a few before, and names of our own.
BOUNDED = re.compile(
    r"_?[A-Z][A-Z_]*(\[verb\])?|__name__|known|missing|supported|frozen|delimiter|(self\.)?(config\.)?(hybrid_attention|visual_source|visual_target)"
)
# It runs on its own, without the package's helpers.
LEFT = {"examples/space/app.py"}


def messages(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield node.exc
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in WARNS:
            yield node


def unbounded(tree: ast.AST) -> list[tuple[int, str]]:
    """Return lines and expressions that put a value into a message whole."""
    errors = {node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name}
    found = []
    for message in messages(tree):
        for node in ast.walk(message):
            if not isinstance(node, ast.FormattedValue):
                continue
            value, source = node.value, ast.unparse(node.value)
            called = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
            if called in CUT or BOUNDED.fullmatch(source) or source.endswith(".shape)"):
                continue
            if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice):
                continue
            joined = called.endswith(".join") and not BOUNDED.fullmatch(ast.unparse(value.args[0]))
            if node.conversion == ord("r") or source in errors or called in GATHER or joined:
                found.append((node.lineno, source))
    return found


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ('raise ValueError(f"got {value!r}")', 1),
        ('raise ValueError(f"got {shown(value)}")', 0),
        ('raise ValueError(f"got {value[:40]!r} of {len(value)}")', 0),
        ("raise ValueError(f\"got {list(columns)}, {sorted(ids)} and {', '.join(names)}\")", 3),
        ('warnings.warn(f"got {str(path)!r}")', 1),
        ("try:\n    f()\nexcept OSError as error:\n    raise ValueError(f'it says {error}') from error", 1),
        ('print(f"{value!r}")', 0),
    ],
)
def test_the_check_finds_what_it_is_for(code, count):
    assert len(unbounded(ast.parse(code))) == count


def test_no_message_shows_a_value_whole():
    found = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if name not in LEFT and (places := unbounded(ast.parse(path.read_text(encoding="utf-8")))):
                found[name] = places
    assert not found, found
