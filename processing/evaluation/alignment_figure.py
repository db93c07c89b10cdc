"""Draw alignments with matplotlib: its packers put texts, tokens and panels below and beside each other."""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import BboxImage
from matplotlib.lines import Line2D
from matplotlib.offsetbox import DrawingArea, HPacker, OffsetBox, TextArea, VPacker
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox, TransformedBbox
from PIL import Image

from ..images.image_loading import load_image
from .alignment_view import WHOLE, Alignment, runs_right_to_left


__all__ = ["draw_alignment"]

PANEL, GAP, MARGIN = 166, 18, 18  # points, as all lengths
MOST_COLUMNS = 5
DOTS_PER_INCH = 150
LONGEST_PNG = 65_000  # dots; Agg draws no more than 2 ** 16
SIZE, BOX, WORD_GAP = 9, 14, 5  # font size, the height of a token's box, and what parts words
INK, FAINT, LINE, KEPT, OWN = "#1c1c1c", "#8a8a8a", "#c4c4c4", "#dbe7f6", "#f6d998"
BEST: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "linewidth": 1.6}
SEEN: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "linewidth": 1, "linestyle": ":"}
VEIL: dict[str, Any] = {
    "facecolor": (1, 1, 1, 0.82),
    "edgecolor": (0.35, 0.35, 0.35, 0.9),
    "hatch": "//////",
    "linewidth": 0,
}
SIMILARITY: dict[str, Any] = {"cmap": "coolwarm", "norm": Normalize(-1, 1), "interpolation": "nearest"}


def draw_alignment(alignments: Sequence[tuple[Alignment, Any]], path: str | os.PathLike[str]) -> None:
    """Draw alignments as one PNG, one below the other.

    Each has the sentence, the image, the patches that each stage keeps, for each entity the similarity of its
    generated features to the patches, and a line of tokens for each stage, with the dropped ones struck out.

    Needs matplotlib, which the extra `examples` installs. Images are whatever `load_image` takes.
    """
    if not alignments:
        raise ValueError("Expected at least one alignment to draw, got none. Align a sentence with its image first.")
    panels = max(1 + len(alignment.patch_keep) + len(alignment.matches) for alignment, _ in alignments)
    columns = min(max(panels, 4), MOST_COLUMNS)
    figure = Figure(dpi=DOTS_PER_INCH)
    pen = _Pen(FigureCanvasAgg(figure).get_renderer(), columns * PANEL + (columns - 1) * GAP)
    parts = [_heading(pen, any(alignment.seen != WHOLE for alignment, _ in alignments))]
    parts += [_pair(pen, alignment, load_image(image)) for alignment, image in alignments]
    page = _below(parts, sep=10, pad=MARGIN)
    figure.add_artist(page)
    page.set_offset(lambda width, height, left, below, renderer: (left, below))
    bounds = page.get_bbox(pen.renderer)
    figure.set_size_inches(bounds.width / DOTS_PER_INCH, bounds.height / DOTS_PER_INCH)
    dots_per_inch = min(DOTS_PER_INCH, LONGEST_PNG / max(figure.get_size_inches()))
    figure.savefig(path, dpi=dots_per_inch, format="png", facecolor="white")


