"""Keep what trainings gave, and what they share, so that hours of trainings may be spread over several runs."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import check_output

from bga_mner.configuration.errors import shown


__all__ = ["KeptResults", "add_results_options"]

# options that say what to measure and to show, and do not change what a training gives
_OTHER_OPTIONS = {"variants", "seeds", "cache_dir", "results", "figure", "plot", "repeats"}
_OTHER_OPTIONS |= {"threads", "quiet", "json", "debug"}


def add_results_options(parser: argparse.ArgumentParser, cache: bool = True) -> None:
    """Add --results and, where vision states are cached, --cache_dir."""
    if cache:
        parser.add_argument(
            "--cache_dir",
            type=Path,
            help="folder that keeps the vision states for the next run (default: a temporary one)",
        )
    parser.add_argument(
        "--results", type=Path, help="JSONL file that keeps what each training gave, from which a later run goes on"
    )


class KeptResults:
    """What trainings gave, by seed (or split) and variant: values that JSON can hold, kept in --results if it is given.

    Lines of the file that were measured with other options are left alone, but a result that has a report serves
    where none is asked for. Other code, or data of the same name, is not noticed. ValueError names a line that can't be
    read.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.file: Path | None = options.results
        given = {key: value for key, value in vars(options).items() if key not in _OTHER_OPTIONS}
        self.options = json.loads(json.dumps(given, default=str))  # as they are read again
        reported = self.options | ({"report": True} if "report" in self.options else {})
        self.found: dict[tuple[int, str], Any] = {}
        if self.file is None:
            return
        check_output(self.file, "--results", folder=False)
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                if entry["options"] in (self.options, reported):
                    self.found[entry["run"], entry["variant"]] = entry["result"]
            except (ValueError, TypeError, KeyError, RecursionError):
                raise ValueError(
                    f"Expected what a training gave in line {number} of {shown(str(self.file))}, got {shown(line)}. "
                    "Delete the line, or name another file."
                ) from None

    def __contains__(self, training: tuple[int, str]) -> bool:
        return training in self.found

    def __getitem__(self, training: tuple[int, str]) -> Any:
        return self.found[training]

    def missing(self, runs: Iterable[int], variants: Iterable[str]) -> dict[int, list[str]]:
        """Return the variants that have no result yet, by run; runs that have all are left out."""
        found = {run: [name for name in variants if (run, name) not in self.found] for run in runs}
        return {run: names for run, names in found.items() if names}

    def add(self, run: int, variant: str, result: Any) -> None:
        """Keep what a training gave."""
        self.found[run, variant] = result
        if self.file is not None:
            entry = {"run": run, "variant": variant, "options": self.options, "result": result}
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a+b") as file:
                # a file that was cut or edited may lack the end of its last line
                if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read() != b"\n":
                    file.write(b"\n")
                file.write(json.dumps(entry).encode() + b"\n")
