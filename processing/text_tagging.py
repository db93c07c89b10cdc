"""Tag the words of texts of any length: in overlapping windows, in batches of similar length."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.utils.logging import tqdm

from ..modeling_bga.encoders import longest_text
from .evaluation_mode import evaluating
from .padding import column_padding, pad_rows
from .pictures import stack_pictures
from .tag_scheme import spans_from_tags
from .word_encoding import default_max_length, special_tokens
from .word_splitting import split_words


class Entity(NamedTuple):
    """An entity of a text.

    Attributes
    ----------
    label : str
        Its type.
    score : float
        Mean over its words of the probability of their tag. These are the CRF's posterior marginals where the model
        has a CRF: ``score = (p_1 + ... + p_n) / n``, ``p_i = P(tag of word i | text)``, and a word's tag is that of
        its first token. It isn't the probability that the whole span is right, which is at most the least ``p_i``.
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
    """A text, its words with their places, and what `tag_texts` found: a tag and its probability for each word."""

    content: str
    words: list[str]
    places: list[tuple[int, int]]
    picture: Any = None
    words_given: bool = False
    tags: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    context: list[float] = field(default_factory=list)

    @classmethod
    def from_text(cls, content: str, picture: Any = None) -> "TaggedText":
        """Split running text into words."""
        words = split_words(content)
        return cls(content, [word for word, _, _ in words], [(start, end) for _, start, end in words], picture)

    @classmethod
    def from_words(cls, words: Sequence[str], picture: Any = None) -> "TaggedText":
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
        return cls(" ".join(words), list(words), places, picture, words_given=True)

    def entities(self) -> list[Entity]:
        """Read the entities off the tags, in order."""
        found = []
        for label, first, behind in spans_from_tags(self.tags):
            start, end = self.places[first][0], self.places[behind - 1][1]
            score = sum(self.scores[first:behind]) / (behind - first)
            found.append(Entity(label, score, self.content[start:end], start, end, first, behind))
        return found


@dataclass
class _Window:
    """Words `start` to `end` of a text, as the model reads them."""

    text: int
    start: int
    end: int
    ids: list[int]
    first_tokens: list[int]


def reads_pictures(model: nn.Module, visual_source: str | None) -> bool:
    """Tell whether a model's answers depend on the pictures that it is given.

    Parameters
    ----------
    model : torch.nn.Module
        Its ``config.visual_source`` is what it reads by default.
    visual_source : {"generated", "real", "none"} or None
        What it is told to read; None for its default.

    Returns
    -------
    bool
        True if it reads real pictures. Otherwise they needn't be loaded.
    """
    return (visual_source or getattr(model.config, "visual_source", None)) == "real"


def tag_texts(
    texts: Sequence[TaggedText],
    model: nn.Module,
    processor: Any,
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    stride: int | None = None,
    on_bad_image: str = "missing",
    visual_source: str | None = None,
    show_progress: bool = False,
) -> None:
    """Tag texts: fill in their `tags` and `scores`.

    Parameters
    ----------
    texts : sequence of TaggedText
        The texts; similar lengths share a batch.
    model : torch.nn.Module
        As for `predict`.
    processor : BgaMnerProcessor
        The model's processor.
    batch_size : int, default 16
        Texts (or windows of long ones) at a time.
    max_length : int, optional
        Most tokens that the model reads at once; by default what both tokenizer and text encoder take.
    stride : int, optional
        How many tokens neighbouring windows of a longer text share; a quarter of the window by default. Each word is
        tagged where it has the most context.
    on_bad_image : {"missing", "raise"}
        What to do about broken pictures.
    visual_source : {"generated", "real", "none"}, optional
        What the text reads; the model's own default if left out. Pictures are looked at only if it is "real".
    show_progress : bool, default False
        Show a progress bar.

    Raises
    ------
    ValueError
        If arguments don't fit together.
    """
    if batch_size < 1:
        raise ValueError(f"Expected batch_size of at least 1, got {batch_size}.")
    if max_length is None:
        max_length = min(default_max_length(processor.tokenizer), longest_text(model.config.text_config))
    windows = _make_windows(processor, texts, max_length, stride)
    # Similar lengths together waste the least padding; the longest first, so that memory runs out at once or never.
    windows.sort(key=lambda window: -len(window.ids))
    batches = [windows[place : place + batch_size] for place in range(0, len(windows), batch_size)]
    id2label = {int(number): str(label) for number, label in model.config.id2label.items()}
    options = {} if visual_source is None else {"visual_source": visual_source}
    with_pictures = reads_pictures(model, visual_source)
    with evaluating(model):
        device = _device_of(model)
        for batch in _with_progress(batches, show_progress):
            inputs = _make_inputs(processor, batch)
            if with_pictures:
                inputs |= _encode_pictures(processor, texts, batch, on_bad_image)
            output = model(**{name: tensor.to(device) for name, tensor in inputs.items()}, **options)
            _collect(output, batch, texts, inputs["attention_mask"], id2label)


