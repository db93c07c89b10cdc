"""The tagger: BGA-MNER with tag scores and a CRF on top."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..configuration.configuration_bga_mner import BgaMnerConfig
from ..configuration.errors import shown
from .alignment.context_hiding import hide_context
from .alignment.entity_replacement import replace_entities
from .alignment.losses import total_loss
from .crf.crf import ConditionalRandomField, bio_constraints, is_recorded
from .crf.span_probabilities import Span, span_log_probabilities
from .modeling_bga_mner import BgaMnerModel
from .outputs import BgaMnerTokenClassifierOutput, head_output
from .pretrained_model import BgaMnerPreTrainedModel
from .training.objective_check import watch_objective


_NOT_THE_CRF_LOSS = (
    "Expected a training on the model's loss (outputs.loss, with labels passed to the model), got one on "
    "outputs.logits alone: it leaves out the CRF, which tags, and the images. Set label_smoothing_factor=0 and leave "
    "compute_loss_func out. In a compute_loss of your own pass the labels to the model, and add to outputs.loss what "
    "you like. To train tag scores without a CRF all the same, compute the loss from outputs.emissions."
)


class BgaMnerForTokenClassification(BgaMnerPreTrainedModel):
    """BGA-MNER with tag scores and a CRF: named entities of texts, learned with or without images."""

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
        labels: torch.LongTensor | None = None,
        word_start_mask: torch.BoolTensor | None = None,
        visual_source: str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BgaMnerTokenClassifierOutput | tuple[Tensor, ...]:
        """Tag texts, and compute the loss of what there are labels and images for.

        Inputs that aren't listed are those of [`BgaMnerModel.forward`].

        Parameters
        ----------
        labels : torch.LongTensor of shape (batch, length), optional
            Tag ids; -100 where the tag is unknown, and at padding. A sentence without any known tag adds nothing to
            the CRF loss; a partly known one is trained on what is known.
        word_start_mask : torch.BoolTensor of shape (batch, length), optional
            True at the first subword of each word; elsewhere `predictions` are -100, for scores by word.
        """
        replaced = None
        has_images = pixel_values is not None or vision_states is not None
        if self.training and labels is not None and self.config.entity_replacement_probability > 0:
            entity = (labels != -100) & (labels != self.config.label2id.get("O", -100))
            replaced = replace_entities(self.config, input_ids, entity, has_images, image_mask)
        texts = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        if self.training and has_images and self.config.context_hiding_probability > 0:
            attention_mask = self._hide_context(texts, labels, word_start_mask, image_mask)
            texts = (input_ids, attention_mask, *texts[2:])
        images = (pixel_values, image_mask, vision_states)
        asked = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        outputs = self.bga_mner(*texts, *images, replaced=replaced, visual_source=visual_source, **asked)
        emissions = self.classifier(self.dropout(outputs.last_hidden_state))  # (batch, length, tags)
        shape = emissions.shape[:2]
        _check_shape("labels", labels, shape)
        _check_shape("word_start_mask", word_start_mask, shape)
        if attention_mask is None:
            attention_mask = torch.ones(shape, device=emissions.device)
        mask = attention_mask.to(torch.bool)
        crf_loss = None if labels is None else self.crf(emissions, labels, mask).mean()
        loss = total_loss(self.config, crf_loss, outputs)
        if self.training:
            unlabelled = loss if labels is None else None
            needed = [] if labels is None else [loss, crf_loss]
            logits, predictions = watch_objective(emissions, needed, _NOT_THE_CRF_LOSS, unlabelled), None
        else:
            logits, predictions = self._tag(emissions, mask, word_start_mask)
        own = {"loss": loss, "logits": logits, "predictions": predictions, "emissions": emissions, "crf_loss": crf_loss}
        output = head_output(BgaMnerTokenClassifierOutput, outputs, **own)
        return output if return_dict is not False else output.to_tuple()

    def _hide_context(
        self,
        texts: tuple[Tensor | None, ...],
        labels: Tensor | None,
        word_start_mask: Tensor | None,
        image_mask: Tensor | None,
    ) -> Tensor | None:
        """Hide words around the entities of pairs; return what is attended: the texts without these words.

        Entities are those of the labels or, in texts without any known tag, those that the model finds. Of pairs with
        labels, which also have to teach where entities stand, half as many are sampled.
        """
        input_ids, attention_mask, *_, inputs_embeds = texts
        given = inputs_embeds if input_ids is None else input_ids
        if given is None:
            return attention_mask  # refused by the base model
        _check_shape("labels", labels, given.shape[:2])
        attended = torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
        if attention_mask is not None:
            attended = attention_mask.to(torch.bool)
        known = torch.zeros_like(attended[:, 0]) if labels is None else (labels != -100).any(dim=1)
        share = self.config.context_hiding_probability * torch.where(known, 0.5, 1.0)
        sampled = torch.rand(len(attended), device=attended.device) < share
        if image_mask is not None and image_mask.shape == sampled.shape:  # others are refused by the base model
            sampled = sampled & image_mask.to(torch.bool)
        outside = self.config.label2id.get("O", -1)
        entity = torch.zeros_like(attended) if labels is None else (labels != -100) & (labels != outside)
        # processes that share layers have to run the same ones
        if (sampled & ~known).any() or (torch.distributed.is_available() and torch.distributed.is_initialized()):
            with torch.no_grad():
                tags = self.classifier(self.bga_mner(*texts).last_hidden_state).argmax(dim=-1)
            # older versions of autocast would hand what they cast here, without its gradient, to the next forward
            torch.clear_autocast_cache()
            entity = torch.where(known[:, None], entity, tags != outside)
        return attended & ~hide_context(attended, sampled, entity, word_start_mask)

    def _tag(self, emissions: Tensor, mask: Tensor, word_start_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return log marginals (batch, length, tags) and the most probable tags (batch, length), -100 where masked."""
        if is_recorded():
            log_marginals, predictions = self.crf.recorded(emissions, mask)
        else:
            log_marginals, predictions = self.crf.log_marginals(emissions, mask), self.crf.decode(emissions, mask)
        if word_start_mask is not None:
            predictions = predictions.masked_fill(~word_start_mask.to(torch.bool), -100)
        return log_marginals, predictions

    @torch.no_grad()
    def span_probabilities(
        self,
        emissions: Tensor,
        attention_mask: Tensor,
        spans: Sequence[Span | tuple[int, str, int, int]],
        word_start_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute how probable it is, under the CRF, that exactly these tokens are an entity of this type: (spans,).

        Paths of tags are read as `spans_from_tags` reads them. Probabilities of spans that exclude each other (the same
        one under two types, or two that overlap) add up to at most 1. They are exact, in float64, without gradient.

        Parameters
        ----------
        emissions : torch.FloatTensor of shape (batch, length, tags)
            `emissions` of the model's output.
        attention_mask : torch.BoolTensor or LongTensor of shape (batch, length)
            0 at padding.
        spans : sequence of (sentence, type, first, end)
            Row of the batch, type such as "PER", first token, and the one after the last token.
        word_start_mask : torch.BoolTensor of shape (batch, length), optional
            True at the first token of each word: only the tags there are read. Without it all tokens are read.
        """
        _check_shape("attention_mask", attention_mask, emissions.shape[:2])
        mask = attention_mask.bool().cpu().numpy()
        read = np.ones_like(mask) if word_start_mask is None else word_start_mask.bool().cpu().numpy()
        labels = [str(self.config.id2label[number]) for number in range(self.num_labels)]
        scores = emissions.detach().cpu().double().numpy()
        entities = [Span(*span) for span in spans]
        found = span_log_probabilities(scores, mask, read, entities, labels, self.crf.numpy_scores())
        return torch.from_numpy(np.exp(found))


def _check_shape(name: str, given: Tensor | None, shape: torch.Size) -> None:
    if given is not None and given.shape != shape:
        raise ValueError(
            f"Expected {name} of the shape (batch, length) = {shown(tuple(shape))} of the tokens that were read, got "
            f"{tuple(given.shape)}. In place of virtual tokens, as in prompt tuning, use bga_mner.lora_config."
        )


__all__ = ["BgaMnerForTokenClassification"]
