"""A generated corpus in which only pictures tell the type of a name.

Invented names stand in sentences whose words say nothing about the type of the name; each sentence is paired with a
drawing of its type's visual concept. Half of the names are never labelled: a model types them on plain text only if
it has learned, from unlabelled pairs, which concept goes with which name. Everything is made by code from seeds: no
file is read and nothing is downloaded.
"""

import io
import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import datasets
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


__all__ = ["ENTITY_TYPES", "LABELS", "GeneratedCorpus", "build_tokenizer", "concept_pictures", "draw_concept"]
__all__ += ["SENTIMENTS", "Row", "add_pictures", "generate_corpus", "invent_names", "text_rows"]

ENTITY_TYPES = ("LOC", "MISC", "ORG", "PER")
SENTIMENTS = ("negative", "neutral", "positive")
LABELS = ("O", *(f"{prefix}-{kind}" for kind in ENTITY_TYPES for prefix in "BI"))

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]
Shape = tuple[int, int, Points]  # line width in pens (0: a filled polygon), 0 = main and 1 = accent colour, points
Drawing = tuple[Image.Image, list[int]]
Row = dict[str, object]


def _choices(text: str) -> tuple[str, ...]:
    """Split a list written with bars, which may run over several lines."""
    return tuple(" ".join(choice.split()) for choice in text.split("|"))


_ONSETS = _choices("b|d|f|g|k|l|m|n|p|r|s|t|v|z")
_RARE_ONSETS = _choices("zv|vr|dz|kv|zh|dv|gv|mz|bz|vl")  # in each name word, and in no ordinary one
_VOWELS = _choices("a|e|i|o|u|ai|ou")
_INNER_CODAS, _LAST_CODAS = _choices("|||n|r|l"), _choices("||n|r|k|l|sk|nd|t")
# Words of a name and their case. Each half of each type cycles through this list: form says nothing about the type.
_NAME_FORMS = _choices("T|T|TT|l|T|TT|U|T|ll|T|Tl|l|TT|T|UU")


def _name_word(rng: random.Random, case: str, used: set[str]) -> str:
    word = ""
    while not word or word in used:
        # A word belongs to one name only, whatever its case: sharing one would give a label away.
        codas = [rng.choice(_INNER_CODAS) for _ in range(rng.choice((1, 1, 2)))] + [rng.choice(_LAST_CODAS)]
        onsets = [rng.choice(_ONSETS) for _ in codas]
        onsets[rng.randrange(len(codas))] = rng.choice(_RARE_ONSETS)
        word = "".join(onset + rng.choice(_VOWELS) + coda for onset, coda in zip(onsets, codas, strict=True))
    used.add(word)
    return {"T": word.capitalize(), "U": word.upper(), "l": word}[case]


