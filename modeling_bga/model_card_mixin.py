"""Saving and pushing with a model card, and a record that knows when it no longer fits the weights."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..configuration.model_card import CARD_NAME, hand_written_card, write_model_card


_SAMPLED = 256  # numbers of a weight


class ModelCardMixin:
    """What a `PreTrainedModel` needs so that each folder and repository that it is saved to has a true README.md.

    Stands before `PreTrainedModel` among the base classes.
    """

    _own_card: str | None = None
    _described: tuple[dict[str, Any], dict[str, Any], dict[str, torch.Tensor]] | None = None

    def train(self, mode: bool = True) -> Any:
        """Switch to training or evaluation, as every module does.

        Weights that have changed are no longer those that `config.training_summary` tells of. Here, and when the model
        is saved, it is marked as outdated then, until a new one is set.
        """
        self._compare_with_summary()
        return super().train(mode)  # type: ignore[misc]

    def _compare_with_summary(self) -> None:
        """Mark the summary as outdated if the weights aren't those any more beside which it was first seen."""
        config = self.config  # type: ignore[attr-defined]
        summary = config.training_summary
        if not summary or summary.get("outdated"):
            self._described = None
            return
        now = _samples(self)
        seen, content, before = self._described or ({}, {}, {})
        if seen is not summary or content != summary:  # set or changed since
            before = {}
        common = before.keys() & now.keys()
        if (before and not common) or not all(_is_same(before[name], now[name]) for name in common):
            config.training_summary = {**summary, "outdated": True}
            self._described = None
        else:
            # adapters join later
            self._described = (summary, deepcopy(summary), {**now, **before})

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save as every model does, and write the model card, README.md.

        A README.md that a person wrote or edited is kept, with a warning. The card is filled from
        `config.training_summary`; without one it says that nothing is recorded.
        """
        self._compare_with_summary()
        # transformers replaces it when it pushes
        self._own_card = hand_written_card(save_directory) if push_to_hub else None
        kwargs |= {"is_main_process": is_main_process, "state_dict": state_dict, "push_to_hub": push_to_hub}
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        self._own_card = None
        if is_main_process and not push_to_hub and Path(save_directory).is_dir():
            write_model_card(save_directory, self.config, tags=self.model_tags)  # type: ignore[attr-defined]

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        # transformers has just put the repository's README.md, or an empty one, in place of the card
        if self._own_card is not None:
            Path(working_dir, CARD_NAME).write_text(self._own_card, encoding="utf-8", newline="\n")
        write_model_card(working_dir, self.config, repo_id, self.model_tags)  # type: ignore[attr-defined]
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]


@torch.no_grad()
def _samples(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy some numbers of each weight: an optimizer's step changes them all, whatever way it writes them."""
    samples = {}
    for name, parameter in model.named_parameters():
        # of weights that are spread over processes, what lies in this one
        weight = getattr(parameter, "ds_tensor", getattr(parameter, "_local_tensor", parameter)).detach()
        if weight.is_floating_point() and not weight.is_meta:
            numbers = weight.reshape(-1)
            stride = max(1, numbers.numel() // _SAMPLED)
            samples[name.replace(".base_layer", "")] = numbers[::stride].cpu().clone()
    return samples


def _is_same(before: torch.Tensor, now: torch.Tensor) -> bool:
    """Tell whether two samples are of the same weight, in the lower precision of the two."""
    if before.shape != now.shape:
        return False
    coarse = min(before.dtype, now.dtype, key=lambda dtype: torch.finfo(dtype).bits)
    return torch.equal(before.to(coarse), now.to(coarse))


__all__ = ["ModelCardMixin"]
