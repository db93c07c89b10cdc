"""docs/reference/training_arguments.md speaks of every option there is, and of tests that exist."""

import re
from dataclasses import fields
from pathlib import Path

from transformers import TrainingArguments


ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "reference" / "training_arguments.md").read_text(encoding="utf-8")


def test_every_option_of_the_installed_version_is_spoken_of():
    named = set(re.findall(r"`(\w+)(?:=[^`]*)?`", TEXT))
    missing = {field.name for field in fields(TrainingArguments)} - named
    assert not missing, f"say in docs/reference/training_arguments.md what these do: {sorted(missing)}"


def test_every_line_names_a_test_that_is_there():
    rows = re.findall(r"^\|(?!---| option)(.*)\|$", TEXT, flags=re.MULTILINE)
    assert len(rows) >= 35
    for row in rows:
        cells = [cell.strip() for cell in row.split("|")]
        assert len(cells) == 3, row
        assert all(cells), row
        named = re.findall(r"`(?:(tests/[\w/]+\.py|test_\w+\.py)::)?(test_\w+)`", cells[2])
        assert named, row
        for file, name in named:
            # without a folder: in tests/training
            files = [ROOT / file] if "/" in file else (ROOT / "tests" / "training").glob(file or "test_*.py")
            contents = [path.read_text(encoding="utf-8") for path in files]
            assert any(re.search(rf"^def {name}\(", content, flags=re.MULTILINE) for content in contents), (file, name)