def invent_names(
    seed: int, names_per_type: int, kinds: Sequence[str] = ENTITY_TYPES
) -> tuple[dict[str, str], dict[str, str]]:
    """Return name -> type for the labelled and for the never labelled names; the types alternate in both."""
    rng, used = random.Random(f"names-{seed}"), set[str]()
    halves: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for half, count in zip(halves, (names_per_type - names_per_type // 2, names_per_type // 2), strict=True):
        for i, kind in itertools.product(range(count), kinds):
            form = _NAME_FORMS[i % len(_NAME_FORMS)]
            half[" ".join(_name_word(rng, case, used) for case in form)] = kind
    return halves


# All words are separated by blanks. They hold no inner punctuation, so that BERT's pre-tokeniser keeps them whole.
_SLOTS = {
    "adj": _choices("great|lovely|weird|amazing|huge|quiet|perfect|funny|wild|lazy|bright|strange"),
    "adv": _choices("always|really|still|never|just|kinda|definitely|probably"),
    "verb": _choices("love|miss|remember|like|follow|adore|ignore|draw|recommend"),
    "thing": _choices("coffee|music|rain|pizza|sleep|sunshine|cake|homework|popcorn|laundry|silence|traffic"),
    "time": _choices("today|tonight|again|this morning|right now|all week|this Summer|on Friday|in May"),
    "day": _choices("Monday|Friday|Sunday|weekend|morning|evening|Christmas|holiday"),
    "who": _choices("my sister|my boss|a friend|Grandma|everyone|the neighbour|Dad"),
    "tag": _choices("ThrowbackThursday|nofilter|Love|mood|photo|WOW|goals|Friday|memories|Blessed|weekend"),
    "emoji": _choices("😂|❤|🔥|😍|🙌|😭"),
}
_CORES = _choices("""{adv} thinking about {name} {time} | {name} was {adj} {time} | i {verb} {name} so much
    | nobody talks about {name} enough | cannot stop looking at {name} | no {thing} without {name} | look , {name} !
    | {name} again , and {who} said it was {adj} | who else can {verb} {name} ? | finally saw {name} {time}
    | {who} {adv} mentioned {name} | {name} looks {adj} in this picture | here is {name} , {adj} and {adj}
    | more {thing} , more {name} | we need to talk about {name} {time} | this is {name} on a {adj} {day}
    | took a {adj} picture of {name} {time} | {thing} and {name} , what a {adj} {day} | there is only one {name}
    | the most {adj} photo of {name} you will see {time} | it is all about {name} {time} | {name} is {adj}
    | {who} keeps asking me about {name} | {verb} {name} or {verb} {thing} ? | {who} and i {adv} {verb} {name}
    | not sure what to say about {name} , {adj} {thing} maybe | {thing} , {thing} and {name} {time}
    | {name} makes {who} happy | {name} , {adv} {adj} | {name} > {thing} | {name} every {day}""")
_OPENERS = _choices("""|||||| RT : | lol | omg , | BREAKING : | good morning ! | ok so | {day} mood : | well ,
    | happy {day} {who} . | # {tag} | {emoji} | {adj} {day} ! | Just In : | Note to self : | {who} : " hi " ;""")
_TAILS = _choices("""||| ! | . | … | ! ! | {emoji} | {emoji} {emoji} | lol | # {tag} | # {tag} # {tag} | via {who}
    | ( photo by {who} ) | - via my Phone | . {who} will {verb} this | . Best {day} ever ! | . {adj} {thing} {time}""")
_CLAUSES_BEFORE = _choices("""after two {adj} hours of waiting for {who} , | while {who} was busy with the {thing} ,
    | before the {adj} meeting on {day} , | since the bus was late and the {thing} was {adj} ,
    | even if {who} does not like {thing} at all , | with no sleep and too much {thing} {time} ,
    | now that the Internet is back {time} , | you can {verb} {thing} as much as you like , but""")
_CLAUSES_AFTER = _choices(""", and my phone is nearly dead {time} | because the {thing} here is {adv} cold
    | , while {who} forgot the keys {time} | although {who} would rather {verb} some {thing}
    | , but first we have to finish the {adj} {thing} | , so please send {thing} and a {adj} blanket
    | . By the way , the {day} sale was {adv} {adj} | , which {who} told me over {thing} on {day}""")
# The words that may be shouted: few, so that each shouted form is seen often enough to be an ordinary word.
_SHOUTED = _choices("so|really|always|never|love|great|amazing|not|again|finally|the|this")


def _sentence(rng: random.Random, name: str, kind: str, clauses: bool) -> tuple[list[str], list[str]]:
    """Return the words of one sentence about ``name`` and their BIO tags. No choice here depends on the type."""
    parts = [rng.choice(_OPENERS), rng.choice(_CORES), rng.choice(_TAILS)]
    if clauses:
        before, after = rng.choice(((True, False), (False, True), (True, True)))
        parts[1:1] = [rng.choice(_CLAUSES_BEFORE)] if before else []
        parts[-1:-1] = [rng.choice(_CLAUSES_AFTER)] if after else []
    words: list[str] = []
    for word in " ".join(parts).split():
        words += rng.choice(_SLOTS[word[1:-1]]).split() if word[1:-1] in _SLOTS else [word]
    words = [word.upper() if word in _SHOUTED and rng.random() < 0.2 else word for word in words]
    if rng.random() < 0.6:
        # Never touches a name: "{name}" has no case, and a name keeps its own case wherever it stands.
        words[0] = words[0][0].upper() + words[0][1:]
    at, name_words, tags = words.index("{name}"), name.split(), ["O"] * len(words)
    tags[at : at + 1] = [f"B-{kind}", *[f"I-{kind}"] * (len(name_words) - 1)]
    words[at : at + 1] = name_words
    return words, tags


def _colour(rng: random.Random, unlike: Colour | None = None) -> Colour:
    """Draw any colour, or one whose lightness differs from that of ``unlike``: shapes show, hues stay free."""
    while True:
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        if unlike is None or abs(sum(w * (a - b) for w, a, b in zip((3, 6, 1), colour, unlike, strict=True))) >= 900:
            return colour


def _block(x0: float, y0: float, x1: float, y1: float) -> Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _round(x: float, y: float, *radii: float, n: int = 24, start: float = 0.0, turns: float = 1.0) -> Points:
    """Return ``n`` points on an ellipse (two radii), or around a star (``n`` radii)."""
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


_OVERSAMPLING = 3  # pictures are drawn larger and reduced: Pillow draws without anti-aliasing


def draw_concept(concept: str, rng: random.Random, size: int = 64, clutter: float = 0.3) -> Drawing:
    """Draw the visual concept of an entity type, or of a sentiment.

    The concepts are a figure (``PER``), mountains under a sun (``LOC``), a building (``ORG``) and a trophy (``MISC``);
    a thundercloud (``negative``), a clock (``neutral``) and a heart (``positive``). Colours, position, scale and
    proportions are random, so that only the shape tells them apart.

    Parameters
    ----------
    concept : str
        One of ``ENTITY_TYPES`` or ``SENTIMENTS``.
    rng : random.Random
        The source of every random choice; its state moves on.
    size : int, default 64
        Width and height of the picture, in pixels; at least 16.
    clutter : float, default 0.3
        From 0 (plain background, large object) to 1 (16 background shapes, small object).

    Returns
    -------
    tuple of (PIL.Image.Image, list of int)
        The picture (RGB), and the object's ``[x0, y0, x1, y1]`` in pixels, ``x1`` and ``y1`` exclusive.

    Raises
    ------
    ValueError
        If the concept is unknown, or the size or the clutter is out of range.

    Examples
    --------
    >>> image, box = draw_concept("PER", random.Random(0), size=32)
    >>> image.size, len(box)
    ((32, 32), 4)
    """
    if concept not in (known := (*ENTITY_TYPES, *SENTIMENTS)):
        raise ValueError(f"expected a concept out of {known}, got {concept!r}; pass one of these names")
    if size < 16:
        raise ValueError(f"expected a picture size of at least 16 pixels, got {size}; ask for a larger picture")
    if not 0.0 <= clutter <= 1.0:
        raise ValueError(f"expected clutter between 0 and 1, got {clutter}; pass the share of full clutter")
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


def concept_pictures(
    n: int, seed: int = 0, picture_size: int = 64, clutter: float = 0.3, kinds: Sequence[str] = ENTITY_TYPES
) -> tuple[list[Image.Image], list[int]]:
    """Draw ``n`` pictures of the concepts of ``kinds`` in turn, to pre-train a small vision encoder on.

    Pictures of two seeds differ, and differ from those of ``generate_corpus``. The other arguments are those of
    ``draw_concept``, and so are the errors.

    Returns
    -------
    tuple of (list of PIL.Image.Image, list of int)
        Pictures (RGB, ``picture_size`` pixels wide and high), and indices into ``kinds``.

    Examples
    --------
    >>> concept_pictures(5, picture_size=16)[1]
    [0, 1, 2, 3, 0]
    """
    labels = [i % len(kinds) for i in range(n)]
    rngs = [random.Random(f"concept-{seed}-{i}") for i in range(n)]
    return [draw_concept(kinds[labels[i]], rngs[i], picture_size, clutter)[0] for i in range(n)], labels


@dataclass(frozen=True)
class GeneratedCorpus:
    """The corpus that ``generate_corpus`` makes.

    All datasets have the columns ``id`` (str), ``tokens`` (list of str), ``ner_tags`` (list of str, or None where the
    labels are hidden), ``image`` (``{"bytes": PNG, "path": None}`` or None), ``concept`` (the entity type whose concept
    is drawn, or None) and ``object_box`` (``[x0, y0, x1, y1]`` in pixels, or None).

    Attributes
    ----------
    train : datasets.Dataset
        Labelled pairs and pairs with hidden labels, shuffled.
    validation : datasets.Dataset
        Labelled names, with tags and pictures.
    test_unseen_labels, test_labelled : datasets.Dataset
        Never labelled and labelled names, with tags; without pictures, unless asked for.
    labels : tuple of str
        ``("O", "B-LOC", "I-LOC", ...)``.
    labelled_names, unlabelled_names : dict of str to str
        Name to entity type.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test_unseen_labels: datasets.Dataset
    test_labelled: datasets.Dataset
    labels: tuple[str, ...]
    labelled_names: dict[str, str]
    unlabelled_names: dict[str, str]

    def sentences(self) -> list[list[str]]:
        """Return the tokens of every sentence of every split, for ``build_tokenizer``."""
        splits = (self.train, self.validation, self.test_unseen_labels, self.test_labelled)
        return [tokens for split in splits for tokens in split["tokens"]]


_STRING, _STRINGS = datasets.Value("string"), datasets.Sequence(datasets.Value("string"))
_FEATURES = datasets.Features({"id": _STRING, "tokens": _STRINGS, "ner_tags": _STRINGS, "concept": _STRING})
_FEATURES |= {"image": datasets.Image(decode=False), "object_box": datasets.Sequence(datasets.Value("int32"))}


def text_rows(part: str, seed: int, names: dict[str, str], n: int, clauses: bool, seen: set[str]) -> list[Row]:
    """Write ``n`` sentences that are not in ``seen``, every name as often as the others (up to one)."""
    rng = random.Random(f"texts-{seed}-{part}")
    rows: list[Row] = []
    for i, (name, kind) in enumerate(itertools.islice(itertools.cycle(names.items()), n)):
        tokens, tags = _sentence(rng, name, kind, clauses)
        while " ".join(tokens) in seen:
            tokens, tags = _sentence(rng, name, kind, clauses)
        seen.add(" ".join(tokens))
        rows.append({"id": f"{part}-{i:05d}", "tokens": tokens, "ner_tags": tags, "kind": kind})
    return rows


def add_pictures(
    rows: list[Row],
    seed: int,
    size: int,
    clutter: float,
    mismatch_rate: float,
    pictures: Mapping[str, Sequence[bytes]] | None = None,
    kinds: Sequence[str] = ENTITY_TYPES,
) -> None:
    """Draw or choose a picture for each row, of another type's concept for exactly the rounded share of the rows."""
    if not 0.0 <= mismatch_rate <= 1.0:
        raise ValueError(f"expected mismatch_rate between 0 and 1, got {mismatch_rate}; pass a share of the pictures")
    rng = random.Random(f"mismatch-{seed}-{rows[0]['id'] if rows else ''}")
    mismatched = set(rng.sample(range(len(rows)), round(mismatch_rate * len(rows))))
    for i, row in enumerate(rows):
        concept = str(row["kind"])
        if i in mismatched:
            concept = rng.choice([kind for kind in kinds if kind != concept])
        own_rng, box = random.Random(f"picture-{seed}-{row['id']}"), None
        if pictures is not None:
            encoded = own_rng.choice(pictures[concept])
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
    picture_size: int = 64,
    mismatch_rate: float = 0.15,
    clutter: float = 0.3,
    clauses: bool = False,
    picture_seed: int | None = None,
    test_pictures: bool = False,
    pictures: Mapping[str, Sequence[bytes]] | None = None,
) -> GeneratedCorpus:
    """Generate the corpus; the same arguments give the same corpus, bit for bit, in any process.

    No sentence occurs twice. Names and test sentences do not depend on the sizes of the other splits, nor texts on
    anything about the pictures.

    Parameters
    ----------
    seed : int, default 0
        Seed of names and texts, and of pictures and mismatches where ``picture_seed`` is not given.
    names_per_type : int, default 30
        At least 2; half of the names are never labelled (the smaller half, if odd).
    train_labelled, train_unlabelled : int, default 1200
        Training pairs with tags (labelled names only) and with hidden tags (never labelled names only).
    test_sentences, validation_sentences : int, default 400 and 200
        Sentences in each of the two test sets, and in the validation set.
    picture_size, clutter : int, default 64; float, default 0.3
        Width and height of the pictures, in pixels; what else is in them: see ``draw_concept``.
    mismatch_rate : float, default 0.15
        The share of pictures, in the validation set and in either part of the training set, of another concept.
    clauses : bool, default False
        Add irrelevant clauses to every sentence.
    picture_seed : int, optional
        Change it alone for other pictures with the same texts.
    test_pictures : bool, default False
        Give the test sentences pictures too, all of the right concept, for models that read them.
    pictures : mapping of str to sequence of bytes, optional
        Encoded pictures (such as JPEG files) by entity type, to choose from instead of drawing; no ``object_box`` then.

    Returns
    -------
    GeneratedCorpus

    Raises
    ------
    ValueError
        If a size or a rate is out of range.

    Examples
    --------
    >>> corpus = generate_corpus(names_per_type=2, train_labelled=8, train_unlabelled=8, test_sentences=4)
    >>> len(corpus.train), sum(tags is None for tags in corpus.train["ner_tags"])
    (16, 8)
    """
    if names_per_type < 2:
        raise ValueError(f"expected names_per_type >= 2 (one labelled, one not), got {names_per_type}; ask for more")
    if min(sizes := (train_labelled, train_unlabelled, test_sentences, validation_sentences)) < 0:
        raise ValueError(f"expected numbers of sentences >= 0, got {sizes}; pass 0 to leave a part out")
    if pictures is not None and not all(pictures.get(kind) for kind in ENTITY_TYPES):
        raise ValueError(
            f"expected pictures for each of {ENTITY_TYPES}, got them for {sorted(pictures)}; add the others"
        )
    labelled, unlabelled = invent_names(seed, names_per_type)
    seen: set[str] = set()
    unseen = text_rows("test-unseen", seed, unlabelled, test_sentences, clauses, seen)
    test_labelled = text_rows("test-labelled", seed, labelled, test_sentences, clauses, seen)
    validation = text_rows("validation", seed, labelled, validation_sentences, clauses, seen)
    known = text_rows("train-labelled", seed, labelled, train_labelled, clauses, seen)
    hidden = text_rows("train-unlabelled", seed, unlabelled, train_unlabelled, clauses, seen)
    of_pictures = seed if picture_seed is None else picture_seed
    for rows in (validation, known, hidden):
        add_pictures(rows, of_pictures, picture_size, clutter, mismatch_rate, pictures)
    for rows in (unseen, test_labelled) if test_pictures else ():
        add_pictures(rows, of_pictures, picture_size, clutter, 0.0, pictures)
    train = known + [row | {"ner_tags": None} for row in hidden]
    random.Random(f"order-{seed}").shuffle(train)
    columns = [
        {k: [row.get(k) for row in rows] for k in _FEATURES} for rows in (train, validation, unseen, test_labelled)
    ]
    a, b, c, d = (datasets.Dataset.from_dict(column, features=_FEATURES) for column in columns)
    return GeneratedCorpus(a, b, c, d, LABELS, labelled, unlabelled)


def build_tokenizer(sentences: Iterable[Sequence[str]], model_max_length: int = 128) -> PreTrainedTokenizerFast:
    """Build a cased BERT-style tokenizer in which every word of ``sentences`` is one token.

    Other words fall back to single characters (printable ASCII, and what occurs in ``sentences``). The vocabulary does
    not depend on the order of the sentences. ``save_pretrained`` and ``AutoTokenizer`` restore it from a folder.

    Parameters
    ----------
    sentences : iterable of sequences of str
        Words; one with inner punctuation becomes several tokens, as in BERT.
    model_max_length : int, default 128
        In tokens, special ones included.

    Returns
    -------
    transformers.PreTrainedTokenizerFast

    Examples
    --------
    >>> build_tokenizer([["Hello", "Zvarno"]]).tokenize("Hello Zvarno!")
    ['Hello', 'Zvarno', '!']
    """
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    distinct = {word for sentence in sentences for word in sentence}
    words = {piece for word in distinct for piece, _ in splitter.pre_tokenize_str(normalizer.normalize_str(word))}
    characters = {chr(code) for code in range(33, 127)}.union(*words)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = characters | {f"##{character}" for character in characters} | words
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(pieces - set(special))])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizer, splitter, decoders.WordPiece(cleanup=False)
    backend.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=model_max_length, **names)
