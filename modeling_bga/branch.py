"""Run one encoder, stage by stage: sample, generate, and let the next layer attend to what was generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from .context_sampler import ContextSampler
from .cross_modal_generator import CrossModalGenerator, PreparedQueries
from .encoders import LayerCall
from .hybrid_attention import HybridProjection, HybridStates
from .keep_mask import keep_mask_bias


class ReadFeatures(NamedTuple):
    """What a layer reads of the other modality: features (batch, positions, width), bias (batch, positions) or None."""

    features: torch.Tensor
    bias: torch.Tensor | None


@dataclass
class BranchTrace:
    """What a branch leaves behind, one entry per stage.

    Attributes
    ----------
    states : list of torch.FloatTensor of shape (batch, length, width)
        Hidden states that enter the layer.
    keep_masks : list of torch.FloatTensor of shape (batch, length)
        Keep masks of the samplers.
    keep_biases : list of torch.FloatTensor of shape (batch, length)
        The same, as attention scores.
    generated : list of torch.FloatTensor of shape (batch, target length, target width)
        Features generated for the other modality; empty if there is no generator, one entry if stages were drawn.
    hidden_states : list of torch.FloatTensor of shape (batch, length, width)
        If asked for, the input of every layer of the encoder, stage or not, and the output of the last.
    last : torch.FloatTensor of shape (batch, length, width)
        Output of the last layer.
    padding_mask : torch.BoolTensor of shape (batch, length) or None
        False at padding; None where there is none.
    class_token_mask : torch.BoolTensor of shape (batch, length) or None
        True at the class token; None where there is none.
    queries : PreparedQueries or None
        Modality queries of what is generated, the same for all stages; None before the first generation.
    drawn : torch.LongTensor of shape (batch,) or None
        The one stage that each row's `generated` is of, if it was generated for a drawn stage alone.
    """

    last: torch.Tensor
    padding_mask: torch.Tensor | None = None
    class_token_mask: torch.Tensor | None = None
    states: list[torch.Tensor] = field(default_factory=list)
    keep_masks: list[torch.Tensor] = field(default_factory=list)
    keep_biases: list[torch.Tensor] = field(default_factory=list)
    generated: list[torch.Tensor] = field(default_factory=list)
    hidden_states: list[torch.Tensor] = field(default_factory=list)
    queries: PreparedQueries | None = None
    drawn: torch.Tensor | None = None

    def target(self, stage: int, which: str) -> torch.Tensor:
        """Return what a stage's generator aims at: the "last" states, or those that enter the stage's "layer"."""
        return self.last if which == "last" else self.states[stage]


class AlignedBranch(nn.Module):
    """What one modality's encoder needs beside its own layers: samplers, the generator, and projections.

    Parameters
    ----------
    num_stages : int
        Number of stages.
    make_sampler : callable or None
        Makes the sampler of a stage; None where everything is kept.
    generator : CrossModalGenerator or None
        Generates the other modality's features; None where this direction is switched off.
    make_projection : callable or None
        Makes the projection of a stage; None without hybrid attention.
    """

    def __init__(
        self,
        num_stages: int,
        make_sampler: Callable[[], ContextSampler] | None,
        generator: CrossModalGenerator | None,
        make_projection: Callable[[], HybridProjection] | None,
    ) -> None:
        super().__init__()
        self.num_stages = num_stages
        self.samplers = None if make_sampler is None else nn.ModuleList(make_sampler() for _ in range(num_stages))
        self.generator = generator
        self.projections = (
            None if make_projection is None else nn.ModuleList(make_projection() for _ in range(num_stages))
        )

    def forward(
        self,
        layers: Sequence[LayerCall],
        states: torch.Tensor,
        padding_mask: torch.Tensor | None,
        class_token_mask: torch.Tensor | None,
        at_stage: Callable[[int, BranchTrace], ReadFeatures | None] | None,
        output_hidden_states: bool = False,
    ) -> BranchTrace:
        """Run the encoder's layers.

        Parameters
        ----------
        layers : sequence of LayerCall
            Layers of this modality's encoder, ready for this batch.
        states : torch.FloatTensor of shape (batch, length, width)
            Embeddings.
        padding_mask : torch.BoolTensor of shape (batch, length) or None
            False at padding; None where there is none.
        class_token_mask : torch.BoolTensor of shape (batch, length) or None
            True at the class token; None where there is none.
        at_stage : callable or None
            Called before each aligned layer with the stage and the trace so far; it may `sample` and `generate`, and
            returns what the layer reads beside its own tokens, or None. With None as the callable nothing is sampled
            here: `sample` and `generate` may then be called on the returned trace.
        output_hidden_states : bool
            Whether to keep the states of all layers.

        Returns
        -------
        BranchTrace
            Of all stages.
        """
        trace = BranchTrace(states, padding_mask, class_token_mask)
        first_stage = len(layers) - self.num_stages
        for index, layer in enumerate(layers):
            if output_hidden_states:
                trace.hidden_states.append(states)
            layer_mask: torch.Tensor | HybridStates | None = layer.own_mask
            stage = index - first_stage
            if stage >= 0:
                trace.states.append(states)
                features = None if at_stage is None else at_stage(stage, trace)
                if self.projections is not None and features is not None:
                    layer_mask = self.projections[stage](features.features, layer.own_mask, features.bias)
            states = layer.run(states, layer_mask)
        trace.last = states
        if output_hidden_states:
            trace.hidden_states.append(states)
        return trace

    def sample(self, trace: BranchTrace, match: torch.Tensor | None = None) -> None:
        """Sample the next stage of a trace: append its keep mask, and the bias made of it.

        Parameters
        ----------
        trace : BranchTrace
            Of this branch, with the states of that stage.
        match : torch.FloatTensor of shape (batch,), optional
            How well the other modality fits, as in [`ContextSampler.forward`].
        """
        stage = len(trace.keep_masks)
        states = trace.states[stage]
        if stage > 0:
            keep = trace.keep_masks[-1]
        elif trace.padding_mask is None:
            keep = states.new_ones(states.shape[:2])
        else:
            keep = trace.padding_mask.to(states.dtype)
        if self.samplers is not None:
            keep = self.samplers[stage](states, keep, trace.class_token_mask, match)
        trace.keep_masks.append(keep)
        trace.keep_biases.append(keep_mask_bias(keep, trace.padding_mask, self.training))

    def generate(
        self,
        trace: BranchTrace,
        target_length: int,
        target_mask: torch.Tensor | None,
        drawn: torch.Tensor | None = None,
    ) -> None:
        """Generate the other modality's features for all stages that were sampled since the last call.

        Parameters
        ----------
        trace : BranchTrace
            Of this branch; the features are appended to its `generated`. Nothing happens without a generator.
        target_length : int
            Number of positions to generate.
        target_mask : torch.BoolTensor of shape (batch, target_length) or None
            False at the other modality's padding; None where there is none.
        drawn : torch.LongTensor of shape (batch,), optional
            Generate for one stage a row, this one, instead of for all of them.
        """
        stages = range(len(trace.generated), len(trace.keep_masks))
        if self.generator is None or len(stages) == 0:
            return
        if trace.queries is None:
            trace.queries = self.generator.prepare(target_length, target_mask)
        trace.drawn = drawn
        states = at_drawn_stage([trace.states[stage] for stage in stages], drawn)
        biases = at_drawn_stage([trace.keep_biases[stage] for stage in stages], drawn)
        for of_stage, bias in zip(states, biases, strict=True):
            trace.generated.append(self.generator(of_stage, bias, trace.queries))


def at_drawn_stage(stages: list[torch.Tensor], drawn: torch.Tensor | None) -> list[torch.Tensor]:
    """Reduce what there is of all stages to a stage a row.

    Parameters
    ----------
    stages : list of torch.Tensor of shape (batch, ...)
        One entry per stage.
    drawn : torch.LongTensor of shape (batch,) or None
        Stage of each row; with None the list stays as it is.

    Returns
    -------
    list of torch.Tensor of shape (batch, ...)
        With `drawn`: a single entry.

    Examples
    --------
    >>> at_drawn_stage([torch.tensor([1, 2, 3]), torch.tensor([10, 20, 30])], torch.tensor([0, 1, 0]))
    [tensor([ 1, 20,  3])]
    """
    if drawn is None:
        return stages
    if all(stage is stages[0] for stage in stages):
        return stages[:1]
    # (stages, batch, ...) -> (batch, ...)
    return [torch.stack(stages)[drawn, torch.arange(len(drawn), device=drawn.device)]]


__all__ = ["AlignedBranch", "BranchTrace", "ReadFeatures", "at_drawn_stage"]
