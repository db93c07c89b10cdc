"""Texts per second from running text to entities, beside what people would pick instead: end to end, on real lengths.

Everything reads the same tweets in the same process, in turn, and makes entities of them: the stock
`pipeline("token-classification")` on `BertForTokenClassification`, with its default batch of 1 and with its best one;
`multimodal-ner`, on many texts at once and one by one; `predict`; the annotator of `examples/annotate.py`, in this
process or on Ray; ONNX Runtime in float32 and with 8 bits; and a student in the stock pipeline and the annotator. All
have their defaults and random weights, which take as long as trained ones. First the entities of this package's float32
are compared with those of `predict` on single texts. Loading is left out::

    python benchmarks/throughput.py --data_dir twitter2017 --threads 1 --json
    python benchmarks/throughput.py --data_dir twitter2017 --threads 2 --ray --json
    python benchmarks/throughput.py --size bert_tiny --texts 500 --profile --json

The last line has ratios to the stock pipeline's default; `overhead` is what `multimodal-ner` takes beyond the model's
own forward of the same batches, as a share of it.
"""

import argparse
import cProfile
import pstats
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, natural, positive, run_main

import numpy as np
import torch
from rich.console import Console
from transformers import AutoTokenizer, BertForTokenClassification, PreTrainedTokenizerBase, pipeline, set_seed

from bga_mner import (
    BgaMnerProcessor,
    OnnxPredictor,
    build_student,
    export_onnx,
    predict,
    read_conll,
)
from bga_mner.benchmarks.base_size import LABELS, SIZES, make_baseline, make_model
from bga_mner.benchmarks.timing import median_ratio, milliseconds, time_in_turn
from bga_mner.examples.reporting import add_common_options, print_json, print_table, start
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.processing.annotation.annotator import AnnotatorOptions, TextAnnotator
from bga_mner.processing.annotation.chunks import InputRow, TextChunk, make_chunks
from bga_mner.processing.annotation.ray_engine import on_ray, ray_cluster


BATCH_SIZES = (8, 16, 32)  # of the stock pipeline, of which the best counts
SHORTEST, LONGEST = 3, 40  # words of generated texts
OUTSIDE = 0.9  # share of tokens that are no entity's, about as in tweets
TOLERANCE = 1e-5
# What ONNX Runtime computes in float32 differs by more: its sums are in another order.
ONNX_TOLERANCE = 1e-4
Entities = list[tuple[str, int, int, float]]


def read_texts(options: argparse.Namespace) -> list[str]:
    """Return running texts: those of a folder in CoNLL format, or generated ones."""
    if options.data_dir is None:
        return make_sentences(options.texts, options.seed)
    return [" ".join(words) for words in read_conll(options.data_dir / "valid.txt")["tokens"]][: options.texts]


def make_sentences(count: int, seed: int) -> list[str]:
    """Return sentences of `SHORTEST` to `LONGEST` invented words."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    return [" ".join(rng.choices(words, k=rng.randint(SHORTEST, LONGEST))) for _ in range(count)]


def make_tokenizer(options: argparse.Namespace, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Load the tokenizer of --text_model, or build one in which each word is a token."""
    if options.text_model:
        return AutoTokenizer.from_pretrained(options.text_model)
    return build_tokenizer([text.split() for text in texts])


