from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel

from bga_mner import TEXT_ENCODERS, VISION_ENCODERS
from bga_mner.configuration.encoder_families import TEXT_FAMILIES, VISION_FAMILIES


DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.slow
def test_the_committed_page_is_what_the_script_prints():
    printed = subprocess.run([sys.executable, DOCS / "encoder_table.py"], capture_output=True, text=True, check=True)
    page = (DOCS / "reference" / "encoders.md").read_text(encoding="utf-8")
    assert printed.stdout == page, "run: python docs/encoder_table.py > docs/reference/encoders.md"
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `") and "model_type" not in line}
    assert rows == {*TEXT_ENCODERS, *VISION_ENCODERS}


def test_the_tests_it_names_exist():
    page = (DOCS / "reference" / "encoders.md").read_text(encoding="utf-8")
    for name in ("test_timm.py", "test_encoder_families.py"):
        assert f"`{name}`" in page
        assert (DOCS.parent / "tests" / "modeling_bga" / "encoders" / name).is_file()


def test_what_it_says_of_flash_attention_is_so():
    page = (DOCS / "reference" / "encoders.md").read_text(encoding="utf-8")
    assert "all but MPNet, DeBERTa and SigLIP2 NaFlex run on the `flash_attn` package" in " ".join(page.split())
    classes = {
        name: AutoModel._model_mapping[type(AutoConfig.for_model(name))] for name in (*TEXT_FAMILIES, *VISION_FAMILIES)
    }
    without = {name for name, model in classes.items() if not model._supports_flash_attn}
    assert without == {"mpnet", "deberta-v2", "siglip2_vision_model"}
