"""What the models return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class BgaMnerModelOutput(ModelOutput):
    """Output of [`BgaMnerModel`].

    `stages` is `config.num_bga_layers`; `vision length` is `config.num_vision_tokens`. What needs a picture is None
    where the batch has none.

    Attributes
    ----------
    last_hidden_state : torch.FloatTensor of shape (batch, length, text hidden size)
        Text states after the last layer.
    vision_last_hidden_state : torch.FloatTensor of shape (batch, vision length, vision hidden size), optional
        Vision states after the last layer and its norm.
    reconstruction_loss : torch.FloatTensor of shape (), optional
        L_rec, unweighted: over stages, directions and the batch.
    cycle_loss : torch.FloatTensor of shape (), optional
        L_cyc, unweighted.
    keep_loss : torch.FloatTensor of shape (), optional
        Squared excess over `config.keep_budget`, unweighted; in training, where there is a budget.
    pair_match : torch.FloatTensor of shape (batch,), optional
        Cosine of what the last stage generates from the text and the picture's features, averaged over positions: low
        for pairs that don't belong together. 1 where it says nothing: for sentences without a picture, and for those
        whose entities are replaced.
    generated_vision : tuple of torch.FloatTensor of shape (batch, vision length, vision hidden size), optional
        Visual features that each stage generated from the text.
    generated_text : tuple of torch.FloatTensor of shape (batch, length, text hidden size), optional
        Text features that each stage generated from the picture; with `loss_stages="sampled"`, in training, a single
        tensor, whose rows are of the stages that were drawn.
    text_keep_masks : tuple of torch.FloatTensor of shape (batch, length)
        Keep mask of each stage over tokens.
    vision_keep_masks : tuple of torch.FloatTensor of shape (batch, vision length), optional
        Keep mask of each stage over patches.
    hidden_states : tuple of torch.FloatTensor of shape (batch, length, text hidden size), optional
        Text embeddings and the states after each layer, if `output_hidden_states`.
    """

    last_hidden_state: torch.FloatTensor | None = None
    vision_last_hidden_state: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    cycle_loss: torch.FloatTensor | None = None
    keep_loss: torch.FloatTensor | None = None
    pair_match: torch.FloatTensor | None = None
    generated_vision: tuple[torch.FloatTensor, ...] | None = None
    generated_text: tuple[torch.FloatTensor, ...] | None = None
    text_keep_masks: tuple[torch.FloatTensor, ...] | None = None
    vision_keep_masks: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class BgaMnerTokenClassifierOutput(ModelOutput):
    """Output of [`BgaMnerForTokenClassification`].

    Attributes
    ----------
    loss : torch.FloatTensor of shape (), optional
        L_crf + alpha L_rec + beta L_cyc; of these, what the batch has labels and pictures for.
    logits : torch.FloatTensor of shape (batch, length, tags)
        In evaluation log posterior marginals of the tags, in float32: softmax gives calibrated probabilities. In
        training the emissions, for losses beside the model's own: the backward pass of one that leaves the CRF out
        raises ValueError.
    predictions : torch.LongTensor of shape (batch, length), optional
        In evaluation the most probable tag path (Viterbi), -100 at padding and outside `word_start_mask`.
    emissions : torch.FloatTensor of shape (batch, length, tags)
        Tag scores before the CRF.
    crf_loss, reconstruction_loss, cycle_loss, keep_loss : torch.FloatTensor of shape (), optional
        The parts of the loss, unweighted.
    pair_match, generated_vision, generated_text, text_keep_masks, vision_keep_masks, vision_last_hidden_state,
    hidden_states
        As in [`BgaMnerModelOutput`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    predictions: torch.LongTensor | None = None
    emissions: torch.FloatTensor | None = None
    crf_loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    cycle_loss: torch.FloatTensor | None = None
    keep_loss: torch.FloatTensor | None = None
    vision_last_hidden_state: torch.FloatTensor | None = None
    pair_match: torch.FloatTensor | None = None
    generated_vision: tuple[torch.FloatTensor, ...] | None = None
    generated_text: tuple[torch.FloatTensor, ...] | None = None
    text_keep_masks: tuple[torch.FloatTensor, ...] | None = None
    vision_keep_masks: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class BgaMnerSequenceClassifierOutput(ModelOutput):
    """Output of [`BgaMnerForSequenceClassification`].

    Attributes
    ----------
    loss : torch.FloatTensor of shape (), optional
        L_classification + alpha L_rec + beta L_cyc; of these, what the batch has labels and pictures for.
    logits : torch.FloatTensor of shape (batch, labels)
        Scores of the labels; for regression, the values.
    classification_loss, reconstruction_loss, cycle_loss, keep_loss : torch.FloatTensor of shape (), optional
        The parts of the loss, unweighted.
    pair_match, generated_vision, generated_text, text_keep_masks, vision_keep_masks, vision_last_hidden_state,
    hidden_states
        As in [`BgaMnerModelOutput`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    classification_loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    cycle_loss: torch.FloatTensor | None = None
    keep_loss: torch.FloatTensor | None = None
    vision_last_hidden_state: torch.FloatTensor | None = None
    pair_match: torch.FloatTensor | None = None
    generated_vision: tuple[torch.FloatTensor, ...] | None = None
    generated_text: tuple[torch.FloatTensor, ...] | None = None
    text_keep_masks: tuple[torch.FloatTensor, ...] | None = None
    vision_keep_masks: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


__all__ = ["BgaMnerModelOutput", "BgaMnerSequenceClassifierOutput", "BgaMnerTokenClassifierOutput"]
