"""Tag texts of any length in overlapping windows, with whatever scores the windows. NumPy alone.

Each word is tagged, and each entity scored, in the window where it has the most context.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ...configuration.errors import mismatch
from ...modeling_bga.crf.span_probabilities import Span
from ..tags.tag_scheme import spans_from_tags


class Window(NamedTuple):
    """Words `start` to `end` of text number `text`, as the model reads them."""

    text: int
    start: int
    end: int
    text_words: int  # of the whole text
    ids: list[int]
    first_tokens: list[int]  # of each word, the position among `ids`

    @property
    def is_whole(self) -> bool:
        """Whether the text has no other window."""
        return (self.start, self.end) == (0, self.text_words)

    def context(self, start: int, end: int) -> float:
        """Count the words around words `start` to `end` of the text; less than 0 if the window lacks some."""
        # the ends of the text are no loss of context
        before = float("inf") if self.start == 0 else start - self.start
        after = float("inf") if self.end == self.text_words else self.end - end
        return min(before, after)


class WindowScores(NamedTuple):
    """What a model makes of a batch of windows."""

    emissions: np.ndarray  # float32 (windows, length, tags), or log probabilities
    best: np.ndarray  # int64 (windows, length): the most probable tag path
    mask: np.ndarray  # bool (windows, length): False at padding, on either side


class TaggedWords(NamedTuple):
    """A tag for each word of a text, and a probability for each entity."""

    tags: list[str]
    scores: list[float]


class TaggedWindow(NamedTuple):
    """A window, its tags, and the scores of its entities if it is a whole text, or else its emissions (L, T)."""

    window: Window
    tags: list[str]
    scores: list[float]
    emissions: np.ndarray | None


# From emissions (B, L, T), attended positions and those that begin words (B, L), and spans to probabilities (S,).
SpanProbabilities = Callable[[np.ndarray, np.ndarray, np.ndarray, list[Span]], np.ndarray]


def tag_in_windows(
    tokens: Sequence[Sequence[Sequence[int]]],
    special_ids: tuple[list[int], list[int]],
    labels: Sequence[str],
    score_windows: Callable[[list[Window]], WindowScores],
    span_probabilities: SpanProbabilities,
    *,
    batch_size: int,
    max_length: int,
    stride: int | None,
    progress: Callable[[list[list[Window]]], Iterable[list[Window]]] = iter,
) -> list[TaggedWords]:
    """Tag the words of texts, given the token ids of each; `labels` are the tags by number."""
    windows = cut_windows(tokens, special_ids, max_length, stride)
    tagged: defaultdict[int, list[TaggedWindow]] = defaultdict(list)
    for batch in progress(make_batches(windows, batch_size)):
        for part in tag_windows(batch, score_windows(batch), labels, span_probabilities):
            tagged[part.window.text].append(part)
    return [join_windows(tagged[number], len(words), span_probabilities) for number, words in enumerate(tokens)]


def cut_windows(
    tokens: Sequence[Sequence[Sequence[int]]],
    special_ids: tuple[list[int], list[int]],
    max_length: int,
    stride: int | None = None,
) -> list[Window]:
    """Cut texts into windows of at most `max_length` tokens that share `stride` tokens, by default a quarter."""
    before, after = special_ids
    room = max_length - len(before) - len(after)
    if room < 1:
        raise mismatch(f"max_length above the {max_length - room} special tokens", max_length, "Raise it.")
    stride = room // 4 if stride is None else stride
    if not 0 <= stride < room:
        raise mismatch(f"a stride of 0 to {room - 1} tokens, below the room for words", stride, "Change it.")
    windows = []
    for number, words in enumerate(tokens):
        words = [word[:room] for word in words]  # a word's tag is read at its first token
        for start, end in _ranges([len(word) for word in words], room, stride):
            ids, first_tokens = list(before), []
            for word in words[start:end]:
                first_tokens.append(len(ids))
                ids += word
            windows.append(Window(number, start, end, len(words), ids + after, first_tokens))
    return windows


def _ranges(lengths: list[int], room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Cut a text into overlapping ranges of words that hold at most `room` tokens each."""
    start = 0
    while start < len(lengths):
        end, used = start, 0
        while end < len(lengths) and used + lengths[end] <= room:
            used += lengths[end]
            end += 1
        yield start, end
        if end == len(lengths):
            return
        following, shared = end, 0
        while following - 1 > start and shared + lengths[following - 1] <= stride:
            following -= 1
            shared += lengths[following]
        # the next range must reach further than this one, or it would add nothing
        while following < end and shared + lengths[end] > room:
            shared -= lengths[following]
            following += 1
        start = following


