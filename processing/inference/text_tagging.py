"""Tag the words of texts of any length with a model, and find the entities in them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from ...configuration.errors import mismatch
from ...modeling_bga.crf.span_probabilities import CrfScores, Span, span_log_probabilities
from ...modeling_bga.encoders.encoder import longest_text
from ..images.image_loading import stack_images
from ..padding import column_padding, padding_side
from ..processing_bga_mner import BgaMnerProcessor
from ..text.text_input import Entity, SplitText
from ..text.word_encoding import default_max_length, encode_words, special_tokens
from .evaluation_mode import evaluating
from .text_windows import (
    TEXTS_WITH_IMAGES,
    SpanProbabilities,
    TaggedWords,
    Window,
    WindowScores,
    check_finite,
    pad_windows,
    tag_in_windows,
    tokens_at_once,
)


_COMMON_WIDTH = 768  # of text encoders that don't tell theirs


def reads_images(model: PreTrainedModel, visual_source: str | None) -> bool:
    """Tell whether a model's answers depend on images, which then have to be loaded; None is its default."""
    return (visual_source or getattr(model.config, "visual_source", None)) == "real"


def longest_input(tokenizer: PreTrainedTokenizerBase, text_config: PreTrainedConfig) -> int:
    """Give the most tokens of a text that tokenizer and text encoder both take."""
    return min(default_max_length(tokenizer), longest_text(text_config))


def find_entities(
    texts: Sequence[SplitText], model: PreTrainedModel, processor: BgaMnerProcessor, **options: Any
) -> list[list[Entity]]:
    """Find the entities of texts; options as of `tag_texts`."""
    tagged = tag_texts(texts, model, processor, **options)
    return [text.entities(found.spans, found.scores) for text, found in zip(texts, tagged, strict=True)]


def tag_texts(
    texts: Sequence[SplitText],
    model: PreTrainedModel,
    processor: BgaMnerProcessor,
    *,
    batch_size: int | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    on_bad_image: str = "missing",
    visual_source: str | None = None,
    show_progress: bool = False,
) -> list[TaggedWords]:
    """Tag texts: a tag for each word that is read, a score for each entity; options as of `predict`."""
    text_config = getattr(model.config, "text_config", model.config)
    if max_length is None:
        max_length = longest_input(processor.tokenizer, text_config)
    elif max_length > longest_text(text_config):
        # refused whatever the texts: the model itself would only notice at the first long one
        expected = f"max_length of at most {longest_text(text_config)}, which the text encoder takes"
        raise mismatch(expected, max_length, "Lower it, or leave it out: long texts are read in windows.")
    labels = [str(label) for _, label in sorted((int(id_), label) for id_, label in model.config.id2label.items())]
    options = {} if visual_source is None else {"visual_source": visual_source}
    encode_images = _image_encoder(texts, processor, on_bad_image) if reads_images(model, visual_source) else None
    if encode_images is not None and batch_size is None:
        batch_size = TEXTS_WITH_IMAGES
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

    def score(batch: list[Window]) -> WindowScores:
        inputs = window_inputs(batch, processor.tokenizer, text_config.vocab_size)
        mask = inputs["attention_mask"].numpy().astype(bool)
        if encode_images is not None:
            inputs |= encode_images(batch)
        output = model(**{name: tensor.to(device) for name, tensor in inputs.items()}, **options)
        # with a CRF these are marginals, of which a broken transition makes NaN; emissions are looked at with the tags
        check_finite(_as_array(output.logits.amax(dim=-1, keepdim=True))[mask])
        best, emissions = getattr(output, "predictions", None), getattr(output, "emissions", None)
        # (W, L, T) -> (W, L), for models without a best path
        best = output.logits.argmax(dim=-1) if best is None else best
        return WindowScores(_as_array(output.logits if emissions is None else emissions), best.cpu().numpy(), mask)

    def progress(batches: list[list[Window]]) -> Any:
        return tqdm(batches, desc="Finding entities", unit="batch") if show_progress else batches

    with evaluating(model):
        return tag_in_windows(
            encode_words(processor.tokenizer, [text.words for text in texts], processor.word_reader),
            special_tokens(processor.tokenizer),
            labels,
            score,
            _span_probabilities(model, labels),
            batch_size=batch_size,
            batch_tokens=tokens_at_once(getattr(text_config, "hidden_size", _COMMON_WIDTH), device.type),
            max_length=max_length,
            stride=stride,
            progress=progress,
        )


def window_inputs(batch: Sequence[Window], tokenizer: PreTrainedTokenizerBase, known: int) -> dict[str, torch.Tensor]:
    """Pad W windows to what a model with `known` embeddings reads: int64 (W, L) each."""
    padding = column_padding(tokenizer)
    input_ids, mask = pad_windows(batch, padding["input_ids"], padding_side(tokenizer))
    columns = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = np.where(mask, 0, padding["token_type_ids"])
    inputs = {name: torch.from_numpy(column) for name, column in columns.items()}
    _check_vocabulary(inputs["input_ids"], known)
    return inputs


def _check_vocabulary(ids: torch.Tensor, known: int) -> None:
    """Refuse tokens that the model has no embedding of."""
    if ids.numel() and int(ids.max()) >= known:
        raise ValueError(
            f"Expected tokens of the model's vocabulary, 0 to {known - 1}, but the tokenizer makes {int(ids.max())}. "
            "Load both from one folder, or call model.resize_token_embeddings(len(tokenizer))."
        )


def _image_encoder(
    texts: Sequence[SplitText], processor: BgaMnerProcessor, on_bad_image: str
) -> Callable[[list[Window]], dict[str, torch.Tensor]]:
    """Return what encodes the images of a batch, to nothing if none can be used."""
    unusable: set[int] = set()  # counted once, however many windows the text has

    def encode(batch: list[Window]) -> dict[str, torch.Tensor]:
        numbers = sorted({window.text for window in batch if texts[window.text].image is not None} - unusable)
        if not numbers:
            return {}
        images = processor.encode_images([texts[number].image for number in numbers], on_bad_image=on_bad_image)
        encoded = dict(zip(numbers, images, strict=True))
        unusable.update(number for number, image in encoded.items() if image is None)
        stacked = stack_images([encoded.get(window.text) for window in batch])
        return {name: torch.from_numpy(array) for name, array in stacked.items()} if "pixel_values" in stacked else {}

    return encode


def _as_array(scores: torch.Tensor) -> np.ndarray:
    return scores.float().cpu().numpy()


def _span_probabilities(model: PreTrainedModel, labels: list[str]) -> SpanProbabilities:
    """Return the model's own probabilities of spans, or those of independent tags."""
    own: Any = getattr(model, "span_probabilities", None)

    def with_crf(emissions: np.ndarray, mask: np.ndarray, read: np.ndarray, spans: list[Span]) -> np.ndarray:
        return own(torch.from_numpy(emissions), torch.from_numpy(mask), spans, torch.from_numpy(read)).numpy()

    def without(emissions: np.ndarray, mask: np.ndarray, read: np.ndarray, spans: list[Span]) -> np.ndarray:
        independent = CrfScores.independent(len(labels))
        return np.exp(span_log_probabilities(emissions, mask, read, spans, labels, independent))

    return without if own is None else with_crf


__all__ = ["find_entities", "longest_input", "reads_images", "tag_texts", "window_inputs"]
