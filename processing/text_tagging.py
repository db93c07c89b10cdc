"""Tag the words of texts of any length: in overlapping windows, in batches of similar length."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.utils.logging import tqdm

from ..modeling_bga.encoders import longest_text
from ..modeling_bga.span_probabilities import CrfScores, Span, span_log_probabilities
from .entity_scores import EntityScorer, SpanProbabilities, check_finite
from .evaluation_mode import evaluating
from .padding import column_padding, pad_rows
from .pictures import stack_pictures
from .text_windows import Entity, TaggedText, Window, collect_tags, make_batches, make_windows
from .word_encoding import default_max_length, special_tokens


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


def longest_input(tokenizer: Any, text_config: Any) -> int:
    """Give the most tokens of a text that tokenizer and text encoder both take, special tokens included.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        With its `model_max_length`.
    text_config : transformers.PreTrainedConfig
        Of the text encoder, which has so many positions.

    Returns
    -------
    int
        The smaller of the two limits.
    """
    return min(default_max_length(tokenizer), longest_text(text_config))


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
    """Tag texts: fill in their `tags`, and the `scores` of the entities in them.

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
        Most tokens that the model reads at once; by default what both tokenizer and text encoder take, and at most
        what the encoder takes.
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
        If arguments don't fit together, or the model's scores aren't finite.
    """
    text_config = model.config.text_config
    if max_length is None:
        max_length = longest_input(processor.tokenizer, text_config)
    elif max_length > longest_text(text_config):
        # refused whatever the texts: the model itself would only notice at the first long one
        raise ValueError(
            f"Expected max_length of at most {longest_text(text_config)}, which the text encoder takes, got "
            f"{max_length}. Lower it or leave it out: longer texts are read in windows."
        )
    pieces = processor.encode_words([text.words for text in texts])
    windows = make_windows(texts, pieces, special_tokens(processor.tokenizer), max_length, stride)
    batches = make_batches(windows, batch_size)
    id2label = {int(number): str(label) for number, label in model.config.id2label.items()}
    options = {} if visual_source is None else {"visual_source": visual_source}
    with_pictures = reads_pictures(model, visual_source)
    scorer = EntityScorer(texts, _span_probabilities(model, [id2label[number] for number in sorted(id2label)]))
    with evaluating(model):
        device = _device_of(model)
        for batch in _with_progress(batches, show_progress):
            inputs = _make_inputs(processor, batch)
            _check_vocabulary(inputs["input_ids"], text_config.vocab_size)
            if with_pictures:
                inputs |= _encode_pictures(processor, texts, batch, on_bad_image)
            output = model(**{name: tensor.to(device) for name, tensor in inputs.items()}, **options)
            attended = inputs["attention_mask"].numpy().astype(bool)
            # with a CRF these are marginals, of which a broken transition makes NaN; the scorer looks at emissions
            check_finite(_as_array(output.logits.amax(dim=-1, keepdim=True))[attended])
            _collect(output, batch, texts, inputs["attention_mask"], id2label)
            scorer.add(batch, _tag_scores(output), attended)
        scorer.finish()


def _check_vocabulary(ids: torch.Tensor, known: int) -> None:
    """Refuse tokens that the model has no embedding of; on some devices they would be read from anywhere."""
    if ids.numel() and int(ids.max()) >= known:
        raise ValueError(
            f"Expected tokens of the model's vocabulary, 0 to {known - 1}, but the tokenizer makes {int(ids.max())}. "
            "Load both from the same folder, or call model.resize_token_embeddings(len(tokenizer))."
        )


def _make_inputs(processor: Any, batch: list[Window]) -> dict[str, torch.Tensor]:
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
    processor: Any, texts: Sequence[TaggedText], batch: list[Window], on_bad_image: str
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
    batch: list[Window],
    texts: Sequence[TaggedText],
    attention_mask: torch.Tensor,
    id2label: Mapping[int, str],
) -> None:
    """Take each word's tag from the window where it has the most context."""
    predictions = getattr(output, "predictions", None)
    # (W, L, T) -> (W, L), for models without a best path
    predictions = output.logits.argmax(dim=-1) if predictions is None else predictions
    tags = [[id2label.get(tag, "") for tag in row] for row in predictions.tolist()]
    # (W, L) -> (W,): tokens of padding in front
    collect_tags(batch, texts, tags, attention_mask.argmax(dim=-1).tolist())


def _tag_scores(output: Any) -> np.ndarray:
    """Return what the CRF adds its scores to, or log probabilities where there is no CRF: (W, L, T)."""
    scores = getattr(output, "emissions", None)
    return _as_array(output.logits if scores is None else scores)


def _as_array(scores: torch.Tensor) -> np.ndarray:
    return scores.float().cpu().numpy()


def _span_probabilities(model: Any, labels: list[str]) -> SpanProbabilities:
    """Return the model's own probabilities of spans, or, without a CRF, those of tags that are independent."""
    own: Any = getattr(model, "span_probabilities", None)

    def with_crf(emissions: np.ndarray, mask: np.ndarray, read: np.ndarray, spans: list[Span]) -> np.ndarray:
        return own(torch.from_numpy(emissions), torch.from_numpy(mask), spans, torch.from_numpy(read)).numpy()

    def without(emissions: np.ndarray, mask: np.ndarray, read: np.ndarray, spans: list[Span]) -> np.ndarray:
        scores = CrfScores.independent(len(labels))
        return np.exp(span_log_probabilities(emissions, mask, read, spans, labels, scores))

    return without if own is None else with_crf


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _with_progress(batches: list[list[Window]], show_progress: bool) -> Any:
    if not show_progress:
        return batches
    return tqdm(batches, desc="Finding entities", unit="batch")


__all__ = ["Entity", "TaggedText", "longest_input", "reads_pictures", "tag_texts"]
