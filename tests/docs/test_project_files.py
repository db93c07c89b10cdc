"""The files around the package: workflow, hooks, issue forms and citation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import bga_mner


ROOT = Path(__file__).resolve().parents[2]
YAML_FILES = [
    ROOT / "CITATION.cff",
    ROOT / ".pre-commit-config.yaml",
    *sorted((ROOT / ".github").rglob("*.yml")),
]


def read(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_files_can_be_read(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_workflow_calls_targets_and_files_that_are_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflow = read(".github/workflows/ci.yml")
    targets, named = set(), []
    for job in workflow["jobs"].values():
        commands = " ".join(step.get("run", "") for step in job["steps"])
        targets |= set(re.findall(r"\bmake ([\w.-]+)", commands))
        named += re.findall(r"\btests/[\w/]+\.py", commands)
        matrix = job.get("strategy", {}).get("matrix", {})
        targets |= {*matrix.get("target", []), *(row["target"] for row in matrix.get("include", []))}
    assert targets >= {"lint", "docs", "test"}
    for target in targets:
        rule = re.sub(r"^python3\.\d+-test$", "python%-test", target)
        assert re.search(rf"^{re.escape(rule)}:", makefile, flags=re.MULTILINE), target
    assert named
    for path in named:
        assert (ROOT / path).is_file(), path


def test_the_workflow_tests_each_python():
    rows = read(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [row["python"] for row in rows] == re.search(r"^PYTHONS := (.*)$", makefile, re.MULTILINE)[1].split()


def test_hooks_are_pinned_and_ruff_is_that_of_the_makefile():
    repositories = read(".pre-commit-config.yaml")["repos"]
    revisions = {found["repo"].rpartition("/")[2]: found.get("rev") for found in repositories}
    assert revisions.pop("local") is None
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", revision) for revision in revisions.values()), revisions
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"ruff=={revisions['ruff-pre-commit'].removeprefix('v')}\n" in constraints


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = read("CITATION.cff")
    assert citation["version"] == bga_mner.__version__
    assert citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2308.02570"
    assert len(paper["authors"]) == 6


def test_issue_forms_have_fields_with_ids_of_their_own():
    for name in ("bug", "feature"):
        form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
        assert form["name"]
        assert form["description"]
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
        assert all(field["attributes"]["label"] for field in form["body"])


def test_modules_in_the_figure_are_there():
    figure = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    modules = set(re.findall(r"[\w/]+\.py\b", figure))
    assert len(modules) >= 18
    package = ("configuration", "modeling_bga", "processing")
    there = {path.relative_to(ROOT / folder).as_posix() for folder in package for path in (ROOT / folder).rglob("*.py")}
    assert modules <= there


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_folders_and_files_that_a_page_names_are_there(page):
    named = re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", (ROOT / page).read_text(encoding="utf-8"))
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_table_of_folders_names_every_folder_of_the_package():
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([\w/]+)/` \|", page, flags=re.MULTILINE))
    package = ("configuration", "modeling_bga", "processing")
    modules = [path for folder in package for path in (ROOT / folder).rglob("*.py")]
    assert {path.parent.relative_to(ROOT).as_posix() for path in modules} <= rows
