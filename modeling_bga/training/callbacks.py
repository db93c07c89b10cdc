"""Callbacks that look at a model's outputs in training, and the one that logs the parts of the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import ModelOutput


LOSS_PARTS = ("crf_loss", "classification_loss", "reconstruction_loss", "cycle_loss", "keep_loss")


class OutputWatchingCallback(TrainerCallback, ABC):
    """Base of callbacks that look at every output of a training, and add figures to what a stock `Trainer` logs.

    Figures are of this process's batches. Console and `trainer_state.json` show them. `Trainer` calls reporters such as
    TensorBoard's before the callbacks it is given; for these, insert the callback at the front of
    `trainer.callback_handler.callbacks`.
    """

    def __init__(self) -> None:
        self._hook: RemovableHandle | None = None

    @abstractmethod
    def watch(self, options: dict[str, Any], output: ModelOutput, model: nn.Module) -> None:
        """Look at an output; `options` are the keyword arguments that it was made from."""

    @abstractmethod
    def figures(self, state: TrainerState) -> dict[str, float]:
        """Return what to log of the outputs since the last time."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the model's outputs."""
        self.on_train_end(args, state, control)  # a training that was broken off has left its hook
        self._hook = kwargs["model"].register_forward_hook(self._forward, with_kwargs=True)

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
        """Add the figures to the training logs, and to the history that `Trainer` saves."""
        if logs is None or "loss" not in logs:
            return
        figures = self.figures(state)
        logs.update(figures)
        if state.log_history:
            state.log_history[-1].update(figures)

    def _forward(self, module: nn.Module, arguments: Any, options: dict[str, Any], output: ModelOutput) -> None:
        if module.training:
            self.watch(options, output, module)


class LossPartsCallback(OutputWatchingCallback):
    """Add `crf_loss` or `classification_loss`, `reconstruction_loss`, `cycle_loss` and `keep_loss` to `Trainer`'s logs.

    Each is the mean, unweighted, over the batches since the last log, where a batch without labels or images counts as
    0; of several processes, this process's batches. Console and `trainer_state.json` show them. `Trainer` calls
    reporters such as TensorBoard's before the callbacks it is given; for these, put this one first, as below.

    Examples
    --------
    >>> from transformers import Trainer
    >>> trainer = Trainer(..., callbacks=[LossPartsCallback()])  # doctest: +SKIP
    >>> trainer.callback_handler.callbacks.insert(0, LossPartsCallback())  # instead, with a reporter  # doctest: +SKIP
    """

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[str, torch.Tensor] = {}
        self._batches = 0

    def watch(self, options: dict[str, Any], output: ModelOutput, model: nn.Module) -> None:
        """Add the parts of a batch's loss."""
        self._batches += 1
        for name in LOSS_PARTS:
            part = getattr(output, name, None)
            if part is not None:
                # stays on the device: reading it here would make every step wait
                self._sums[name] = self._sums.get(name, 0) + part.detach()

    def figures(self, state: TrainerState) -> dict[str, float]:
        """Return the mean parts."""
        means = {name: (total / max(self._batches, 1)).item() for name, total in self._sums.items()}
        self._sums.clear()
        self._batches = 0
        return means


__all__ = ["LOSS_PARTS", "LossPartsCallback", "OutputWatchingCallback"]
