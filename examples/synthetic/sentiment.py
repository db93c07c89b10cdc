"""A generated corpus in which only images tell the sentiment towards a name.

As in `generated_corpus`: invented names in sentences whose words are chosen without regard to the label, each paired
with a drawing, here of what goes with the sentiment. Half of the names are never labelled: a model knows the sentiment
towards them on plain text only if it has learned, from unlabelled pairs, which drawing goes with which name.
"""

import random
from dataclasses import dataclass

import datasets

from bga_mner.examples.synthetic.corpus import add_images
from bga_mner.examples.synthetic.drawings import SENTIMENTS
from bga_mner.examples.synthetic.texts import Row, invent_names, text_rows
from bga_mner.processing.tags.tag_scheme import spans_from_tags


__all__ = ["SentimentCorpus", "generate_sentiment_corpus"]


@dataclass(frozen=True)
class SentimentCorpus:
    """The corpus that `generate_sentiment_corpus` makes.

    All datasets have the columns `id` (str), `tokens` (list of str), `target` (`[first, end]`, the words of the
    name), `label` (a number of `labels`, or None where it is hidden), `image` (`{"bytes": PNG, "path": None}` or
    None) and `concept` (the sentiment whose drawing it is, or None).
    """

    train: datasets.Dataset
    test_unseen_labels: datasets.Dataset
    test_labelled: datasets.Dataset
    labels: tuple[str, ...]
    labelled_names: dict[str, str]
    unlabelled_names: dict[str, str]

    def sentences(self) -> list[list[str]]:
        """Return the tokens of every sentence of every split, for `build_tokenizer`."""
        splits = (self.train, self.test_unseen_labels, self.test_labelled)
        return [tokens for split in splits for tokens in split["tokens"]]


_FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "tokens": datasets.Sequence(datasets.Value("string")),
        "target": datasets.Sequence(datasets.Value("int32")),
        "label": datasets.Value("int64"),
        "image": datasets.Image(decode=False),
        "concept": datasets.Value("string"),
    }
)


def generate_sentiment_corpus(
    seed: int = 0,
    names_per_sentiment: int = 30,
    train_labelled: int = 1200,
    train_unlabelled: int = 1200,
    test_sentences: int = 400,
    image_size: int = 64,
    mismatch_rate: float = 0.15,
    clutter: float = 0.3,
) -> SentimentCorpus:
    """Generate the corpus as `generate_corpus` does, with sentiments instead of types: the same bits in any process."""
    if names_per_sentiment < 2:
        raise ValueError(
            f"Expected names_per_sentiment >= 2 (one labelled, one not), got {names_per_sentiment}. Ask for more."
        )
    if min(sizes := (train_labelled, train_unlabelled, test_sentences)) < 0:
        raise ValueError(f"Expected numbers of sentences >= 0, got {sizes}. Pass 0 to leave a part out.")
    labelled, unlabelled = invent_names(seed, names_per_sentiment, SENTIMENTS)
    seen: set[str] = set()
    unseen = text_rows("sentiment-test-unseen", seed, unlabelled, test_sentences, False, seen)
    test_labelled = text_rows("sentiment-test-labelled", seed, labelled, test_sentences, False, seen)
    known = text_rows("sentiment-train-labelled", seed, labelled, train_labelled, False, seen)
    hidden = text_rows("sentiment-train-unlabelled", seed, unlabelled, train_unlabelled, False, seen)
    for rows in (known, hidden):
        add_images(rows, seed, image_size, clutter, mismatch_rate, kinds=SENTIMENTS)
    train = [_labelled(row) for row in known] + [_labelled(row) | {"label": None} for row in hidden]
    random.Random(f"sentiment-order-{seed}").shuffle(train)
    parts = (train, [_labelled(row) for row in unseen], [_labelled(row) for row in test_labelled])
    a, b, c = (
        datasets.Dataset.from_dict({k: [row.get(k) for row in rows] for k in _FEATURES}, features=_FEATURES)
        for rows in parts
    )
    return SentimentCorpus(a, b, c, SENTIMENTS, labelled, unlabelled)


def _labelled(row: Row) -> Row:
    """Say of a row where its name is, and what the sentiment towards it."""
    ((_, first, end),) = spans_from_tags(row["ner_tags"])  # type: ignore[arg-type]
    return row | {"target": [first, end], "label": SENTIMENTS.index(str(row["kind"]))}
