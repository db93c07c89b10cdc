"""Photographs in place of drawings: one folder per concept, altered copies to learn from."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance, ImageOps

from bga_mner import load_image
from bga_mner.configuration.errors import shown
from bga_mner.examples.synthetic.drawings import ENTITY_TYPES


def read_photos(folder: Path) -> dict[str, list[bytes]]:
    """Read photographs, one folder per concept; the first four by name stand for the entity types in their order."""
    concepts = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    photos = {
        kind: [path.read_bytes() for path in sorted(concept.iterdir()) if path.suffix.lower() in (".jpg", ".png")]
        for kind, concept in zip(ENTITY_TYPES, concepts, strict=False)
    }
    if len(photos) < len(ENTITY_TYPES) or min(map(len, photos.values())) < 2:
        found = {concept.name: len(files) for concept, files in zip(concepts, photos.values(), strict=False)}
        raise ValueError(
            f"Expected {len(ENTITY_TYPES)} folders of at least two JPEG or PNG files as --images "
            f"{shown(str(folder))}, got {shown(found)}. Add the others."
        )
    return photos


def photo_images(photos: Mapping[str, list[bytes]], copies: int = 0, seed: int = 0) -> tuple[list[Any], list[int]]:
    """Decode photographs; return them, or altered copies if asked for, with their concepts' numbers."""
    rng = random.Random(f"photos-{seed}")
    images, concepts = [], []
    for number, kind in enumerate(ENTITY_TYPES):
        for data in photos[kind]:
            image = load_image(data)
            versions = [_altered(image, rng) for _ in range(copies)] or [image]
            images += versions
            concepts += [number] * len(versions)
    return images, concepts


def _altered(image: Image.Image, rng: random.Random) -> Image.Image:
    """Shift, mirror and tint a photograph: few photographs are to teach what doesn't matter."""
    wide, high = image.size
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    # a slightly larger copy underneath fills the border
    canvas = image.resize((wide + 2 * (wide // 8), high + 2 * (high // 8)))
    canvas.paste(image, (wide // 8, high // 8))
    left, top = rng.randint(0, 2 * (wide // 8)), rng.randint(0, 2 * (high // 8))
    image = canvas.crop((left, top, left + wide, top + high))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.7, 1.3))
    return image
