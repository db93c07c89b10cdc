"""Drawings of concepts: told apart by shape alone."""

import math
import random

import pytest
from PIL import Image

from bga_mner.examples.synthetic.drawings import ENTITY_TYPES, concept_images, draw_concept


@pytest.mark.parametrize("concept", ENTITY_TYPES)
@pytest.mark.parametrize("clutter", [0.0, 1.0])
def test_object_stays_in_its_box(concept, clutter):
    for seed in range(10):
        image, (x0, y0, x1, y1) = draw_concept(concept, random.Random(seed), 64, clutter)
        again, box = draw_concept(concept, random.Random(seed), 64, clutter)
        assert (image.tobytes(), [x0, y0, x1, y1]) == (again.tobytes(), box)
        if clutter == 0.0:
            inside = Image.new("1", image.size)
            inside.paste(1, (max(0, x0 - 1), max(0, y0 - 1), x1 + 1, y1 + 1))
            flat = {
                image.getpixel((x, y)) for x in range(64) for y in range(64) if not inside.getpixel((x, y))
            }  # a pen's width aside, only background lies outside
            assert len(flat) <= 1
            assert len(image.crop((x0, y0, x1, y1)).getcolors(64 * 64)) > 2


def test_concepts_are_not_told_apart_by_colour():
    images, labels = concept_images(800, seed=3, image_size=16)
    means = [tuple(sum(band) / len(band) for band in map(Image.Image.tobytes, im.split())) for im in images]
    centres = {
        label: tuple(
            sum(m[c] for m, y in zip(means[:400], labels[:400], strict=True) if y == label) / 100 for c in range(3)
        )
        for label in range(4)
    }
    hits = sum(
        min(centres, key=lambda k: math.dist(centres[k], mean)) == label
        for mean, label in zip(means[400:], labels[400:], strict=True)
    )
    assert hits / 400 < 0.4  # chance is 0.25


def test_concept_images_differ_by_seed():
    images, labels = concept_images(12, seed=0, image_size=16)
    others, _ = concept_images(12, seed=1, image_size=16)
    assert labels == [0, 1, 2, 3] * 3
    assert concept_images(5, image_size=16)[1] == [0, 1, 2, 3, 0]
    assert len({image.tobytes() for image in images + others}) == 24


def test_unknown_concept():
    with pytest.raises(ValueError, match="got 'CAT'"):
        draw_concept("CAT", random.Random(0))
