"""Refuse tensors that don't fit a CRF, or each other."""

from __future__ import annotations

import torch
from torch import Tensor


def checked_mask(num_tags: int, emissions: Tensor | None, mask: Tensor, tags: Tensor | None = None) -> Tensor:
    """Return the mask as bool; raise on shapes and dtypes that don't fit."""
    shape = tuple(mask.shape)
    if emissions is not None:
        shape = tuple(emissions.shape[:2])
        if emissions.ndim != 3 or emissions.shape[2] != num_tags or not emissions.is_floating_point():
            expected = f"floating-point scores of shape (batch, length, {num_tags})"
            raise _unfit("emissions", expected, emissions, "Give one score per tag, or build with other num_tags.")
    if mask.ndim != 2 or tuple(mask.shape) != shape or not mask.shape[1] or mask.is_floating_point():
        expected = f"booleans or integers of shape {shape if len(shape) == 2 else '(batch, length)'}, length > 0"
        raise _unfit("mask", expected, mask, "Give the two-dimensional attention mask of the same sentences.")
    if tags is not None and (tuple(tags.shape) != shape or tags.dtype != torch.int64):
        mend = "Give one tag per position, -100 where unknown, converted with .long()."
        raise _unfit("tags", f"torch.int64 of shape {shape}", tags, mend)
    return mask.to(torch.bool)


def refuse_other_tags(tags: Tensor, wrong: Tensor, num_tags: int) -> None:
    """Raise if `wrong` (B, L) is True anywhere, where a tag is none of the CRF's."""
    if not wrong.any():
        return
    row, column = wrong.nonzero()[0].tolist()
    expected = f"0 to {num_tags - 1}, or -100 for unknown, at the kept positions"
    got = f"{int(tags[row, column])} at [{row}, {column}]"
    raise _unfit("tags", expected, got, "Use the label2id of this model, or clear the mask there.")


def _unfit(name: str, expected: str, got: Tensor | str, mend: str) -> ValueError:
    if isinstance(got, Tensor):
        got = f"{got.dtype} of shape {tuple(got.shape)} on {got.device}"
    return ValueError(f"Expected {name} to be {expected}, got {got}. {mend}")


__all__ = ["checked_mask", "refuse_other_tags"]
