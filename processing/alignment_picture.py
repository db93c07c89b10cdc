"""Draw what a model aligned: what each stage keeps of text and picture, and the patches that an entity matches."""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ..configuration.messages import shown
from ..modeling_bga.alignment_losses import reconstruction_target
from ..modeling_bga.context_sampler import padding_bias
from .evaluation_mode import evaluating
from .pictures import limit_aspect_ratio, load_picture
from .tag_scheme import spans_from_tags
from .text_tagging import longest_input


WHOLE = (0.0, 0.0, 1.0, 1.0)  # left, top, right and bottom of a picture that isn't cropped


class EntityMatch(NamedTuple):
    """An entity, and the patches that look like what its tokens generate.

    Attributes
    ----------
    phrase : str
        Words of the entity.
    label : str
        Its type.
    similarity : numpy.ndarray of float, shape (rows, columns)
        Of each real patch to the visual features that the last stage generates from the entity's tokens, from -1 to 1.
    tokens : list of int
        Places of its tokens.
    """

    phrase: str
    label: str
    similarity: np.ndarray
    tokens: list[int]


@dataclass
class Alignment:
    """What a model makes of one sentence and its picture.

    Attributes
    ----------
    words : list of str
        The sentence.
    tokens : list of str
        What the tokenizer made of it, without the tokenizer's marks for blanks and continued words.
    word_ids : list of (int or None)
        The word that each token is of; None for special tokens.
    text_keep : numpy.ndarray of bool, shape (stages, tokens)
        Tokens that each stage keeps.
    patch_keep : numpy.ndarray of bool, shape (stages, rows, columns)
        Patches that each stage keeps.
    matches : list of EntityMatch
        One for each entity that the model finds.
    seen : tuple of (float, float, float, float)
        Left, top, right and bottom of what the patches cover, as shares of the picture's width and height: image
        processors may crop.
    """

    words: list[str]
    tokens: list[str]
    word_ids: list[int | None]
    text_keep: np.ndarray
    patch_keep: np.ndarray
    matches: list[EntityMatch] = field(default_factory=list)
    seen: tuple[float, float, float, float] = WHOLE

    @property
    def right_to_left(self) -> bool:
        """Whether the sentence is written from right to left."""
        return runs_right_to_left(" ".join(self.words))

    def token_groups(self) -> list[list[int]]:
        """Return the places of the tokens, those of a word together.

        Examples
        --------
        >>> keep = np.ones((1, 4), dtype=bool), np.ones((1, 1, 1), dtype=bool)
        >>> Alignment(["Kawhi"], ["[CLS]", "Ka", "whi", "[SEP]"], [None, 0, 0, None], *keep).token_groups()
        [[0], [1, 2], [3]]
        """
        groups: list[list[int]] = []
        for place, word in enumerate(self.word_ids):
            if word is not None and groups and self.word_ids[groups[-1][0]] == word:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups


def runs_right_to_left(text: str) -> bool:
    """Say whether the first letter of a text that has a direction is Arabic, Hebrew and the like.

    Examples
    --------
    >>> runs_right_to_left("1. \u05e9\u05dc\u05d5\u05dd OK"), runs_right_to_left("...")
    (True, False)
    """
    kinds = map(unicodedata.bidirectional, text)
    return next((kind != "L" for kind in kinds if kind in ("L", "R", "AL")), False)


