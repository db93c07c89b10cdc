"""Tag texts of any length in overlapping windows, with whatever scores the windows. NumPy alone.

Each word is tagged, and each entity scored, in the window where it has the most context.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ...configuration.errors import mismatch
from ...modeling_bga.crf.span_probabilities import Span
from ..tags.tag_scheme import spans_from_tags, split_tag
from ..text.encoded_words import EncodedWords


# Type, first word, and the word after the last one.
WordSpan = tuple[str, int, int]


class Window(NamedTuple):
    """Words `start` to `end` of text number `text`, as the model reads them."""

    text: int
    start: int
    end: int
    text_words: int  # of the whole text
    ids: np.ndarray  # int64 (tokens,), special ones included
    first_tokens: np.ndarray  # int64 (words,): of each word, the position among `ids`

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
    """A tag for each word of a text, the entities that they make, and a probability for each of these."""

    tags: list[str]
    spans: list[WordSpan]
    scores: list[float]


class TaggedWindow(NamedTuple):
    """A window, its tags, and its emissions (L, T), which nothing needs where a whole text has no entity."""

    window: Window
    tags: list[str]
    emissions: np.ndarray | None


# Texts of a batch by default, if the model reads their images.
TEXTS_WITH_IMAGES = 16

# From emissions (B, L, T), attended positions and those that begin words (B, L), and spans to probabilities (S,).
SpanProbabilities = Callable[[np.ndarray, np.ndarray, np.ndarray, list[Span]], np.ndarray]

# Most windows whose entities are scored at once, and most tokens of these with padding: a loop over positions takes as
# long for one window as for many.
_WINDOWS_AT_ONCE, _TOKENS_AT_ONCE = 256, 2**17


def tag_in_windows(
    encoded: EncodedWords,
    special_ids: tuple[list[int], list[int]],
    labels: Sequence[str],
    score_windows: Callable[[list[Window]], WindowScores],
    span_probabilities: SpanProbabilities,
    *,
    batch_size: int | None,
    batch_tokens: int,
    max_length: int,
    stride: int | None,
    progress: Callable[[list[list[Window]]], Iterable[list[Window]]] = iter,
) -> list[TaggedWords]:
    """Tag the words of texts, given their token ids; `labels` are the tags by number."""
    windows = cut_windows(encoded, special_ids, max_length, stride)
    parts: defaultdict[int, list[TaggedWindow]] = defaultdict(list)
    tagged = [TaggedWords([], [], []) for _ in encoded.text_starts[1:]]
    scorer = EntityScorer(span_probabilities)
    for batch in progress(make_batches(windows, batch_size, batch_tokens)):
        for part, spans in tag_windows(batch, score_windows(batch), labels):
            window = part.window
            if window.is_whole:
                tagged[window.text] = TaggedWords(part.tags, spans, [])
                scorer.add(part, spans, tagged[window.text].scores)
            else:
                parts[window.text].append(part)
    for number, of_text in parts.items():
        tags = join_tags(of_text)
        tagged[number] = TaggedWords(tags, spans_from_tags(tags), [])
        for span in tagged[number].spans:
            scorer.add(*part_with_most_context(of_text, span), tagged[number].scores)
    scorer.finish()
    return tagged


class EntityScorer:
    """Scores the entities of many windows at once, and writes the scores where they belong."""

    def __init__(self, span_probabilities: SpanProbabilities):
        self._span_probabilities = span_probabilities
        self._waiting: list[tuple[TaggedWindow, list[WordSpan], list[float]]] = []
        self._longest = 0

    def add(self, part: TaggedWindow, spans: list[WordSpan], scores: list[float]) -> None:
        """Score spans of a window's words, and append what is found to the scores, sooner or later."""
        if not spans:
            return
        longest = max(self._longest, len(part.window.ids))
        if (len(self._waiting) + 1) * longest > _TOKENS_AT_ONCE or len(self._waiting) == _WINDOWS_AT_ONCE:
            self.finish()
        self._waiting.append((part, spans, scores))
        self._longest = max(self._longest, len(part.window.ids))

    def finish(self) -> None:
        """Score what is waiting."""
        if not self._waiting:
            return
        tokens = [part.emissions for part, _, _ in self._waiting if part.emissions is not None]
        mask = np.arange(max(map(len, tokens))) < np.array([[len(rows)] for rows in tokens])
        # windows of (L, T) each -> (windows, L, T)
        emissions = np.zeros((*mask.shape, tokens[0].shape[1]), tokens[0].dtype)
        emissions[mask] = np.concatenate(tokens)
        begins_word = np.zeros_like(mask)
        asked, places = [], []
        for row, (part, spans, scores) in enumerate(self._waiting):
            first_tokens = part.window.first_tokens
            begins_word[row, first_tokens] = True
            asked += [
                Span(row, label, int(first_tokens[start]), int(first_tokens[end - 1]) + 1)
                for label, start, end in spans
            ]
            places += [scores] * len(spans)
        found = self._span_probabilities(emissions, mask, begins_word, asked).tolist()
        for scores, probability in zip(places, found, strict=True):
            scores.append(probability)
        self._waiting, self._longest = [], 0


