"""Invented names in real captions: the subject of a caption becomes a name, whose type the photograph shows.

"A brown dog runs on grass ." becomes "Zvagim runs on grass .", where Zvagim is an animal in all of its captions. Half
of the names are never labelled. Their captions in the test set hardly tell the type, so that it has to be known of the
name itself.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from bga_mner.benchmarks.data_files import read_lines
from bga_mner.configuration.errors import shown
from bga_mner.examples.synthetic.texts import invent_names


__all__ = ["KINDS", "LABELS", "Caption", "CaptionCorpus", "build_corpus", "read_captions", "subject_of"]

KINDS = ("person", "animal")
LABELS = ("O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI"))

_NOUNS = {
    "person": """adult artist athlete baby backpacker baseman batter bicycler bicyclist biker boxer boy bride builder
        catcher cheerleader child climber clown coach cowboy cyclist dancer diver driver equestrian farmer father female
        fireman firefighter fisherman footballer gentleman girl goalie golfer guard guitarist guy gymnast hiker infant
        jogger juggler jumper kayaker kid lady lifeguard male man model mother motorcyclist musician officer parasailer
        performer person photographer pitcher player policeman quarterback racer rider rollerblader runner sailor singer
        skateboarder skater skier snowboarder soldier surfer swimmer teenager toddler tourist wakeboarder waitress
        waterskier windsurfer woman worker wrestler youth""",
    "animal": """animal beagle bird boxer bulldog bull camel cat collie cow dachshund dalmatian dalmation deer doberman
        dog dolphin duck eagle elephant flamingo goat greyhound hound horse husky kitten lab labrador monkey pelican
        pitbull pony poodle pug puppy retriever rottweiler schnauzer seagull sheep shepherd spaniel squirrel swan
        terrier turtle""",
}
# "A boxer" may be either, so it is the subject of no caption.
_AMBIGUOUS = frozenset(_NOUNS["person"].split()) & frozenset(_NOUNS["animal"].split())
_TYPE = {noun: kind for kind, nouns in _NOUNS.items() for noun in nouns.split() if noun not in _AMBIGUOUS}
_IRREGULAR = {"men": "man", "women": "woman", "children": "child", "people": "person", "puppies": "puppy"}
_IRREGULAR |= {"babies": "baby", "ladies": "lady", "ponies": "pony", "somebody": "person", "someone": "person"}
# No noun phrase goes on past one of these.
_ENDING_WORDS = "in on with is are and of at by to for from who that while near , . 's '"
_PHRASE_ENDS = frozenset(_ENDING_WORDS.split())
_LONGEST_PHRASE = 6
# Captions of an image that have to agree on its type.
_AGREEING = 4
# Of a type, so that each part has some.
_FEWEST_IMAGES = 20
# Log odds of the types, given the words beside the name, beyond which a caption tells its type.
_TELLING = 2.0


@dataclass(frozen=True)
class Caption:
    """A caption whose subject can be replaced."""

    image: str  # id of the photograph
    kind: str
    rest: tuple[str, ...]  # the words after the subject, with which a caption begins
    odds: float = 0.0  # how much these words speak for the first type: log odds of a naive Bayes


@dataclass(frozen=True)
class CaptionCorpus:
    """What `build_corpus` makes; all datasets have the columns id, tokens, ner_tags, image (a path), name and odds.

    `train` has the tags of half of the names, and None for the others. The test sets have captions that hardly tell
    the type, and by default no image, as the validation set. `test_new_names` has the captions of `test_unseen_labels`
    with names that occur nowhere else and no images, so that what is right in it is told by the words beside them.
    `odds` are log odds of the first type, given these words.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test_unseen_labels: datasets.Dataset
    test_labelled: datasets.Dataset
    test_new_names: datasets.Dataset
    labelled_names: dict[str, str]
    unlabelled_names: dict[str, str]


def subject_of(words: Sequence[str]) -> tuple[str, int] | None:
    """Return the type of a caption's subject, and where it ends; None unless the caption begins with one.

    Examples
    --------
    >>> subject_of("A brown dog runs on grass .".split())
    ('animal', 3)
    >>> subject_of("Two dogs play .".split())
    """
    if not words or words[0].lower() not in ("a", "an", "the", "one"):
        return None
    for end in range(1, min(_LONGEST_PHRASE, len(words))):
        word = words[end].lower()
        if word in _PHRASE_ENDS:
            return None
        if word in _TYPE:
            following = words[end + 1].lower() if end + 1 < len(words) else "."
            # of "the man 's dog" and "a dog trainer" the last noun is the subject
            if following == "'s" or _singular(following) in _TYPE:
                return None
            return _TYPE[word], end + 1
    return None


