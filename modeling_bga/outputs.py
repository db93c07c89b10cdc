"""What the models return.

Each field is listed once. A dataclass takes the fields of its bases from the last base to the first, which gives the
order of the tuples that `return_dict=False` returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers.utils import ModelOutput


Output = TypeVar("Output", bound=ModelOutput)


@dataclass
class _Losses(ModelOutput):
    reconstruction_loss: torch.FloatTensor | None = None
    cycle_loss: torch.FloatTensor | None = None
    keep_loss: torch.FloatTensor | None = None


@dataclass
class _Alignment(ModelOutput):
    vision_last_hidden_state: torch.FloatTensor | None = None
    pair_match: torch.FloatTensor | None = None
    generated_vision: tuple[torch.FloatTensor, ...] | None = None
    generated_text: tuple[torch.FloatTensor, ...] | None = None
    text_keep_masks: tuple[torch.FloatTensor, ...] | None = None
    vision_keep_masks: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class _States(ModelOutput):
    last_hidden_state: torch.FloatTensor | None = None
    vision_last_hidden_state: torch.FloatTensor | None = None


@dataclass
class _TokenScores(ModelOutput):
    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    predictions: torch.LongTensor | None = None
    emissions: torch.FloatTensor | None = None
    crf_loss: torch.FloatTensor | None = None


@dataclass
class _SequenceScores(ModelOutput):
    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    classification_loss: torch.FloatTensor | None = None


@dataclass
class BgaMnerModelOutput(_Alignment, _Losses, _States):
    """Output of [`BgaMnerModel`]; what needs an image is None where the batch has none.

    Attributes
    ----------
    last_hidden_state, vision_last_hidden_state : torch.FloatTensor of shape (batch, length, hidden size)
        Text and vision states after the last layer and its norm.
    reconstruction_loss, cycle_loss : torch.FloatTensor of shape (), optional
        L_rec and L_cyc, unweighted: averaged over stages and the batch, summed over directions.
    keep_loss : torch.FloatTensor of shape (), optional
        Squared excess over `config.keep_budget`, unweighted; in training, where there is a budget.
    pair_match : torch.FloatTensor of shape (batch,), optional
        Cosine of what the last stage generates from the text and the image's features (pooled ones as one vector,
        patches by their means): low for pairs that don't belong together. 1 without an image, and where
        replaced entities read it.
    generated_vision : tuple of torch.FloatTensor of shape (batch, positions, vision width), optional
        Features that each stage generated from the text, of the shape of [`BgaMnerModel.visual_target`].
    generated_text : tuple of torch.FloatTensor of shape (batch, length, text width), optional
        Features that each stage generated from the image; one tensor where stages were sampled.
    text_keep_masks, vision_keep_masks : tuple of torch.FloatTensor of shape (batch, length), optional
        Keep mask of each stage over tokens (without images, only if layers read features) and over patches.
    hidden_states : tuple of torch.FloatTensor of shape (batch, length, text hidden size), optional
        Text embeddings and the states after each layer, if `output_hidden_states`.
    """


@dataclass
class BgaMnerTokenClassifierOutput(_Alignment, _Losses, _TokenScores):
    """Output of [`BgaMnerForTokenClassification`]; further fields as in [`BgaMnerModelOutput`].

    Attributes
    ----------
    loss : torch.FloatTensor of shape (), optional
        L_crf + alpha L_rec + beta L_cyc; of these, what the batch has labels and images for.
    logits : torch.FloatTensor of shape (batch, length, tags)
        In evaluation log posterior marginals of the tags, in float32: softmax gives probabilities. In training the
        emissions, for losses beside the model's own.
    predictions : torch.LongTensor of shape (batch, length), optional
        In evaluation the most probable tag path (Viterbi), -100 at padding and outside `word_start_mask`.
    emissions : torch.FloatTensor of shape (batch, length, tags)
        Tag scores before the CRF.
    crf_loss : torch.FloatTensor of shape (), optional
        Negative log-likelihood of the labels, unweighted.
    """


@dataclass
class BgaMnerSequenceClassifierOutput(_Alignment, _Losses, _SequenceScores):
    """Output of [`BgaMnerForSequenceClassification`]; further fields as in [`BgaMnerModelOutput`].

    Attributes
    ----------
    loss : torch.FloatTensor of shape (), optional
        L_classification + alpha L_rec + beta L_cyc; of these, what the batch has labels and images for.
    logits : torch.FloatTensor of shape (batch, labels)
        Scores of the labels; for regression, the values.
    classification_loss : torch.FloatTensor of shape (), optional
        Loss of the labels, unweighted.
    """


def head_output(kind: type[Output], outputs: BgaMnerModelOutput, **own: Any) -> Output:
    """Make the output of a head: its own fields, and those that it shares with the base model's output."""
    # not `dataclasses.fields`, which torch.compile can't follow
    shared = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
    return kind(**shared, **own)


__all__ = ["BgaMnerModelOutput", "BgaMnerSequenceClassifierOutput", "BgaMnerTokenClassifierOutput", "head_output"]
