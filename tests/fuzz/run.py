"""Fuzz one target, or all: `python tests/fuzz/run.py conll_reader --seconds 600`; without a target, all of them.

A crash's input is written to `build/fuzz/<target>/` beside what was raised, once for each place in the code, and the
fuzzing goes on; run it again with `--input FILE`. An input that takes longer than 5 seconds is a crash, too. What was
found interesting is kept in `build/fuzz/<target>/corpus`, and the next run goes on from there; the slowest input is
in `slowest`. Needs the extra `fuzz` (atheris), but not for `--input`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any


TARGETS = (
    *("processor_text", "image_bytes", "conll_reader", "annotation_reader", "annotation_formats"),
    *("collator_rows", "pipeline_inputs", "crf_scores", "saved_files"),
)
HANG_SECONDS = 5
MOST_STARTS = 20  # of one target, if its process dies again and again
FOLDER = Path(__file__).resolve().parents[2] / "build" / "fuzz"


class Watched:
    """A target that keeps the inputs at which it fails, counts, and knows its slowest input.

    libFuzzer would stop at the first failure, and tells times in whole seconds only.

    Parameters
    ----------
    one_input : callable
        The target.
    folder : path
        Where inputs are written, and `counts.json` about once a second.
    """

    def __init__(self, one_input: Callable[[bytes], None], folder: Path) -> None:
        self.one_input, self.folder = one_input, folder
        self.executions, self.slowest, self.seen, self.written = 0, 0.0, set[Any](), 0.0

    def __call__(self, data: bytes) -> None:
        """Run the target over an input."""
        start = time.perf_counter()
        try:
            self.one_input(data)
        except Exception as error:
            self._keep(data, error)
        end = time.perf_counter()
        self.executions += 1
        if end - start > self.slowest:
            self.slowest = end - start
            (self.folder / "slowest").write_bytes(data)
        if end - self.written > 1:
            self.written = end
            counts = {"executions": self.executions, "slowest": self.slowest}
            (self.folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")

    def _keep(self, data: bytes, error: Exception) -> None:
        places = tuple((frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)[-3:])
        if (type(error), places) in self.seen:
            return
        self.seen.add((type(error), places))
        text = "".join(traceback.format_exception(error))
        name = f"crash-{hashlib.sha1(data).hexdigest()}"
        (self.folder / name).write_bytes(data)
        (self.folder / f"{name}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
        print(text.encode("utf-8", "backslashreplace").decode(), flush=True)


def fuzz(name: str, seconds: int, seed: int) -> None:
    """Run atheris on a target in this process; it never returns."""
    import atheris

    with atheris.instrument_imports(include=["bga_mner"]):
        target = import_module(name)
    folder = FOLDER / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number:03}").write_bytes(data)
    target.one_input(b"")  # makes what is made once, which would count as the slowest input
    options = {
        "max_total_time": seconds,
        "timeout": HANG_SECONDS,
        "max_len": getattr(target, "MAX_LENGTH", 400),
        "artifact_prefix": f"{folder}/",
        "rss_limit_mb": 6000,
        "seed": seed,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], str(corpus), *arguments], Watched(target.one_input, folder))
    atheris.Fuzz()


def fuzz_apart(name: str, seconds: int) -> tuple[str, int]:
    """Fuzz a target in another process, and again if that dies (of a hang, or for memory), until the time is over.

    Returns
    -------
    tuple of (str, int)
        A line that tells what was done, and how many crashes there were.
    """
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    before, end = _crashes(folder), time.monotonic() + seconds
    executions = coverage = deaths = 0
    slowest = 0.0
    with (folder / "log.txt").open("w", encoding="utf-8", errors="replace") as log:
        for start in range(1, MOST_STARTS + 1):
            left = round(end - time.monotonic())
            if left < 1:
                break
            (folder / "counts.json").unlink(missing_ok=True)
            done = subprocess.run(
                [sys.executable, __file__, name, "--seconds", str(left), "--seed", str(start)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
            log.write(done.stdout)
            log.flush()
            coverage = max([coverage, *map(int, re.findall(r"\bcov: (\d+)", done.stdout))])
            has_run = (folder / "counts.json").exists()
            if has_run:
                counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
                executions, slowest = executions + counts["executions"], max(slowest, counts["slowest"])
            if done.returncode == 0:
                break
            deaths += 1
            if not has_run:
                break  # it can't even start
    found = sorted(_crashes(folder) - before)
    crashes = max(len(found), deaths)
    line = (
        f"{name:17} {executions:9,} executions  {coverage:5,} covered  {crashes} crashes  slowest input {slowest:.2f} s"
    )
    where = [str(path.relative_to(FOLDER.parents[1])) for path in (found or [folder / "log.txt"] * bool(deaths))]
    return "\n  ".join([line, *where]), crashes


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
    return {path for path in folder.iterdir() if re.match(r"(crash|timeout|oom|leak)-[0-9a-f]+$", path.name)}


if __name__ == "__main__":
    sys.exit(main())