def make_batches(windows: Sequence[Window], batch_size: int) -> list[list[Window]]:
    """Group windows by length, the longest first, so that memory runs out at once or never."""
    if batch_size < 1:
        raise mismatch("batch_size of at least 1", batch_size, "Raise it.")
    ordered = sorted(windows, key=lambda window: -len(window.ids))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def tag_windows(
    batch: Sequence[Window], scores: WindowScores, labels: Sequence[str], span_probabilities: SpanProbabilities
) -> list[TaggedWindow]:
    """Read the tags of a batch's words at their first tokens, and score the entities of whole texts."""
    emissions, best, mask = scores
    check_finite(emissions[mask])
    begins_word, tags, spans = np.zeros_like(mask), [], []
    padding = mask.argmax(axis=1).tolist()  # tokens of it in front of each window
    for row, window in enumerate(batch):
        first_tokens = [padding[row] + token for token in window.first_tokens]
        begins_word[row, first_tokens] = True
        tags.append([labels[tag] for tag in best[row, first_tokens].tolist()])
        if window.is_whole:
            spans += [
                Span(row, label, first_tokens[start], first_tokens[end - 1] + 1)
                for label, start, end in spans_from_tags(tags[row])
            ]
    probabilities: list[list[float]] = [[] for _ in batch]
    for span, probability in zip(spans, span_probabilities(emissions, mask, begins_word, spans), strict=True):
        probabilities[span.sentence].append(float(probability))
    tagged = []
    for row, window in enumerate(batch):
        part = None if window.is_whole else emissions[row, padding[row] : padding[row] + len(window.ids)].copy()
        tagged.append(TaggedWindow(window, tags[row], probabilities[row], part))
    return tagged


def join_windows(parts: Sequence[TaggedWindow], word_count: int, span_probabilities: SpanProbabilities) -> TaggedWords:
    """Join the windows of one text; of equally good ones the first counts."""
    if len(parts) == 1:
        return TaggedWords(parts[0].tags, parts[0].scores)
    tags, most = ["O"] * word_count, [-1.0] * word_count
    for window, window_tags, _, _ in parts:
        for word, tag in enumerate(window_tags, start=window.start):
            context = window.context(word, word + 1)
            if context > most[word]:
                tags[word], most[word] = tag, context
    scores = []
    for label, start, end in spans_from_tags(tags):
        part = max(parts, key=lambda part: part.window.context(start, end))
        scores.append(_score_in_part(part, label, start, end, span_probabilities))
    return TaggedWords(tags, scores)


def _score_in_part(
    part: TaggedWindow, label: str, start: int, end: int, span_probabilities: SpanProbabilities
) -> float:
    """Score an entity, or the part of it that a window holds."""
    window, _, _, emissions = part
    assert emissions is not None
    begins_word = np.zeros((1, len(emissions)), dtype=bool)
    begins_word[0, window.first_tokens] = True
    first = window.first_tokens[max(start, window.start) - window.start]
    last = window.first_tokens[min(end, window.end) - window.start - 1]
    spans = [Span(0, label, first, last + 1)]
    return float(span_probabilities(emissions[None], np.ones_like(begins_word), begins_word, spans)[0])


def check_finite(scores: np.ndarray) -> None:
    """Refuse tag scores (positions, tags) of a broken model; a tag that can't be may have minus infinity."""
    # the maximum over tags is NaN where any of them is
    if not np.isfinite(scores.max(axis=-1)).all():
        raise ValueError(
            "Expected tag scores that are finite numbers, got NaN or infinity from the model. Take another checkpoint, "
            "or load it with dtype='float32'."
        )


__all__ = [
    "SpanProbabilities",
    "TaggedWindow",
    "TaggedWords",
    "Window",
    "WindowScores",
    "check_finite",
    "cut_windows",
    "join_windows",
    "make_batches",
    "tag_in_windows",
    "tag_windows",
]