def cut_windows(
    encoded: EncodedWords,
    special_ids: tuple[list[int], list[int]],
    max_length: int,
    stride: int | None = None,
) -> list[Window]:
    """Cut texts into windows of at most `max_length` tokens that share `stride` tokens, by default a quarter."""
    before, after = (np.array(ids, dtype=np.int64) for ids in special_ids)
    room = max_length - len(before) - len(after)
    if room < 1:
        raise mismatch(f"max_length above the {max_length - room} special tokens", max_length, "Raise it.")
    stride = room // 4 if stride is None else stride
    if not 0 <= stride < room:
        raise mismatch(f"a stride of 0 to {room - 1} tokens, below the room for words", stride, "Change it.")
    windows = []
    for number, (first, last) in enumerate(pairwise(encoded.text_starts.tolist())):
        starts = encoded.word_starts[first : last + 1]
        ids = encoded.ids[starts[0] : starts[-1]]
        starts = starts - starts[0]
        ranges: Iterable[tuple[int, int]] = [(0, last - first)] if last > first else []
        if len(ids) > room:
            lengths = np.minimum(np.diff(starts), room)  # a word's tag is read at its first token
            kept = np.arange(len(ids)) - np.repeat(starts[:-1], np.diff(starts)) < room
            ids, starts = ids[kept], np.concatenate([[0], np.cumsum(lengths)])
            ranges = _ranges(lengths.tolist(), room, stride)
        for start, end in ranges:
            words = ids[starts[start] : starts[end]]
            first_tokens = starts[start:end] - starts[start] + len(before)
            windows.append(
                Window(number, start, end, last - first, np.concatenate([before, words, after]), first_tokens)
            )
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


