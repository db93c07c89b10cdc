"""Break the core on purpose, one place at a time, and see whether a test notices.

Each mutant is one small change to one file: another operator, a constant off by one, a branch turned round, one method
in place of another, a `detach` or `~` left out. Places are drawn with a seed. A mutant is caught when its file's tests
fail or don't end; survivors are listed with what was changed, to be read by a person: some compute the same as before.
Tests run on a copy of the repository, so nothing here is touched::

    python tests/mutation.py --mutants 10 --seed 0
    python tests/mutation.py --files modeling_bga/crf.py --mutants 40 --json
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


ROOT = Path(__file__).resolve().parents[1]
# What is broken, and the tests that are to notice; the quickest first, since the first failure ends a run.
CORE = {
    "modeling_bga/crf.py": (
        "test_crf.py",
        "test_crf_masks.py",
        "test_crf_building.py",
        "test_span_probabilities.py",
        "test_reference.py",
    ),
    "modeling_bga/crf_recursions.py": ("test_crf.py", "test_crf_masks.py", "test_reference.py"),
    "modeling_bga/context_sampler.py": ("test_context_sampler.py", "test_modeling_bga_mner.py", "test_reference.py"),
    "modeling_bga/cross_modal_generator.py": (
        "test_cross_modal_generator.py",
        "test_modeling_bga_mner.py",
        "test_training_losses.py",
        "test_reference.py",
    ),
    "modeling_bga/hybrid_attention.py": ("test_hybrid_attention.py", "test_encoder_families.py", "test_reference.py"),
    "modeling_bga/branch.py": (
        "test_modeling_bga_mner.py",
        "test_training_losses.py",
        "test_text_only.py",
        "test_reference.py",
    ),
    "modeling_bga/alignment_losses.py": (
        "test_alignment_losses.py",
        "test_pair_match.py",
        "test_training_losses.py",
        "test_reference.py",
    ),
    "modeling_bga/span_probabilities.py": ("test_span_probabilities.py",),
}
# A mutant that runs for so many times the untouched code's time has been noticed.
SLOWEST = 4

OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
COMPARISONS = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}
METHODS = {
    **{"sum": "mean", "mean": "sum", "amax": "amin", "max": "min", "min": "max", "any": "all", "all": "any"},
    **{"logsumexp": "amax", "softmax": "log_softmax", "log": "exp", "exp": "log", "gelu": "relu", "cumsum": "cumprod"},
    **{"zeros": "ones", "new_zeros": "new_ones", "ones": "zeros", "clamp_min": "clamp_max", "argmax": "argmin"},
}
DROPPED_CALLS = {"detach", "flip", "contiguous", "clone", "masked_fill", "clamp_min", "float"}


class Mutant(NamedTuple):
    """One change: where, from what to what."""

    line: int
    before: str
    after: str
    source: str


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in place of a node."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in METHODS:
            yield ast.Call(ast.Attribute(node.func.value, METHODS[node.func.attr]), node.args, node.keywords)
        if node.func.attr in DROPPED_CALLS and not isinstance(node.func.value, ast.Name):
            yield node.func.value


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk over what computes: not over annotations, defaults, messages of errors, names and exports."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "defaults", "kw_defaults", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            message = isinstance(child, (ast.Raise, ast.JoinedStr, ast.AnnAssign))
            exports = isinstance(child, ast.Assign) and getattr(child.targets[0], "id", "").isupper()
            if isinstance(child, ast.AST) and not message and not exports:
                yield child
                yield from _code(child)


def mutants(source: str) -> list[Mutant]:
    """List all single changes to a file's code.

    Parameters
    ----------
    source : str
        Python.

    Returns
    -------
    list of Mutant
        In the order of the places; each one parses.
    """
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw, found = source.encode(), []
    for node in _code(ast.parse(source)):
        for change in _changes(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            after = f"({ast.unparse(change)})"
            mutated = (raw[:start] + after.encode() + raw[end:]).decode()
            try:
                ast.parse(mutated)
            except SyntaxError:  # where no parentheses may stand
                continue
            found.append(Mutant(node.lineno, raw[start:end].decode(), after, mutated))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.before, mutant.after))


def _tests_pass(copy: Path, tests: Sequence[str], limit: float | None) -> bool:
    """Run tests on the copy until the first fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    command += [f"tests/modeling_bga/{name}" for name in tests]
    environment = os.environ | {"PYTHONPATH": str(copy.parent), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):  # passed, failed, or the file can't be imported any more
        raise RuntimeError(f"Expected pytest to run, but it said: {(done.stdout + done.stderr).decode()[-2000:]}")
    return done.returncode == 0


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, object]]:
    """Draw mutants, run the tests on each, print survivors.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the command line by default.

    Returns
    -------
    dict
        For each file ``drawn``, ``of``, ``caught`` and ``survivors``.

    Raises
    ------
    RuntimeError
        If the tests of a file don't pass before it is touched.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", choices=CORE, default=list(CORE), metavar="FILE")
    parser.add_argument("--mutants", type=int, default=10, help="of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    options = parser.parse_args(argv)
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bga_mner"
        left_out = shutil.ignore_patterns(".*", "build", "dist", "outputs", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=left_out)
        for name in options.files:
            source = (ROOT / name).read_text(encoding="utf-8")
            start = time.monotonic()
            if not _tests_pass(copy, CORE[name], None):
                raise RuntimeError(f"Expected the tests of {name} to pass before it is changed, but they fail.")
            limit = SLOWEST * (time.monotonic() - start) + 30
            possible = mutants(source)
            drawn = random.Random(options.seed).sample(possible, min(options.mutants, len(possible)))
            survivors = []
            for mutant in sorted(drawn):
                (copy / name).write_text(mutant.source, encoding="utf-8")
                if _tests_pass(copy, CORE[name], limit):
                    survivors.append(f"{name}:{mutant.line}: {mutant.before} -> {mutant.after}")
                    print("survived:", survivors[-1], flush=True)
            (copy / name).write_text(source, encoding="utf-8")
            caught = len(drawn) - len(survivors)
            results[name] = {"drawn": len(drawn), "of": len(possible), "caught": caught, "survivors": survivors}
            print(f"{name}: {caught} of {len(drawn)} caught (of {len(possible)} possible)", flush=True)
    if options.json:
        print(json.dumps({"mutation": results}))
    return results


if __name__ == "__main__":
    main()
