"""What tests/mutants.py changes, and that a change is noticed or survives."""

from __future__ import annotations

import mutants
import pytest
from cosmic_ray.work_db import use_db


SOURCE = '''
LIMIT: int = 3


def double(x: "int | None" = 1) -> float:
    """Docstring: 2 * 2."""
    if not x < 2:
        raise ValueError(f"Expected less than {2 + 0}.")
    return x + 1
'''


def test_what_computes_is_changed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module.py").write_text(SOURCE)
    sampled = []
    for seed in (0, 0, 1):
        with use_db(f"{len(sampled)}.sqlite") as work:
            there = mutants.sample(work, "module.py", 4, seed)
            sampled.append({(str(m.operator_name), m.occurrence) for item in work.work_items for m in item.mutations})
            assert {item.mutations[0].start_pos[0] for item in work.work_items} <= {7, 9}
    assert there > 10
    assert [len(names) for names in sampled] == [4, 4, 4]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.parametrize("module", mutants.CONFIG["modules"])
def test_the_core_has_code_and_tests(module):
    assert (mutants.ROOT / module).is_file()
    for name in mutants.CONFIG["modules"][module]:
        assert (mutants.ROOT / mutants.CONFIG["tests"] / name).is_file()


@pytest.mark.slow
def test_a_mutant_is_noticed_and_an_equal_one_survives(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module.py").write_text("def same(x):\n    return -x if x == 1 else x\n")
    test = "from module import same\n\ndef test_same():\n    assert same(2) == 2\n"
    (tmp_path / "test_module.py").write_text(test)
    monkeypatch.setitem(mutants.CONFIG, "tests", ".")
    monkeypatch.setitem(mutants.CONFIG["modules"], "module.py", ["test_module.py"])
    lived = mutants.survivors("module.py", 100, 0)
    # what is computed of 1 is never asked for
    assert any("+    return +x if x == 1" in change for change in lived)
    assert not any("x != 1" in change for change in lived)
    assert "noticed, of" in capsys.readouterr().out
    (tmp_path / "test_module.py").write_text("def test_same():\n    assert False\n")
    with pytest.raises(RuntimeError, match=r"Expected the tests of module\.py to pass before"):
        mutants.survivors("module.py", 1, 0)
