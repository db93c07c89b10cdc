"""The BGA-MNER models: bidirectional generative alignment of a text and a vision encoder, and a CRF on top."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

from ..configuration.configuration_bga_mner import BgaMnerConfig
from .alignment_losses import alignment_losses, keep_budget_loss, mean_over_batch
from .branch import AlignedBranch, BranchTrace, ReadFeatures
from .context_sampler import ContextSampler
from .crf import ConditionalRandomField, bio_constraints
from .cross_modal_generator import CrossModalGenerator
from .encoders import TextInputs, build_encoder, embed_pictures, embed_text, final_norm, load_encoder, longest_text
from .entity_replacement import ReplacedEntities, replace_entities
from .hybrid_attention import HybridProjection
from .keep_mask import padding_bias
from .model_card_mixin import ModelCardMixin
from .outputs import BgaMnerModelOutput, BgaMnerTokenClassifierOutput


logger = logging.get_logger(__name__)


class BgaMnerPreTrainedModel(ModelCardMixin, PreTrainedModel):
    """Base class: weight initialisation, and building a model from two pretrained encoders."""

    config_class = BgaMnerConfig
    config: BgaMnerConfig
    base_model_prefix = "bga_mner"
    main_input_name = "input_ids"
    input_modalities = ("text", "image")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # The loss is a mean over sentences, whatever the number of tokens: without this, Trainer would take it for a sum
    # divided by the tokens of all accumulated batches, and scale gradients wrongly.
    accepts_loss_kwargs = False

    def __init__(self, config: BgaMnerConfig, *inputs: Any, **kwargs: Any) -> None:
        super().__init__(config, *inputs, **kwargs)
        self._refuse_other_attention(config._attn_implementation)

    def set_attn_implementation(self, attn_implementation: str | dict, *args: Any, **kwargs: Any) -> None:
        """Accept "sdpa" only: hybrid attention is built on it, and any other would drop the generated features."""
        self._refuse_other_attention(attn_implementation)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save as every model does, with the names that the weights have in memory.

        By default transformers writes some encoders' weights (ViT's) under the names of older releases, and Trainer,
        which restores a checkpoint without renaming, would silently skip them.
        """
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(*args, **kwargs)

    @staticmethod
    def _refuse_other_attention(requested: str | dict | None) -> None:
        if requested not in (None, "sdpa"):
            raise ValueError(
                f'BGA-MNER runs on attn_implementation="sdpa", but {requested!r} was asked for. '
                "Leave attn_implementation out."
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Children come first, so these overwrite what was just done to the linear layers inside.
        if isinstance(module, CrossModalGenerator | HybridProjection | ContextSampler):
            for child in module.modules():
                if isinstance(child, nn.Linear):
                    # keeps the scale of what passes through at any width; 0.02 would silence narrow models
                    init.xavier_uniform_(child.weight)
        if isinstance(module, CrossModalGenerator):
            init.normal_(module.modality_queries, mean=0.0, std=1.0)
        elif isinstance(module, HybridProjection):
            init.constant_(module.gate, module.gate_initial_bias)
        elif isinstance(module, ContextSampler):
            init.copy_(module.decision_bias, torch.tensor([module.initial_logit, 0.0]))
        elif isinstance(module, ConditionalRandomField):
            for parameter in module.parameters():
                init.uniform_(parameter, -0.1, 0.1)
            module.reset_constraints()

    @classmethod
    def from_text_vision_pretrained(
        cls,
        text: str | PreTrainedModel,
        vision: str | PreTrainedModel,
        labels: list[str] | None = None,
        **options: Any,
    ) -> BgaMnerPreTrainedModel:
        """Build a model from a pretrained text encoder and a pretrained vision encoder.

        Parameters
        ----------
        text, vision : str or PreTrainedModel
            Folder, Hub name, or encoder in memory (whose weights are copied). A CLIP or SigLIP checkpoint gives its
            vision tower.
        labels : list of str, optional
            Tags, for example ["O", "B-PER", "I-PER"]; their order gives the ids.
        **options
            Further arguments of [`BgaMnerConfig`].

        Returns
        -------
        BgaMnerPreTrainedModel
            In evaluation mode. The encoders' weights are the pretrained ones, all others are new; a warning names
            them.

        Raises
        ------
        ValueError
            If an encoder isn't of a supported family, or a model in memory holds none.
        """
        if labels is not None:
            options["id2label"] = dict(enumerate(labels))
        config = BgaMnerConfig(text_config=_config_of(text), vision_config=_config_of(vision), **options)
        model = cls(config)
        base: Any = getattr(model, cls.base_model_prefix, model)
        for encoder, source in ((base.text_encoder, text), (base.vision_encoder, vision)):
            if isinstance(source, PreTrainedModel):
                pretrained = _encoder_in(source)
            else:
                pretrained = load_encoder(source, deepcopy(encoder.config))
            weights = pretrained.state_dict()
            if missing := encoder.state_dict().keys() - weights.keys():
                raise ValueError(
                    f"Expected an encoder like {type(encoder).__name__}, but {type(source).__name__} lacks "
                    f"{len(missing)} of its weights, such as {min(missing)}. Pass the encoder itself."
                )
            # what an encoder has beyond these, such as a pooler, is not used
            encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
        encoders = ("text_encoder.", "vision_encoder.")
        new = sorted({_module_name(name) for name, _ in model.named_parameters() if not _is_in(name, encoders)})
        logger.warning(
            "These weights are new and have to be trained: %s. All others come from the two encoders.", ", ".join(new)
        )
        return model.eval()


def _encoder_in(model: PreTrainedModel) -> PreTrainedModel:
    """Return the vision tower of a whole CLIP or SigLIP, the encoder below a task head, or the model itself."""
    return getattr(model, "vision_model", getattr(model, model.base_model_prefix, model))


def _config_of(source: str | PreTrainedModel) -> PreTrainedConfig:
    return source.config if isinstance(source, PreTrainedModel) else AutoConfig.from_pretrained(source)


def _is_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(f".{name}".find(f".{module}") >= 0 for module in modules)


def _module_name(parameter_name: str) -> str:
    """Shorten a parameter's name to the first two modules below the base model."""
    return ".".join(parameter_name.removeprefix("bga_mner.").split(".")[:2]).removesuffix(".weight")


class BgaMnerModel(BgaMnerPreTrainedModel):
    """Text and vision encoder with bidirectional generative alignment (arXiv 2308.02570), without a tag head.

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
        self.vision_encoder = build_encoder(vision)
        self.text_branch = self._build_branch(
            text,
            vision,
            config.num_vision_tokens,
            generates=config.use_text_to_image,
            reads=config.text_reads_features,
        )
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
        config = self.config

        def make_sampler() -> ContextSampler:
            initial_keep = config.sampler_initial_keep ** (1 / config.num_stages)
            return ContextSampler(own.hidden_size, config.sampler_temperature, initial_keep)

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
            )
        return AlignedBranch(
            config.num_stages,
            # a branch that generates nothing has nothing to sample for
            make_sampler if config.use_context_sampler and generates else None,
            generator,
            make_projection if reads else None,
        )

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
        replaced: ReplacedEntities | None = None,
        visual_source: str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
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
        replaced : ReplacedEntities, optional
            Sentences whose entity tokens are to be replaced, for training; what they read then is
            `config.replaced_entities_read`.
        visual_source : {"generated", "real", "none"}, optional
            What the text reads in evaluation; `config.visual_source` by default. In training: generated features.
        output_hidden_states : bool, optional
            Whether to return the text states of all layers.
        return_dict : bool, optional
            Whether to return an output object (default) or a tuple.

        Returns
        -------
        BgaMnerModelOutput
            Text states, and what the stages sampled and generated.

        Raises
        ------
        ValueError
            If texts are too long, pictures have the wrong size, or shapes don't fit together.
        """
        config = self.config
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either input_ids or inputs_embeds, and not both.")
        given: torch.Tensor = inputs_embeds if input_ids is None else input_ids
        batch, length = given.shape[:2]
        if length > longest_text(config.text_config):
            raise ValueError(
                f"The text encoder takes at most {longest_text(config.text_config)} tokens, but a text has {length}. "
                "Let the processor truncate, or use bga_mner.predict, which annotates long texts in windows."
            )
        source = visual_source or config.visual_source
        if source not in ("generated", "real", "none"):
            raise ValueError(f"visual_source must be 'generated', 'real' or 'none', but is {source!r}.")
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
        if pixel_values is not None:
            picture_mask = self._check_pictures(pixel_values, picture_mask, batch)
            # what stands in the place of a missing picture may be anything, and must not reach a gradient
            pixel_values = pixel_values.masked_fill(~picture_mask[:, None, None, None], 0)
            vision = self._run_vision(pixel_values, attended, padding_mask, length)

        inputs = TextInputs(input_ids, token_type_ids, position_ids, inputs_embeds, attended, padding_mask)
        shown = replaced if config.replaced_entities_read == "real" else None
        aligned = use_real = picture_mask
        if source != "real":
            use_real = None
        if shown is not None and vision is not None:
            use_real = shown.chosen & picture_mask
            # their words aren't what the picture shows
            aligned = picture_mask & ~shown.chosen
            inputs = inputs._replace(input_ids=shown.input_ids)
        reads = self.text_branch.projections is not None and source != "none"
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        text = self._run_text(
            inputs,
            generate=reads or vision is not None,
            read=lambda stage, generated: self._visual_features(stage, generated, vision, use_real) if reads else None,
            output_hidden_states=bool(output_hidden_states),
        )
        reconstruction_loss = cycle_loss = None
        if vision is not None:
            reconstruction_loss, cycle_loss = alignment_losses(
                config, text, vision, self.text_branch.generator, self.vision_branch.generator, aligned, padding_mask
            )
        keep_loss = None
        if config.keep_budget < 1 and self.training:
            keep_loss = self._keep_loss(text, vision, padding_mask, picture_mask)
        if replaced is not None and shown is None:
            text.last = self._read_again(inputs, replaced, text)

        output = BgaMnerModelOutput(
            last_hidden_state=text.last,
            vision_last_hidden_state=None if vision is None else vision.last,
            reconstruction_loss=reconstruction_loss,
            cycle_loss=cycle_loss,
            keep_loss=keep_loss,
            generated_vision=tuple(text.generated) or None,
            generated_text=None if vision is None else (tuple(vision.generated) or None),
            text_keep_masks=tuple(text.keep_masks),
            vision_keep_masks=None if vision is None else tuple(vision.keep_masks),
            hidden_states=tuple(text.hidden_states) if output_hidden_states else None,
        )
        return output if return_dict is not False else output.to_tuple()

    def _check_pictures(
        self, pixel_values: torch.Tensor, picture_mask: torch.Tensor | None, batch: int
    ) -> torch.Tensor:
        side = self.config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[0] != batch or pixel_values.shape[-2:] != (side, side):
            raise ValueError(
                f"pixel_values must have the shape (batch, channels, image_size, image_size) = ({batch}, 3, {side}, "
                f"{side}), but have {tuple(pixel_values.shape)}. Let the processor make them, with pictures of "
                "config.image_size pixels; a sentence without a picture takes zeros and picture_mask=False."
            )
        if picture_mask is None:
            return torch.ones(batch, dtype=torch.bool, device=pixel_values.device)
        if picture_mask.shape != (batch,):
            raise ValueError(
                f"picture_mask must have the shape (batch,) = ({batch},), but has {tuple(picture_mask.shape)}."
            )
        return picture_mask.to(torch.bool)

    def _run_vision(
        self, pixel_values: torch.Tensor, attended: torch.Tensor, padding_mask: torch.Tensor | None, length: int
    ) -> BranchTrace:
        states = embed_pictures(self.vision_encoder, pixel_values)
        class_token_mask = None
        if self.config.has_vision_class_token:
            class_token_mask = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
            class_token_mask[:, 0] = True
        text_bias = padding_bias(padding_mask, states.dtype)

        def read(stage: int, generated: torch.Tensor | None) -> ReadFeatures | None:
            return None if generated is None else ReadFeatures(generated, text_bias)

        trace = self.vision_branch(
            self.vision_encoder, states, None, class_token_mask, length, text_bias, generate=True, read=read
        )
        trace.last = final_norm(self.vision_encoder, trace.last)
        return trace

    def _run_text(
        self,
        inputs: TextInputs,
        generate: bool,
        read: Callable[[int, torch.Tensor | None], ReadFeatures | None],
        output_hidden_states: bool = False,
    ) -> BranchTrace:
        attended = inputs.attended
        return self.text_branch(
            self.text_encoder,
            embed_text(self.text_encoder, inputs),
            inputs.padding_mask,
            # the first attended position, wherever padding puts it
            attended & (attended.cumsum(dim=1) == 1),
            self.config.num_vision_tokens,
            None,
            generate=generate,
            read=read,
            output_hidden_states=output_hidden_states,
        )

    def _keep_loss(
        self,
        text: BranchTrace,
        vision: BranchTrace | None,
        padding_mask: torch.Tensor | None,
        picture_mask: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Price what the last stages keep beyond the budget, summed over modalities."""
        losses = []
        if self.text_branch.samplers is not None:
            losses.append(keep_budget_loss(text.keep_masks[-1], padding_mask, self.config.keep_budget).mean())
        if self.vision_branch.samplers is not None and vision is not None:
            excess = keep_budget_loss(vision.keep_masks[-1], None, self.config.keep_budget)
            losses.append(mean_over_batch([excess], picture_mask))
        return torch.stack(losses).sum() if losses else None

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
            generate=False,
            read=lambda stage, _: ReadFeatures(text.generated[stage][rows].detach(), None) if text.generated else None,
        )
        return text.last.index_copy(0, rows, again.last)

    def _visual_features(
        self, stage: int, generated: torch.Tensor | None, vision: BranchTrace | None, use_real: torch.Tensor | None
    ) -> ReadFeatures | None:
        """Choose, sentence by sentence, between generated and real visual features of a stage."""
        if use_real is None or vision is None:
            return None if generated is None else ReadFeatures(generated, None)
        real, real_bias = vision.target(stage, self.config.visual_target), vision.keep_biases[stage]
        if generated is None:
            # nothing to fall back to: a sentence without a picture reads nothing
            hidden = torch.full_like(real_bias, torch.finfo(real_bias.dtype).min)
            return ReadFeatures(real, torch.where(use_real[:, None], real_bias, hidden))
        return ReadFeatures(
            torch.where(use_real[:, None, None], real, generated),
            torch.where(use_real[:, None], real_bias, 0.0),
        )


class BgaMnerForTokenClassification(BgaMnerPreTrainedModel):
    """BGA-MNER with tag scores and a CRF: named entities of texts, learned with or without pictures.

    Parameters
    ----------
    config : BgaMnerConfig
        Configuration; `id2label` names the tags.
    """

    # The CRF's scores add up over a sentence: half precision would lose its rare transitions.
    _keep_in_fp32_modules_strict = ["crf"]  # noqa: RUF012 - transformers' convention

    def __init__(self, config: BgaMnerConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bga_mner = BgaMnerModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.text_config.hidden_size, config.num_labels)
        constraints = bio_constraints(config.id2label) if config.constrain_transitions else (None, None)
        self.crf = ConditionalRandomField(config.num_labels, *constraints)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the text encoder's token embeddings."""
        return self.bga_mner.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text encoder's token embeddings."""
        self.bga_mner.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        picture_mask: torch.BoolTensor | None = None,
        labels: torch.LongTensor | None = None,
        word_start_mask: torch.BoolTensor | None = None,
        visual_source: str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BgaMnerTokenClassifierOutput | tuple[torch.Tensor, ...]:
        """Tag texts, and compute the loss of what there are labels and pictures for.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, pixel_values, picture_mask,
        visual_source, output_hidden_states, return_dict
            As in [`BgaMnerModel.forward`].
        labels : torch.LongTensor of shape (batch, length), optional
            Tag ids; -100 where the tag is unknown, and at padding. A sentence without any known tag adds nothing to
            the CRF loss; a partly known one is trained on what is known.
        word_start_mask : torch.BoolTensor of shape (batch, length), optional
            True at the first subword of each word; elsewhere `predictions` are -100, for scores by word.

        Returns
        -------
        BgaMnerTokenClassifierOutput
            Loss and its parts, tag scores, and in evaluation the most probable tag path.

        Raises
        ------
        ValueError
            As in [`BgaMnerModel.forward`], and if labels don't fit the texts or lie outside the tags.
        """
        replaced = None
        if self.training and labels is not None and self.config.entity_replacement_probability > 0:
            replaced = replace_entities(self.config, input_ids, labels, pixel_values, picture_mask)
        outputs = self.bga_mner(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            picture_mask=picture_mask,
            replaced=replaced,
            visual_source=visual_source,
            output_hidden_states=output_hidden_states,
        )
        emissions = self.classifier(self.dropout(outputs.last_hidden_state))  # (batch, length, tags)
        shape = emissions.shape[:2]
        if attention_mask is None:
            mask = torch.ones(shape, dtype=torch.bool, device=emissions.device)
        else:
            mask = attention_mask.to(torch.bool)

        crf_loss = None if labels is None else self.crf(emissions, labels, mask).mean()
        loss = None
        for part, weight in (
            (crf_loss, 1.0),
            (outputs.reconstruction_loss, self.config.reconstruction_weight),
            (outputs.cycle_loss, self.config.cycle_weight),
            (outputs.keep_loss, self.config.keep_budget_weight),
        ):
            if part is not None:
                loss = weight * part if loss is None else loss + weight * part

        logits, predictions = emissions, None
        if not self.training:
            logits = self.crf.log_marginals(emissions, mask)
            predictions = self.crf.decode(emissions, mask)
            if word_start_mask is not None:
                predictions = predictions.masked_fill(~word_start_mask.to(torch.bool), -100)

        output = BgaMnerTokenClassifierOutput(
            loss=loss,
            logits=logits,
            predictions=predictions,
            emissions=emissions,
            crf_loss=crf_loss,
            reconstruction_loss=outputs.reconstruction_loss,
            cycle_loss=outputs.cycle_loss,
            keep_loss=outputs.keep_loss,
            vision_last_hidden_state=outputs.vision_last_hidden_state,
            generated_vision=outputs.generated_vision,
            generated_text=outputs.generated_text,
            text_keep_masks=outputs.text_keep_masks,
            vision_keep_masks=outputs.vision_keep_masks,
            hidden_states=outputs.hidden_states,
        )
        return output if return_dict is not False else output.to_tuple()


__all__ = ["BgaMnerForTokenClassification", "BgaMnerModel", "BgaMnerPreTrainedModel"]