def tokens_at_once(hidden_size: int, device: str = "cpu") -> int:
    """Say how many tokens make a batch that runs fast.

    On a CPU those whose activations stay in its caches: more of them slow a wide model down. With fewer, a narrow one
    spends its time on starting operations. Other devices have more to keep busy.
    """
    on_cpu = min(max(2**18 // hidden_size, 64), 2048)
    return on_cpu if device == "cpu" else 16 * on_cpu


def texts_read_ahead(batch_size: int | None, with_images: bool = False) -> int:
    """Say how many texts are sorted by length at a time: all at once would fill the memory, and hold up streams.

    These are 16 batches, but one text if it makes a batch; without `batch_size` as many texts as make some batches on
    any device, and fewer with images.
    """
    if batch_size == 1:
        return 1
    return 16 * (batch_size or (TEXTS_WITH_IMAGES if with_images else 64))


def make_batches(windows: Sequence[Window], batch_size: int | None, batch_tokens: int) -> list[list[Window]]:
    """Group windows by length, the longest first, so that memory runs out at once or never.

    A batch has `batch_size` windows or, with None, as many as make `batch_tokens` tokens, padding included.
    """
    if batch_size is not None and batch_size < 1:
        raise mismatch("batch_size of at least 1", batch_size, "Raise it.")
    ordered = sorted(windows, key=lambda window: -len(window.ids))
    batches, start = [], 0
    while start < len(ordered):
        size = batch_size or max(1, batch_tokens // len(ordered[start].ids))
        batches.append(ordered[start : start + size])
        start += size
    return batches


def pad_windows(batch: Sequence[Window], padding_token: int, side: str = "right") -> tuple[np.ndarray, np.ndarray]:
    """Return the token ids of W windows, int64 (W, L), and the mask of those that are no padding, bool (W, L)."""
    lengths = np.array([len(window.ids) for window in batch])
    places = np.arange(lengths.max())
    mask = places < lengths[:, None] if side == "right" else places >= len(places) - lengths[:, None]
    input_ids = np.full(mask.shape, padding_token, dtype=np.int64)
    # W rows of different lengths -> (W, L)
    input_ids[mask] = np.concatenate([window.ids for window in batch])
    return input_ids, mask


def tag_windows(
    batch: Sequence[Window], scores: WindowScores, labels: Sequence[str]
) -> list[tuple[TaggedWindow, list[WordSpan]]]:
    """Read the tags of a batch's words at their first tokens; return the windows, and the entities of each."""
    emissions, best, mask = scores
    check_finite(emissions[mask])
    padding = mask.argmax(axis=1)  # tokens of it in front of each window
    counts = [len(window.first_tokens) for window in batch]
    rows = np.repeat(np.arange(len(batch)), counts)
    # words of all windows, one after the other: (words,)
    tags = best[rows, np.concatenate([window.first_tokens for window in batch]) + padding[rows]]
    names = [labels[tag] for tag in tags.tolist()]
    spans: list[list[WordSpan]] = [[] for _ in batch]
    ends = np.cumsum(counts).tolist()
    starts = [end - count for end, count in zip(ends, counts, strict=True)]
    for label, start, end in spans_from_tag_ids(tags, rows, labels):
        row = rows[start]
        spans[row].append((label, start - starts[row], end - starts[row]))
    tagged = []
    for row, window in enumerate(batch):
        needed = spans[row] or not window.is_whole
        part = emissions[row, padding[row] : padding[row] + len(window.ids)].copy() if needed else None
        tagged.append((TaggedWindow(window, names[starts[row] : ends[row]], part), spans[row]))
    return tagged


def spans_from_tag_ids(tags: np.ndarray, texts: np.ndarray, labels: Sequence[str]) -> list[WordSpan]:
    """Do for many texts at once what `spans_from_tags` does.

    `tags` are numbers of labels and `texts` the text of each word, int64 (words,) both; words are counted over all
    texts.
    """
    used = set(tags.tolist())  # others may be no BIO tags
    parts = [split_tag(label) if number in used else ("O", "") for number, label in enumerate(labels)]
    types = sorted({kind for _, kind in parts})  # "" is the first, if there is an "O"
    kinds = np.array([types.index(kind) for _, kind in parts])[tags]
    entity = np.array([prefix != "O" for prefix, _ in parts])[tags]
    goes_on = np.array([prefix == "I" for prefix, _ in parts])[tags]
    goes_on[:1] = False
    goes_on[1:] &= (kinds[1:] == kinds[:-1]) & (texts[1:] == texts[:-1])
    begins = np.flatnonzero(entity & ~goes_on)
    borders = np.append(np.flatnonzero(~goes_on), len(tags))
    ends = borders[np.searchsorted(borders, begins, side="right")]
    return [(types[kinds[begin]], begin, end) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


def join_tags(parts: Sequence[TaggedWindow]) -> list[str]:
    """Join the tags of the windows of one text; of equally good ones the first counts."""
    words = parts[0].window.text_words
    tags, most = ["O"] * words, [-1.0] * words
    for window, window_tags, _ in parts:
        for word, tag in enumerate(window_tags, start=window.start):
            context = window.context(word, word + 1)
            if context > most[word]:
                tags[word], most[word] = tag, context
    return tags


def part_with_most_context(parts: Sequence[TaggedWindow], span: WordSpan) -> tuple[TaggedWindow, list[WordSpan]]:
    """Return the window where an entity is scored, and the entity, or the part of it that the window holds."""
    label, start, end = span
    part = max(parts, key=lambda part: part.window.context(start, end))
    window = part.window
    return part, [(label, max(start, window.start) - window.start, min(end, window.end) - window.start)]


def check_finite(scores: np.ndarray) -> None:
    """Refuse tag scores (positions, tags) of a broken model; a tag that can't be may have minus infinity."""
    # the maximum over tags is NaN where any of them is
    if not np.isfinite(scores.max(axis=-1)).all():
        raise ValueError(
            "Expected tag scores that are finite numbers, got NaN or infinity from the model. Take another checkpoint, "
            "or load it with dtype='float32'."
        )


__all__ = [
    "TEXTS_WITH_IMAGES",
    "EntityScorer",
    "SpanProbabilities",
    "TaggedWindow",
    "TaggedWords",
    "Window",
    "WindowScores",
    "check_finite",
    "cut_windows",
    "join_tags",
    "make_batches",
    "pad_windows",
    "part_with_most_context",
    "spans_from_tag_ids",
    "tag_in_windows",
    "tag_windows",
    "texts_read_ahead",
    "tokens_at_once",
]
