"""The BGA-MNER model: bidirectional generative alignment of a text and a vision encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..configuration.configuration_bga_mner import BgaMnerConfig
from ..configuration.errors import mismatch
from .alignment.context_sampler import padding_bias
from .alignment.entity_replacement import ReplacedEntities
from .alignment.hybrid_attention import LayerMask
from .alignment.losses import Alignment, alignment_losses, keep_budget_loss, mean_over_batch, pair_match
from .alignment.modality_branch import AlignedBranch, BranchTrace, ReadFeatures, Stage
from .alignment.visual_target import PooledTarget, reconstruction_target
from .encoders.embedding import TextInputs, embed_images, embed_text
from .encoders.encoder import build_encoder, final_norm, is_frozen, longest_text, only_new_layers_trained
from .input_checks import ImageInputs, check_images, check_pixels, check_source, check_text, refuse_attentions
from .outputs import BgaMnerModelOutput
from .pretrained_model import BgaMnerPreTrainedModel


class BgaMnerModel(BgaMnerPreTrainedModel):
    """Text and vision encoder with bidirectional generative alignment (arXiv 2308.02570), without a head.

    A stage stands before each of the last `config.num_bga_layers` layers of both encoders. There a context sampler
    chooses which positions are read, a cross-modal generator makes the other modality's features from them, and the
    layer attends to its own tokens and to these features. Without images only the text branch runs.
    """

    def __init__(self, config: BgaMnerConfig) -> None:
        super().__init__(config)
        text, vision = config.text_config, config.vision_config
        self.text_encoder = build_encoder(text)
        self.vision_encoder = None if config.text_only else build_encoder(vision)
        self.text_branch = AlignedBranch(
            config,
            text,
            vision,
            config.num_target_positions,
            generates=config.use_text_to_image,
            reads=config.text_reads_features,
        )
        self.vision_branch: AlignedBranch | None = None
        if not config.text_only:
            reads = config.hybrid_attention == "both" and config.use_image_to_text
            self.vision_branch = AlignedBranch(
                config,
                vision,
                text,
                longest_text(text),
                generates=config.use_image_to_text,
                reads=reads,
                # where its layers read text, they run before the texts
                reads_match=config.sampler_reads_match and config.use_text_to_image and not reads,
                pooled_target=PooledTarget(config) if config.visual_target == "pooled" else None,
            )
        self.post_init()

    def train(self, mode: bool = True) -> BgaMnerModel:
        """Set training mode, but for a vision encoder that isn't trained."""
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
        attention_mask: Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        image_mask: torch.BoolTensor | None = None,
        vision_states: torch.FloatTensor | None = None,
        replaced: ReplacedEntities | None = None,
        visual_source: str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BgaMnerModelOutput | tuple[Tensor, ...]:
        """Encode texts, with or without images.

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
            Images, with which the alignment losses are computed.
        image_mask : torch.BoolTensor of shape (batch,), optional
            False for sentences without an image, whose `pixel_values` are ignored; all True by default.
        vision_states : torch.FloatTensor of shape (batch, stages + 1, vision tokens, vision width), optional
            What [`BgaMnerModel.encode_images`] makes of the images, in place of `pixel_values`.
        replaced : ReplacedEntities, optional
            Sentences whose entity tokens are to be replaced, for training; see `config.replaced_entities_read`.
        visual_source : {"generated", "real", "none"}, optional
            What the text reads; `config.visual_source` by default. In training generated features stand for real ones.
        output_hidden_states : bool, optional
            Whether to return the text states of all layers.
        return_dict : bool, optional
            Whether to return an output object (default) or a tuple.
        output_attentions : bool, optional
            Must not be True: attention weights are never formed.
        """
        config = self.config
        refuse_attentions(config, output_attentions)
        texts = check_text(config, input_ids, inputs_embeds, attention_mask, token_type_ids, position_ids)
        images = check_images(config, pixel_values, vision_states, image_mask, texts.attended, self._vision_reads)
        source = check_source(config, visual_source, self.text_branch.projections is not None)
        if self.training and source == "real" and self.text_branch.generator is not None:
            source = "generated"

        vision = None if images is None else self._look(images, texts)
        present = None if images is None else images.present
        # a step without images counts too, where processes share what they see
        if self.training and self.pooled_target is not None and (vision is not None or torch.is_grad_enabled()):
            self.pooled_target.measure(None if vision is None else vision.last, present)

        reads_real = present if source == "real" else None
        aligned = present
        if replaced is not None and config.replaced_entities_read == "real" and present is not None:
            texts = texts._replace(input_ids=replaced.input_ids)
            # their words aren't what the image shows
            aligned = present & ~replaced.chosen
            reads_real = replaced.chosen & present if reads_real is None else reads_real
        if output_hidden_states is None:
            output_hidden_states = bool(config.output_hidden_states)
        text = self._read(texts, vision, source, reads_real, output_hidden_states)

        alignment = Alignment()
        if vision is not None and aligned is not None and present is not None:
            alignment = self._align(text, vision, aligned, present)
        if replaced is not None and config.replaced_entities_read != "real":
            text.last = self._read_again(texts, replaced, text, source)

        output = BgaMnerModelOutput(
            last_hidden_state=text.last,
            vision_last_hidden_state=None if vision is None else vision.last,
            generated_vision=tuple(text.generated) or None,
            generated_text=None if vision is None else (tuple(vision.generated) or None),
            text_keep_masks=tuple(text.keep_masks) or None,
            vision_keep_masks=None if vision is None else tuple(vision.keep_masks),
            hidden_states=tuple(text.hidden_states) if output_hidden_states else None,
            **alignment._asdict(),
        )
        return output if return_dict is not False else output.to_tuple()

    def encode_images(self, pixel_values: torch.FloatTensor) -> Tensor:
        """Run the vision encoder alone, for `vision_states` that any number of epochs can be trained with.

        Parameters
        ----------
        pixel_values : torch.FloatTensor of shape (batch, 3, image_size, image_size)
            Images.

        Returns
        -------
        torch.FloatTensor of shape (batch, stages + 1, vision tokens, vision width)
            States that enter each aligned layer, and the last ones. Of a convolutional encoder that is frozen below new
            layers that are trained, its feature map: (batch, 1, vision tokens, feature channels).
        """
        if self.vision_branch is None:
            got = "text_only=True, which has no vision encoder"
            raise ValueError(f"Expected a whole model, got one with {got}. Load it whole.")
        encoder: Any = self.vision_encoder
        only_new = only_new_layers_trained(encoder)
        if self._vision_reads and not only_new:
            mend = 'Pass pixel_values to forward, or set hybrid_attention="text".'
            raise mismatch(
                "a vision encoder that reads images alone, and no generated text", "hybrid_attention='both'", mend
            )
        check_pixels(self.config, pixel_values, len(pixel_values))
        if only_new:
            return encoder.read_cells(pixel_values.to(encoder.dtype)).unsqueeze(1)
        trace = self._run_vision(pixel_values, None, 0)
        # stages + 1 times (batch, vision tokens, width) -> (batch, stages + 1, vision tokens, width)
        return torch.stack([*trace.states, trace.last], dim=1)

    @property
    def pooled_target(self) -> PooledTarget | None:
        """What pools the features of images, with `visual_target="pooled"`."""
        return None if self.vision_branch is None else self.vision_branch.pooled_target

    @property
    def _vision_reads(self) -> bool:
        """Whether layers of the vision encoder read generated text."""
        return self.vision_branch is not None and self.vision_branch.projections is not None

    def _look(self, images: ImageInputs, texts: TextInputs) -> BranchTrace:
        """Look at images; stages are left to be sampled unless vision layers read text."""
        if not images.encoded:
            return self._run_vision(images.values, texts.padding_mask, texts.attended.shape[1])
        *states, last = images.values.to(self.dtype).unbind(dim=1)
        trace = BranchTrace(
            None, self._vision_class_token_mask(last), texts.attended.shape[1], texts.padding_mask, states
        )
        trace.last = last
        return trace

    def _run_vision(self, pixel_values: Tensor, text_padding: Tensor | None, length: int) -> BranchTrace:
        """Run the vision encoder on images beside texts of a length, whose padding (batch, length) is False."""
        states, layers = embed_images(self.vision_encoder, pixel_values)
        trace = BranchTrace(None, self._vision_class_token_mask(states), length, text_padding)
        text_bias = padding_bias(text_padding, states.dtype)
        assert self.vision_branch is not None
        for layer, stage in self.vision_branch.with_layers(layers):
            mask: LayerMask = layer.own_mask
            if stage is not None:
                trace.states.append(states)
                if self._vision_reads:
                    stage.sample(trace)
                    stage.generate(trace)
                    mask = stage.read(ReadFeatures(stage.generated(trace), text_bias), mask)
            states = layer.run(states, mask)
        trace.last = final_norm(self.vision_encoder, states)
        return trace

    def _vision_class_token_mask(self, states: Tensor) -> Tensor | None:
        if not self.config.has_vision_class_token:
            return None
        mask = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
        mask[:, 0] = True
        return mask

    def _read(
        self,
        texts: TextInputs,
        vision: BranchTrace | None,
        source: str,
        reads_real: Tensor | None,
        keeps_hidden_states: bool,
    ) -> BranchTrace:
        """Read texts: before each aligned layer sample, generate, and let the layer read visual features.

        Rows where `reads_real` (batch,) is True read real ones. Without images, only what is read is generated.
        """
        reads = self.text_branch.projections is not None and source != "none"
        states, layers = embed_text(self.text_encoder, texts)
        # the first attended position, wherever padding puts it
        class_token_mask = texts.attended & (texts.attended.long().cumsum(dim=1) == 1)
        trace = BranchTrace(texts.padding_mask, class_token_mask, self.config.num_target_positions)
        for layer, stage in self.text_branch.with_layers(layers):
            if keeps_hidden_states:
                trace.hidden_states.append(states)
            mask: LayerMask = layer.own_mask
            if stage is not None:
                trace.states.append(states)
                if reads or vision is not None:
                    stage.sample(trace)
                    stage.generate(trace)
                if reads:
                    mask = stage.read(self._visual_features(stage, trace, vision, reads_real), mask)
            states = layer.run(states, mask)
        trace.last = final_norm(self.text_encoder, states)
        if keeps_hidden_states:
            trace.hidden_states.append(trace.last)
        return trace

    def _visual_features(
        self, stage: Stage, text: BranchTrace, vision: BranchTrace | None, reads_real: Tensor | None
    ) -> ReadFeatures | None:
        """Choose, sentence by sentence, between generated and real visual features of a stage.

        Real ones are read whole, as generated ones are: a keep mask says what a generator reads.
        """
        generated = stage.generated(text) if text.generated else None
        if reads_real is None or vision is None:
            return None if generated is None else ReadFeatures(generated, None)
        real = self._real_features(vision, stage.number)
        if generated is None:
            # a sentence without an image reads nothing
            return ReadFeatures(real, padding_bias(reads_real[:, None].expand(real.shape[:2]), real.dtype))
        return ReadFeatures(torch.where(reads_real[:, None, None], real, generated), None)

    def _real_features(self, vision: BranchTrace, stage: int) -> Tensor:
        """Return what a layer reads of an image in the place of generated features (batch, positions, width)."""
        if self.pooled_target is not None:
            return self.pooled_target(vision.last).to(vision.last.dtype)
        return vision.last if self.config.visual_target == "last" else vision.states[stage]

    def visual_target(self, states: Tensor) -> Tensor:
        """Return what the text is to generate of an image.

        Parameters
        ----------
        states : torch.FloatTensor of shape (batch, vision tokens, vision width)
            `vision_last_hidden_state`, or with `visual_target="layer"` the states that enter the paired layer.

        Returns
        -------
        torch.FloatTensor of shape (batch, positions, vision width)
            In float32, detached; one position per vision token, or, pooled, the class token and the mean patch.
        """
        if self.pooled_target is not None:
            return self.pooled_target(states.detach())
        return reconstruction_target(states, self.config.normalize_targets)

    def _align(self, text: BranchTrace, vision: BranchTrace, aligned: Tensor, present: Tensor) -> Alignment:
        """Finish the vision branch's stages, and compute the losses of pairs that are aligned, both masks (batch,)."""
        config, branch = self.config, self.vision_branch
        assert branch is not None
        if config.visual_target == "layer":
            targets = [self.visual_target(states) for states in vision.states]
        else:
            targets = [self.visual_target(vision.last)] * config.num_stages
        # in doubt a pair belongs together
        matches = [
            torch.where(aligned, pair_match(generated, target, config.visual_target == "pooled"), 1.0)
            for generated, target in zip(text.generated, targets, strict=False)  # nothing may be generated
        ]
        if not self._vision_reads:
            for stage in branch.stages():
                stage.sample(vision, matches[stage.number] if matches else None)
            sampled = None
            if self.training and config.loss_stages == "sampled":
                sampled = torch.randint(config.num_stages, aligned.shape[:1], device=aligned.device)
            branch.generate_all(vision, sampled)
        from_last = None
        if config.align_last_states and self.text_branch.generator is not None and config.reconstruction_weight > 0:
            from_last = self.text_branch.generator(text.last, text.keep_biases[-1], text.queries)
        reconstruction_loss, cycle_loss = alignment_losses(
            config, self.text_branch, branch, text, vision, targets, aligned, from_last
        )
        keep_loss = None
        if config.keep_budget < 1 and self.training and branch.samplers is not None:
            keep_loss = mean_over_batch([keep_budget_loss(vision.keep_masks[-1], config.keep_budget)], present)
        return Alignment(reconstruction_loss, cycle_loss, keep_loss, matches[-1] if matches else None)

    def _read_again(self, texts: TextInputs, replaced: ReplacedEntities, text: BranchTrace, source: str) -> Tensor:
        """Read the chosen sentences with replaced entities, beside what the true words generate.

        That is detached: it is not to learn to spell out the tags.
        """
        rows = replaced.chosen.nonzero().squeeze(1)  # (chosen,)
        if len(rows) == 0:
            rows = rows.new_zeros(1)  # processes that share weights have to run the same layers
        states, layers = embed_text(self.text_encoder, texts._replace(input_ids=replaced.input_ids).rows(rows))
        for layer, stage in self.text_branch.with_layers(layers):
            mask: LayerMask = layer.own_mask
            if stage is not None and text.generated and source != "none":
                mask = stage.read(ReadFeatures(text.generated[stage.number][rows].detach(), None), mask)
            states = layer.run(states, mask)
        again = text.last.index_copy(0, rows, final_norm(self.text_encoder, states))
        return torch.where(replaced.chosen[:, None, None], again, text.last)


__all__ = ["BgaMnerModel"]
