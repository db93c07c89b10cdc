"""Look at what a model aligned: what each stage keeps of a text and its image, and the patches that entities match.

A sentence with an image::

    python examples/visualize.py --model_dir outputs/quickstart/model --text "here is Zvulatond , quiet" \
        --image image.png

Several, from a CoNLL file and its images; or, for a model of examples/quickstart.py, the sentences of the generated
corpus that it never saw, with names that it never saw labelled::

    python examples/visualize.py --model_dir outputs/mner --conll_file test.txt --image_dir images --limit 8
    python examples/visualize.py --model_dir outputs/quickstart/model --generated

Written to the output folder: `alignment.png`, and `alignment.html`, one file that needs no network.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, check_output, natural, positive, run_main

import torch
from rich.console import Console
from transformers.utils import logging

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, load_image, read_conll
from bga_mner.configuration.errors import shown
from bga_mner.examples.synthetic.corpus import generate_corpus
from bga_mner.processing.evaluation.alignment_figure import draw_alignment
from bga_mner.processing.evaluation.alignment_page import alignment_html
from bga_mner.processing.evaluation.alignment_view import align


Pairs = list[tuple[list[str], Any]]  # words, and whatever load_image takes


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model_dir", type=Path, required=True, help="folder of a saved model and processor")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", help="sentence; requires --image")
    source.add_argument("--conll_file", type=Path, help="CoNLL file with IMGID lines; requires --image_dir")
    source.add_argument("--generated", action="store_true", help="use pairs of the generated corpus")
    parser.add_argument("--image", type=Path, help="image for --text")
    parser.add_argument("--image_dir", type=Path, help="images for --conll_file, named <id>.jpg, .png, .webp, ...")
    parser.add_argument("--limit", type=positive, default=4, help="maximum number of pairs (default: %(default)s)")
    parser.add_argument(
        "--seed", type=natural, default=0, help="seed of --generated; use the seed that the model was trained with"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/visualize"))
    return parser.parse_args(arguments)


def pairs_of_text(options: argparse.Namespace, processor: BgaMnerProcessor) -> Pairs:
    """Return the one pair of --text and --image."""
    words = [word for word, _, _ in processor.split_words(options.text)]
    if not words:
        raise ValueError(f"Expected a sentence as --text, got {shown(options.text)}. Write at least one word.")
    if options.image is None:
        raise ValueError("Expected an image with --text, got none. Name its file: --image image.png.")
    return [(words, options.image)]


def pairs_of_conll(options: argparse.Namespace, console: Console) -> Pairs:
    """Return the first pairs of a CoNLL file; sentences without a usable image are passed over."""
    if options.image_dir is None:
        raise ValueError("Expected images with --conll_file, got none. Name their folder: --image_dir images.")
    # only the images that are shown are decoded, and not those of a whole test set
    dataset = read_conll(options.conll_file, options.image_dir, check_images=False)
    pairs: Pairs = []
    passed_over: list[str] = []
    for row in dataset:
        if len(pairs) == options.limit:
            break
        try:
            # a row without words has nothing to align, and load_image says what is wrong with None
            pairs += [(row["tokens"], load_image(row["image"] or {"path": None}))] if row["tokens"] else []
        except ValueError:
            passed_over.append(row["id"])
    if passed_over:
        names = ", ".join(passed_over[:5]) + (", ..." if len(passed_over) > 5 else "")
        console.print(f"Passed over without a usable image: {len(passed_over)} ({names}).", highlight=False)
    if not pairs:
        raise ValueError(
            f"Expected at least one sentence with a usable image in {shown(str(options.conll_file))}, got none of "
            f"{len(dataset)}. Check that {shown(str(options.image_dir))} has the images, named by the file's ids."
        )
    return pairs


def pairs_of_corpus(options: argparse.Namespace, image_size: int) -> Pairs:
    """Return unseen sentences of the generated corpus with never-labelled names, of each type in turn."""
    corpus = generate_corpus(
        seed=options.seed,
        train_labelled=0,
        train_unlabelled=0,
        validation_sentences=0,
        test_sentences=options.limit,
        image_size=image_size,
        test_images=True,
    )
    return [(row["tokens"], row["image"]) for row in corpus.test_unseen_labels]


def main(arguments: list[str] | None = None) -> tuple[Path, Path]:
    """Draw the pairs; return the paths of the PNG and of the HTML file."""
    options = parse(arguments)
    if not (options.model_dir / "config.json").is_file():
        raise ValueError(
            f"Expected a folder with a saved model as --model_dir, got {shown(str(options.model_dir))}. "
            "examples/quickstart.py makes one: outputs/quickstart/model."
        )
    check_output(options.output_dir, "--output_dir")
    logging.set_verbosity_error()
    console = Console(soft_wrap=True)
    model = BgaMnerForTokenClassification.from_pretrained(options.model_dir)
    if torch.cuda.is_available():
        model.cuda()
    processor = BgaMnerProcessor.from_pretrained(options.model_dir)
    if options.text is not None:
        pairs = pairs_of_text(options, processor)
    elif options.conll_file is not None:
        pairs = pairs_of_conll(options, console)
    elif options.generated:
        pairs = pairs_of_corpus(options, model.config.image_size)
    else:
        raise ValueError(
            "Expected something to draw, got neither text nor file. Give --text with --image, --conll_file with "
            "--image_dir, or --generated."
        )
    alignments = []
    for words, source in pairs:
        image = load_image(source)
        alignments.append((align(model, processor, words, image), image))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    png, page = options.output_dir / "alignment.png", options.output_dir / "alignment.html"
    draw_alignment(alignments, png)
    page.write_text(alignment_html(alignments), encoding="utf-8")
    count = sum(len(alignment.matches) for alignment, _ in alignments)
    console.print(f"Drawn: {len(alignments)} pairs, {count} entities.", highlight=False)
    console.print(f"Image: {png}\nPage for the browser: {page}", highlight=False, markup=False)
    return png, page


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run_main(main)
