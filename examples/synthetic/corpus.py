"""A generated corpus in which only images tell the type of a name.

Invented names stand in sentences whose words say nothing about the type of the name; each sentence is paired with a
drawing of its type's visual concept. Half of the names are never labelled: a model types them on plain text only if
it has learned, from unlabelled pairs, which concept goes with which name. Everything is made by code from seeds: no
file is read and nothing is downloaded.
"""

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import datasets

from bga_mner.configuration.errors import shown
from bga_mner.examples.synthetic.drawings import ENTITY_TYPES, draw_concept
from bga_mner.examples.synthetic.texts import Row, invent_names, text_rows


__all__ = ["LABELS", "GeneratedCorpus", "add_images", "generate_corpus"]

LABELS = ("O", *(f"{prefix}-{kind}" for kind in ENTITY_TYPES for prefix in "BI"))


@dataclass(frozen=True)
class GeneratedCorpus:
    """The corpus that `generate_corpus` makes.

    All datasets have the columns `id` (str), `tokens` (list of str), `ner_tags` (list of str, or None where the
    labels are hidden), `image` (`{"bytes": PNG, "path": None}` or None), `concept` (the entity type whose concept
    the image shows, or None) and `object_box` (`[x0, y0, x1, y1]` in pixels, or None). Training rows are labelled
    pairs and pairs with hidden labels, shuffled; test rows have no images, unless asked for. `labelled_names` and
    `unlabelled_names` say the entity type of each name.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test_unseen_labels: datasets.Dataset
    test_labelled: datasets.Dataset
    labels: tuple[str, ...]
    labelled_names: dict[str, str]
    unlabelled_names: dict[str, str]

    def sentences(self) -> list[list[str]]:
        """Return the tokens of every sentence of every split, for `build_tokenizer`."""
        splits = (self.train, self.validation, self.test_unseen_labels, self.test_labelled)
        return [tokens for split in splits for tokens in split["tokens"]]


_STRING, _STRINGS = datasets.Value("string"), datasets.Sequence(datasets.Value("string"))
_FEATURES = datasets.Features({"id": _STRING, "tokens": _STRINGS, "ner_tags": _STRINGS, "concept": _STRING})
_FEATURES |= {"image": datasets.Image(decode=False), "object_box": datasets.Sequence(datasets.Value("int32"))}


def add_images(
    rows: list[Row],
    seed: int,
    size: int,
    clutter: float,
    mismatch_rate: float,
    images: Mapping[str, Sequence[bytes]] | None = None,
    kinds: Sequence[str] = ENTITY_TYPES,
) -> None:
    """Draw or choose an image for each row, of another type's concept for exactly the rounded share of the rows."""
    if not 0.0 <= mismatch_rate <= 1.0:
        raise ValueError(f"Expected mismatch_rate between 0 and 1, got {mismatch_rate}. Pass a share of the images.")
    rng = random.Random(f"mismatch-{seed}-{rows[0]['id'] if rows else ''}")
    mismatched = set(rng.sample(range(len(rows)), round(mismatch_rate * len(rows))))
    for i, row in enumerate(rows):
        concept = str(row["kind"])
        if i in mismatched:
            concept = rng.choice([kind for kind in kinds if kind != concept])
        own_rng, box = random.Random(f"picture-{seed}-{row['id']}"), None
        if images is not None:
            encoded = own_rng.choice(images[concept])
        else:
            image, box = draw_concept(concept, own_rng, size, clutter)
            image.save(buffer := io.BytesIO(), "PNG", compress_level=1)
            encoded = buffer.getvalue()
        row.update(image={"bytes": encoded, "path": None}, concept=concept, object_box=box)


def generate_corpus(
    seed: int = 0,
    names_per_type: int = 30,
    train_labelled: int = 1200,
    train_unlabelled: int = 1200,
    test_sentences: int = 400,
    validation_sentences: int = 200,
    image_size: int = 64,
    mismatch_rate: float = 0.15,
    clutter: float = 0.3,
    clauses: bool = False,
    image_seed: int | None = None,
    test_images: bool = False,
    images: Mapping[str, Sequence[bytes]] | None = None,
) -> GeneratedCorpus:
    """Generate the corpus; the same arguments give the same corpus, bit for bit, in any process.

    No sentence occurs twice. Names and test sentences do not depend on the sizes of the other splits, nor texts on
    anything about the images.

    Half of the names of each type (the smaller half, if odd) are never labelled. Training pairs have tags
    (`train_labelled`) or hidden ones (`train_unlabelled`), and each of the two test sets has `test_sentences`.
    `mismatch_rate` is the share of images, in the validation set and in either part of the training set, of another
    concept; `image_size` and `clutter` are those of `draw_concept`. `clauses` adds irrelevant ones to every
    sentence. `image_seed` gives other images to the same texts. With `test_images` the test sentences have
    images too, all of the right concept. `images` are encoded ones (such as JPEG files) by entity type, to choose
    from instead of drawing.

    Examples
    --------
    >>> corpus = generate_corpus(names_per_type=2, train_labelled=8, train_unlabelled=8, test_sentences=4)
    >>> len(corpus.train), sum(tags is None for tags in corpus.train["ner_tags"])
    (16, 8)
    """
    if names_per_type < 2:
        raise ValueError(f"Expected names_per_type >= 2 (one labelled, one not), got {names_per_type}. Ask for more.")
    if min(sizes := (train_labelled, train_unlabelled, test_sentences, validation_sentences)) < 0:
        raise ValueError(f"Expected numbers of sentences >= 0, got {sizes}. Pass 0 to leave a part out.")
    if images is not None and not all(images.get(kind) for kind in ENTITY_TYPES):
        raise ValueError(
            f"Expected images for each of {ENTITY_TYPES}, got them for {shown(sorted(images))}. Add the others."
        )
    labelled, unlabelled = invent_names(seed, names_per_type)
    seen: set[str] = set()
    unseen = text_rows("test-unseen", seed, unlabelled, test_sentences, clauses, seen)
    test_labelled = text_rows("test-labelled", seed, labelled, test_sentences, clauses, seen)
    validation = text_rows("validation", seed, labelled, validation_sentences, clauses, seen)
    known = text_rows("train-labelled", seed, labelled, train_labelled, clauses, seen)
    hidden = text_rows("train-unlabelled", seed, unlabelled, train_unlabelled, clauses, seen)
    of_images = seed if image_seed is None else image_seed
    for rows in (validation, known, hidden):
        add_images(rows, of_images, image_size, clutter, mismatch_rate, images)
    for rows in (unseen, test_labelled) if test_images else ():
        add_images(rows, of_images, image_size, clutter, 0.0, images)
    train = known + [row | {"ner_tags": None} for row in hidden]
    random.Random(f"order-{seed}").shuffle(train)
    columns = [
        {k: [row.get(k) for row in rows] for k in _FEATURES} for rows in (train, validation, unseen, test_labelled)
    ]
    a, b, c, d = (datasets.Dataset.from_dict(column, features=_FEATURES) for column in columns)
    return GeneratedCorpus(a, b, c, d, LABELS, labelled, unlabelled)
