"""Tests of encoders whose libraries need torchvision, in a process that finds it.

They can't be in the environment of the other tests: where transformers finds torchvision, it uses other image
processors. `make test` installs them into build/torchvision.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


pytestmark = pytest.mark.slow


ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ROOT / "build" / "torchvision"


@pytest.mark.skipif(not LIBRARIES.is_dir(), reason="make build/torchvision installs what these tests need")
@pytest.mark.parametrize("name", ["test_timm.py", "test_open_clip.py"])
def test_with_torchvision(name):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    paths = [str(LIBRARIES), str(ROOT / "tests"), *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "torchvision_operators",
        f"tests/modeling_bga/encoders/{name}",
        "-q",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
