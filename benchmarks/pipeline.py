"""How much faster the `multimodal-ner` pipeline annotates many texts at once than one by one.

Both annotate the same sentences of mixed length in the same process, in turn. One by one is one call per sentence,
batched one call with all of them. Weights are random, which takes as long as trained ones. First the outputs are
compared: words, offsets and types must be the same, and scores to within 1e-4, since float32 sums depend on the shape
of a batch::

    python benchmarks/pipeline.py --threads 2 --json
    python benchmarks/pipeline.py --threads 2 --size base --sentences 200 --json
"""

import argparse
import random
import statistics
from collections.abc import Sequence
from typing import Any

from bga_mner.examples.command_line import Parser, natural, positive, run_main

import torch
from transformers import CLIPImageProcessorPil, Pipeline, pipeline, set_seed

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification, BgaMnerProcessor, labels_from_tags
from bga_mner.benchmarks.timing import ratios, time_in_turn
from bga_mner.examples.reporting import add_common_options, print_json, start
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


# Layers and width of the text encoder, as of the public BERT miniatures; the vision encoder, whose patches (50 tokens,
# as of ViT-B/32) are generated, is as wide.
SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "base": (12, 768)}
SHORTEST, LONGEST = 3, 40  # words
TOLERANCE = 1e-4


def build_pipeline(size: str, words: Sequence[str]) -> Pipeline:
    """Build a pipeline with random weights for texts of these words."""
    layers, width = SIZES[size]
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }
    labels = labels_from_tags([["B-LOC", "B-MISC", "B-ORG", "B-PER"]])
    tokenizer = build_tokenizer([words])
    config = BgaMnerConfig(
        text_config={"model_type": "bert", "vocab_size": len(tokenizer), **shape},
        vision_config={"model_type": "clip_vision_model", "image_size": 224, "patch_size": 32, **shape},
        id2label=dict(enumerate(labels)),
        num_bga_layers=min(4, layers),
    )
    model = BgaMnerForTokenClassification(config).eval()
    # a new head hardly prefers any tag; this one finds entities, which are work too, and no ties that rounding decides
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    processor = BgaMnerProcessor(CLIPImageProcessorPil(), tokenizer, label2id=config.label2id)
    return pipeline("multimodal-ner", model=model, processor=processor, device="cpu")


def make_sentences(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Return sentences of `SHORTEST` to `LONGEST` words, and the words that they are made of."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    return [" ".join(rng.choices(words, k=rng.randint(SHORTEST, LONGEST))) for _ in range(count)], words


def check_same(one: list[list[dict[str, Any]]], other: list[list[dict[str, Any]]]) -> float:
    """Return the largest difference of scores; raise if anything else differs, or they do by too much."""
    without_scores = [
        [[{key: value for key, value in entity.items() if key != "score"} for entity in entities] for entities in found]
        for found in (one, other)
    ]
    if without_scores[0] != without_scores[1]:
        raise RuntimeError("Expected the same entities batched and one by one, got different ones.")
    pairs = [pair for entities in zip(one, other, strict=True) for pair in zip(*entities, strict=True)]
    difference = max((abs(mine["score"] - others["score"]) for mine, others in pairs), default=0.0)
    if difference > TOLERANCE:
        raise RuntimeError(f"Expected scores that differ by at most {TOLERANCE}, got {difference}.")
    return difference


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--size", choices=SIZES, default="tiny", help="size of the text encoder")
    parser.add_argument("--sentences", type=positive, default=1000)
    parser.add_argument("--batch_size", type=positive, default=32)
    parser.add_argument("--repeats", type=positive, default=5, help="repetitions; the median ratio is reported")
    parser.add_argument("--seed", type=natural, default=0)
    add_common_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, and print what was found; return it."""
    options = _parse(argv)
    start(options)
    set_seed(options.seed)
    sentences, words = make_sentences(options.sentences, options.seed)
    annotate = build_pipeline(options.size, words)

    def batched() -> list[list[dict[str, Any]]]:
        return annotate(sentences, batch_size=options.batch_size)

    def one_by_one() -> list[list[dict[str, Any]]]:
        return [annotate(sentence) for sentence in sentences]

    difference = check_same(batched(), one_by_one())
    seconds = time_in_turn({"one by one": one_by_one, "batched": batched}, options.repeats, warm_up=False)
    one_by_one_seconds, batched_seconds = seconds["one by one"], seconds["batched"]
    of_rounds = ratios(one_by_one_seconds, batched_seconds)
    layers, width = SIZES[options.size]
    found = {
        "ratio": statistics.median(of_rounds),
        "ratios": of_rounds,
        "one_by_one_seconds": one_by_one_seconds,
        "batched_seconds": batched_seconds,
        "score_difference": difference,
        "size": options.size,
        "layers": layers,
        "width": width,
        "parameters": annotate.model.num_parameters(),
        "sentences": options.sentences,
        "batch_size": options.batch_size,
        "threads": torch.get_num_threads(),
    }
    print(
        f"{options.size}: {layers} layers of width {width}; {options.sentences} sentences of {SHORTEST} to {LONGEST} "
        f"words, {found['threads']} threads\n"
        f"same entities; scores differ by at most {difference:.1e}\n"
        f"one by one {statistics.median(one_by_one_seconds):.2f} s, in batches of {options.batch_size} "
        f"{statistics.median(batched_seconds):.2f} s (medians of {options.repeats})\n"
        f"batched is {found['ratio']:.2f} times as fast (from {min(of_rounds):.2f} to {max(of_rounds):.2f})"
    )
    print_json(options, {"pipeline": found})
    return found


if __name__ == "__main__":
    run_main(main)
