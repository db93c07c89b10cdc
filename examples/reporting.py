"""Tables, the last line of JSON, and the options that nearly all measuring scripts share."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bga_mner.examples.command_line import positive

import torch
from datasets import disable_progress_bars
from rich.console import Console
from rich.table import Table
from transformers.utils import logging


def add_common_options(parser: argparse.ArgumentParser, threads: int | None = None, quiet: bool = False) -> None:
    """Add --threads and --json, and --quiet if there are progress bars."""
    text = "torch threads" if threads else "torch threads (default: unchanged)"
    parser.add_argument("--threads", type=positive, default=threads, help=text)
    if quiet:
        parser.add_argument("--quiet", action="store_true", help="hide progress bars")
    parser.add_argument("--json", action="store_true", help="print a final line of JSON")


def start(options: argparse.Namespace) -> None:
    """Set the threads of torch, silence transformers, and hide the libraries' progress bars if --quiet asks for it."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    if getattr(options, "quiet", False):
        logging.disable_progress_bar()
        disable_progress_bars()


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], console: Console | None = None
) -> None:
    """Print a table; numbers stand on the right of their cells, as all columns but the first do."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(str, row))
    (console or Console(width=120)).print(table)


def mean_and_worst(values: Sequence[float]) -> str:
    """Show the mean of scores and the lowest one."""
    return f"{statistics.fmean(values):.3f} ({min(values):.3f})"


def print_json(options: argparse.Namespace, found: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print the last line, if --json asks for it."""
    if options.json:
        print(json.dumps(found))