def find_few_entities(model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    """Let a random head find about as many entities as there are in tweets, in place of one at each token."""
    outside = LABELS.index("O")
    with torch.no_grad():
        model.classifier.weight.mul_(20)  # a new head hardly prefers any tag
        outputs = [model(**tokenizer(text, return_tensors="pt")) for text in texts[:50]]
        # (tokens of all texts, tags)
        scores = torch.cat([getattr(output, "emissions", output.logits)[0] for output in outputs])
        outside_scores = scores[:, outside].clone()
        scores[:, outside] = -torch.inf
        model.classifier.bias[outside] += torch.quantile(scores.amax(dim=1) - outside_scores, OUTSIDE)


def as_found(entities: Sequence[Any]) -> Entities:
    """Bring entities to (type, start, end, score), whoever gives them."""
    kinds = ("entity_group", "label", "type")
    return [
        (next(str(one[kind]) for kind in kinds if kind in one), int(one["start"]), int(one["end"]), float(one["score"]))
        for one in entities
    ]


def check_same(name: str, found: Sequence[Entities], expected: Sequence[Entities], tolerance: float) -> float:
    """Return the largest difference of scores; raise a RuntimeError if entities differ, or scores by too much."""
    without = [[[entity[:3] for entity in text] for text in texts] for texts in (found, expected)]
    if without[0] != without[1]:
        number = next(n for n, pair in enumerate(zip(*without, strict=True)) if pair[0] != pair[1])
        raise RuntimeError(f"Expected the entities of `predict` from {name}, got others in text {number}.")
    pairs = [pair for texts in zip(found, expected, strict=True) for pair in zip(*texts, strict=True)]
    differences = [abs(one[3] - other[3]) for one, other in pairs]
    largest = float(np.max(differences, initial=0.0))  # NaN if any of them is
    if not largest <= tolerance:
        raise RuntimeError(f"Expected scores from {name} within {tolerance} of `predict`, got {largest:.1e}.")
    return largest


class Contestants:
    """Functions from the texts to the entities of each, by name, all loaded."""

    def __init__(self, options: argparse.Namespace, texts: list[str], folder: Path):
        self.texts = texts
        tokenizer = make_tokenizer(options, texts)
        self.model = make_model(options.size, text_only=True, vocab_size=len(tokenizer)).eval()
        self.processor = BgaMnerProcessor(None, tokenizer, label2id=self.model.config.label2id)
        find_few_entities(self.model, tokenizer, texts)
        baseline = make_baseline(options.size, vocab_size=len(tokenizer)).eval()
        find_few_entities(baseline, tokenizer, texts)
        self.functions: dict[str, Callable[[], list[Entities]]] = {}
        self._add_stock("stock", baseline, tokenizer, None)
        for size in BATCH_SIZES:
            self._add_stock(f"stock, batches of {size}", baseline, tokenizer, size)
        annotate = pipeline("multimodal-ner", model=self.model, processor=self.processor, device="cpu")
        self._add("multimodal-ner", lambda: annotate(texts))
        self._add("one_by_one", lambda: [annotate(text) for text in texts])
        self._add("predict", lambda: predict(self.model, self.processor, texts))
        self.fingerprint = self._add_annotator("annotate", self.model, self.processor, folder / "model")
        for name, int8 in (("onnx", False), ("onnx_int8", True)):
            export_onnx(self.model, self.processor, folder / name, int8=int8)
            find = OnnxPredictor(folder / name, threads=torch.get_num_threads())
            self._add(name, lambda find=find: find(texts))
        student, its_tokenizer = build_student(self.model, self.processor)
        for size in (None, *BATCH_SIZES):
            name = "student" if size is None else f"student, batches of {size}"
            self._add_stock(name, student.eval(), its_tokenizer, size)
        self.student = student, BgaMnerProcessor(None, its_tokenizer, label2id=student.config.label2id)
        self._add_annotator("annotate_student", student, its_tokenizer, folder / "student")

    def _add(self, name: str, find: Callable[[], Sequence[Any]]) -> None:
        self.functions[name] = lambda: [as_found(entities) for entities in find()]

    def _add_stock(
        self,
        name: str,
        model: BertForTokenClassification,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int | None,
    ) -> None:
        made = pipeline(
            "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple", device="cpu"
        )
        options = {} if batch_size is None else {"batch_size": batch_size}
        self._add(name, lambda: made(self.texts, **options))

    def _add_annotator(self, name: str, model: Any, tokenizer: Any, folder: Path) -> str:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        annotate = TextAnnotator(AnnotatorOptions(str(folder), threads=torch.get_num_threads()))
        self._add(name, lambda: annotate(TextChunk(0, self._rows())).table.column("entities").to_pylist())
        return annotate.fingerprint

    def _rows(self) -> list[InputRow]:
        return [InputRow(None, text) for text in self.texts]

    def check(self) -> None:
        """Compare all with `predict` on single texts; raise a RuntimeError if they find something else."""
        ours, students = (
            [as_found(predict(*parts, text)) for text in self.texts]
            for parts in ((self.model, self.processor), self.student)
        )
        for name in ("multimodal-ner", "predict", "annotate", "onnx"):
            check_same(name, self.functions[name](), ours, ONNX_TOLERANCE if name == "onnx" else TOLERANCE)
        check_same("annotate_student", self.functions["annotate_student"](), students, TOLERANCE)

    def forward_alone(self) -> Callable[[], None]:
        """Return what runs the model on the batches that it gets in the pipeline, and does nothing else."""
        batches: list[dict[str, Any]] = []

        def keep(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            batches.append(named)

        hook = self.model.register_forward_pre_hook(keep, with_kwargs=True)
        self.functions["multimodal-ner"]()
        hook.remove()

        def run() -> None:
            with torch.no_grad():
                for batch in batches:
                    self.model(**batch)

        return run

    def seconds_on_ray(self, folder: Path, chunks: int = 16) -> float:
        """Annotate on two actors of a local Ray, one thread each, from the first chunk that is done to the last."""
        rows, size = self._rows(), -(-len(self.texts) // chunks)
        times, counts = [], []
        with ray_cluster(num_cpus=2):
            run = on_ray(AnnotatorOptions(str(folder), threads=1), self.fingerprint, actors=2)
            for chunk in run(lambda: make_chunks(rows, 0, len(rows), {}, size)):
                times.append(time.perf_counter())
                counts.append(chunk.rows)
        return (times[-1] - times[0]) * len(rows) / max(1, sum(counts[1:]))


def show_profile(name: str, function: Callable[[], Any], console: Console, rows: int = 15) -> None:
    """Print the functions that take most of the time."""
    profile = cProfile.Profile()
    profile.runcall(function)
    stats: Any = pstats.Stats(profile)
    slowest = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:rows]
    lines = [
        (f"{Path(file).name}:{line} {what}"[-70:], f"{calls:,}", f"{own / stats.total_tt:.3f}")
        for (file, line, what), (_, calls, own, *_) in slowest
    ]
    print_table(f"Where the time of {name} goes", ("function", "calls", "share"), lines, console)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--data_dir", type=Path, help="folder with valid.txt in CoNLL format (default: generate texts)")
    parser.add_argument("--text_model", help="encoder whose tokenizer is used (default: build one)")
    parser.add_argument("--size", choices=SIZES, default="base", help="size of the text encoder")
    parser.add_argument("--texts", type=positive, default=100)
    parser.add_argument("--repeats", type=positive, default=5, help="repetitions; the median ratio is reported")
    parser.add_argument("--ray", action="store_true", help="also annotate on a local Ray with two actors")
    parser.add_argument("--profile", action="store_true", help="print where the time of the pipeline goes")
    parser.add_argument("--seed", type=natural, default=0)
    add_common_options(parser, threads=1)
    return parser.parse_args(argv)


def summarize(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return how many times as fast as the stock pipeline's default each is, and the pipeline's "overhead"."""
    rates = {name: median_ratio(seconds["stock"], taken) for name, taken in seconds.items() if name != "forward"}
    for name in ("stock", "student"):
        sizes = [key for key in rates if key.startswith(f"{name}, ")]
        rates[f"{name}_best_batch"] = max(rates.pop(key) for key in sizes)
    return rates | {"overhead": median_ratio(seconds["multimodal-ner"], seconds["forward"]) - 1}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the benchmark, and print a table; return the ratios."""
    options = _parse(argv)
    start(options)
    set_seed(options.seed)
    console, texts = Console(width=110), read_texts(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contestants = Contestants(options, texts, folder)
        contestants.check()
        functions = {**contestants.functions, "forward": contestants.forward_alone()}
        found = sum(map(len, functions["predict"]() or ()))
        seconds = time_in_turn(functions, options.repeats)
        rates = summarize(seconds)
        if options.ray:
            on_actors = contestants.seconds_on_ray(folder / "model")
            rates["annotate_on_ray"] = statistics.median(seconds["stock"]) / on_actors
        if options.profile:
            show_profile("multimodal-ner", functions["multimodal-ner"], console)
    title = (
        f"{options.size}, {len(texts)} texts, {found} entities, {options.threads} threads; medians of {options.repeats}"
    )
    stock = seconds["stock"]
    rows = [(key, milliseconds(taken), f"{median_ratio(stock, taken):.2f}") for key, taken in seconds.items()]
    print_table(title, ("", "ms", "times the stock pipeline's default"), rows, console)
    print(f"overhead of multimodal-ner beyond the model's forward: {rates['overhead']:.1%}")
    print_json(options, {"throughput": rates})
    return rates


if __name__ == "__main__":
    run_main(main)
