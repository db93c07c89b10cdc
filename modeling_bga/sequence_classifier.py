"""The sequence classifier: BGA-MNER with one set of label scores for a text, as for sentiment."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..configuration.configuration_bga_mner import BgaMnerConfig
from .alignment.entity_replacement import replace_entities
from .alignment.losses import total_loss
from .modeling_bga_mner import BgaMnerModel
from .outputs import BgaMnerSequenceClassifierOutput, head_output
from .pretrained_model import BgaMnerPreTrainedModel
from .sequence_loss import known_labels, problem_type, sequence_loss
from .training.objective_check import watch_objective


_NOT_THE_IMAGE_LOSS = (
    "Expected a training on the model's loss (outputs.loss), got one on outputs.logits alone: it leaves out what "
    "images teach. Set label_smoothing_factor=0 and leave compute_loss_func out. In a compute_loss of your own add "
    "outputs.loss to what you compute from the logits: called without labels, the model gives the loss of the images."
)


class BgaMnerForSequenceClassification(BgaMnerPreTrainedModel):
    """BGA-MNER with label scores for whole texts: sentiment, learned with or without images.

    The scores are read off the text's first token. To ask for the sentiment towards one of several things in a text,
    mark it: see `mark_target`.

    `config.problem_type` says what the labels are, as in transformers. Where it is None, the labels of each batch tell,
    and `save_pretrained` writes down what they were. The stock pipeline of a model in memory can't know of several
    labels per text: set `problem_type` when the model is made.
    """

    # One cross-entropy is no sum over tokens: beside a tagger's weights, it hardly counts.
    options_of_new: ClassVar = {"reconstruction_weight": 1.0, "generators_learn_from_labels": True}

    def __init__(self, config: BgaMnerConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bga_mner = BgaMnerModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.text_config.hidden_size, config.num_labels)
        self.post_init()
        # What labels were, for the stock pipeline. A set, which replicas of the model share; the configuration stays as
        # it is, so that all processes have the same.
        self._problem_types: set[Any] = {"regression"} if config.num_labels == 1 else set()

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save as every model of this package does, with the problem type that the labels showed."""
        told = self.config.problem_type
        if told is None and self._problem_types:
            (self.config.problem_type,) = self._problem_types
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.config.problem_type = told

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
        labels: Tensor | None = None,
        target_mask: torch.BoolTensor | None = None,
        visual_source: str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BgaMnerSequenceClassifierOutput | tuple[Tensor, ...]:
        """Classify texts, and compute the loss of what there are labels and images for.

        Inputs that aren't listed are those of [`BgaMnerModel.forward`].

        Parameters
        ----------
        labels : Tensor of shape (batch,) or (batch, labels), optional
            As `config.problem_type` has them: numbers of labels, a float for each label, or a value. -100 (floats: NaN)
            is unknown, and adds nothing to the loss; where none is known, -100 of shape (batch,) fits any problem type.
        target_mask : torch.BoolTensor of shape (batch, length), optional
            True at the tokens of the target that the label is about, which may be replaced in training; see
            `config.entity_replacement_probability`.
        """
        if labels is not None and problem_type(self.config, labels) == "multi_label_classification":
            self._problem_types.add("multi_label_classification")
        replaced = None
        replaces = self.training and self.config.entity_replacement_probability > 0
        if replaces and labels is not None and target_mask is not None:
            # (batch,) or (batch, labels) -> (batch, 1)
            known = known_labels(labels).view(len(labels), -1).any(dim=1, keepdim=True)
            has_images = pixel_values is not None or vision_states is not None
            target = target_mask.to(torch.bool) & known
            replaced = replace_entities(self.config, input_ids, target, has_images, image_mask)
        texts = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        images = (pixel_values, image_mask, vision_states)
        asked = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        outputs = self.bga_mner(*texts, *images, replaced=replaced, visual_source=visual_source, **asked)
        first = _first_states(outputs.last_hidden_state, attention_mask)
        logits = self.classifier(self.dropout(first))  # (batch, labels)
        classification_loss = None if labels is None else sequence_loss(self.config, logits, labels)
        loss = total_loss(self.config, classification_loss, outputs)
        of_images = [outputs.reconstruction_loss, outputs.cycle_loss, outputs.keep_loss]
        # without images any loss of the logits is as good as ours
        if self.training and any(part is not None for part in of_images):
            logits = watch_objective(logits, [loss, *of_images], _NOT_THE_IMAGE_LOSS, loss if labels is None else None)

        own = {"loss": loss, "logits": logits, "classification_loss": classification_loss}
        output = head_output(BgaMnerSequenceClassifierOutput, outputs, **own)
        return output if return_dict is not False else output.to_tuple()


def _first_states(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """States of each text's first attended position, wherever padding puts it: (batch, width)."""
    if attention_mask is None:
        return states[:, 0]
    # (batch, length) -> (batch,)
    first = attention_mask.to(torch.long).argmax(dim=1)
    return states[torch.arange(states.shape[0], device=states.device), first]


__all__ = ["BgaMnerForSequenceClassification"]
