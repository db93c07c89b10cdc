"""Notice in training when a generator says the same whatever it reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging


logger = logging.get_logger(__name__)


class CollapseAlarmCallback(TrainerCallback):
    """Log the spread of generated visual features in training, and warn when it stays near zero.

    `generated_spread` is the variance over a batch's pairs of the generated features (averaged over positions, last
    stage), over that of the real ones. A generator that knows nothing of its text gives every text the average
    picture, which is also where a text whose pictures can't be told starts from: near 0 at first, it should rise within
    the first epochs. Of several processes, the main one's batches are measured.

    Parameters
    ----------
    threshold : float, default 0.01
        Below it the generator counts as collapsed.
    patience : int, default 3
        After how many logs in a row below the threshold to warn; once for each time that it collapses.

    Examples
    --------
    >>> from transformers import Trainer
    >>> trainer = Trainer(..., callbacks=[CollapseAlarmCallback()])  # doctest: +SKIP
    """

    def __init__(self, threshold: float = 0.01, patience: int = 3) -> None:
        if threshold <= 0 or patience < 1:
            raise ValueError(
                f"Expected threshold > 0 and patience >= 1, got {threshold} and {patience}. "
                "To switch the alarm off, leave the callback out."
            )
        self.threshold, self.patience = threshold, patience
        self.collapsed = False
        self._below = 0
        self._sum: torch.Tensor | float = 0.0
        self._batches = 0
        self._hook: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the model's outputs."""
        self.on_train_end(args, state, control)  # a training that was broken off has left its hook
        self._hook = kwargs["model"].register_forward_hook(self._measure, with_kwargs=True)

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
        """Add the mean spread since the last log, and sound the alarm."""
        if logs is None or "loss" not in logs or self._batches == 0:
            return
        value = float(self._sum / self._batches)
        self._sum, self._batches = 0.0, 0
        logs["generated_spread"] = value
        if state.log_history:
            state.log_history[-1]["generated_spread"] = value
        self._below = self._below + 1 if value < self.threshold else 0
        self.collapsed = self._below >= self.patience
        if self._below == self.patience:
            logger.warning(
                "Step %d: the text -> image generator gives nearly the same features for every text: their variance is "
                "%.2g of the real pictures', below %.2g, for %d logs in a row. Texts learn nothing from pictures then. "
                "Raise reconstruction_weight, lower the learning rate or cycle_weight, or check that pictures belong "
                "to their texts.",
                state.global_step,
                value,
                self.threshold,
                self._below,
            )

    @torch.no_grad()
    def _measure(self, module: nn.Module, arguments: Any, options: dict[str, Any], output: Any) -> None:
        generated, real = getattr(output, "generated_vision", None), getattr(output, "vision_last_hidden_state", None)
        if not module.training or not generated or real is None:
            return
        pairs = options.get("picture_mask")
        pairs = torch.ones(len(real), device=real.device).bool() if pairs is None else pairs.to(real.device).bool()
        if pairs.sum() < 2:
            return
        if module.config.normalize_targets:
            real = F.layer_norm(real, real.shape[-1:])
        # (batch, positions, width) -> ()
        spreads = [features[pairs].float().mean(dim=1).var(dim=0).sum() for features in (generated[-1], real)]
        self._sum = self._sum + spreads[0] / spreads[1].clamp(min=1e-12)
        self._batches += 1


__all__ = ["CollapseAlarmCallback"]
