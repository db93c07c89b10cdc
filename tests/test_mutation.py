"""What tests/mutation.py changes, and that a change is noticed or survives."""

from __future__ import annotations

import ast

import mutation
import pytest


SOURCE = '''
"""Module, 1 + 1."""

LIMIT = 3


def f(x: "int | None" = 1) -> float:
    """Docstring: 2 * 2."""
    if not x < 2:
        raise ValueError(f"Expected less than {2 + 0}.")
    return (x.sum(-1) + 1).detach() if x.any() and x is not None else ~x
'''


def test_what_computes_is_changed_and_nothing_else():
    changed = {(mutant.line, mutant.before, mutant.after) for mutant in mutation.mutants(SOURCE)}
    assert {line for line, _, _ in changed} == {9, 11}
    for before, after in [
        ("not x < 2", "(x < 2)"),
        ("x < 2", "(x <= 2)"),
        ("2", "(3)"),
        ("x.sum(-1)", "(x.mean(-1))"),
        ("-1", "(1)"),
        ("x.sum(-1) + 1", "(x.sum(-1) - 1)"),
        ("(x.sum(-1) + 1).detach()", "(x.sum(-1) + 1)"),
        ("x is not None", "(x is None)"),
        ("x.any()", "(x.all())"),
        ("~x", "(x)"),
    ]:
        assert any(found[1:] == (before, after) for found in changed), (before, changed)
    for mutant in mutation.mutants(SOURCE):
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(SOURCE))


@pytest.mark.slow
@pytest.mark.parametrize("name", mutation.CORE)
def test_the_core_has_places_and_tests(name):
    assert len(mutation.mutants((mutation.ROOT / name).read_text(encoding="utf-8"))) >= 8
    for file in mutation.CORE[name]:
        assert (mutation.ROOT / "tests" / "modeling_bga" / file).is_file()


@pytest.mark.slow
def test_a_mutant_is_caught_and_an_equal_one_survives(monkeypatch, capsys):
    name = "modeling_bga/pair_match.py"
    source = (mutation.ROOT / name).read_text(encoding="utf-8")
    found = {mutant.after: mutant for mutant in mutation.mutants(source)}
    # a cosine doesn't know a sum from a mean, but there is no third dimension
    summed, third = found["(generated.sum(dim=1))"], found["(2)"]
    monkeypatch.setattr(mutation, "mutants", lambda source: [summed, third])
    monkeypatch.setitem(mutation.CORE, name, ("test_pair_match.py",))
    (result,) = mutation.main(["--files", name, "--mutants", "2", "--json"]).values()
    assert result["survivors"] == [f"{name}:{summed.line}: {summed.before} -> {summed.after}"]
    assert result["caught"] == 1
    assert "1 of 2 caught" in capsys.readouterr().out