def align(model: Any, processor: Any, words: Sequence[str], image: Any) -> Alignment:
    """Look into a model at work on a sentence with its picture.

    Features are generated from an entity's tokens alone, and averaged over patches, since an object may be anywhere.
    What they share with the features of the sentence's other tokens says nothing about the entity, and is subtracted
    before they are compared with the real patches. A transformer's patches have seen the whole picture, so a match
    need not stop at the object's outline.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        A model with a text -> image generator.
    processor : BgaMnerProcessor
        The model's processor.
    words : sequence of str
        The sentence. One that is longer than the model reads is cut, with a warning.
    image : picture
        Whatever `load_picture` takes.

    Returns
    -------
    Alignment
        Keep masks and similarities.

    Raises
    ------
    ValueError
        If there are no words, the picture can't be used, or the model generates no visual features.
    """
    base, config = model.bga_mner, model.config
    if isinstance(words, str) or not words:
        raise ValueError(
            f"Expected the words of a sentence as a list, got {shown(words)}. Split text with split_words()."
        )
    if base.text_branch.generator is None:
        raise ValueError("Expected a model with a text -> image generator, got one with use_text_to_image=False.")
    if config.visual_target != "last" or not config.normalize_targets:
        raise ValueError(
            "Expected a model that generates normalised last states, since these are compared with the picture's, got "
            f"visual_target={shown(config.visual_target)}, normalize_targets={config.normalize_targets}. Train one "
            'with visual_target="last" and normalize_targets=True.'
        )
    image = load_picture(image)
    batch = processor(
        [list(words)],
        images=[image],
        on_bad_image="raise",
        max_length=longest_input(processor.tokenizer, config.text_config),
        return_tensors="pt",
        return_word_ids=True,
    )
    word_ids = batch.pop("word_ids")[0]
    batch = batch.to(next(model.parameters()).device)
    with evaluating(model):
        output = model(**batch, output_hidden_states=True)

        side = config.vision_grid_side
        first_patch = config.num_vision_prefix_tokens
        tags = [config.id2label[tag] for tag in output.predictions[0].tolist()]
        # real features as the generator's targets are: (patches, width)
        real = reconstruction_target(output.vision_last_hidden_state, config.normalize_targets)[0, first_patch:]
        states = output.hidden_states[config.text_config.num_hidden_layers - 1]  # they enter the last layer
        special = torch.tensor([word is None for word in word_ids], device=states.device)

        generator = base.text_branch.generator
        queries = generator.prepare(config.num_vision_tokens)

        def generate(positions: torch.Tensor) -> torch.Tensor:
            bias = padding_bias(positions[None], states.dtype)  # (1, tokens)
            return generator(states, bias, queries)[0, first_patch:].mean(dim=0)

        matches = []
        for label, covered in _entities(tags, word_ids):
            own = torch.tensor([word in covered for word in word_ids], device=states.device)
            rest = ~own & ~special
            wanted = generate(own) - (generate(rest) if rest.any() else 0)
            similarity = F.cosine_similarity(real, wanted[None], dim=-1)
            phrase = " ".join(words[word] for word in covered)
            places = own.nonzero().squeeze(1).tolist()
            # (patches,) -> (rows, columns)
            matches.append(EntityMatch(phrase, label, similarity.view(side, side).float().cpu().numpy(), places))
    # stages * (1, patches) -> (stages, rows, columns)
    patch_keep = torch.cat(output.vision_keep_masks)[:, first_patch:].unflatten(1, (side, side)) > 0
    return Alignment(
        words=list(words),
        tokens=_readable_tokens(processor.tokenizer, batch["input_ids"][0].tolist(), word_ids),
        word_ids=word_ids,
        text_keep=(torch.cat(output.text_keep_masks) > 0).cpu().numpy(),
        patch_keep=patch_keep.cpu().numpy(),
        matches=matches,
        seen=_seen_part(processor.image_processor, image),
    )


def _entities(tags: list[str], word_ids: list[int | None]) -> list[tuple[str, range]]:
    """Return type and words of each entity, as `predict` does: by the tags of the words' first tokens."""
    firsts: dict[int, str] = {}
    for tag, word in zip(tags, word_ids, strict=True):
        if word is not None:
            firsts.setdefault(word, tag)
    return [(label, range(start, end)) for label, start, end in spans_from_tags(firsts.values())]


def _readable_tokens(tokenizer: Any, ids: list[int], word_ids: list[int | None]) -> list[str]:
    """Show tokens as text: RoBERTa's blanks and bytes and XLM-R's underlines undone, without BERT's ##."""
    shown = []
    for place, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        text = tokenizer.convert_tokens_to_string([token]).strip() or token
        if place and word_ids[place] is not None and word_ids[place] == word_ids[place - 1]:
            text = text.removeprefix("##") or text
        shown.append(text)
    return shown


def _seen_part(image_processor: Any, image: Image.Image) -> tuple[float, float, float, float]:
    """Return what is left of a picture after thin ones are cut and the image processor crops: see `Alignment.seen`."""
    cut = limit_aspect_ratio(image)
    width, height = cut.width / image.width, cut.height / image.height
    if getattr(image_processor, "do_center_crop", False):
        size, crop = image_processor.size, image_processor.crop_size
        resized = cut.width, cut.height
        if getattr(image_processor, "do_resize", True):
            if size.get("shortest_edge"):
                scale = size["shortest_edge"] / min(cut.size)
                resized = cut.width * scale, cut.height * scale
            else:
                resized = size["width"], size["height"]
        width, height = width * crop["width"] / resized[0], height * crop["height"] / resized[1]
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