class _Pen:
    """Measures, breaks and writes text, on a page of a width."""

    def __init__(self, renderer: Any, width: float) -> None:
        self.renderer, self.width = renderer, width
        self.fonts = {bold: FontProperties(weight="bold" if bold else "normal", size=SIZE) for bold in (False, True)}
        self.characters = set.intersection(*({*get_font(findfont(font)).get_charmap()} for font in self.fonts.values()))

    def legible(self, text: str) -> str:
        """Put squares for emoji and other characters that the font lacks, and leave out invisible ones."""
        # format characters, surrogates and the like; variation selectors, which choose between forms of emoji
        unseen = {"Cc", "Cf", "Cs", "Co", "Cn"}
        kept = (
            character
            for character in " ".join(text.split())
            if unicodedata.category(character) not in unseen and not "\ufe00" <= character <= "\ufe0f"
        )
        return "".join(character if ord(character) in self.characters else "□" for character in kept)

    def measure(self, text: str, bold: bool = False) -> float:
        """Return the width of a text."""
        dots = self.renderer.get_text_width_height_descent(text, self.fonts[bold], False)[0]
        return float(dots) * 72 / DOTS_PER_INCH

    def wrap(self, text: str, width: float, most_lines: int = 1, bold: bool = False) -> list[str]:
        """Break a legible text into lines, in the middle of a word only where it is wider than a line."""
        lines = [""]
        for word in text.split():
            if lines[-1] and self.measure(f"{lines[-1]} {word}", bold) > width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
            while len(lines[-1]) > 1 and self.measure(lines[-1], bold) > width:
                cut = max(1, self._fitting(lines[-1], width, bold))
                lines[-1:] = [lines[-1][:cut], lines[-1][cut:]]
        if len(lines) > most_lines:
            last = lines[most_lines - 1]
            cut = self._fitting(last, width - self.measure("…", bold), bold)
            lines[most_lines - 1 :] = [f"{last[:cut]}…"]
        return lines

    def _fitting(self, text: str, width: float, bold: bool) -> int:
        """Return how many characters at most fit, by bisection: a text may be long, and measuring it takes time."""
        return bisect_right(range(1, len(text) + 1), width, key=lambda cut: self.measure(text[:cut], bold))

    def look(self, bold: bool = False, **options: Any) -> dict[str, Any]:
        """Return the properties of a text; a dollar sign is no formula."""
        return {"fontproperties": self.fonts[bold], "parse_math": False, "color": INK} | options

    def write(self, *lines: str, bold: bool = False) -> list[TextArea]:
        """Write lines of text."""
        return [TextArea(line, textprops=self.look(bold)) for line in lines]

    def token(self, text: str, kept: bool, own: bool) -> DrawingArea:
        """Draw a token, struck out if it is dropped, and in bold if an entity has it."""
        width = self.measure(text, own) + 6
        area = DrawingArea(width, BOX)
        colour = (OWN if own else KEPT) if kept else "white"
        area.add_artist(Rectangle((0, 0), width, BOX, facecolor=colour, edgecolor=LINE, linewidth=0.5))
        look = self.look(own, ha="center", va="center_baseline", color=INK if kept else FAINT)
        area.add_artist(Text(width / 2, BOX / 2, text, **look))
        if not kept:
            area.add_artist(Line2D((2, width - 2), (BOX / 2, BOX / 2), color=FAINT, linewidth=0.8))
        return area


def _heading(pen: _Pen, cropped: bool) -> OffsetBox:
    """Say what is seen, with samples of kept and dropped, and the scale of colours."""
    samples = [("kept", True, False), ("of an entity", True, True), ("dropped", False, False)]
    tokens = _beside((pen.token(*sample) for sample in samples), sep=4)
    legend = [*pen.write("tokens:"), tokens, *pen.write("   patches: dropped"), _sample(25, VEIL)]
    legend += [*pen.write("   best match"), _sample(BOX, BEST)]
    if cropped:
        legend += [*pen.write("   what the model sees"), _sample(25, SEEN)]
    scale = DrawingArea(100, 10)
    _show(scale, (0, 0, 100, 10), np.linspace(-1, 1, 101)[None], **SIMILARITY)
    says = "cosine similarity of each patch to the visual features that an entity's words generate:  -1"
    colours = [*pen.write(says), scale, *pen.write("1")]
    rows = [_beside(row, sep=6, align="center") for row in (legend, colours)]
    return _below([*pen.write("What the model aligned", bold=True), *rows], sep=6)


def _sample(width: float, look: dict[str, Any]) -> DrawingArea:
    area = DrawingArea(width, BOX)
    area.add_artist(Rectangle((1, 1), width - 2, BOX - 2, **look))
    return area


def _pair(pen: _Pen, alignment: Alignment, image: Image.Image) -> OffsetBox:
    """Draw a rule, the sentence, the panels and the tokens."""
    rule = DrawingArea(pen.width, 1)
    rule.add_artist(Line2D((0, pen.width), (1, 1), color=LINE, linewidth=0.8))
    sentence = pen.wrap(pen.legible(" ".join(alignment.words)), pen.width, most_lines=8, bold=True)
    parts: list[OffsetBox] = [rule, _full_width(pen, alignment, pen.write(*sentence, bold=True), sep=3)]
    panels = list(_panels(pen, alignment, image))
    for start in range(0, len(panels), MOST_COLUMNS):
        parts.append(_beside(panels[start : start + MOST_COLUMNS], GAP, align="top"))
    for stage, kept in enumerate(alignment.text_keep):
        parts += pen.write(f"stage {stage + 1} keeps {kept.sum()} of {kept.size} tokens")
        parts.append(_full_width(pen, alignment, _token_lines(pen, alignment, kept), sep=3))
    return _below(parts, sep=5)


def _below(parts: Iterable[Artist], sep: float, align: Literal["left", "right"] = "left", pad: float = 0) -> OffsetBox:
    return VPacker(pad=pad, sep=sep, align=align, children=[*parts])


def _beside(parts: Iterable[Artist], sep: float = 0, align: Literal["top", "center", "bottom"] = "bottom") -> OffsetBox:
    return HPacker(sep=sep, align=align, children=[*parts])


def _full_width(pen: _Pen, alignment: Alignment, lines: Iterable[OffsetBox], sep: float) -> OffsetBox:
    """Put lines below each other, on the side of the page where the sentence begins."""
    return _below([*lines, DrawingArea(pen.width, 0)], sep, align="right" if alignment.right_to_left else "left")


