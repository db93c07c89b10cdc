"""Make batches of encoded tweets, with and without images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..configuration.errors import brief, shown
from .images.image_loading import stack_images
from .images.vision_states import VISION_STATES
from .padding import column_padding, pad_columns, padded_length
from .processing_bga_mner import BgaMnerProcessor


_TEXT_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels", "word_start_mask", "target_mask")
_MASKS = ("word_start_mask", "target_mask")


@dataclass
class DataCollatorForMner:
    """Pad texts, stack images.

    Parameters
    ----------
    processor : BgaMnerProcessor
        Its tokenizer says how to pad.
    pad_to_multiple_of : int or None
        Round the length up, which suits accelerators.
    max_length : int or None
        Pad every batch to this many tokens instead of its longest text, for shapes that never change. Longer
        texts are refused.
    image_shape : tuple of three int or None
        Shape of an image, (3, H, W), or of what is cached of it. With it a batch without any image holds zeros and a
        mask of False, and one without labels holds -100, one per text if rows have the key
        `label`, or else one per token. Losses are the same, and all processes run the same layers: they have to where a
        model's weights are spread over them (FSDP, ZeRO-3).

    Examples
    --------
    >>> collator = DataCollatorForMner(processor)  # doctest: +SKIP
    >>> Trainer(..., data_collator=collator)  # doctest: +SKIP
    """

    processor: BgaMnerProcessor
    pad_to_multiple_of: int | None = None
    max_length: int | None = None
    image_shape: tuple[int, int, int] | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Parameters
        ----------
        features : sequence of mappings
            What `BgaMnerProcessor.encode_examples` gives, row by row: `input_ids` and optionally
            `attention_mask`, `token_type_ids`, `labels`, `word_start_mask`, `target_mask`, `pixel_values`
            (array or tensor (3, H, W), or None) or `vision_states` in its place; for sequence classification
            `label`, a number, a list of numbers, or None. Other keys are ignored.

        Returns
        -------
        dict of str to torch.Tensor
            input_ids, attention_mask : int64, (B, L); also token_type_ids if any row has them.
            labels : int64, (B, L), if any row has them; -100 on padding and in rows without.
            Of rows with `label`: int64 (B,), -100 where unknown (also if all are), or float32 (B,) or (B, labels), NaN
            where unknown.
            word_start_mask : bool, (B, L), if all rows have it: which tokens begin a word.
            target_mask : bool, (B, L), if any row has it: which tokens the label is about.
            pixel_values, image_mask : float32 (B, 3, H, W) and bool (B,), if any row has an image; zeros and False
            in rows without.
            vision_states : float32 (B, stages + 1, vision tokens, vision width) in place of pixel_values, if any row
            has them; (B, 1, vision tokens, feature channels) where new layers on a convolutional encoder are trained.

        Raises
        ------
        ValueError
            If there are no rows, `input_ids` are missing, columns differ in length, or images in shape; or if some
            rows have images and others states of them, or some labels of tokens and others of texts.
        """
        if not features:
            raise ValueError("Expected at least one example, got none. Check that the dataset is not empty.")
        rows = [_read_row(feature, index) for index, feature in enumerate(features)]
        longest = max(len(row["input_ids"]) for row in rows)
        if self.max_length is not None:
            if longest > self.max_length:
                raise ValueError(
                    f"Expected texts of at most max_length={self.max_length} tokens, got {longest}. Encode with the "
                    "same max_length: dataset.with_transform(partial(processor.encode_examples, max_length=...))."
                )
            longest = self.max_length
        length = padded_length(longest, self.pad_to_multiple_of)
        # B lists of different lengths -> (B, L)
        padded = pad_columns(self._columns(rows), self.processor.tokenizer, length)
        batch = {name: _to_tensor(column, name) for name, column in padded.items()}
        labels = _stack_labels([feature.get("label") for feature in features])
        if labels is not None:
            if "labels" in batch:
                raise ValueError("Expected 'labels' of tokens or a 'label' of each text, got both. Drop one column.")
            batch["labels"] = labels
        # the column tells that a sequence classifier is to read this, though no text here has a label
        of_texts = any("label" in feature for feature in features)
        if of_texts or self.image_shape is not None:
            shape = batch["input_ids"].shape  # (B, L)
            batch.setdefault("labels", torch.full(shape[:1] if of_texts else shape, -100))
        for name in ("pixel_values", VISION_STATES):
            images = stack_images([feature.get(name) for feature in features], name)
            if name not in images:
                if self.image_shape is not None and any(name in feature for feature in features):
                    images[name] = np.zeros((len(rows), *self.image_shape), dtype=np.float32)
                else:
                    continue
            if "image_mask" in batch:
                raise ValueError(
                    f"Expected 'pixel_values' or {VISION_STATES!r} in a batch, got rows with either. Cache the vision "
                    "states of the whole dataset with cache_vision_states, or of none of it."
                )
            batch.update({key: torch.from_numpy(array) for key, array in images.items()})
        return batch

    def _columns(self, rows: list[dict[str, list[int]]]) -> dict[str, list[list[int]]]:
        """Turn rows into columns; where some rows lack one, it holds what stands for padding in them."""
        padding = column_padding(self.processor.tokenizer)
        columns: dict[str, list[list[int]]] = {}
        for name in _TEXT_COLUMNS:
            having = sum(name in row for row in rows)
            # without word starts in every row the mask would hide all words of the others from the metric
            if having and (name != "word_start_mask" or having == len(rows)):
                columns[name] = [row.get(name) or [padding[name]] * len(row["input_ids"]) for row in rows]
        return columns


