"""Break the core on purpose, one place at a time, with cosmic-ray, and print what no test notices.

Equally many mutants are sampled of each module of tests/mutants.toml, and tried on a copy of the repository. Survivors
are to be read by a person: some compute the same as before.
"""

import argparse
import ast
import contextlib
import os
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from cosmic_ray.commands import execute, init
from cosmic_ray.config import ConfigDict
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome


ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8"))


def sample(work: WorkDB, module: str, count: int, seed: int) -> int:
    """Leave that many mutants of a module in the work, always the same ones; return how many there were."""
    quiet = set()  # lines that compute nothing: heads of functions, annotations, and errors
    for node in ast.walk(ast.parse(Path(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.Raise | ast.AnnAssign):
            end = node.body[0].lineno if isinstance(node, ast.FunctionDef) else node.end_lineno + 1
            quiet |= set(range(node.lineno, end))
    init([Path(module)], work, {})
    places = {(item.mutations[0].operator_name, item.mutations[0].occurrence): item for item in work.work_items}
    items = [item for place, item in sorted(places.items()) if re.search(CONFIG["operators"], place[0])]
    items = [item for item in items if item.mutations[0].start_pos[0] not in quiet]
    work.clear()
    work.add_work_items(random.Random(seed).sample(items, min(count, len(items))))
    return len(items)


def survivors(module: str, count: int, seed: int) -> list[str]:
    """Try mutants of a module; return the changes that its tests didn't notice."""
    tests = [f"{CONFIG['tests']}/{name}" for name in CONFIG["modules"][module]]
    command = shlex.join([sys.executable, "-m", "pytest", "-qx", "-n", "0", "-p", "no:cacheprovider", *tests])
    begin = time.monotonic()
    outcome, said = run_tests(command, None)
    if outcome != TestOutcome.SURVIVED:
        raise RuntimeError(f"Expected the tests of {module} to pass before it is changed, got: {said[-2000:]}")
    timeout = 4 * (time.monotonic() - begin) + 30  # what runs so long has been noticed
    with use_db(f"{Path(module).stem}.sqlite") as work:
        there = sample(work, module, count, seed)
        execute(work, ConfigDict({"test-command": command, "timeout": timeout, "distributor": {"name": "local"}}))
        lived = [result.diff or "" for _, result in work.results if not result.is_killed]
        print(f"{module}: {work.num_results - len(lived)} of {work.num_results} noticed, of {there}", *lived, sep="\n")
    return lived


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", nargs="+", choices=CONFIG["modules"], default=list(CONFIG["modules"]))
    parser.add_argument("--mutants", type=int, default=90, help="of all modules")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    left_out = shutil.ignore_patterns(".*", "build", "dist", "outputs", "*.egg-info", "__pycache__")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        with contextlib.chdir(shutil.copytree(ROOT, Path(folder, "bga_mner"), ignore=left_out)):
            for name in options.modules:
                survivors(name, -(-options.mutants // len(options.modules)), options.seed)