def _token_lines(pen: _Pen, alignment: Alignment, kept: np.ndarray) -> Iterator[OffsetBox]:
    """Draw the tokens of a stage, those of a word without gaps, in as many lines as they need."""
    own = alignment.entity_tokens
    line: list[OffsetBox] = []
    filled = 0.0
    for group in alignment.token_groups():
        tokens = []
        for position in group:
            text = pen.wrap(pen.legible(alignment.tokens[position]), pen.width / 3)[0] or "□"
            tokens.append(pen.token(text, bool(kept[position]), position in own))
        # a word that is longer than a line goes over several
        whole = sum(token.width for token in tokens) <= pen.width
        backwards = runs_right_to_left("".join(alignment.tokens[position] for position in group))
        for part in [tokens] if whole else [[token] for token in tokens]:
            width = sum(token.width for token in part)
            if line and filled + width > pen.width:
                yield _line(line, alignment)
                line, filled = [], 0.0
            line.append(_beside(part[::-1] if backwards else part))
            filled += width + WORD_GAP
    yield _line(line, alignment)


def _line(words: list[OffsetBox], alignment: Alignment) -> OffsetBox:
    return _beside(words[::-1] if alignment.right_to_left else words, WORD_GAP)


def _panels(pen: _Pen, alignment: Alignment, image: Image.Image) -> Iterator[OffsetBox]:
    """Draw the image, what each stage keeps of it, and its similarity to each entity."""
    image = image.copy()
    image.thumbnail((600, 600))  # more than a panel has dots
    found = " " if alignment.matches else "no entity was found"
    yield _panel(pen, ["the image", found], _image_area(image))
    for stage, kept in enumerate(alignment.patch_keep):
        title = [f"stage {stage + 1} keeps", f"{kept.sum()} of {kept.size} patches"]
        area = _image_area(image)
        _mark(area, alignment, kept.shape, np.argwhere(~kept), VEIL)
        yield _panel(pen, title, area)
    for match in alignment.matches:
        phrase = pen.wrap(pen.legible(match.phrase), PANEL - pen.measure("“”"))[0]
        # in a line of its own, or it would stand on the wrong side of an Arabic name
        ends = f": {match.similarity.min():.2f} to {match.similarity.max():.2f}"
        label = pen.wrap(pen.legible(match.label), PANEL - pen.measure(ends))[0]
        area = _image_area(image.convert("L"), alpha=0.6, cmap="gray", norm=Normalize(0, 255))
        _show(area, _seen(area, alignment), match.similarity, alpha=0.65, **SIMILARITY)
        best = np.argwhere(match.similarity == match.similarity.max())[:1]
        _mark(area, alignment, match.similarity.shape, best, BEST)
        yield _panel(pen, [f"“{phrase}”", f"{label}{ends}"], area)


def _panel(pen: _Pen, title: list[str], area: DrawingArea) -> OffsetBox:
    """Put a title above a panel, which is as wide as the others."""
    return _below([*pen.write(*title), area, DrawingArea(PANEL, 0)], sep=2)


def _image_area(image: Image.Image, **look: Any) -> DrawingArea:
    scale = PANEL / max(image.size)
    area = DrawingArea(image.width * scale, image.height * scale, clip=True)
    _show(area, (0, 0, area.width, area.height), np.asarray(image), **look)
    return area


def _show(area: DrawingArea, box: Sequence[float], values: np.ndarray, **look: Any) -> None:
    """Show values as colours in a part of an area: left, bottom, right, top."""
    shown = BboxImage(TransformedBbox(Bbox.from_extents(*box), area.get_transform()), **look)
    shown.set_data(values)
    area.add_artist(shown)


def _seen(area: DrawingArea, alignment: Alignment) -> tuple[float, float, float, float]:
    """Return left, bottom, right and top of what the model sees of an image."""
    left, top, right, bottom = alignment.seen
    return left * area.width, (1 - bottom) * area.height, right * area.width, (1 - top) * area.height


def _mark(
    area: DrawingArea, alignment: Alignment, shape: tuple[int, ...], patches: Iterable[Any], look: dict[str, Any]
) -> None:
    """Draw rectangles over patches (row, column) of a grid, and a frame around what the model sees."""
    left, bottom, right, top = _seen(area, alignment)
    width, height = (right - left) / shape[1], (top - bottom) / shape[0]
    cells = [Rectangle((left + column * width, top - (row + 1) * height), width, height) for row, column in patches]
    if cells:
        area.add_artist(PatchCollection(cells, **look))
    if alignment.seen != WHOLE:
        area.add_artist(Rectangle((left, bottom), right - left, top - bottom, **SEEN))