def _make_windows(processor: Any, texts: Sequence[TaggedText], max_length: int, stride: int | None) -> list[_Window]:
    before, behind = special_tokens(processor.tokenizer)
    room = max_length - len(before) - len(behind)
    if room < 1:
        raise ValueError(f"Expected max_length above the {len(before) + len(behind)} special tokens, got {max_length}.")
    stride = room // 4 if stride is None else stride
    if not 0 <= stride < room:
        raise ValueError(f"Expected a stride of 0 to {room - 1} tokens, below the room for words, got {stride}.")
    windows = []
    for number, pieces in enumerate(processor.encode_words([text.words for text in texts])):
        count = len(pieces)
        texts[number].tags = ["O"] * count
        texts[number].scores = [0.0] * count
        texts[number].context = [-1.0] * count
        # The first token of a word holds its tag, so a word longer than a window loses nothing that is read.
        pieces = [piece[:room] for piece in pieces]
        for start, end in _ranges([len(piece) for piece in pieces], room, stride):
            firsts = []
            ids = list(before)
            for piece in pieces[start:end]:
                firsts.append(len(ids))
                ids += piece
            windows.append(_Window(number, start, end, ids + behind, firsts))
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


def _make_inputs(processor: Any, batch: list[_Window]) -> dict[str, torch.Tensor]:
    tokenizer = processor.tokenizer
    values = column_padding(tokenizer)
    rows = {
        "input_ids": [window.ids for window in batch],
        "attention_mask": [[1] * len(window.ids) for window in batch],
    }
    if "token_type_ids" in tokenizer.model_input_names:
        rows["token_type_ids"] = [[0] * len(window.ids) for window in batch]
    length = max(len(window.ids) for window in batch)
    # W rows of different lengths -> (W, L)
    return {
        name: torch.tensor(pad_rows(columns, length, values[name], tokenizer.padding_side), dtype=torch.int64)
        for name, columns in rows.items()
    }


def _encode_pictures(
    processor: Any, texts: Sequence[TaggedText], batch: list[_Window], on_bad_image: str
) -> dict[str, torch.Tensor]:
    """Encode the pictures of a batch; nothing if there is none that can be used."""
    numbers = sorted({window.text for window in batch if texts[window.text].picture is not None})
    if not numbers:
        return {}
    pictures = processor.encode_pictures([texts[number].picture for number in numbers], on_bad_image=on_bad_image)
    encoded = dict(zip(numbers, pictures, strict=True))
    for number, picture in encoded.items():
        if picture is None:
            texts[number].picture = None  # counted once, however many windows the text has
    stacked = stack_pictures([encoded.get(window.text) for window in batch])
    return {name: torch.from_numpy(array) for name, array in stacked.items()} if "pixel_values" in stacked else {}


def _collect(
    output: Any,
    batch: list[_Window],
    texts: Sequence[TaggedText],
    attention_mask: torch.Tensor,
    id2label: Mapping[int, str],
) -> None:
    """Take each word's tag from the window where it has the most context."""
    # (W, L, T): probabilities of the tags
    probabilities = output.logits.float().softmax(dim=-1).cpu()
    predictions = getattr(output, "predictions", None)
    # (W, L, T) -> (W, L), for models without a best path
    predictions = probabilities.argmax(dim=-1) if predictions is None else predictions.cpu()
    # (W, L): probability of the predicted tag; what is predicted for padding, -100, is never read
    scores = probabilities.gather(-1, predictions.clamp(min=0)[..., None]).squeeze(-1).tolist()
    tags = predictions.tolist()
    # (W, L) -> (W,): tokens of padding in front
    offsets = attention_mask.argmax(dim=-1).tolist()
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
            text.tags[word] = id2label[tags[row][token]]
            text.scores[word] = scores[row][token]


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _with_progress(batches: list[list[_Window]], show_progress: bool) -> Any:
    if not show_progress:
        return batches
    return tqdm(batches, desc="Finding entities", unit="batch")


__all__ = ["Entity", "TaggedText", "reads_pictures", "tag_texts"]
