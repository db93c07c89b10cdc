"""Texts, the overlapping windows in which they are read, and the entities found in them. Pure Python.

Nothing here needs torch: the tagger that runs on ONNX Runtime alone takes a copy of this file along.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .sequences import as_list
from .tag_scheme import spans_from_tags
from .word_reader import WordReader, part_tags
from .word_splitting import as_sentences


_READER = WordReader()


class Entity(NamedTuple):
    """An entity of a text.

    Attributes
    ----------
    label : str
        Its type.
    score : float
        Probability that exactly these words are an entity of this type; see `span_probabilities`.
    word : str
        What stands in the text: ``text[start:end]``.
    start, end : int
        Places of the first character and behind the last one.
    first, behind : int
        Numbers of the first word and of the word behind the last one.
    """

    label: str
    score: float
    word: str
    start: int
    end: int
    first: int
    behind: int


@dataclass
class TaggedText:
    """A text, its words with their places, and what was found: a tag for each word, a score for each entity.

    Where several of the words that were given are read as one, `words` has that one, and `units` says of which it is;
    see `WordReader.units`.
    """

    content: str
    words: list[str]
    places: list[tuple[int, int]]
    picture: Any = None
    words_given: bool = False
    units: list[range] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    context: list[float] = field(default_factory=list)

    @classmethod
    def from_text(cls, content: str, picture: Any = None, reader: WordReader = _READER) -> "TaggedText":
        """Split running text into words."""
        words = reader.split(content)
        return cls(content, [word for word, _, _ in words], [(start, end) for _, start, end in words], picture)

    @classmethod
    def from_words(cls, words: Sequence[str], picture: Any = None, reader: WordReader = _READER) -> "TaggedText":
        """Join words by single spaces.

        Examples
        --------
        >>> TaggedText.from_words(["Go", "#", "NBA"]).places
        [(0, 2), (3, 4), (5, 8)]
        """
        places, place = [], 0
        for word in words:
            places.append((place, place + len(word)))
            place += len(word) + 1
        units = reader.units(words)
        read = ["".join(words[unit.start : unit.stop]) for unit in units]
        spans = [(places[unit.start][0], places[unit.stop - 1][1]) for unit in units]
        return cls(" ".join(words), read, spans, picture, True, units)

    def entities(self) -> list[Entity]:
        """Read the entities off the tags, in order."""
        found = []
        for (label, first, behind), score in zip(spans_from_tags(self.tags), self.scores, strict=True):
            start, end = self.places[first][0], self.places[behind - 1][1]
            if self.words_given:
                first, behind = self.units[first].start, self.units[behind - 1].stop
            found.append(Entity(label, score, self.content[start:end], start, end, first, behind))
        return found

    def tags_of_words(self, count: int) -> list[str]:
        """Return a tag for each of the `count` words that were given."""
        return list(self.tags) if len(self.tags) == count else part_tags(self.tags, self.units, count)


def read_texts(
    text: Any, is_split_into_words: bool | None = None, reader: WordReader = _READER
) -> tuple[list[TaggedText], bool]:
    """Bring every accepted form of text to texts that can be tagged.

    Parameters
    ----------
    text : str, sequence of str or sequence of sequences of str
        A text, texts, or texts as lists of words. A sequence is whatever `sequences.as_list` takes.
    is_split_into_words : bool, optional
        True says that a list of strings holds the words of one text.
    reader : WordReader
        How the model reads words.

    Returns
    -------
    tuple of (list of TaggedText, bool)
        The texts, and whether it was a single one.

    Raises
    ------
    ValueError
        If it is anything else, or an empty list.

    Examples
    --------
    >>> [item.words for item in read_texts(["Go", "#NBA"])[0]]
    [['Go'], ['#', 'NBA']]
    """
    items = as_list(text)
    if not is_split_into_words:
        # split here, with the places: `as_sentences` would split as well, and keep the words alone
        if isinstance(text, str):
            return [TaggedText.from_text(text, reader=reader)], True
        if items and all(isinstance(item, str) for item in items):
            return [TaggedText.from_text(item, reader=reader) for item in items], False
    # an iterator can be read once
    sentences, single, _ = as_sentences(text if items is None else items, is_split_into_words)
    return [TaggedText.from_words(words, reader=reader) for words in sentences], single


@dataclass
class Window:
    """Words `start` to `end` of a text, as the model reads them."""

    text: int
    start: int
    end: int
    ids: list[int]
    first_tokens: list[int]


def make_windows(
    texts: Sequence[TaggedText],
    pieces: Sequence[Sequence[Sequence[int]]],
    special: tuple[list[int], list[int]],
    max_length: int,
    stride: int | None = None,
) -> list[Window]:
    """Cut texts into windows, and clear their tags and scores.

    Parameters
    ----------
    texts : sequence of TaggedText
        Texts.
    pieces : sequence of sequences of sequences of int
        Token ids of each word of each text.
    special : tuple of (list of int, list of int)
        Special tokens before and behind.
    max_length : int
        Most tokens of a window, special ones included.
    stride : int, optional
        How many tokens neighbouring windows share; a quarter of the window by default.

    Returns
    -------
    list of Window
        In the order of the texts.

    Raises
    ------
    ValueError
        If nothing fits into a window, or the stride leaves no room for anything new.
    """
    before, behind = special
    room = max_length - len(before) - len(behind)
    if room < 1:
        raise ValueError(f"Expected max_length above the {len(before) + len(behind)} special tokens, got {max_length}.")
    stride = room // 4 if stride is None else stride
    if not 0 <= stride < room:
        raise ValueError(f"Expected a stride of 0 to {room - 1} tokens, below the room for words, got {stride}.")
    windows = []
    for number, words in enumerate(pieces):
        count = len(words)
        texts[number].tags = ["O"] * count
        texts[number].scores = []
        texts[number].context = [-1.0] * count
        # The first token of a word holds its tag, so a word longer than a window loses nothing that is read.
        words = [piece[:room] for piece in words]
        for start, end in _ranges([len(piece) for piece in words], room, stride):
            firsts = []
            ids = list(before)
            for piece in words[start:end]:
                firsts.append(len(ids))
                ids += piece
            windows.append(Window(number, start, end, ids + behind, firsts))
    return windows


def _ranges(lengths: list[int], room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Cut a text into overlapping ranges of words that hold at most `room` tokens each.

    Examples
    --------
    >>> list(_ranges([1, 1, 1, 1, 1], 3, 1))
    [(0, 3), (2, 5)]
    """
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
        # The next range must reach further than this one, or it would add nothing.
        while following < end and shared + lengths[end] > room:
            shared -= lengths[following]
            following += 1
        start = following


