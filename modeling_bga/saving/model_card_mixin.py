"""Saving and pushing with a model card, and a record that knows when it no longer fits the weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import REPOCARD_NAME
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.utils import logging

from ...configuration.errors import brief


logger = logging.get_logger(__name__)

_SAMPLED = 256  # numbers of a weight


class ModelCardMixin:
    """Keep README.md true wherever a model is saved to; stands before `PreTrainedModel`."""

    _own_card: str | None = None
    _described: tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]] | None = None

    def train(self, mode: bool = True) -> Any:
        """Switch to training or evaluation, and mark `config.training_summary` as outdated if weights have changed."""
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
        """Save as every model does, and write the model card, README.md, unless a person wrote or edited it."""
        self._compare_with_summary()
        # transformers replaces it when it pushes
        self._own_card = _card_to_keep(save_directory) if push_to_hub else None
        kwargs |= {"is_main_process": is_main_process, "state_dict": state_dict, "push_to_hub": push_to_hub}
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        self._own_card = None
        if is_main_process and not push_to_hub and Path(save_directory).is_dir():
            _write_card(save_directory, self.config, None, self.model_tags)  # type: ignore[attr-defined]

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        # transformers has just put the repository's README.md, or an empty one, in place of the card
        if self._own_card is not None:
            Path(working_dir, REPOCARD_NAME).write_text(self._own_card, encoding="utf-8", newline="\n")
        _write_card(working_dir, self.config, repo_id, self.model_tags)  # type: ignore[attr-defined]
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]


def _card_to_keep(folder: str | os.PathLike[str]) -> str | None:
    try:
        from ...configuration.hub.model_card import hand_written_card
    except ImportError:
        path = Path(folder, REPOCARD_NAME)
        return path.read_text(encoding="utf-8-sig") if path.is_file() else None
    return hand_written_card(folder)


def _write_card(
    folder: str | os.PathLike[str], config: PreTrainedConfig, repository: str | None, tags: Sequence[str] | None
) -> None:
    try:  # a saved model's code doesn't carry this
        from ...configuration.hub.model_card import write_model_card
    except ImportError:
        if (config.training_summary or {}).get("outdated") and Path(folder, REPOCARD_NAME).exists():
            logger.warning(
                "The model card in %s may tell of the weights as they were before they were trained further. Edit it, "
                "or install bga-mner and save again.",
                brief(str(folder)),
            )
        return
    write_model_card(folder, config, repository, tags)


@torch.no_grad()
def _samples(model: nn.Module) -> dict[str, Tensor]:
    """Copy some numbers of each weight: an optimizer's step changes them all."""
    samples = {}
    for name, parameter in model.named_parameters():
        # of weights that are spread over processes, what lies in this one
        weight = getattr(parameter, "ds_tensor", getattr(parameter, "_local_tensor", parameter)).detach()
        if weight.is_floating_point() and not weight.is_meta:
            numbers = weight.reshape(-1)
            stride = max(1, numbers.numel() // _SAMPLED)
            samples[name.replace(".base_layer", "")] = numbers[::stride].cpu().clone()
    return samples


def _is_same(before: Tensor, now: Tensor) -> bool:
    """Compare two samples in the lower precision of the two."""
    if before.shape != now.shape:
        return False
    coarse = min(before.dtype, now.dtype, key=lambda dtype: torch.finfo(dtype).bits)
    return torch.equal(before.to(coarse), now.to(coarse))


__all__ = ["ModelCardMixin"]
