"""A branch: the stages of one encoder, which sample, generate, and let the next layer read what was generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ...configuration.configuration_bga_mner import BgaMnerConfig
from ..encoders.embedding import LayerCall
from .context_sampler import ContextSampler, keep_mask_bias
from .cross_modal_generator import CrossModalGenerator, PreparedQueries
from .hybrid_attention import HybridProjection, LayerMask
from .visual_target import PooledTarget


class ReadFeatures(NamedTuple):
    """What a layer reads of the other modality: features (batch, positions, width), bias (batch, positions) or None."""

    features: Tensor
    bias: Tensor | None


@dataclass
class BranchTrace:
    """What a branch computes, in lists with one entry per stage."""

    padding_mask: Tensor | None  # (batch, length), False at padding; None where there is none
    class_token_mask: Tensor | None  # (batch, length), True at the class token; None where there is none
    target_length: int = 0  # positions of the other modality, which is to be generated
    target_mask: Tensor | None = None  # (batch, target_length), False at their padding
    states: list[Tensor] = field(default_factory=list)  # (batch, length, width), those that enter the layer
    keep_masks: list[Tensor] = field(default_factory=list)  # (batch, length)
    keep_biases: list[Tensor] = field(default_factory=list)  # the same, as attention scores
    # (batch, target_length, target width); empty without a generator, a single entry if stages were sampled
    generated: list[Tensor] = field(default_factory=list)
    last: Tensor = field(init=False)  # (batch, length, width), after the last layer and the encoder's norm
    hidden_states: list[Tensor] = field(default_factory=list)  # if asked for, of all layers
    queries: PreparedQueries | None = None  # of all stages; None before the first generation
    sampled: Tensor | None = None  # (batch,), the stage of each row of `generated`, if sampled


class AlignedBranch(nn.Module):
    """What one modality's encoder needs beside its own layers: samplers, the generator, and projections.

    `own` and `other` are the configurations of both encoders. `reads` says whether layers read features of the other
    modality, `reads_match` whether samplers are told how well image and text match. `pooled_target` is what the other
    branch generates of this one, if that is not its states.
    """

    def __init__(
        self,
        config: BgaMnerConfig,
        own: PreTrainedConfig,
        other: PreTrainedConfig,
        max_target_length: int,
        generates: bool,
        reads: bool,
        reads_match: bool = False,
        pooled_target: PooledTarget | None = None,
    ) -> None:
        super().__init__()
        self.pooled_target = pooled_target
        self.config = config
        stages = range(config.num_stages)
        self.num_stages = len(stages)
        self.samplers: nn.ModuleList | None = None
        self.generator: CrossModalGenerator | None = None
        self.projections: nn.ModuleList | None = None
        if config.use_context_sampler and generates:
            initial_keep = config.sampler_initial_keep ** (1 / len(stages))
            self.samplers = nn.ModuleList(
                ContextSampler(own.hidden_size, config.sampler_temperature, initial_keep, reads_match) for _ in stages
            )
        if generates:
            self.generator = CrossModalGenerator(
                own.hidden_size,
                other.hidden_size,
                max_target_length,
                other.num_attention_heads,
                config.generator_num_layers,
                config.generator_ffn_ratio,
                config.generator_dropout,
                # texts are ordered, and of any length
                causal=other is config.text_config,
            )
        if reads:
            self.projections = nn.ModuleList(
                HybridProjection(other.hidden_size, own.hidden_size, config.gate_initial_bias) for _ in stages
            )

    def stages(self) -> list[Stage]:
        """Return the stages, the lowest first."""
        return [Stage(self, number) for number in range(self.num_stages)]

    def with_layers(self, layers: list[LayerCall]) -> Iterator[tuple[LayerCall, Stage | None]]:
        """Pair each layer of the encoder with the stage before it; the lower layers have none."""
        lower: list[None] = [None] * (len(layers) - self.num_stages)
        return zip(layers, [*lower, *self.stages()], strict=True)

    def generate(self, trace: BranchTrace, states: Tensor, bias: Tensor) -> None:
        """Add what is generated from states (batch, length, width) under a bias (batch, length) to a trace."""
        if self.generator is None:
            return
        if trace.queries is None:
            trace.queries = self.generator.prepare(trace.target_length, trace.target_mask)
        trace.generated.append(self.generator(states, bias, trace.queries))

    def generate_all(self, trace: BranchTrace, sampled: Tensor | None = None) -> None:
        """Add what is generated from all stages of a trace, or from the one stage sampled (batch,) for each row."""
        if self.generator is None:
            return
        trace.sampled = sampled
        states, biases = at_sampled_stage(trace.states, sampled), at_sampled_stage(trace.keep_biases, sampled)
        for of_stage, bias in zip(states, biases, strict=True):
            self.generate(trace, of_stage, bias)


class Stage(NamedTuple):
    """One stage of a branch: its sampler and its projection, and the generator that all stages share."""

    branch: AlignedBranch
    number: int

    def sample(self, trace: BranchTrace, match: Tensor | None = None) -> None:
        """Add the keep mask of this stage to a trace that has its states; `match` (batch,) as in [`ContextSampler`]."""
        states = trace.states[self.number]
        if self.number > 0:
            keep = trace.keep_masks[-1]
        elif trace.padding_mask is None:
            keep = states.new_ones(states.shape[:2])
        else:
            keep = trace.padding_mask.to(states.dtype)
        if self.branch.samplers is not None:
            keep = self.branch.samplers[self.number](states, keep, trace.class_token_mask, match)
        trace.keep_masks.append(keep)
        trace.keep_biases.append(keep_mask_bias(keep, trace.padding_mask, self.branch.training))

    def generate(self, trace: BranchTrace) -> None:
        """Add what is generated from what this stage keeps to a trace; nothing without a generator."""
        self.branch.generate(trace, trace.states[self.number], trace.keep_biases[self.number])

    def generated(self, trace: BranchTrace) -> Tensor:
        """Return what was generated at this stage of a trace, as layers read it.

        The loss of tags could teach the generator to spell out the tags of labelled names, and layers to read that.
        """
        generated = trace.generated[self.number]
        detached = self.branch.training and not self.branch.config.generators_learn_from_labels
        return generated.detach() if detached else generated

    def read(self, features: ReadFeatures | None, own_mask: Tensor | None) -> LayerMask:
        """Return what the layer takes as its mask: with the features, if there are any and it has a projection."""
        if features is None or self.branch.projections is None:
            return own_mask
        return self.branch.projections[self.number](features.features, own_mask, features.bias)


def at_sampled_stage(stages: list[Tensor], sampled: Tensor | None) -> list[Tensor]:
    """Reduce tensors (batch, ...) of all stages to one, of each row's sampled stage (batch,); None leaves all."""
    if sampled is None:
        return stages
    if all(stage is stages[0] for stage in stages):
        return stages[:1]
    # (stages, batch, ...) -> (batch, ...)
    return [torch.stack(stages)[sampled, torch.arange(len(sampled), device=sampled.device)]]


__all__ = ["AlignedBranch", "BranchTrace", "ReadFeatures", "Stage", "at_sampled_stage"]
