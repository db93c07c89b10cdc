"""Log the parts of the loss beside their sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import TrainerState

from .output_watching import OutputWatchingCallback


LOSS_PARTS = ("crf_loss", "classification_loss", "reconstruction_loss", "cycle_loss", "keep_loss")


class LossPartsCallback(OutputWatchingCallback):
    """Add `crf_loss` or `classification_loss`, `reconstruction_loss`, `cycle_loss` and `keep_loss` to `Trainer`'s logs.

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
        super().__init__()
        self._sums: dict[str, torch.Tensor] = {}
        self._batches = 0

    def watch(self, options: dict[str, Any], output: Any, model: nn.Module) -> None:
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


__all__ = ["LOSS_PARTS", "LossPartsCallback"]
