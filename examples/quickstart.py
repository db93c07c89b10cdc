"""Learn from pairs, annotate plain text: the whole of bga-mner in a few minutes on two CPU cores.

A corpus is generated: sentences with an invented name whose type the words don't tell, each with a drawing of
its type. Half of the names are never labelled: they only occur in pairs whose tags are hidden. The model trains on
pairs, is saved and loaded again, and tags sentences *without* images. What it knows of the never-labelled names, it
learned by generating images' features from them.

    python examples/quickstart.py [--output_dir outputs/quickstart]
"""

from __future__ import annotations

import argparse
import json
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, check_output, natural, run_main

import torch
from PIL import Image
from rich.console import Console
from rich.rule import Rule
from rich.text import Text
from transformers import Trainer, set_seed
from transformers.utils import logging

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, predict, summarize_training
from bga_mner.examples.reporting import print_table
from bga_mner.examples.synthetic.corpus import GeneratedCorpus
from bga_mner.examples.synthetic.recipe import TEXT_ALONE, add_options, build_model, evaluate, prepare, train
from bga_mner.processing.evaluation.alignment_figure import draw_alignment
from bga_mner.processing.evaluation.alignment_view import align


COLOURS = {"LOC": "green", "MISC": "magenta", "ORG": "cyan", "PER": "yellow"}


def coloured(words: list[str], entities: list[dict[str, Any]]) -> Text:
    """Show a sentence with its entities in colour, each with its type and probability."""
    sentence = " ".join(words)
    text, offset = Text(), 0
    for entity in entities:
        text.append(sentence[offset : entity["start"]])
        colour = COLOURS.get(entity["label"], "white")
        text.append(entity["word"], style=f"bold black on {colour}")
        text.append(f" {entity['label']} {entity['score']:.2f}", style=colour)
        offset = entity["end"]
    text.append(sentence[offset:])
    return text


def draw_examples(model: Any, processor: Any, corpus: GeneratedCorpus, path: Path) -> None:
    """Draw what the model aligned, for a pair of each type with a never-labelled name."""
    chosen = {}
    for row in corpus.train:
        if row["ner_tags"] is None:
            kinds = {kind for name, kind in corpus.unlabelled_names.items() if name in " ".join(row["tokens"])}
            # the image shows what the name is, and not one of the mismatches
            if kinds == {row["concept"]}:
                chosen.setdefault(row["concept"], row)
    alignments = []
    for _, row in sorted(chosen.items()):
        image = Image.open(BytesIO(row["image"]["bytes"])).convert("RGB")
        alignments.append((align(model, processor, row["tokens"], image), image))
    draw_alignment(alignments, path)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/quickstart"))
    add_options(parser)
    parser.add_argument("--seed", type=natural, default=0)
    return parser.parse_args(arguments)


def compare(
    trainers: dict[str, Trainer], processor: BgaMnerProcessor, corpus: GeneratedCorpus, console: Console
) -> dict[str, dict[str, dict[str, float]]]:
    """Score both models on both kinds of names, and print a table; return the Trainer's metrics."""
    tests = {"labelled": corpus.test_labelled, "never_labelled": corpus.test_unseen_labels}
    metrics = {
        name: {names: evaluate(trainer, processor, test) for names, test in tests.items()}
        for name, trainer in trainers.items()
    }
    rows = [
        (name, *(f"{of_test['eval_f1']:.3f}" for of_test in of_model.values())) for name, of_model in metrics.items()
    ]
    columns = ("trained on", "labelled names", "never-labelled names")
    print_table("F1 on sentences without images", columns, rows, console)
    return metrics


def save_and_load(
    trainer: Trainer, processor: BgaMnerProcessor, sentences: list[list[str]], folder: Path, console: Console
) -> tuple[BgaMnerForTokenClassification, BgaMnerProcessor]:
    """Save the model, load it again, and let it annotate plain text."""
    trainer.save_model(str(folder))
    processor.save_pretrained(folder)
    loaded = BgaMnerForTokenClassification.from_pretrained(folder)
    again = BgaMnerProcessor.from_pretrained(folder)
    before, after = predict(trainer.model, processor, sentences), predict(loaded, again, sentences)
    if before != after:
        raise RuntimeError("Expected the entities of the saved model from the loaded one, got others. Report this.")
    for words, entities in zip(sentences, after, strict=True):
        console.print(coloured(words, entities))
    console.print("[dim]None of these names was ever labelled; the sentences don't tell their types.[/dim]")
    return loaded, again


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the quickstart; return the scores that it prints."""
    options = parse(arguments)
    output_dir: Path = options.output_dir
    check_output(output_dir, "--output_dir")
    output_dir.mkdir(parents=True, exist_ok=True)
    console = Console(width=110)
    logging.set_verbosity_error()
    set_seed(options.seed)
    start = time.perf_counter()

    console.print(Rule("1/5  A generated corpus, and a vision encoder that knows its concepts"))
    corpus, processor, vision, accuracy = prepare(options, output_dir)
    console.print(f"The vision encoder tells the four concepts apart on new drawings with accuracy {accuracy:.3f}.")

    console.print(Rule("2/5  Training on pairs, half of them without labels"))
    labels = list(corpus.labels)
    model = build_model(processor.tokenizer, vision, labels)
    trainers = {"text and images": train(model, processor, corpus.train, options.steps, output_dir, options.seed)}

    console.print(Rule("3/5  For comparison: the same sentences and labels, without images"))
    set_seed(options.seed)
    text_only = build_model(processor.tokenizer, vision, labels, **TEXT_ALONE)
    rows = corpus.train.remove_columns("image")
    trainers["text alone"] = train(text_only, processor, rows, options.steps, output_dir, options.seed)
    metrics = compare(trainers, processor, corpus, console)

    console.print(Rule("4/5  Save, load again, annotate plain text"))
    sentences = corpus.test_unseen_labels["tokens"][: min(8, options.test_sentences)]
    # what the model card, README.md, is filled with
    model.config.training_summary = summarize_training(
        trainers["text and images"],
        scores={f"{names.replace('_', '-')} names": found for names, found in metrics["text and images"].items()},
        name="bga-mner-quickstart",
        language="en",
        widget_texts=[" ".join(sentences[0])],
    )
    folder = output_dir / "model"
    loaded, processor = save_and_load(trainers["text and images"], processor, sentences, folder, console)

    console.print(Rule("5/5  What the model aligned"))
    image, file = output_dir / "alignment.png", output_dir / "scores.json"
    draw_examples(loaded, processor, corpus, image)
    scores: dict[str, Any] = {"vision_accuracy": accuracy}
    for name, of_model in metrics.items():
        scores[name] = {
            names: {score: found[f"eval_{score}"] for score in ("f1", "precision", "recall")}
            for names, found in of_model.items()
        }
    scores["seconds"] = time.perf_counter() - start
    scores["model_parameters"] = sum(parameter.numel() for parameter in loaded.parameters())
    file.write_text(json.dumps(scores, indent=2) + "\n")
    console.print(
        f"Model, processor and model card: {folder}\nImage of kept patches and matches: {image}\n"
        f"Scores: {file}\n{scores['seconds']:.0f} s in all."
    )
    return scores


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run_main(main)
