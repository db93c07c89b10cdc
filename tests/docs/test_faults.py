"""What docs/reference/faults.md says is shown by tests that exist."""

import re
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]


def test_every_fault_names_a_test_that_is_there():
    text = (ROOT / "docs" / "reference" / "faults.md").read_text(encoding="utf-8")
    # the folder is left out where it was named before; `test_name` alone is in the file named before
    named = re.findall(r"`(?:tests/[\w/]+/)?(?:(test_\w+\.py)::)?(test_\w+)`", text)
    assert len(named) >= 36
    file = ""
    for named_file, name in named:
        file = named_file or file
        contents = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)]
        assert any(re.search(rf"^def {name}\(", content, flags=re.MULTILINE) for content in contents), (file, name)
    for line in re.findall(r"^\|(.*)\|$", text, flags=re.MULTILINE):
        cells = [cell.strip() for cell in line.split("|")]
        assert len(cells) == 3, line
        assert all(cells), line
