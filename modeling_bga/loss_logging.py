"""Log the parts of the loss beside their sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


LOSS_PARTS = ("crf_loss", "reconstruction_loss", "cycle_loss")


class LossPartsCallback(TrainerCallback):
    """Add `crf_loss`, `reconstruction_loss` and `cycle_loss` to what a stock `Trainer` logs in training.

    Each is the mean, unweighted, over the batches since the last log; of several processes, this process's batches.

    Examples
    --------
    >>> from transformers import Trainer
    >>> trainer = Trainer(..., callbacks=[LossPartsCallback()])  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._hook: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the model's outputs."""
        self._hook = kwargs["model"].register_forward_hook(self._add)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop watching."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the means to the training logs, and to the history that `Trainer` saves."""
        if logs is None or "loss" not in logs:
            return
        means = {name: (self._sums[name] / self._counts[name]).item() for name in self._sums}
        logs.update(means)
        if state.log_history:
            state.log_history[-1].update(means)
        self._sums.clear()
        self._counts.clear()

    def _add(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if not module.training:
            return
        for name in LOSS_PARTS:
            part = getattr(output, name, None)
            if part is not None:
                # stays on the device: reading it here would make every step wait
                self._sums[name] = self._sums.get(name, 0) + part.detach()
                self._counts[name] = self._counts.get(name, 0) + 1


__all__ = ["LOSS_PARTS", "LossPartsCallback"]