def _read_row(feature: Mapping[str, Any], index: int) -> dict[str, list[int]]:
    if feature.get("input_ids") is None:
        raise ValueError(
            f"Expected 'input_ids' in every example, got {shown(sorted(feature))} in example {index}. Encode the "
            "dataset with dataset.with_transform(processor.encode_examples), and set remove_unused_columns=False in "
            "TrainingArguments, since otherwise the columns are dropped before they are encoded."
        )
    row = {name: _as_list(feature[name], name) for name in _TEXT_COLUMNS if feature.get(name) is not None}
    count = len(row["input_ids"])
    row.setdefault("attention_mask", [1] * count)
    for name, values in row.items():
        if len(values) != count:
            raise ValueError(
                f"Expected {count} items in {shown(name)} of example {index}, as in 'input_ids', got {len(values)}. "
                "Give one label for each token: processor.encode_examples makes them from labels of words."
            )
    return row


def _stack_labels(labels: Sequence[Any]) -> torch.Tensor | None:
    """Stack labels of whole texts; None if no row has any."""
    words = [label for label in labels if isinstance(label, str)]
    if words:
        raise ValueError(
            f"Expected a 'label' that is a number, got {shown(words[0])}. Number them as the model's label2id does: "
            "dataset.map(lambda row: {'label': label2id[row['label']]})."
        )
    try:
        known = [torch.as_tensor(label) for label in labels if label is not None]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected a 'label' that is a number or a list of numbers, got another: {brief(error)}. Correct it."
        ) from error
    if not known:
        return None
    if len({label.shape for label in known}) > 1:
        shapes = sorted({tuple(label.shape) for label in known})
        raise ValueError(
            f"Expected a 'label' of one shape in all examples, got {shapes}. Give one value for each label."
        )
    # many labels at once are a float each, as in transformers
    is_float = known[0].ndim > 0 or any(label.is_floating_point() for label in known)
    unknown = torch.full_like(known[0], float("nan"), dtype=torch.float32) if is_float else torch.tensor(-100)
    rows = [unknown if label is None else torch.as_tensor(label) for label in labels]
    return torch.stack([row.to(torch.float32 if is_float else torch.int64) for row in rows])


def _as_list(values: Any, name: str) -> list[int]:
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, Sequence):
        raise ValueError(f"Expected a list of numbers in {shown(name)}, got {type(values).__name__}. Give a list.")
    return list(values)


def _to_tensor(rows: list[list[int]], name: str) -> torch.Tensor:
    """Make a tensor (B, L) of rows of whole numbers."""
    try:
        made = torch.tensor(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected one whole number per token in {shown(name)}, got something else: {brief(error)}. Encode the "
            "dataset with processor.encode_examples."
        ) from error
    if made.ndim != 2 or (made.numel() and (made.is_floating_point() or made.is_complex())):
        raise ValueError(
            f"Expected one whole number per token in {shown(name)}, got {made.dtype} of shape {tuple(made.shape)}. "
            "Encode the dataset with processor.encode_examples."
        )
    return made.to(torch.bool if name in _MASKS else torch.int64)


__all__ = ["DataCollatorForMner"]
