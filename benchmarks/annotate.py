"""Bulk annotation under fire: rate, memory, and whether each row is there exactly once after kills (Linux).

Writes generated sentences (2 to 20 words) and a tiny random model, runs examples/annotate.py on them, kills it with
SIGKILL at moments spread over the run and starts it again, and then counts every row of the output. Memory is that of
the process and all it started, without shared pages, watched from outside; it is compared between the moment when
a tenth of a process's rows were written and its end. With `--compare` the same is done without kills, and the
output has to be the same::

    python benchmarks/annotate.py --rows 1000000 --kills 0 --json
    python benchmarks/annotate.py --rows 1000000 --kills 3 --json
    python benchmarks/annotate.py --rows 1000000 --kills 3 --engine ray --json
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, natural, positive, run_main

import psutil
import pyarrow.dataset as ds
import torch

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerProcessor, labels_from_tags
from bga_mner.examples.reporting import add_common_options, print_json
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "annotate.py"
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_SECONDS_BETWEEN_LOOKS = 0.1


def save_model(folder: Path, words: Sequence[str]) -> None:
    """Save a tiny random model, which finds entities, and its processor."""
    tokenizer = build_tokenizer([words])
    labels = labels_from_tags([["B-LOC", "B-MISC", "B-ORG", "B-PER"]])
    config = BgaMnerConfig(
        text_config={"model_type": "bert", "vocab_size": len(tokenizer), **_SHAPE},
        vision_config={"model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, **_SHAPE},
        id2label=dict(enumerate(labels)),
        num_bga_layers=2,
    )
    torch.manual_seed(0)
    model = BgaMnerForTokenClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(50)  # a new head hardly prefers any tag
    model.save_pretrained(folder)
    BgaMnerProcessor(None, tokenizer, label2id=config.label2id).save_pretrained(folder)


def write_sentences(path: Path, rows: int, seed: int = 0) -> list[str]:
    """Write sentences as JSONL; return the words that they are made of. Every thousandth row has no text."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    with path.open("w") as file:
        for row in range(rows):
            text = None if row % 1000 == 999 else " ".join(rng.choices(words, k=rng.randint(2, 20)))
            file.write(json.dumps({"id": f"s{row}", "text": text}) + "\n")
    return words