PANEL, GAP, MARGIN = 2.3, 0.25, 0.25  # inches, as all lengths below
MOST_COLUMNS = 5
DOTS_PER_INCH = 150
LONGEST_PNG = 65_000  # dots; Agg draws no more than 2 ** 16
SIZE, LINE = 9, 0.17  # font size in points, and the height of a line of text
INK, FAINT, KEPT, OWN = "#1c1c1c", "#8a8a8a", "#dbe7f6", "#f6d998"
BEST: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "linewidth": 1.6}
SEEN: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "linewidth": 1, "linestyle": ":"}
VEIL: dict[str, Any] = {
    "facecolor": (1, 1, 1, 0.82),
    "edgecolor": (0.35, 0.35, 0.35, 0.9),
    "hatch": "//////",
    "linewidth": 0,
}


def draw_alignment(alignments: Sequence[tuple[Alignment, Any]], path: str | os.PathLike[str]) -> None:
    """Draw alignments as one PNG, one below the other.

    Each has the sentence, the picture, the patches that each stage keeps, for each entity the similarity of its
    generated features to the patches, and a line of tokens for each stage, with the dropped ones struck out.

    Needs matplotlib, which the extra `examples` installs.

    Parameters
    ----------
    alignments : sequence of (Alignment, picture)
        Alignments with their pictures: whatever `load_picture` takes.
    path : str or os.PathLike
        Where to write the PNG.

    Raises
    ------
    ValueError
        If there is nothing to draw, or a picture can't be used.
    """
    if not alignments:
        raise ValueError("Expected at least one alignment to draw, got none.")
    panels = max(1 + len(alignment.patch_keep) + len(alignment.matches) for alignment, _ in alignments)
    page = _Page(columns=min(max(panels, 4), MOST_COLUMNS))
    _draw_heading(page, any(alignment.seen != WHOLE for alignment, _ in alignments))
    for alignment, image in alignments:
        _draw_pair(page, alignment, load_picture(image))
    page.save(path)