def _singular(word: str) -> str:
    word = _IRREGULAR.get(word, word)
    return word if word in _TYPE else word.removesuffix("s")


def read_captions(folder: Path) -> list[Caption]:
    """Read the captions that a name fits into, of images whose captions agree on what they show.

    `folder` holds `captions.tsv` (`<id><TAB><caption>`) and `pictures/<id>.jpg`. At least four captions of an image
    mention its type, and none mentions another.
    """
    file = folder / "captions.tsv"
    by_image: dict[str, list[list[str]]] = {}
    for number, line in read_lines(file):
        image, tab, caption = line.partition("\t")
        if not tab or Path(image).name != image:
            raise ValueError(
                f"Expected <id><TAB><caption> in line {number} of {shown(str(file))}, got {shown(line)}. Correct it."
            )
        by_image.setdefault(image, []).append(re.sub(r"[^\w\s'.,-]", " ", caption).split())
    found: list[Caption] = []
    missing: list[str] = []
    for image, captions in sorted(by_image.items()):
        mentioned = [
            {_TYPE[noun] for word in words if (noun := _singular(word.lower())) in _TYPE} for words in captions
        ]
        agree = len(set().union(*mentioned)) == 1 and sum(map(len, mentioned)) >= _AGREEING
        if agree:
            if not (folder / "pictures" / f"{image}.jpg").is_file():
                missing.append(image)
            subjects = [(subject, words) for words in captions if (subject := subject_of(words))]
            found += [Caption(image, kind, tuple(words[end:])) for (kind, end), words in subjects if words[end:]]
    if missing:
        raise ValueError(
            f"Expected an image of each caption that is used, got none for {len(missing)} ids. Add "
            f"{shown(str(folder / 'pictures' / f'{missing[0]}.jpg'))}, or take out its captions."
        )
    return found


def _log_odds(captions: Sequence[Caption], folds: int = 5) -> np.ndarray:
    """Return how much the words beside a name speak for the first type: naive Bayes of words and bigrams, cross-fitted.

    A caption is scored by what the captions of other images tell, with both types as frequent as each other.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", binary=True)
    texts = [" ".join(("<name>", *caption.rest)) for caption in captions]
    first = np.array([caption.kind == KINDS[0] for caption in captions])
    probabilities = cross_val_predict(
        make_pipeline(words, MultinomialNB(fit_prior=False)),
        texts,
        first,
        groups=[caption.image for caption in captions],
        cv=GroupKFold(folds),
        method="predict_log_proba",
    )
    return probabilities[:, 1] - probabilities[:, 0]


def _dealt(
    rng: random.Random, captions: list[Caption], names: Sequence[str], each: int
) -> Iterator[tuple[str, Caption]]:
    """Deal captions to names, each as many; one is dealt again once all have been."""
    deck: list[Caption] = []
    for name in names:
        for _ in range(each):
            if not deck:
                deck = rng.sample(captions, len(captions))
            yield name, deck.pop()


def _rows(
    dealt: Sequence[tuple[str, Caption]], part: str, image_folder: Path | None, tagged: bool = True
) -> datasets.Dataset:
    rows: dict[str, list[Any]] = {"id": [], "tokens": [], "ner_tags": [], "image": [], "name": [], "odds": []}
    for number, (name, caption) in enumerate(dealt):
        words = name.split()
        tags = [f"B-{caption.kind}", *[f"I-{caption.kind}"] * (len(words) - 1), *["O"] * len(caption.rest)]
        rows["id"].append(f"{part}-{number:05d}")
        rows["tokens"].append([*words, *caption.rest])
        rows["ner_tags"].append(tags if tagged else None)
        rows["image"].append(None if image_folder is None else str(image_folder / f"{caption.image}.jpg"))
        rows["name"].append(name)
        rows["odds"].append(caption.odds)
    strings = datasets.Sequence(datasets.Value("string"))
    features = {"tokens": strings, "ner_tags": strings, "odds": datasets.Value("float64")}
    text = datasets.Value("string")
    return datasets.Dataset.from_dict(rows, features=datasets.Features({key: features.get(key, text) for key in rows}))


def _split(captions: Sequence[Caption], rng: random.Random) -> dict[str, str]:
    """Deal the images of each type to the parts; those of labelled and of never-labelled names differ too."""
    part_of: dict[str, str] = {}
    for kind in KINDS:
        images = sorted({caption.image for caption in captions if caption.kind == kind})
        rng.shuffle(images)
        tests, validation = 2 * len(images) // 5, len(images) // 20
        half = (len(images) - tests - validation) // 2
        parts = {"test": tests, "validation": validation, "train-labelled": half, "train-unlabelled": len(images)}
        part_of |= zip(images, (part for part, number in parts.items() for _ in range(number)), strict=False)
    return part_of


def _pools(folder: Path, rng: random.Random, tests_per_name: int) -> dict[tuple[str, str], list[Caption]]:
    """Return the captions of each part and type; of the test's those that hardly tell the type."""
    captions = read_captions(folder)
    images = {kind: len({caption.image for caption in captions if caption.kind == kind}) for kind in KINDS}
    if min(images.values()) < _FEWEST_IMAGES:
        raise ValueError(
            f"Expected at least {_FEWEST_IMAGES} images of each type whose captions agree, in pictures/ of --data_dir "
            f"{shown(str(folder))}, got {shown(images)}. Add images and captions."
        )
    part_of = _split(captions, rng)
    pools: dict[tuple[str, str], list[Caption]] = {(part, kind): [] for part in part_of.values() for kind in KINDS}
    for caption, odds in zip(captions, _log_odds(captions), strict=True):
        part = part_of[caption.image]
        if part != "test" or abs(odds) < _TELLING:
            pools[part, caption.kind].append(replace(caption, odds=float(odds)))
    tests = {kind: len(pools["test", kind]) for kind in KINDS}
    if min(tests.values()) < tests_per_name:
        raise ValueError(
            f"Expected at least {tests_per_name} test captions of each type that hardly tell it, got {shown(tests)}. "
            "Add images and captions."
        )
    return pools


