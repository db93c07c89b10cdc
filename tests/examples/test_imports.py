"""Scripts find each other by name, from any folder and in any process; imports go one way; a wheel has no scripts."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from conftest import clean_environment


ROOT = Path(__file__).resolve().parents[2]
# What each folder may not import.
ABOVE = {
    "configuration": ("examples", "benchmarks"),
    "modeling_bga": ("examples", "benchmarks"),
    "processing": ("examples", "benchmarks"),
    "examples": ("benchmarks",),
    "benchmarks": (),
}


@pytest.mark.parametrize("folder", ABOVE)
def test_imports_go_one_way_and_by_name(folder):
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for other in ABOVE[folder]:
            assert not re.search(rf"^\s*(from|import) (bga_mner\.|\.\.+){other}\b", text, flags=re.MULTILINE), path
        assert not re.search(r"\bsys\.path\b|spec_from_file_location", text), path


@pytest.mark.parametrize("script", ["examples/evaluate_robustness.py", "benchmarks/inference.py"])
def test_a_script_runs_from_any_folder(tmp_path, script):
    words = [sys.executable, str(ROOT / script), "--help"]
    done = subprocess.run(words, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {Path(script).name}")


def test_a_spawned_process_runs_what_a_script_defines(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(
        "import multiprocessing\n"
        "from bga_mner.examples.synthetic.texts import invent_names\n"
        "def names(seed):\n"
        "    return invent_names(seed, 2)\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(names, [0]) == [names(0)])\n"
    )
    done = subprocess.run([sys.executable, script], env=clean_environment(), capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_a_wheel_has_no_scripts():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = setup["options"]["packages"].split()
    assert "bga_mner.processing" in packages
    assert not [name for name in packages if name.startswith(("bga_mner.examples", "bga_mner.benchmarks"))]
