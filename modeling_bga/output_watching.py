"""Log what a model's outputs say in training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class OutputWatchingCallback(TrainerCallback, ABC):
    """Base of callbacks that look at every output of a training, and add figures to what a stock `Trainer` logs.

    Figures are of this process's batches. Console and `trainer_state.json` show them. `Trainer` calls reporters such as
    TensorBoard's before the callbacks it is given; for these, insert the callback at the front of
    `trainer.callback_handler.callbacks`.
    """

    def __init__(self) -> None:
        self._hook: Any = None

    @abstractmethod
    def watch(self, options: dict[str, Any], output: Any, model: nn.Module) -> None:
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

    def _forward(self, module: nn.Module, arguments: Any, options: dict[str, Any], output: Any) -> None:
        if module.training:
            self.watch(options, output, module)


__all__ = ["OutputWatchingCallback"]