class Run:
    """One process of the script after another, watched until it ends or has to be killed."""

    def __init__(self, command: list[str], output: Path, rows_per_part: int):
        self.command, self.output, self.rows_per_part = command, output, rows_per_part

    def rows_written(self) -> int:
        """Count the rows of the parts that are done; a last part with fewer rows counts as a whole one."""
        return self.rows_per_part * sum(1 for _ in (self.output / "records").glob("part-*.json"))

    def watch(self, kill_at: int | None, rng: random.Random) -> dict[str, Any]:
        """Start the script; kill it once so many rows are written, and a moment later; return what was seen."""
        begun, started, seen = self.rows_written(), time.perf_counter(), []
        with tempfile.TemporaryFile() as log:
            # Ray's workers give way to all other processes by default, and hardly run on a busy machine
            environment = {**os.environ, "RAY_worker_niceness": "0"}
            process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)
            watched = psutil.Process(process.pid)
            try:
                while process.poll() is None:
                    rows = self.rows_written()
                    seen.append((rows - begun, *_usage(watched)))
                    if kill_at is not None and rows >= kill_at:
                        time.sleep(rng.uniform(0, 0.3))
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                    else:
                        time.sleep(_SECONDS_BETWEEN_LOOKS)
            finally:
                process.kill()
            killed = process.returncode == -signal.SIGKILL
            if process.returncode and not killed:
                log.seek(0)
                raise RuntimeError(f"Expected exit code 0, got {process.returncode}: {log.read().decode()[-3000:]}")
        rows = self.rows_written() - begun
        early = max((memory for done, memory, _ in seen if done <= max(rows // 10, self.rows_per_part)), default=0)
        return {
            "killed": killed,
            "rows": rows,
            "seconds": round(time.perf_counter() - started, 1),
            "processor_seconds": round(max(seconds for _, _, seconds in seen), 1),
            "peak_megabytes_after_a_tenth": round(early / 1e6, 1),
            "peak_megabytes": round(max(memory for _, memory, _ in seen) / 1e6, 1),
        }


def check_rows(output: Path, rows: int) -> dict[str, int]:
    """Count what examples/annotate.py wrote of that many rows: "lost", "doubled", "annotated", "bad", "entities"."""
    counts = bytearray(rows)
    entities = annotated = bad = 0
    for batch in ds.dataset(output / "entities", format="parquet").to_batches():
        annotated += batch.num_rows
        for row in batch.column("row").to_pylist():
            counts[row] += 1
        entities += len(batch.column("entities").flatten())
    for path in sorted((output / "bad_rows").iterdir()):
        for line in path.read_text().splitlines():
            bad += 1
            counts[json.loads(line)["row"]] += 1
    lost, doubled = counts.count(0), sum(count > 1 for count in counts)
    return {"lost": lost, "doubled": doubled, "annotated": annotated, "bad": bad, "entities": entities}


def same_output(one: Path, other: Path) -> bool:
    """Tell whether two outputs hold the same rows, bad ones included, and the same entities; scores to 1e-4."""
    tables = [ds.dataset(output / "entities", format="parquet").to_table().to_pylist() for output in (one, other)]
    bad = [[path.read_text() for path in sorted((output / "bad_rows").iterdir())] for output in (one, other)]
    for rows in tables:
        rows.sort(key=lambda row: row["row"])
    scores = [[entity.pop("score") for row in rows for entity in row["entities"]] for rows in tables]
    close = all(abs(mine - others) < 1e-4 for mine, others in zip(*scores, strict=False))
    return tables[0] == tables[1] and bad[0] == bad[1] and close


def _usage(process: psutil.Process) -> tuple[int, float]:
    """Return the bytes that a process and those that it started hold alone, and their processor seconds."""
    total, seconds = 0, 0.0
    for one in [process, *_children(process)]:
        try:
            memory, times = one.memory_info(), one.cpu_times()
            total += memory.rss - memory.shared
            seconds += times.user + times.system
        except psutil.Error:  # it has ended since
            pass
    return total, seconds


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--rows", type=positive, default=20_000)
    parser.add_argument("--kills", type=natural, default=3)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--rows_per_part", type=positive, default=10_000)
    parser.add_argument("--buffer_rows", type=positive, default=2048)
    parser.add_argument("--ray_cpus", type=positive, default=2)
    parser.add_argument("--seed", type=natural, default=0, help="seed of the times at which runs are killed")
    parser.add_argument("--compare", action="store_true", help="also run without kills, and compare the outputs")
    add_common_options(parser, threads=1)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, and print what was found; return it."""
    options = _parse(argv)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model", write_sentences(folder / "sentences.jsonl", options.rows))

        def command(output: Path) -> list[str]:
            flags = {
                "model": folder / "model",
                "input": folder / "sentences.jsonl",
                "id_column": "id",
                "output": output,
                **{flag: getattr(options, flag) for flag in ("rows_per_part", "buffer_rows", "threads", "engine")},
                "ray_cpus": options.ray_cpus,
            }
            return [
                sys.executable,
                str(SCRIPT),
                *(str(word) for flag in flags.items() for word in ("--" + flag[0], flag[1])),
            ]

        output = folder / "output"
        run = Run(command(output), output, options.rows_per_part)
        kill_at = [options.rows * (kill + 1) // (options.kills + 1) for kill in range(options.kills)]
        processes = [run.watch(rows, rng) for rows in [*kill_at, None]]
        found: dict[str, Any] = {"engine": options.engine, "rows": options.rows, "kills": options.kills}
        found |= {"processes": processes, **check_rows(output, options.rows)}
        summary = json.loads((output / "summary.json").read_text())
        found["rate"] = summary["rows_per_second"]
        if options.compare:
            undisturbed = folder / "undisturbed"
            Run(command(undisturbed), undisturbed, options.rows_per_part).watch(None, rng)
            found["same"] = same_output(output, undisturbed)
    for number, process in enumerate(processes):
        print(
            f"process {number + 1}: {process['rows']:,} rows in {process['seconds']:.0f} s "
            f"({process['processor_seconds']:.0f} of processors), "
            f"{'killed' if process['killed'] else 'to the end'}; peak "
            f"{process['peak_megabytes_after_a_tenth']:.0f} MB after a tenth, {process['peak_megabytes']:.0f} at last"
        )
    print(
        f"{found['rate']:,.0f} rows/s; {found['annotated']:,} rows annotated, {found['bad']:,} bad, "
        f"{found['entities']:,} entities; {found['lost']} lost, {found['doubled']} doubled"
    )
    print_json(options, {"annotate": found})
    kills = sum(process["killed"] for process in processes)
    if found["lost"] or found["doubled"] or not found.get("same", True) or kills != options.kills:
        raise RuntimeError(
            f"Expected each row once, and {options.kills} kills, got {found}. Mend the annotation first."
        )
    return found


if __name__ == "__main__":
    run_main(main)
