"""Find entities in texts of any length with a trained model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.utils.logging import tqdm

from .evaluation_mode import evaluating
from .padding import column_padding, pad_rows
from .pictures import as_picture_list, stack_pictures
from .tag_scheme import spans_from_tags
from .word_encoding import default_max_length, special_tokens
from .word_splitting import as_sentences, split_words


@dataclass
class _Text:
    """A text, its words with their places, and what was found: a tag and its probability for each word."""

    content: str
    places: list[tuple[int, int]]
    words: list[str]
    picture: Any
    tags: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    context: list[float] = field(default_factory=list)


@dataclass
class _Window:
    """Words `start` to `end` of a text, as the model reads them."""

    text: int
    start: int
    end: int
    ids: list[int]
    first_tokens: list[int]


def predict(
    model: nn.Module,
    processor: Any,
    text: str | Sequence[str] | Sequence[Sequence[str]],
    images: Any = None,
    *,
    is_split_into_words: bool | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    stride: int | None = None,
    on_bad_image: str = "missing",
    visual_source: str | None = None,
    show_progress: bool = False,
) -> list[Any]:
    """Find the entities of texts.

    Parameters
    ----------
    model : torch.nn.Module
        Called with ``input_ids``, ``attention_mask``, ``token_type_ids`` where the tokenizer has them, and
        ``pixel_values`` and ``picture_mask`` where pictures are given. Its output has ``predictions``, int64 (B, L),
        and ``logits``, (B, L, T), whose softmax gives the probabilities of the tags; its ``config.id2label`` names
        them. It runs in eval mode without gradients; afterwards every part is back in the mode it was in.
    processor : BgaMnerProcessor
        The model's processor.
    text : str, sequence of str or sequence of sequences of str
        A text, texts, or texts as lists of words. Running text is split by `word_splitting.split_words`.
    images : picture, sequence of (picture or None), or None
        One a text, for models that read real pictures; not needed otherwise.
    is_split_into_words : bool or None
        True says that a list of strings holds the words of one text.
    batch_size : int
        Texts (or windows of long ones) at a time.
    max_length : int or None
        Most tokens the model reads at once; the tokenizer's limit by default.
    stride : int or None
        How many tokens neighbouring windows of a longer text share; a quarter of the window by default. Each word
        is tagged where it has the most context.
    on_bad_image : {"missing", "raise"}
        What to do about broken pictures.
    visual_source : {"generated", "real", "none"}, optional
        What the text reads; the model's own default if left out.
    show_progress : bool
        Show a progress bar.

    Returns
    -------
    list of dict, or list of list of dict
        For each text its entities in order: "label", "score" (mean over the words of the probability of their tag),
        "word", "start" and "end", where ``text[start:end] == word``. If words were given, places are those in
        ``" ".join(words)``. A list of entities for a single text, a list of such lists otherwise.

    Raises
    ------
    ValueError
        If arguments do not fit together.

    Examples
    --------
    >>> predict(model, processor, "Kawhi wins in Toronto")  # doctest: +SKIP
    [{'label': 'PER', 'score': 0.98, 'word': 'Kawhi', 'start': 0, 'end': 5}, ...]
    """
    if batch_size < 1:
        raise ValueError(f"Expected batch_size of at least 1, got {batch_size}.")
    if not isinstance(text, str) and isinstance(text, Sequence) and not len(text) and not is_split_into_words:
        return []
    texts, single = _read_texts(text, images, is_split_into_words)
    id2label = {int(number): str(label) for number, label in model.config.id2label.items()}
    windows = _make_windows(processor, texts, max_length, stride)
    # Similar lengths together waste the least padding; the longest first, so that memory runs out at once or never.
    windows.sort(key=lambda window: -len(window.ids))
    batches = [windows[place : place + batch_size] for place in range(0, len(windows), batch_size)]
    options = {} if visual_source is None else {"visual_source": visual_source}
    with evaluating(model):
        for batch in _with_progress(batches, show_progress):
            inputs = _make_inputs(processor, texts, batch, on_bad_image)
            device = _device_of(model)
            output = model(**{name: tensor.to(device) for name, tensor in inputs.items()}, **options)
            _collect(output, batch, texts, inputs["attention_mask"], id2label)
    entities = [_read_entities(item) for item in texts]
    return entities[0] if single else entities


def _read_texts(text: Any, images: Any, is_split_into_words: bool | None) -> tuple[list[_Text], bool]:
    sentences, single, are_words = as_sentences(text, is_split_into_words)
    if images is None:
        pictures: list[Any] = [None] * len(sentences)
    else:
        pictures = as_picture_list(images)
        if len(pictures) != len(sentences):
            raise ValueError(
                f"Expected one item of `images` a text, got {len(pictures)} for {len(sentences)} texts. Give None for "
                "a text without a picture."
            )
    texts = []
    contents = [text] if single else list(text)
    for content, words, picture in zip(contents, sentences, pictures, strict=True):
        if are_words:
            places = []
            place = 0
            for word in words:
                places.append((place, place + len(word)))
                place += len(word) + 1
            content = " ".join(words)
        else:
            places = [(start, end) for _, start, end in split_words(content)]
        texts.append(_Text(content, places, words, picture))
    return texts, single


def _make_windows(processor: Any, texts: list[_Text], max_length: int | None, stride: int | None) -> list[_Window]:
    before, behind = special_tokens(processor.tokenizer)
    max_length = default_max_length(processor.tokenizer) if max_length is None else max_length
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


def _make_inputs(
    processor: Any, texts: list[_Text], batch: list[_Window], on_bad_image: str
) -> dict[str, torch.Tensor]:
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
    inputs = {
        name: torch.tensor(pad_rows(columns, length, values[name], tokenizer.padding_side), dtype=torch.int64)
        for name, columns in rows.items()
    }
    pictures = [texts[window.text].picture for window in batch]
    if any(picture is not None for picture in pictures):
        stacked = stack_pictures(processor.encode_pictures(pictures, on_bad_image=on_bad_image))
        if "pixel_values" in stacked:
            inputs.update({name: torch.from_numpy(array) for name, array in stacked.items()})
    return inputs


def _collect(
    output: Any, batch: list[_Window], texts: list[_Text], attention_mask: torch.Tensor, id2label: Mapping[int, str]
) -> None:
    """Take each word's tag from the window where it has the most context."""
    # (W, L, T): probabilities of the tags
    probabilities = output.logits.float().softmax(dim=-1).cpu()
    predictions = getattr(output, "predictions", None)
    # (W, L, T) -> (W, L), for models without a best path
    predictions = probabilities.argmax(dim=-1) if predictions is None else predictions.cpu()
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
            tag = int(predictions[row, token])
            text.context[word] = context
            text.tags[word] = id2label.get(tag, "O")
            text.scores[word] = float(probabilities[row, token, tag]) if tag in id2label else 0.0


def _read_entities(text: _Text) -> list[dict[str, Any]]:
    entities = []
    for label, first, behind in spans_from_tags(text.tags):
        start, end = text.places[first][0], text.places[behind - 1][1]
        scores = text.scores[first:behind]
        entities.append(
            {
                "label": label,
                "score": sum(scores) / len(scores),
                "word": text.content[start:end],
                "start": start,
                "end": end,
            }
        )
    return entities


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _with_progress(batches: list[list[_Window]], show_progress: bool) -> Any:
    if not show_progress:
        return batches
    return tqdm(batches, desc="Finding entities", unit="batch")
