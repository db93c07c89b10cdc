"""Notice in training when a generator says the same whatever it reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.utils import ModelOutput, logging

from ...configuration.errors import shown
from .callbacks import OutputWatchingCallback


logger = logging.get_logger(__name__)


def spread(features: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
    """Variance over sentences of their mean features (sentences, positions, width), summed over dimensions.

    `counted` (sentences,) says which count, all by default. The result, of shape (), is 0 if all sentences have the
    same features, as those of a collapsed generator.

    Examples
    --------
    >>> spread(torch.ones(4, 2, 3))
    tensor(0.)
    """
    means = features.float().mean(dim=1)  # (sentences, width)
    weight = torch.ones_like(means[:, :1]) if counted is None else counted[:, None].float()
    number = weight.sum().clamp(min=1)
    centre = (means * weight).sum(dim=0) / number
    return ((means - centre).square() * weight).sum() / number


def comparable(model: Any, generated: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring generated features (sentences, positions, width) and last states to where the loss makes them alike.

    Both are then of (sentences, positions, width), in float32. `model` is a BGA-MNER model, with a head or without.
    With the distance "cosine" both become unit vectors, since the loss leaves the generated ones' lengths to chance.
    """
    base = getattr(model, "bga_mner", model)
    generated, real = generated.float(), base.visual_target(real)
    if base.config.reconstruction_distance == "cosine":
        generated, real = F.normalize(generated, dim=-1), F.normalize(real, dim=-1)
    return generated, real


class CollapseAlarmCallback(OutputWatchingCallback):
    """Log the spread of generated visual features in training, and warn when it stays near zero.

    `generated_spread` is the variance over a batch's pairs of the generated features (averaged over positions, last
    stage), over that of the real ones. A generator that knows nothing of its text gives every text the average
    image, which is also where a text whose images can't be told starts from: near 0 at first, it should rise within
    the first epochs. Of several processes, the main one's batches are measured. With
    `reconstruction_distance="cosine"`, which leaves the lengths of features free, it is that of their directions.

    Parameters
    ----------
    threshold : float, default 0.001
        Below it the generator counts as collapsed. A caption tells little of all that an image shows: on photographs
        with captions the spread was 0.2 at the end of a training (`benchmarks/captions.py --report`).
    patience : int, default 3
        After how many logs in a row below the threshold to warn; once for each time that it collapses.

    Raises
    ------
    ValueError
        If `threshold` isn't above 0 or `patience` is less than 1; and at the start of a training, if the model has
        `visual_target="layer"`.

    Examples
    --------
    >>> from transformers import Trainer
    >>> trainer = Trainer(..., callbacks=[CollapseAlarmCallback()])  # doctest: +SKIP
    """

    def __init__(self, threshold: float = 0.001, patience: int = 3) -> None:
        if threshold <= 0 or patience < 1:
            raise ValueError(
                f"Expected threshold > 0 and patience >= 1, got {threshold} and {patience}. "
                "To switch the alarm off, leave the callback out."
            )
        super().__init__()
        self.threshold, self.patience = threshold, patience
        self.collapsed = False
        self._below = 0
        self._sum: torch.Tensor | float = 0.0
        self._batches: torch.Tensor | int = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the model's outputs, if what it is to generate is among them."""
        target = kwargs["model"].config.visual_target
        if target == "layer":
            raise ValueError(
                'Expected a model with visual_target="pooled" or "last", since only last states are returned to '
                f"compare with, got {shown(target)}. Leave CollapseAlarmCallback out of the callbacks, or train with "
                "one of them."
            )
        super().on_train_begin(args, state, control, **kwargs)

    @torch.no_grad()
    def watch(self, options: dict[str, Any], output: ModelOutput, model: nn.Module) -> None:
        """Add the spread of a batch, if it has two pairs at least."""
        generated, real = getattr(output, "generated_vision", None), getattr(output, "vision_last_hidden_state", None)
        if not generated or real is None:
            return
        pairs = options.get("image_mask")
        pairs = torch.ones(len(real), device=real.device).bool() if pairs is None else pairs.to(real.device).bool()
        made, real = comparable(model, generated[-1], real)
        ratio = spread(made, pairs) / spread(real, pairs).clamp(min=1e-12)
        # stays on the device: reading it here would make every step wait
        enough = pairs.sum() >= 2
        self._sum = self._sum + torch.where(enough, ratio, 0.0)
        self._batches = self._batches + enough

    def figures(self, state: TrainerState) -> dict[str, float]:
        """Return the mean spread, and sound the alarm."""
        if self._batches == 0:
            return {}
        value = float(self._sum / self._batches)
        self._sum, self._batches = 0.0, 0
        self._below = self._below + 1 if value < self.threshold else 0
        self.collapsed = self._below >= self.patience
        if self._below == self.patience:
            logger.warning(
                "Step %d: the text -> image generator gives nearly the same features for every text: their variance is "
                "%.2g of the real images', below %.2g, for %d logs in a row. Texts learn nothing from images then. "
                "Raise reconstruction_weight, lower the learning rate or cycle_weight, or check that images belong "
                "to their texts.",
                state.global_step,
                value,
                self.threshold,
                self._below,
            )
        return {"generated_spread": value}


__all__ = ["CollapseAlarmCallback", "comparable", "spread"]
