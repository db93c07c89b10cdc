from __future__ import annotations

import ast
import doctest
import importlib
import re
from configparser import ConfigParser
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoProcessor

import bga_mner


ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(("bga_mner", *path.relative_to(ROOT).with_suffix("").parts))
    for folder in ("configuration", "modeling_bga", "processing")
    for path in (ROOT / folder).rglob("*.py")
    if path.stem != "__init__"
)


def test_everything_public_is_there_and_nothing_else():
    for name in bga_mner.__all__:
        assert getattr(bga_mner, name) is not None
    for name in (
        *("BgaMnerConfig", "BgaMnerModel", "BgaMnerForTokenClassification"),
        *("BgaMnerProcessor", "DataCollatorForMner"),
    ):
        assert name in bga_mner.__all__
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = bga_mner.nothing


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module):
    results = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_processor_from_a_saved_folder(make_model, tmp_path):
    from transformers import ViTImageProcessorPil

    from bga_mner.examples.synthetic.tokenizer import build_tokenizer

    model = make_model()
    tokenizer = build_tokenizer([["Kawhi", "wins"]])
    processor = bga_mner.BgaMnerProcessor(
        ViTImageProcessorPil(size={"height": 16, "width": 16}), tokenizer, label2id=model.config.label2id
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, bga_mner.BgaMnerProcessor)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), bga_mner.BgaMnerConfig)
    assert loaded.label2id == model.config.label2id
    assert loaded("Kawhi wins")["input_ids"] == processor("Kawhi wins")["input_ids"]


def test_versions_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"## (\d+\.\d+\.\d+)", changelog).group(1) == bga_mner.__version__


def test_every_public_name_has_its_place_in_the_reference():
    pages = (ROOT / "docs" / "reference").glob("*.md")
    documented = [
        name
        for page in pages
        for name in re.findall(r"^\.\. auto\w+:: (\w+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert sorted(documented) == sorted(bga_mner.__all__)


def test_the_oldest_releases_are_those_that_are_tested():
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    required = settings["options"]["install_requires"].split()
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    tested = {line for line in lines if not line.startswith("#")}
    assert {requirement.replace(">=", "==") for requirement in required} == tested


def _imported_from(path: Path, node: ast.ImportFrom) -> Path | None:
    """Return the file of the package that a statement imports from, if it does."""
    module = (node.module or "").replace(".", "/")
    if node.level:
        return path.parents[node.level - 1] / f"{module}.py"
    return ROOT / f"{module.removeprefix('bga_mner/')}.py" if module.startswith("bga_mner/") else None


def test_every_module_lists_what_others_may_take():
    taken: dict[Path, set[str]] = {}
    for folder in ("configuration", "modeling_bga", "processing", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (source := _imported_from(path, node)) is not None:
                    taken.setdefault(source, set()).update(alias.name for alias in node.names)
    for name in MODULES:
        module = importlib.import_module(name)
        listed = set(module.__all__)
        assert all(hasattr(module, each) for each in listed), name
        path = ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = {
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
        }
        assert public | taken.get(path, set()) <= listed, name
        assert not any(each.startswith("_") for each in listed), name
