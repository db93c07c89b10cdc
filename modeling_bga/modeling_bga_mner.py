"""The BGA-MNER model: bidirectional generative alignment of a text and a vision encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from ..configuration.configuration_bga_mner import BgaMnerConfig
from ..configuration.messages import shown
from .alignment_losses import alignment_losses, keep_budget_loss, mean_over_batch, visual_targets
from .branch import AlignedBranch, BranchTrace, ReadFeatures
from .context_sampler import ContextSampler
from .cross_modal_generator import CrossModalGenerator
from .encoders import build_encoder, final_norm, is_frozen, longest_text, only_new_layers_trained
from .entity_replacement import ReplacedEntities
from .hybrid_attention import HybridProjection
from .keep_mask import padding_bias
from .outputs import BgaMnerModelOutput
from .pair_match import pair_match
from .pretrained_model import BgaMnerPreTrainedModel
from .text_encoders import TextInputs, embed_text
from .vision_encoders import embed_pictures


class BgaMnerModel(BgaMnerPreTrainedModel):
    """Text and vision encoder with bidirectional generative alignment (arXiv 2308.02570), without a head.

    A stage stands before each of the last `config.num_bga_layers` layers of both encoders. There a context sampler
    chooses which positions are read, a cross-modal generator makes the other modality's features from them, and the
    layer attends to its own tokens and to these features. Without pictures only the text branch runs.

    Parameters
    ----------
    config : BgaMnerConfig
        Configuration.
    """

    def __init__(self, config: BgaMnerConfig) -> None:
        super().__init__(config)
        text, vision = config.text_config, config.vision_config
        self.text_encoder = build_encoder(text)
        self.vision_encoder = None if config.text_only else build_encoder(vision)
        self.text_branch = self._build_branch(
            text,
            vision,
            config.num_vision_tokens,
            generates=config.use_text_to_image,
            reads=config.text_reads_features,
        )
        self.vision_branch: Any = None  # with text_only, where no vision states reach what would use it
        if not config.text_only:
            self.vision_branch = self._build_branch(
                vision,
                text,
                longest_text(text),
                generates=config.use_image_to_text,
                reads=config.hybrid_attention == "both" and config.use_image_to_text,
            )
        self.post_init()

    def _build_branch(
        self, own: PreTrainedConfig, other: PreTrainedConfig, max_target_length: int, generates: bool, reads: bool
    ) -> AlignedBranch:
        config, vision = self.config, self.config.vision_config

        def make_sampler() -> ContextSampler:
            initial_keep = config.sampler_initial_keep ** (1 / config.num_stages)
            # only pictures: texts are to be read without them. Where their layers read text, they run before the texts.
            reads_match = config.sampler_reads_match and own is vision and config.use_text_to_image and not reads
            return ContextSampler(own.hidden_size, config.sampler_temperature, initial_keep, reads_match)

        def make_projection() -> HybridProjection:
            return HybridProjection(other.hidden_size, own.hidden_size, config.gate_initial_bias)

        generator = None
        if generates:
            generator = CrossModalGenerator(
                own.hidden_size,
                other.hidden_size,
                max_target_length,
                other.num_attention_heads,
                config.generator_num_layers,
                config.generator_ffn_ratio,
                config.generator_dropout,
                causal=own is vision,
            )
        return AlignedBranch(
            config.num_stages,
            # a branch that generates nothing has nothing to sample for
            make_sampler if config.use_context_sampler and generates else None,
            generator,
            make_projection if reads else None,
        )

    def train(self, mode: bool = True) -> BgaMnerModel:
        """Set training mode, but for a vision encoder that isn't trained: it has to give the same targets each time."""
        super().train(mode)
        if self.vision_encoder is not None and is_frozen(self.vision_encoder):
            self.vision_encoder.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Return the text encoder's token embeddings."""
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text encoder's token embeddings."""
        self.text_encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        picture_mask: torch.BoolTensor | None = None,
        vision_states: torch.FloatTensor | None = None,
        replaced: ReplacedEntities | None = None,
        visual_source: str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BgaMnerModelOutput | tuple[torch.Tensor, ...]:
        """Encode texts, with or without pictures.

        Parameters
        ----------
        input_ids : torch.LongTensor of shape (batch, length), optional
            Token ids; these or `inputs_embeds`.
        attention_mask : torch.BoolTensor or LongTensor of shape (batch, length), optional
            0 at padding, on either side; all 1 by default.
        token_type_ids, position_ids : torch.LongTensor of shape (batch, length), optional
            As the text encoder takes them.
        inputs_embeds : torch.FloatTensor of shape (batch, length, embedding size), optional
            Token embeddings instead of ids.
        pixel_values : torch.FloatTensor of shape (batch, 3, image_size, image_size), optional
            Pictures. With them the vision branch runs and the alignment losses are computed.
        picture_mask : torch.BoolTensor of shape (batch,), optional
            False for sentences without a picture, whose `pixel_values` are ignored; all True by default.
        vision_states : torch.FloatTensor of shape (batch, stages + 1, vision tokens, vision width), optional
            What [`BgaMnerModel.encode_pictures`] makes of the pictures, in place of `pixel_values`; the vision encoder
            isn't run. Or (batch, 1, vision tokens, feature channels): a convolutional encoder isn't run, and the new
            layers on it are.
        replaced : ReplacedEntities, optional
            Sentences whose entity tokens are to be replaced, for training; what they read then is
            `config.replaced_entities_read`.
        visual_source : {"generated", "real", "none"}, optional
            What the text reads in evaluation; `config.visual_source` by default. In training: generated features.
        output_hidden_states : bool, optional
            Whether to return the text states of all layers.
        return_dict : bool, optional
            Whether to return an output object (default) or a tuple.
        output_attentions : bool, optional
            Must not be True: attention weights are never formed.

        Returns
        -------
        BgaMnerModelOutput
            Text states, and what the stages sampled and generated.

        Raises
        ------
        ValueError
            If texts are too long, pictures have the wrong size, or shapes don't fit together; if `pixel_values` and
            `vision_states` are both given; if a model with `config.text_only` is given pictures; and if attention
            weights are asked for.
        """
        config = self.config
        if config.output_attentions if output_attentions is None else output_attentions:
            raise ValueError(
                "Expected output_attentions to be left out, got True: hybrid attention runs on "
                "scaled_dot_product_attention, which forms no attention weights. What the stages read is in "
                "text_keep_masks, vision_keep_masks and generated_vision of what is returned."
            )
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either input_ids or inputs_embeds, and not both.")
        given: torch.Tensor = inputs_embeds if input_ids is None else input_ids
        batch, length = given.shape[:2]
        longest = longest_text(config.text_config)
        if length > longest:
            raise ValueError(
                f"Expected texts of at most {longest} tokens, which the text encoder takes, got {length}. Lower the "
                f"tokenizer's limit, where texts are cut: tokenizer.model_max_length = {longest} (that of "
                "processor.tokenizer, too, before training and saving). The stock text-classification pipeline cuts "
                "with truncation=True only. bga_mner.predict reads long texts in windows."
            )
        source = visual_source or config.visual_source
        if source not in ("generated", "real", "none"):
            raise ValueError(f"visual_source must be 'generated', 'real' or 'none', but is {shown(source)}.")
        pictures, given_as = (
            (pixel_values, "pixel_values") if vision_states is None else (vision_states, "vision_states")
        )
        if config.text_only and (source == "real" or pictures is not None):
            raise ValueError(
                "This model has text_only=True and nothing that reads pictures, but was given "
                f"{given_as if pictures is not None else 'visual_source=' + repr(source)}. Leave that out, "
                "or load the whole model."
            )
        if source == "real" and self.text_branch.projections is None:
            raise ValueError(
                'visual_source="real" needs layers that read features, which this model was built without. '
                "Leave visual_source out."
            )
        if self.training and self.text_branch.generator is not None:
            source = "generated"
        # Without a mask nothing is padding, and attention is faster for knowing it.
        padding_mask = None if attention_mask is None else attention_mask.to(torch.bool)
        attended = (
            torch.ones(batch, length, dtype=torch.bool, device=given.device) if padding_mask is None else padding_mask
        )

        vision = None
        if pictures is not None:
            picture_mask = self._check_pictures(pixel_values, vision_states, picture_mask, batch)
            # what stands in the place of a missing picture may be anything, and must not reach a gradient
            pictures = pictures.masked_fill(~picture_mask[:, None, None, None], 0)
            if vision_states is None or pictures.shape[1] == 1:  # new layers run on what the backbone made
                pictures = pictures if vision_states is None else pictures.squeeze(1)
                vision = self._run_vision(pictures, padding_mask, length)
            else:
                vision = self._trace_vision(pictures)

        inputs = TextInputs(input_ids, token_type_ids, position_ids, inputs_embeds, attended, padding_mask)
        pictured = replaced if config.replaced_entities_read == "real" else None
        aligned = picture_mask
        use_real = picture_mask if source == "real" else None
        if pictured is not None and vision is not None:
            if use_real is None:
                use_real = pictured.chosen & picture_mask
            # their words aren't what the picture shows
            aligned = picture_mask & ~pictured.chosen
            inputs = inputs._replace(input_ids=pictured.input_ids)
        reads = self.text_branch.projections is not None and source != "none"
        if output_hidden_states is None:
            output_hidden_states = bool(config.output_hidden_states)

        def at_stage(stage: int, trace: BranchTrace) -> ReadFeatures | None:
            self.text_branch.sample(trace)
            if reads or vision is not None:
                self.text_branch.generate(trace, config.num_vision_tokens, None)
            return self._visual_features(stage, trace, vision, use_real) if reads else None

        text = self._run_text(inputs, at_stage, output_hidden_states)
        reconstruction_loss = cycle_loss = keep_loss = None
        matches: list[torch.Tensor] = []
        if vision is not None:
            targets = visual_targets(config, vision)
            matches = self._sample_pictures(text, vision, targets, aligned)
            drawn = None
            if self.training and config.loss_stages == "sampled" and self.vision_branch.projections is None:
                drawn = torch.randint(config.num_stages, (batch,), device=given.device)
            self.vision_branch.generate(vision, length, padding_mask, drawn)
            reconstruction_loss, cycle_loss = alignment_losses(
                config,
                text,
                vision,
                targets,
                self.text_branch.generator,
                self.vision_branch.generator,
                aligned,
                padding_mask,
            )
            if config.keep_budget < 1 and self.training and self.vision_branch.samplers is not None:
                excess = keep_budget_loss(vision.keep_masks[-1], config.keep_budget)
                keep_loss = mean_over_batch([excess], picture_mask)
        if replaced is not None and pictured is None:
            text.last = self._read_again(inputs, replaced, text)

        output = BgaMnerModelOutput(
            last_hidden_state=text.last,
            vision_last_hidden_state=None if vision is None else vision.last,
            reconstruction_loss=reconstruction_loss,
            cycle_loss=cycle_loss,
            keep_loss=keep_loss,
            pair_match=matches[-1] if matches else None,
            generated_vision=tuple(text.generated) or None,
            generated_text=None if vision is None else (tuple(vision.generated) or None),
            text_keep_masks=tuple(text.keep_masks),
            vision_keep_masks=None if vision is None else tuple(vision.keep_masks),
            hidden_states=tuple(text.hidden_states) if output_hidden_states else None,
        )
        return output if return_dict is not False else output.to_tuple()

    def encode_pictures(self, pixel_values: torch.FloatTensor) -> torch.Tensor:
        """Run the vision encoder alone: what the stages and the losses see of pictures, for any number of epochs.

        Parameters
        ----------
        pixel_values : torch.FloatTensor of shape (batch, 3, image_size, image_size)
            Pictures.

        Returns
        -------
        torch.FloatTensor of shape (batch, stages + 1, vision tokens, vision width)
            States that enter each aligned layer, and the last ones; to be passed to `forward` as `vision_states`. Of a
            convolutional encoder that is frozen below new layers that are trained, (batch, 1, vision tokens, feature
            channels): what is the same in each epoch.

        Raises
        ------
        ValueError
            If pictures have the wrong size, if there is no vision encoder, or if its layers read generated text: their
            states are then not those of the picture alone.
        """
        if self.vision_branch is None:
            raise ValueError("A model with text_only=True has no vision encoder. Load the whole model.")
        encoder: Any = self.vision_encoder
        if only_new_layers_trained(encoder):
            self._check_pictures(pixel_values, None, None, len(pixel_values))
            return encoder.read_cells(pixel_values.to(encoder.dtype)).unsqueeze(1)
        if self.vision_branch.projections is not None:
            raise ValueError(
                f"With hybrid_attention={self.config.hybrid_attention!r} the vision encoder reads generated text "
                'beside the picture. Pass pixel_values to forward, or set hybrid_attention="text".'
            )
        self._check_pictures(pixel_values, None, None, len(pixel_values))
        trace = self._run_vision(pixel_values, None, 0)
        # stages + 1 times (batch, vision tokens, width) -> (batch, stages + 1, vision tokens, width)
        return torch.stack([*trace.states, trace.last], dim=1)

    def _check_pictures(
        self,
        pixel_values: torch.Tensor | None,
        vision_states: torch.Tensor | None,
        picture_mask: torch.Tensor | None,
        batch: int,
    ) -> torch.Tensor:
        """Refuse pictures, or their states, of a wrong shape; return the picture mask."""
        side = self.config.image_size
        if pixel_values is not None and (
            pixel_values.ndim != 4 or pixel_values.shape[0] != batch or pixel_values.shape[-2:] != (side, side)
        ):
            raise ValueError(
                f"pixel_values must have the shape (batch, channels, image_size, image_size) = ({batch}, 3, {side}, "
                f"{side}), but have {tuple(pixel_values.shape)}. Let the processor make them, with pictures of "
                "config.image_size pixels; a sentence without a picture takes zeros and picture_mask=False."
            )
        if vision_states is not None:
            if pixel_values is not None:
                raise ValueError("Pass either pixel_values or vision_states, and not both.")
            tokens, vision = self.config.num_vision_tokens, self.config.vision_config
            if vision_states.shape == (batch, 1, tokens, getattr(vision, "feature_channels", None)):
                pass  # the layers are run, whatever they read
            elif self.vision_branch.projections is not None:
                raise ValueError(
                    f"With hybrid_attention={self.config.hybrid_attention!r} the vision encoder reads generated text, "
                    'and has to run on pixel_values; vision_states were given. Set hybrid_attention="text".'
                )
            elif vision_states.shape != (expected := (batch, self.config.num_stages + 1, tokens, vision.hidden_size)):
                raise ValueError(
                    f"vision_states must have the shape (batch, stages + 1, vision tokens, vision width) = {expected}, "
                    f"but have {tuple(vision_states.shape)}. Let this model's encode_pictures make them."
                )
        if picture_mask is None:
            given: Any = vision_states if pixel_values is None else pixel_values
            return torch.ones(batch, dtype=torch.bool, device=given.device)
        if picture_mask.shape != (batch,):
            raise ValueError(
                f"picture_mask must have the shape (batch,) = ({batch},), but has {tuple(picture_mask.shape)}."
            )
        return picture_mask.to(torch.bool)

    def _vision_class_token_mask(self, states: torch.Tensor) -> torch.Tensor | None:
        if not self.config.has_vision_class_token:
            return None
        mask = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
        mask[:, 0] = True
        return mask

    def _run_vision(self, pixel_values: torch.Tensor, padding_mask: torch.Tensor | None, length: int) -> BranchTrace:
        """Run the vision encoder; unless its layers read generated text, its stages are left to be sampled later."""
        states, layers = embed_pictures(self.vision_encoder, pixel_values)
        class_token_mask = self._vision_class_token_mask(states)
        text_bias = padding_bias(padding_mask, states.dtype)

        def at_stage(stage: int, trace: BranchTrace) -> ReadFeatures | None:
            self.vision_branch.sample(trace)
            self.vision_branch.generate(trace, length, padding_mask)
            return ReadFeatures(trace.generated[stage], text_bias)

        reads = self.vision_branch.projections is not None
        trace = self.vision_branch(layers, states, None, class_token_mask, at_stage if reads else None)
        trace.last = final_norm(self.vision_encoder, trace.last)
        return trace

    def _trace_vision(self, vision_states: torch.Tensor) -> BranchTrace:
        """Make the trace that the vision encoder would leave behind."""
        *states, last = vision_states.to(self.dtype).unbind(dim=1)
        return BranchTrace(last, None, self._vision_class_token_mask(last), states)

    def _run_text(
        self,
        inputs: TextInputs,
        at_stage: Callable[[int, BranchTrace], ReadFeatures | None],
        output_hidden_states: bool = False,
    ) -> BranchTrace:
        attended = inputs.attended
        # the first attended position, wherever padding puts it
        class_token_mask = attended & (attended.long().cumsum(dim=1) == 1)
        states, layers = embed_text(self.text_encoder, inputs)
        trace = self.text_branch(layers, states, inputs.padding_mask, class_token_mask, at_stage, output_hidden_states)
        trace.last = final_norm(self.text_encoder, trace.last)
        if output_hidden_states:
            trace.hidden_states[-1] = trace.last
        return trace

    def _sample_pictures(
        self, text: BranchTrace, vision: BranchTrace, targets: list[torch.Tensor], aligned: torch.Tensor
    ) -> list[torch.Tensor]:
        """Sample the vision branch's stages, if that wasn't done; return how well pictures match, stage by stage."""
        # in doubt a pair belongs together
        matches = [
            torch.where(aligned, pair_match(generated, target), 1.0)
            for generated, target in zip(text.generated, targets, strict=False)  # nothing may be generated
        ]
        for stage in range(len(vision.keep_masks), self.config.num_stages):
            self.vision_branch.sample(vision, matches[stage] if matches else None)
        return matches

    def _read_again(self, inputs: TextInputs, replaced: ReplacedEntities, text: BranchTrace) -> torch.Tensor:
        """Read the chosen sentences with replaced entities, beside features generated from the true words.

        The features are detached: they are to say what reconstruction taught them, and not to spell out the tags of the
        names that are labelled.
        """
        rows = replaced.chosen.nonzero().squeeze(1)  # (chosen,)
        if len(rows) == 0:
            return text.last
        again = self._run_text(
            inputs._replace(input_ids=replaced.input_ids).rows(rows),
            lambda stage, _: ReadFeatures(text.generated[stage][rows].detach(), None) if text.generated else None,
        )
        return text.last.index_copy(0, rows, again.last)

    def _visual_features(
        self, stage: int, text: BranchTrace, vision: BranchTrace | None, use_real: torch.Tensor | None
    ) -> ReadFeatures | None:
        """Choose, sentence by sentence, between generated and real visual features of a stage.

        Real ones are read whole, as generated ones are: a keep mask says what a generator reads.
        """
        generated = text.generated[stage] if text.generated else None
        if use_real is None or vision is None:
            return None if generated is None else ReadFeatures(generated, None)
        real = vision.target(stage, self.config.visual_target)
        if generated is None:
            # nothing to fall back to: a sentence without a picture reads nothing
            return ReadFeatures(real, padding_bias(use_real[:, None].expand(real.shape[:2]), real.dtype))
        return ReadFeatures(torch.where(use_real[:, None, None], real, generated), None)


__all__ = ["BgaMnerModel"]
