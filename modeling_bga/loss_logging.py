"""Log the parts of the loss beside their sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


LOSS_PARTS = ("crf_loss", "reconstruction_loss", "cycle_loss", "keep_loss")


class LossPartsCallback(TrainerCallback):
    """Add `crf_loss`, `reconstruction_loss`, `cycle_loss` and `keep_loss` to what a stock `Trainer` logs in training.

    Each is the mean, unweighted, over the batches since the last log, where a batch without labels or pictures counts
    as 0; of several processes, this process's batches. Console and `trainer_state.json` show them. `Trainer` calls
    reporters such as TensorBoard's before the callbacks it is given; for these, put this one first, as below.

    Examples
    --------
    >>> from transformers import Trainer
    >>> trainer = Trainer(..., callbacks=[LossPartsCallback()])  # doctest: +SKIP
    >>> trainer.callback_handler.callbacks.insert(0, LossPartsCallback())  # instead, with a reporter  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._batches = 0
        self._hook: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the model's outputs."""
        self.on_train_end(args, state, control)  # a training that was broken off has left its hook
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
        means = {name: (total / max(self._batches, 1)).item() for name, total in self._sums.items()}
        logs.update(means)
        if state.log_history:
            state.log_history[-1].update(means)
        self._sums.clear()
        self._batches = 0

    def _add(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if not module.training:
            return
        self._batches += 1
        for name in LOSS_PARTS:
            part = getattr(output, name, None)
            if part is not None:
                # stays on the device: reading it here would make every step wait
                self._sums[name] = self._sums.get(name, 0) + part.detach()


__all__ = ["LOSS_PARTS", "LossPartsCallback"]
