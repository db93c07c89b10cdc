"""What docs/faults.md says is shown by tests that exist."""

import re
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]


def test_every_fault_names_a_test_that_is_there():
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) >= 18
    for file, name in named:
        (path,) = (ROOT / "tests").rglob(file)
        assert re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), flags=re.MULTILINE), (file, name)
    for line in re.findall(r"^\|(.*)\|$", text, flags=re.MULTILINE):
        cells = [cell.strip() for cell in line.split("|")]
        assert len(cells) == 3, line
        assert all(cells), line