def build_corpus(
    folder: Path,
    seed: int,
    names_per_type: int = 40,
    pairs_per_name: int = 25,
    tests_per_name: int = 9,
    test_images: bool = False,
) -> CaptionCorpus:
    """Make the corpus of a seed: other names, other images in each set, and other captions for each name.

    Of each type, two fifths of the images are for the test sets and a twentieth for the validation set; one half of
    the others is for labelled names, and one for those that are never labelled. A caption that hardly tells the type
    tests several names. `test_images` adds the images of test captions, for a model that is to look at them.

    Raises
    ------
    ValueError
        If there are too few images, or too few captions that hardly tell the type.
    """
    rng = random.Random(f"captions-{seed}")
    pools = _pools(folder, rng, tests_per_name)
    labelled, unlabelled = invent_names(seed, names_per_type, KINDS)
    dealt: dict[str, list[tuple[str, Caption]]] = {}
    for part, names, each in (
        ("train-labelled", labelled, pairs_per_name),
        ("train-unlabelled", unlabelled, pairs_per_name),
        ("validation", labelled, 2),
    ):
        for kind in KINDS:
            own = [name for name, its in names.items() if its == kind]
            dealt.setdefault(part, []).extend(_dealt(rng, pools[part, kind], own, each))
    for kind in KINDS:
        own = [name for half in (labelled, unlabelled) for name, its in half.items() if its == kind]
        for name, caption in _dealt(rng, pools["test", kind], own, tests_per_name):
            dealt.setdefault("test-labelled" if name in labelled else "test-unseen", []).append((name, caption))
    _, new = invent_names(seed, names_per_type, KINDS, others=[*labelled, *unlabelled])
    renamed = dict(zip(unlabelled, new, strict=True))  # of the same types and forms, in the same order
    dealt["test-new"] = [(renamed[name], caption) for name, caption in dealt["test-unseen"]]
    image_folder = folder / "pictures"
    known = _rows(dealt["train-labelled"], "train-labelled", image_folder)
    hidden = _rows(dealt["train-unlabelled"], "train-unlabelled", image_folder, tagged=False)
    shown_at_test = image_folder if test_images else None
    return CaptionCorpus(
        train=datasets.concatenate_datasets([known, hidden]).shuffle(seed=seed),
        validation=_rows(dealt["validation"], "validation", None),
        test_unseen_labels=_rows(dealt["test-unseen"], "test-unseen", shown_at_test),
        test_labelled=_rows(dealt["test-labelled"], "test-labelled", shown_at_test),
        test_new_names=_rows(dealt["test-new"], "test-new", None),
        labelled_names=labelled,
        unlabelled_names=unlabelled,
    )