def make_batches(windows: Sequence[Window], batch_size: int) -> list[list[Window]]:
    """Group windows of similar length.

    Parameters
    ----------
    windows : sequence of Window
        Windows.
    batch_size : int
        Windows a batch.

    Returns
    -------
    list of list of Window
        The longest first, so that memory runs out at once or never.

    Raises
    ------
    ValueError
        If `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"Expected batch_size of at least 1, got {batch_size}.")
    ordered = sorted(windows, key=lambda window: -len(window.ids))
    return [ordered[place : place + batch_size] for place in range(0, len(ordered), batch_size)]


def collect_tags(
    batch: Sequence[Window],
    texts: Sequence[TaggedText],
    tags: Sequence[Sequence[str]],
    offsets: Sequence[int],
) -> None:
    """Give each word the tag that its first token has in the window where it has the most context.

    Parameters
    ----------
    batch : sequence of Window
        Windows.
    texts : sequence of TaggedText
        All texts; their `tags` are filled in.
    tags : sequence of sequences of str
        Tag of each token of each window.
    offsets : sequence of int
        Tokens of padding in front of each window.
    """
    for row, window in enumerate(batch):
        text = texts[window.text]
        for number, first in enumerate(window.first_tokens):
            word = window.start + number
            # The ends of the text are no loss of context.
            before = float("inf") if window.start == 0 else number
            behind = float("inf") if window.end == len(text.words) else window.end - word - 1
            context = min(before, behind)
            if context <= text.context[word]:
                continue
            token = offsets[row] + first
            text.context[word] = context
            text.tags[word] = tags[row][token]


__all__ = ["Entity", "TaggedText", "Window", "collect_tags", "make_batches", "make_windows", "read_texts"]
