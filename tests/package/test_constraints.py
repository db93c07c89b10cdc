"""constraints.txt pins what the commands of the Makefile install, and setup.cfg allows it."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


ROOT = Path(__file__).resolve().parents[2]


def requirements(lines):
    return [Requirement(line) for line in lines.splitlines() if line.strip() and not line.startswith("#")]


def specifiers(lines):
    return [(canonicalize_name(found.name), found.specifier) for found in requirements(lines)]


SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
REQUIRED = specifiers(SETUP["options"]["install_requires"])
EXTRAS = [
    (name, allowed)
    for extra in SETUP["options.extras_require"].values()
    for name, allowed in specifiers(extra)
    if name != "bga-mner"
]
PINS = dict(specifiers((ROOT / "constraints.txt").read_text(encoding="utf-8")))


@pytest.mark.parametrize(("name", "allowed"), sorted({*REQUIRED, *EXTRAS}, key=str))
def test_each_direct_dependency_has_a_pin_that_setup_cfg_allows(name, allowed):
    (pin,) = PINS[name]
    assert pin.operator == "=="
    assert Version(pin.version) in allowed


def test_packages_beside_the_environment_are_pinned():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"--target \$@ \\\n((?:\t\t.*\n)+)", makefile).group(1)
    assert {"torchvision", "timm", "open-clip-torch"} < {canonicalize_name(name) for name in recipe.split()}
    assert {canonicalize_name(name) for name in recipe.split()} <= PINS.keys()


def test_oldest_releases_are_those_of_setup_cfg():
    oldest = specifiers((ROOT / "constraints-oldest.txt").read_text(encoding="utf-8"))
    assert {name: str(pin).replace("==", ">=") for name, pin in oldest} == {name: str(low) for name, low in REQUIRED}


def test_classifiers_name_the_pythons_that_are_tested():
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text(encoding="utf-8"))
    tested = re.search(r"^PYTHONS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert named == tested.group(1).split()
