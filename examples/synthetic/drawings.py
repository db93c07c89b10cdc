"""Drawings of the visual concepts that stand for entity types and sentiments, made by code from seeds."""

import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

from bga_mner.configuration.errors import shown


__all__ = ["ENTITY_TYPES", "SENTIMENTS", "concept_images", "draw_concept"]

ENTITY_TYPES = ("LOC", "MISC", "ORG", "PER")
SENTIMENTS = ("negative", "neutral", "positive")

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]
Shape = tuple[int, int, Points]  # line width in pens (0: a filled polygon), 0 = main and 1 = accent colour, points
Drawing = tuple[Image.Image, list[int]]


def _colour(rng: random.Random, unlike: Colour | None = None) -> Colour:
    """Draw any colour, or one whose lightness differs from that of `unlike`: shapes show, hues stay free."""
    while True:
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        if unlike is None or abs(sum(w * (a - b) for w, a, b in zip((3, 6, 1), colour, unlike, strict=True))) >= 900:
            return colour


def _block(x0: float, y0: float, x1: float, y1: float) -> Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _round(x: float, y: float, *radii: float, n: int = 24, start: float = 0.0, turns: float = 1.0) -> Points:
    """Return `n` points on an ellipse (two radii), or around a star (`n` radii)."""
    angles = [2 * math.pi * (start + turns * i / n) for i in range(n)]
    lengths = [(radii[i], radii[i]) if len(radii) == n else radii[:2] for i in range(n)]
    return [(x + a * math.cos(t), y + b * math.sin(t)) for (a, b), t in zip(lengths, angles, strict=True)]


def _concept_shapes(concept: str, rng: random.Random) -> list[Shape]:
    """Describe a concept by shapes in the unit square, y downwards, in the order of drawing."""
    if concept == "PER":
        arms = [(0.05, rng.uniform(0.2, 0.7)), (0.5, 0.45), (0.95, rng.uniform(0.2, 0.7))]
        legs = [(rng.uniform(0.12, 0.35), 0.98), (0.5, 0.66), (rng.uniform(0.65, 0.88), 0.98)]
        smile = [(0.4, 0.25), (0.46, 0.29), (0.54, 0.29), (0.6, 0.25)]
        face: list[Shape] = [(0, 1, _round(x, 0.15, 0.04, 0.04)) for x in (0.42, 0.58)]
        head = _round(0.5, 0.19, 0.19, 0.19)
        return [(2, 0, arms), (2, 0, legs), (2, 0, [(0.5, 0.3), (0.5, 0.66)]), (0, 0, head), *face, (1, 1, smile)]
    if concept == "LOC":
        top, second = rng.uniform(0.3, 0.4), rng.uniform(0.45, 0.6)
        low = top + 0.3 * (1 - top)  # where the snow ends
        hills = [[(0.38, 1.0), (0.74, second), (1.0, 1.0)], [(0.0, 1.0), (0.35, top), (0.72, 1.0)]]
        snow = [(0.245, low), (0.35, top), (0.461, low), (0.4, low - 0.06), (0.3, low + 0.05)]
        rays: list[Shape] = [(1, 0, [(0.83, 0.17), end]) for end in _round(0.83, 0.17, 0.17, 0.17, n=8)]
        return [*((0, 0, hill) for hill in hills), (0, 1, snow), *rays, (0, 0, _round(0.83, 0.17, 0.09, 0.09))]
    if concept == "ORG":
        columns, rows = rng.choice((2, 3)), rng.choice((3, 4))
        wide, high = 0.72 / columns, 0.58 / rows
        panes = [(0.14 + wide * (i + 0.2), 0.18 + high * j) for i in range(columns) for j in range(rows)]
        holes = [_block(x, y, x + 0.6 * wide, y + 0.65 * high) for x, y in panes] + [_block(0.4, 0.8, 0.6, 1.0)]
        return [(0, 0, _block(0.1, 0.1, 0.9, 1)), (0, 0, _block(0, 0, 1, 0.1)), *((0, 1, hole) for hole in holes)]
    if concept in SENTIMENTS:
        return _sentiment_shapes(concept, rng)
    stem = rng.uniform(0.05, 0.08)
    solid = [_block(0.17, 0.0, 0.83, 0.08), _block(0.5 - stem, 0.58, 0.5 + stem, 0.84), _block(0.26, 0.82, 0.74, 1.0)]
    solid += [_round(0.5, 0.05, 0.3, 0.57, turns=0.52)]  # the cup
    handles: list[Shape] = [(2, 0, _round(x, 0.25, 0.15, 0.15, n=25, turns=25 / 24)) for x in (0.18, 0.82)]
    star = _round(0.5, 0.27, *(0.14, 0.06) * 5, n=10, start=-0.25)
    return [*handles, *((0, 0, part) for part in solid), (0, 1, star)]