class _Page:
    """A page that grows downwards, measured in inches from its upper left corner.

    Parameters
    ----------
    columns : int
        Number of panels beside each other.

    Attributes
    ----------
    top : float
        Where the next thing goes.
    """

    def __init__(self, columns: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.font_manager import FontProperties, findfont, get_font

        self.columns = columns
        self.width = 2 * MARGIN + columns * PANEL + (columns - 1) * GAP
        self.top = MARGIN
        self.figure = Figure(dpi=DOTS_PER_INCH)
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()
        self.axis = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.axis.set_axis_off()
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
        return float(self.renderer.get_text_width_height_descent(text, self.fonts[bold], False)[0]) / DOTS_PER_INCH

    def wrap(self, text: str, width: float, most_lines: int, bold: bool = False) -> list[str]:
        """Break a legible text into lines, in the middle of a word only where it is wider than a line."""
        lines = [""]
        for word in text.split():
            if lines[-1] and self.measure(f"{lines[-1]} {word}", bold) > width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
            while len(lines[-1]) > 1 and self.measure(lines[-1], bold) > width:
                cut = max(1, self.fitting(lines[-1], width, bold))
                lines[-1:] = [lines[-1][:cut], lines[-1][cut:]]
        if len(lines) > most_lines:
            last = lines[most_lines - 1]
            cut = self.fitting(last, width - self.measure("…", bold), bold)
            lines[most_lines - 1 :] = [f"{last[:cut]}…"]
        return lines

    def fitting(self, text: str, width: float, bold: bool) -> int:
        """Return how many characters at most fit, by bisection: a text may be long, and measuring it takes time."""
        return bisect_right(range(1, len(text) + 1), width, key=lambda cut: self.measure(text[:cut], bold))

    def write(self, text: str, left: float, top: float, bold: bool = False, **options: Any) -> None:
        """Write a line of text; a dollar sign is no formula."""
        options = {"color": INK, "va": "top"} | options
        self.axis.text(left, top, text, fontproperties=self.fonts[bold], parse_math=False, **options)

    def box(self, left: float, top: float, width: float, height: float, **options: Any) -> None:
        """Draw a rectangle."""
        from matplotlib.patches import Rectangle

        self.axis.add_patch(Rectangle((left, top), width, height, **options))

    def tokens(self, tokens: Sequence[tuple[str, bool, bool]], left: float, top: float) -> None:
        """Draw the tokens of a word beside each other: text, whether it is kept, whether an entity has it."""
        right_to_left = runs_right_to_left("".join(text for text, _, _ in tokens))
        for text, kept, own in reversed(tokens) if right_to_left else tokens:
            width = self.token_width(text, own)
            colour = (OWN if own else KEPT) if kept else "white"
            self.box(left, top, width, 0.19, facecolor=colour, edgecolor="#c4c4c4", linewidth=0.5)
            ink = INK if kept else FAINT
            self.write(text, left + width / 2, top + 0.1, own, va="center_baseline", ha="center", color=ink)
            if not kept:
                self.axis.plot((left + 0.03, left + width - 0.03), (top + 0.1, top + 0.1), color=FAINT, linewidth=0.8)
            left += width

    def token_width(self, text: str, own: bool) -> float:
        """Return the width of a token's box."""
        return self.measure(text, own) + 0.08

    def panels(self, height: float) -> Iterator[tuple[float, float]]:
        """Yield the upper left corners of panels, line by line; the page goes on below the last one."""
        while True:
            top = self.top
            self.top += height + 2 * LINE + GAP / 2
            for column in range(self.columns):
                yield MARGIN + column * (PANEL + GAP), top

    def save(self, path: str | os.PathLike[str]) -> None:
        """Cut the page where it ends, and write it."""
        self.axis.set(xlim=(0, self.width), ylim=(self.top, 0))
        self.figure.set_size_inches(self.width, self.top)
        longest = max(self.width, self.top)
        self.figure.savefig(path, dpi=min(DOTS_PER_INCH, LONGEST_PNG / longest), format="png", facecolor="white")


def _draw_heading(page: _Page, cropped: bool) -> None:
    """Say what is seen, with samples of kept and dropped, and the scale of colours."""
    page.write("What the model aligned", MARGIN, page.top, bold=True)
    page.top += 1.4 * LINE
    left = MARGIN
    page.write("tokens:", left, page.top)
    left += page.measure("tokens:") + 0.1
    for text, kept, own in (("kept", True, False), ("of an entity", True, True), ("dropped", False, False)):
        page.tokens([(text, kept, own)], left, page.top - 0.03)
        left += page.token_width(text, own) + 0.06
    left += 0.25
    page.write("patches: dropped", left, page.top)
    left += page.measure("patches: dropped") + 0.1
    page.box(left, page.top - 0.03, 0.35, 0.19, **VEIL)
    left += 0.5
    page.write("best match", left, page.top)
    left += page.measure("best match") + 0.1
    page.box(left, page.top - 0.02, 0.17, 0.17, **BEST)
    if cropped:
        left += 0.5
        page.write("what the model sees", left, page.top)
        page.box(left + page.measure("what the model sees") + 0.1, page.top - 0.02, 0.35, 0.17, **SEEN)
    page.top += 1.6 * LINE
    scale = "cosine similarity of each patch to the visual features that an entity's words generate:  -1"
    page.write(scale, MARGIN, page.top)
    left = MARGIN + page.measure(scale) + 0.08
    extent = (left, left + 1.4, page.top + 0.14, page.top)
    page.axis.imshow(np.linspace(-1, 1, 101)[None], extent=extent, cmap="coolwarm", aspect="auto")
    page.write("1", left + 1.48, page.top)
    page.top += 1.6 * LINE


def _draw_pair(page: _Page, alignment: Alignment, image: Image.Image) -> None:
    """Draw a rule, the sentence, the panels and the tokens."""
    full = page.width - 2 * MARGIN
    page.axis.plot((MARGIN, page.width - MARGIN), (page.top, page.top), color="#c4c4c4", linewidth=0.8)
    page.top += 0.1
    for line in page.wrap(page.legible(" ".join(alignment.words)), full, most_lines=8, bold=True):
        left, side = (page.width - MARGIN, "right") if alignment.right_to_left else (MARGIN, "left")
        page.write(line, left, page.top, bold=True, ha=side)
        page.top += LINE
    page.top += 0.06
    image = image.copy()
    image.thumbnail((600, 600))  # more than a panel has dots
    corners = page.panels(image.height * PANEL / max(image.size))
    _draw_panel(page, next(corners), image, ["the picture", "" if alignment.matches else "no entity was found"])
    for stage, kept in enumerate(alignment.patch_keep):
        title = [f"stage {stage + 1} keeps", f"{kept.sum()} of {kept.size} patches"]
        _draw_panel(page, next(corners), image, title, alignment.seen, kept=kept)
    for match in alignment.matches:
        phrase = page.wrap(page.legible(match.phrase), PANEL - page.measure("“”"), most_lines=1)[0]
        # in a line of its own, or it would stand on the wrong side of an Arabic name
        ends = f": {match.similarity.min():.2f} to {match.similarity.max():.2f}"
        label = page.wrap(page.legible(match.label), PANEL - page.measure(ends), most_lines=1)[0]
        title = [f"“{phrase}”", f"{label}{ends}"]
        _draw_panel(page, next(corners), image, title, alignment.seen, similarity=match.similarity)
    own = {place for match in alignment.matches for place in match.tokens}
    for stage, kept in enumerate(alignment.text_keep):
        page.write(f"stage {stage + 1} keeps {kept.sum()} of {kept.size} tokens", MARGIN, page.top)
        page.top += LINE + 0.03
        left = 0.0
        for group in alignment.token_groups():
            shown = []
            for place in group:
                text = page.wrap(page.legible(alignment.tokens[place]), full / 3, most_lines=1)[0] or "□"
                shown.append((text, bool(kept[place]), place in own))
            # a word that is longer than a line goes over several
            whole = sum(page.token_width(text, has) for text, _, has in shown)
            parts = [shown] if whole <= full else [[token] for token in shown]
            for part in parts:
                width = sum(page.token_width(text, has) for text, _, has in part)
                if left and left + width > full:
                    left = 0.0
                    page.top += 0.23
                start = page.width - MARGIN - left - width if alignment.right_to_left else MARGIN + left
                page.tokens(part, start, page.top)
                left += width
            left += 0.06
        page.top += 0.3
    page.top += 0.1


def _draw_panel(
    page: _Page,
    corner: tuple[float, float],
    image: Image.Image,
    title: list[str],
    seen: tuple[float, float, float, float] = WHOLE,
    kept: np.ndarray | None = None,
    similarity: np.ndarray | None = None,
) -> None:
    """Draw a picture with two lines of title, dropped patches veiled, or patches coloured by similarity."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    left, top = corner
    for number, line in enumerate(title):
        page.write(line, left, top + number * LINE)
    top += 2 * LINE
    scale = PANEL / max(image.size)
    width, height = image.width * scale, image.height * scale
    frame = Rectangle((left, top), width, height, transform=page.axis.transData)
    options: dict[str, Any] = {"extent": (left, left + width, top + height, top), "aspect": "auto"}
    if similarity is None:
        page.axis.imshow(image, **options)
    else:
        page.axis.imshow(image.convert("L"), cmap="gray", vmin=0, vmax=255, alpha=0.6, **options)
    values = similarity if kept is None else kept
    if values is None:
        return
    x0, y0 = left + seen[0] * width, top + seen[1] * height
    x1, y1 = left + seen[2] * width, top + seen[3] * height
    wide, high = (x1 - x0) / values.shape[1], (y1 - y0) / values.shape[0]

    def cells(places: np.ndarray) -> list[Rectangle]:
        return [Rectangle((x0 + column * wide, y0 + row * high), wide, high) for row, column in places]

    def add(places: np.ndarray, **look: Any) -> None:
        # cells may end outside of the picture where a crop is larger than it
        page.axis.add_collection(PatchCollection(cells(places), clip_path=frame, **look))

    if kept is not None and not kept.all():
        add(np.argwhere(~kept), **VEIL)
    elif similarity is not None:
        shown = page.axis.imshow(
            similarity, extent=(x0, x1, y1, y0), aspect="auto", cmap="coolwarm", vmin=-1, vmax=1, alpha=0.65,
            interpolation="nearest",
        )  # fmt: skip
        shown.set_clip_path(frame)
        best = np.argwhere(similarity == similarity.max())[:1]
        add(best, **BEST)
    if seen != WHOLE:
        page.box(x0, y0, x1 - x0, y1 - y0, **SEEN)


__all__ = ["WHOLE", "Alignment", "EntityMatch", "align", "draw_alignment", "runs_right_to_left"]
