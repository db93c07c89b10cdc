"""A page on which a model finds entities: text and optionally an image in, highlighted entities and alignment out.

On this machine, without any network::

    python examples/space/app.py --model outputs/quickstart/model --port 7860

As a Space of the Hub, which starts this file without arguments, the variable MODEL_ID names the model.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


# gradio reads this when it is imported; without it each start reports to its makers
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from PIL import Image
from transformers import Pipeline, pipeline

from bga_mner import BgaMnerPipeline
from bga_mner.processing.evaluation.alignment_figure import draw_alignment
from bga_mner.processing.evaluation.alignment_view import align


# For readers who tell few colours apart, the type also stands beside each entity.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
NO_IMAGE = "Give an image as well to see what the model aligns with it."
ABOUT = """# Entities of texts, learned with images
Type a sentence. The model was trained on texts with images, and finds entities in text alone. With an image, the
page also shows which of its patches the model keeps, and which look like what it generates from each entity."""


def find_entities(
    annotate: Pipeline, text: str, image: Image.Image | None, read_image: bool
) -> tuple[dict[str, Any], list[list[Any]]]:
    """Return a `gradio.HighlightedText` update and the rows of the table."""
    source = {"visual_source": "real"} if read_image and image is not None else {}
    found = annotate({"text": text, "image": image}, **source)
    labels = [f"{entity['entity_group']} {entity['score']:.2f}" for entity in found]
    kinds = entity_types(annotate)
    highlighted = gr.HighlightedText(
        {
            "text": text,
            "entities": [
                {"entity": label, "start": entity["start"], "end": entity["end"]}
                for label, entity in zip(labels, found, strict=True)
            ],
        },
        color_map={
            label: COLOURS[kinds.index(entity["entity_group"]) % len(COLOURS)]
            for label, entity in zip(labels, found, strict=True)
        },
    )
    rows = [
        [entity["word"], entity["entity_group"], round(entity["score"], 3), entity["start"], entity["end"]]
        for entity in found
    ]
    return highlighted, rows


def entity_types(annotate: Pipeline) -> list[str]:
    """Return the types that a model knows, in the order of its labels."""
    labels = annotate.model.config.id2label.values()
    return list(dict.fromkeys(label[2:] for label in labels if label != "O"))


def draw(annotate: Pipeline, text: str, image: Image.Image | None) -> tuple[Image.Image | None, str]:
    """Return the alignment as an image, or None with a note that says why there is none."""
    if image is None:
        return None, NO_IMAGE
    words = [word for word, _, _ in annotate.processor.split_words(text)]
    if annotate.processor.image_processor is None or getattr(annotate.model.bga_mner, "vision_encoder", None) is None:
        return None, "This model has no vision parts, so there is nothing to align the image with."
    try:
        alignment = align(annotate.model, annotate.processor, words, image)
    except ValueError as error:
        return None, f"The alignment can't be shown. {error}"
    with tempfile.TemporaryDirectory() as folder:
        draw_alignment([(alignment, image)], Path(folder, "alignment.png"))
        with Image.open(Path(folder, "alignment.png")) as figure:
            return figure.convert("RGB"), ""


def build_page(annotate: Pipeline, name: str) -> gr.Blocks:
    """Build the page around a pipeline."""

    def run(text: str, image: Image.Image | None, read_image: bool) -> tuple[Any, ...]:
        if not text.strip():
            raise gr.Error("Expected a sentence, got none. Type at least one word.")
        highlighted, rows = find_entities(annotate, text, image, read_image)
        figure, note = draw(annotate, text, image)
        if not rows:
            note = f"No entities found. {note}"
        return highlighted, rows, gr.Image(figure, visible=figure is not None), gr.Markdown(note, visible=bool(note))

    config = annotate.model.config
    with gr.Blocks(title="bga-mner", analytics_enabled=False) as page:
        gr.Markdown(ABOUT)
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(label="Text", lines=3, placeholder="Kawhi Leonard wins the fan vote in Toronto")
                read = gr.Checkbox(
                    label="Let the text read the image, instead of the features that it generates",
                    # without its vision encoder a model reads generated features alone
                    visible=config.text_reads_features and not config.text_only,
                )
                button = gr.Button("Find entities", variant="primary")
            image = gr.Image(
                label="Image (optional)", type="pil", sources=["upload", "clipboard"], height=240, elem_id="image"
            )
        highlighted = gr.HighlightedText(label="Entities", show_legend=False, combine_adjacent=False)
        table = gr.Dataframe(
            headers=["entity", "type", "score", "start", "end"],
            datatype=["str", "str", "number", "number", "number"],
            label="A score says how likely exactly this span is such an entity; start and end are character offsets",
            interactive=False,
        )
        note = gr.Markdown(NO_IMAGE)
        # the figure has its own heading, which a label would hide
        alignment = gr.Image(show_label=False, buttons=["download", "fullscreen"], visible=False, elem_id="alignment")
        gr.Markdown(f"Model: `{name}`; types: {', '.join(entity_types(annotate))}.")
        outputs = [highlighted, table, alignment, note]
        gr.on([button.click, text.submit], run, [text, image, read], outputs, api_name="find_entities")
    return page


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        default=os.environ.get("MODEL_ID"),
        help="folder with a saved model and its processor, or a name on the Hub (default: the variable MODEL_ID)",
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    options = parser.parse_args(arguments)
    if not options.model:
        parser.error("expected a model, got none: give --model, or set the variable MODEL_ID")
    return options


def main(arguments: Sequence[str] | None = None, wait: bool = True) -> gr.Blocks:
    """Serve the page on this machine; return it, once it is stopped if `wait`."""
    options = parse(arguments)
    # the class, so that a model that was saved with its code doesn't ask to run that
    annotate = pipeline("multimodal-ner", model=options.model, pipeline_class=BgaMnerPipeline)
    page = build_page(annotate, Path(options.model).name if Path(options.model).is_dir() else options.model)
    page.launch(server_port=options.port, prevent_thread_lock=not wait, quiet=not wait)
    return page


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # on its own in a Space, without command_line.py beside
        print(f"error: {' '.join(str(error).split())[:900]}", file=sys.stderr)
        sys.exit(2)