def _sentiment_shapes(concept: str, rng: random.Random) -> list[Shape]:
    if concept == "positive":
        dip = rng.uniform(0.2, 0.32)
        halves: list[Shape] = [(0, 0, _round(x, 0.28, 0.26, 0.26)) for x in (0.26, 0.74)]
        return [*halves, (0, 0, [(0.04, 0.42), (0.5, dip), (0.96, 0.42), (0.5, 1.0)])]
    if concept == "negative":
        puffs = [_round(0.25, 0.35, 0.24, 0.2), _round(0.55, 0.25, 0.28, 0.25), _round(0.8, 0.38, 0.2, 0.18)]
        tip = rng.uniform(0.3, 0.6)
        bolt = [(0.5, 0.4), (0.3, 0.72), (0.47, 0.7), (tip, 1.0), (0.7, 0.6), (0.53, 0.62), (0.66, 0.4)]
        return [*((0, 0, puff) for puff in puffs), (0, 0, _block(0.2, 0.35, 0.85, 0.54)), (0, 1, bolt)]
    hours = rng.uniform(0, 1)
    hands: list[Shape] = [
        (2, 1, [(0.5, 0.5), _round(0.5, 0.5, r, r, n=1, start=t)[0]]) for r, t in ((0.24, hours), (0.36, 12 * hours))
    ]
    marks: list[Shape] = [(0, 1, _round(x, y, 0.05, 0.05)) for x, y in _round(0.5, 0.5, 0.41, 0.41, n=4)]
    return [(0, 0, _round(0.5, 0.5, 0.5, 0.5)), *marks, *hands]


_OVERSAMPLING = 3  # images are drawn larger and reduced: Pillow draws without anti-aliasing


def draw_concept(concept: str, rng: random.Random, size: int = 64, clutter: float = 0.3) -> Drawing:
    """Draw the visual concept of an entity type or a sentiment; return the image and the object's `[x0, y0, x1, y1]`.

    The concepts are a figure (`PER`), mountains under a sun (`LOC`), a building (`ORG`) and a trophy (`MISC`);
    a thundercloud (`negative`), a clock (`neutral`) and a heart (`positive`). Colours, position, scale and
    proportions are random, so that only the shape tells them apart. `clutter` goes from 0 (plain background, large
    object) to 1 (16 background shapes, small object).
    """
    if concept not in (known := (*ENTITY_TYPES, *SENTIMENTS)):
        raise ValueError(f"Expected a concept out of {known}, got {shown(concept)}. Pass one of these names.")
    if size < 16:
        raise ValueError(f"Expected an image size of at least 16 pixels, got {size}. Ask for a larger image.")
    if not 0.0 <= clutter <= 1.0:
        raise ValueError(f"Expected clutter between 0 and 1, got {clutter}. Pass the share of full clutter.")
    full = size * _OVERSAMPLING
    background = _colour(rng)
    image = Image.new("RGB", (full, full), background)
    draw = ImageDraw.Draw(image)
    for _ in range(round(16 * clutter)):
        # A third of the way from the background to another colour: the object stands out more than the clutter.
        red, green, blue = ((2 * a + b) // 3 for a, b in zip(background, _colour(rng), strict=True))
        x, y = rng.uniform(-0.1, 1.0) * full, rng.uniform(-0.1, 1.0) * full
        w, h, kind = rng.uniform(0.03, 0.18) * full, rng.uniform(0.03, 0.18) * full, rng.choice("lbr")
        if kind == "l":
            draw.line([(x, y), (x + 2 * w, y + 2 * h)], fill=(red, green, blue), width=full // 40)
        else:
            draw.polygon(_block(x, y, x + 2 * w, y + 2 * h) if kind == "b" else _round(x, y, w, h), (red, green, blue))
    height = (rng.uniform(0.75, 0.95) - 0.3 * clutter) * full
    width = min(height * rng.uniform(0.75, 1.15), 0.98 * full)
    left, top = rng.uniform(0, full - width), rng.uniform(0, full - height)
    mirrored = rng.random() < 0.5
    colours = (main := _colour(rng, unlike=background), _colour(rng, unlike=main))
    pen = max(1, round(height / 32))
    for pens, colour, unit_points in _concept_shapes(concept, rng):
        points = [(left + (1 - x if mirrored else x) * width, top + y * height) for x, y in unit_points]
        if pens:
            draw.line(points, fill=colours[colour], width=pens * pen, joint="curve")
        else:
            draw.polygon(points, fill=colours[colour])
    x0, y0 = math.floor(left / _OVERSAMPLING), math.floor(top / _OVERSAMPLING)
    x1, y1 = math.ceil((left + width) / _OVERSAMPLING), math.ceil((top + height) / _OVERSAMPLING)
    return image.reduce(_OVERSAMPLING), [x0, y0, min(size, x1), min(size, y1)]


def concept_images(
    n: int, seed: int = 0, image_size: int = 64, clutter: float = 0.3, kinds: Sequence[str] = ENTITY_TYPES
) -> tuple[list[Image.Image], list[int]]:
    """Draw `n` images of the concepts of `kinds` in turn; return them and indices into `kinds`.

    Images of two seeds differ, and differ from those of `generate_corpus`.
    """
    labels = [i % len(kinds) for i in range(n)]
    rngs = [random.Random(f"concept-{seed}-{i}") for i in range(n)]
    return [draw_concept(kinds[labels[i]], rngs[i], image_size, clutter)[0] for i in range(n)], labels
