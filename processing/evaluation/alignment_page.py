"""Show what a model aligned as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image

from ..images.image_loading import load_image
from .alignment_view import WHOLE, Alignment, runs_right_to_left


__all__ = ["alignment_html"]

LONGEST_SIDE = 1024  # of an embedded image, in pixels
# Colours of similarity -1, 0 and 1; the page's scale has the same.
SCALE = ((59, 76, 192), (221, 221, 221), (180, 4, 38))


def alignment_html(alignments: Sequence[tuple[Alignment, Any]]) -> str:
    """Show alignments as one HTML page: no script, nothing to load, images inside.

    Each pair has a choice (radio buttons, so that arrow keys work) of its stages and its entities. A stage shows the
    tokens and patches that it keeps; an entity shows how similar each patch is to what its tokens generate. Pointing at
    a patch or a token says what it is; the similarities also stand in a table.

    Images are whatever `load_image` takes. Those of more than 1,024 pixels per side are scaled down; others are
    embedded as they are. The page is to be written as UTF-8.
    """
    if not alignments:
        raise ValueError("Expected at least one alignment to show, got none. Align a sentence with its image first.")
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, keep_trailing_newline=True
    )
    page = templates.get_template("alignment_page.html").render(
        pairs=[(alignment, _embedded(load_image(image))) for alignment, image in alignments],
        most_views=max(len(alignment.patch_keep) + len(alignment.matches) for alignment, _ in alignments),
        cropped=any(alignment.seen != WHOLE for alignment, _ in alignments),
        whole=WHOLE,
        scale=[_colour(value) for value in (-1.0, 0.0, 1.0)],
        colour=_colour,
        direction=lambda text: "rtl" if runs_right_to_left(text) else "ltr",
    )
    # what UTF-8 can't hold becomes a question mark
    return page.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _embedded(image: Image.Image) -> dict[str, Any]:
    """Write an image as PNG, which loses nothing, into an address."""
    small = max(image.size) < 200
    image = image.copy()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = BytesIO()
    image.save(content, format="PNG", optimize=True)
    return {"small": small, "uri": f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"}


def _colour(value: float) -> str:
    """Mix the colour of a similarity: blue at -1, grey at 0, red at 1."""
    strength = min(1.0, abs(value))
    end = SCALE[2] if value > 0 else SCALE[0]
    mixed = (round(middle + strength * (full - middle)) for middle, full in zip(SCALE[1], end, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"
