"""Saving and pushing with a model card, and a record that knows when it no longer fits the weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..configuration.model_card import CARD_NAME, hand_written_card, write_model_card


class ModelCardMixin:
    """What a `PreTrainedModel` needs so that each folder and repository that it is saved to has a true README.md.

    Stands before `PreTrainedModel` among the base classes.
    """

    _own_card: str | None = None

    def train(self, mode: bool = True) -> Any:
        """Switch to training or evaluation, as every module does.

        Weights that are trained further are no longer those that `config.training_summary` tells of: it is marked as
        outdated, until a new one is set.
        """
        config = self.config  # type: ignore[attr-defined]
        if mode and config.training_summary and not config.training_summary.get("outdated"):
            config.training_summary = {**config.training_summary, "outdated": True}
        return super().train(mode)  # type: ignore[misc]

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


__all__ = ["ModelCardMixin"]
