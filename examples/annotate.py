"""Annotate many texts with a saved model: JSONL, CSV, Parquet or a dataset of the Hub to folders of Parquet or JSONL.

Plain text, no images. The model is one of this package, or a stock tagger with BIO tags, such as a student, whose tags
are read at the first tokens of words. The same command goes on where a run was cut off, whatever cut it off::

    python examples/annotate.py --model outputs/mner --input "texts/*.jsonl" --output outputs/annotated
    python examples/annotate.py --model outputs/mner --dataset_name org/texts --split train --output outputs/annotated
    python examples/annotate.py --model outputs/mner --input texts.parquet --output outputs/annotated --engine ray

Written to the output folder: `entities/part-*.parquet`, which any reader of Parquet folders takes, with `row`
(counted from 0 over all files), `id` and `entities` (`type`, `text`, `start`, `end`, `score`);
`bad_rows/part-*.jsonl` with the rows that can't be annotated, and why; `summary.json`. Each row is in exactly one
of the first two.

On a Ray cluster run it on one of its machines, with `--engine ray --ray_address auto`, the package installed on all
of them, and a model that all of them reach.

Exit codes: 0 all is annotated; 2 wrong arguments, unreadable input or a missing package; 3 all is annotated, but more
rows than `--max_bad_fraction` are bad; 4 the output can't be written, for instance on a full disk.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, natural, positive, run_main, share

import torch
from datasets.utils import tqdm

from bga_mner.examples import command_line
from bga_mner.processing.annotation.annotator import (
    Annotate,
    AnnotatorOptions,
    TextAnnotator,
    annotate_in_parts,
    in_this_process,
)
from bga_mner.processing.annotation.input_files import find_files
from bga_mner.processing.annotation.input_rows import AnnotationInput
from bga_mner.processing.annotation.parts import OUTPUT_FORMATS, AnnotationParts


ALL_FINE, WRONG_INPUT, TOO_MANY_BAD, NOT_WRITTEN = 0, 2, 3, 4


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", required=True, help="folder of a saved model, or of a student; or a name on the Hub")
    parser.add_argument("--output", type=Path, required=True, help="output folder; an interrupted run is resumed")
    reading = parser.add_argument_group("input")
    reading.add_argument(
        "--input", nargs="+", default=[], help="files, folders or glob patterns (JSONL, CSV, TSV, Parquet)"
    )
    reading.add_argument("--dataset_name", help="dataset for datasets.load_dataset, instead of --input")
    reading.add_argument("--dataset_config_name")
    reading.add_argument("--split", help="split of the dataset")
    reading.add_argument("--text_column", default="text", help="column with the texts (default: %(default)s)")
    reading.add_argument("--words_column", help="column with lists of words, instead of texts")
    reading.add_argument("--id_column", help="column with ids, which are copied to the output")
    writing = parser.add_argument_group("output")
    writing.add_argument("--output_format", choices=OUTPUT_FORMATS, default="parquet")
    writing.add_argument(
        "--rows_per_part", type=positive, default=10_000, help="rows per output file (default: %(default)s)"
    )
    writing.add_argument(
        "--max_bad_fraction",
        type=share,
        default=0.01,
        help="exit with code 3 if more rows are bad (default: %(default)s)",
    )
    running = parser.add_argument_group("model and machine")
    running.add_argument("--batch_size", type=positive, help="texts per batch (default: by tokens, for speed)")
    running.add_argument(
        "--buffer_rows",
        type=positive,
        default=2048,
        help="rows to buffer and sort by length (default: %(default)s)",
    )
    running.add_argument(
        "--max_length", type=positive, help="maximum tokens per window; longer texts are read in several"
    )
    running.add_argument("--stride", type=natural, help="overlap of windows in tokens")
    running.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    running.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    running.add_argument("--threads", type=positive, help="torch threads; on Ray per actor (default: 1)")
    running.add_argument("--engine", choices=("local", "ray"), default="local")
    running.add_argument(
        "--ray_address", help='address of a running cluster, such as "auto" (default: start Ray locally)'
    )
    running.add_argument("--ray_cpus", type=positive, help="cores for a local Ray (default: all)")
    running.add_argument(
        "--ray_actors", type=positive, help="number of model processes (default: one per GPU, or per core)"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Annotate; return the summary."""
    source = AnnotationInput(
        find_files(options.input),
        *(options.dataset_name, options.dataset_config_name, options.split),
        *(options.text_column, options.words_column, options.id_column),
    )
    annotator_options = AnnotatorOptions(
        *(options.model, options.device, options.dtype, options.batch_size, options.max_length, options.stride),
        threads=options.threads,
    )
    annotator = TextAnnotator(annotator_options)
    facts, total = source.inspect(show_progress=True)
    settings = {name: getattr(options, name) for name in ("max_length", "stride", "dtype")}
    started_with = {"input": facts, "model": annotator.fingerprint, **settings}
    with AnnotationParts(options.output, started_with, options.output_format, options.rows_per_part) as parts:
        for message in parts.dropped:
            print(message, file=sys.stderr)
        if parts.done:
            print(f"Goes on: {sum(parts.done.values()):,} rows are done.", file=sys.stderr)
        if options.engine == "ray":
            engine = _on_ray(options, annotator_options, annotator.fingerprint)
        else:
            engine = nullcontext(in_this_process(annotator))
        del annotator  # Ray's actors have their own
        done = sum(parts.done.values())
        bar = tqdm(total=total, initial=done, desc="Annotating", unit="row", unit_scale=True)
        with engine as annotate, bar:
            return annotate_in_parts(source, parts, annotate, buffer_rows=options.buffer_rows, on_progress=bar.update)


@contextmanager
def _on_ray(options: argparse.Namespace, annotator_options: AnnotatorOptions, fingerprint: str) -> Iterator[Annotate]:
    from bga_mner.processing.annotation.ray_engine import on_ray, ray_cluster

    with ray_cluster(options.ray_address, options.ray_cpus):
        import ray

        found = ray.cluster_resources()
        gpus = 1 if options.device.startswith("cuda") else 0
        actors = options.ray_actors or int(found.get("GPU" if gpus else "CPU", 1))
        yield on_ray(replace(annotator_options, threads=options.threads or 1), fingerprint, actors, gpus)


def show(summary: dict[str, Any]) -> None:
    """Print what was found."""
    print(f"{summary['rows']:>15,}  rows")
    for kind, count in summary["entities"].items():
        print(f"{count:>15,}  {kind}")
    for reason, count in summary["bad_by_reason"].items():
        print(f"{count:>15,}  bad rows: {reason}")
    print(
        f"{summary['rows_this_run']:>15,}  rows in this run, {summary['seconds']:.1f} s, "
        f"{summary['rows_per_second']:,.0f} rows/s"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the script with the arguments of the command line, or these; return the exit code."""
    options = parse(arguments)
    try:
        summary = run(options)
    except (ValueError, ImportError) as error:
        command_line.show(error)
        return WRONG_INPUT
    except OSError as error:
        command_line.show(error)
        return NOT_WRITTEN
    show(summary)
    fraction = summary["bad_rows"] / max(1, summary["rows"])
    if fraction > options.max_bad_fraction:
        where = options.output / "bad_rows"
        print(f"error: {fraction:.2%} of the rows are bad; see {str(where)!r}", file=sys.stderr)
        return TOO_MANY_BAD
    return ALL_FINE


if __name__ == "__main__":
    run_main(main)
