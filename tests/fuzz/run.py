"""Fuzz one target, or all: ``python tests/fuzz/run.py conll_reader --seconds 600``; without a target, all of them.

A crash's input is written to ``build/fuzz/<target>/``; run it again with ``--input FILE``. An input that takes longer
than 5 seconds is a crash, too. What was found interesting is kept in ``build/fuzz/<target>/corpus``, and the next run
goes on from there. Needs the extra `fuzz` (atheris), but not for ``--input``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path


TARGETS = (
    *("processor_text", "picture_bytes", "conll_reader", "annotation_reader"),
    *("collator_rows", "pipeline_inputs", "crf_scores", "saved_files"),
)
HANG_SECONDS = 5
MOST_CRASHES = 20  # of one target; then it is mended first
FOLDER = Path(__file__).resolve().parents[2] / "build" / "fuzz"


def fuzz(name: str, seconds: int, seed: int) -> None:
    """Run atheris on a target in this process; it never returns."""
    import atheris

    with atheris.instrument_imports(include=["bga_mner"]):
        target = import_module(name)
    corpus = FOLDER / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number:03}").write_bytes(data)
    target.one_input(b"")  # makes what is made once, which would count as the slowest input
    options = {
        "max_total_time": seconds,
        "timeout": HANG_SECONDS,
        "max_len": getattr(target, "MAX_LENGTH", 400),
        "artifact_prefix": f"{FOLDER / name}/",
        "print_final_stats": 1,
        "rss_limit_mb": 6000,
        "seed": seed,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], str(corpus), *arguments], target.one_input)
    atheris.Fuzz()


def fuzz_apart(name: str, seconds: int) -> tuple[str, int]:
    """Fuzz a target in another process, again after each crash, until the time is over.

    Returns
    -------
    tuple of (str, int)
        A line that tells what was done, and how many crashes there were.
    """
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    before, end = _crashes(folder), time.monotonic() + seconds
    executions = coverage = slowest = failures = 0
    with (folder / "log.txt").open("w", encoding="utf-8", errors="replace") as log:
        for attempt in range(1, MOST_CRASHES + 1):
            left = int(end - time.monotonic())
            if left < 1:
                break
            command = [sys.executable, __file__, name, "--seconds", str(left), "--seed", str(attempt)]
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
            log.write(done.stdout)
            log.flush()
            executions += _last(r"stat::number_of_executed_units:\s+(\d+)", done.stdout)
            slowest = max(slowest, _last(r"stat::slowest_unit_time_sec:\s+(\d+)", done.stdout))
            coverage = max(coverage, _last(r"\bcov: (\d+)", done.stdout))
            failures += done.returncode != 0
            if done.returncode == 0 or not _crashes(folder) - before:
                break  # the time is over, or it can't even start
    found = sorted(_crashes(folder) - before)
    line = f"{name:18} {executions:9,} executions  {coverage:6,} covered  {max(failures, len(found))} crashes"
    line += f"  slowest input {slowest} s"
    line += f"  see {folder.relative_to(FOLDER.parents[1])}" if failures else ""
    return "\n  ".join([line, *(str(path.relative_to(FOLDER.parents[1])) for path in found)]), failures


def main() -> int:
    """Run the command line; 1 if anything crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", choices=TARGETS, help="all of them, each for so long, if left out")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time, if all are run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="run a target over this file alone, and show what it does")
    options = parser.parse_args()
    if options.input is not None:
        if options.target is None:
            parser.error("expected a target beside --input")
        import_module(options.target).one_input(options.input.read_bytes())
        return 0
    if options.target is not None:
        fuzz(options.target, options.seconds, options.seed)
    crashes = 0
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for line, found in pool.map(lambda name: fuzz_apart(name, options.seconds), TARGETS):
            print(line, flush=True)
            crashes += found
    return min(crashes, 1)


def _crashes(folder: Path) -> set[Path]:
    return {path for path in folder.iterdir() if path.is_file() and re.match("crash|timeout|oom|leak", path.name)}


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
