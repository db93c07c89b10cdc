"""Check what a forward pass is given, and bring it into the form that the branches read."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from ..configuration.configuration_bga_mner import BgaMnerConfig
from ..configuration.errors import mismatch
from .encoders.embedding import TextInputs
from .encoders.encoder import longest_text


class ImageInputs(NamedTuple):
    """Images of a batch: as pixels, feature maps, or states; 0 in place of missing ones."""

    # (batch, channels, side, side), (batch, cells, feature channels), or (batch, stages + 1, vision tokens, width)
    values: Tensor
    present: Tensor  # (batch,), False for sentences without an image
    encoded: bool  # whether the values are states, so that the vision encoder isn't run


def check_text(
    config: BgaMnerConfig,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
) -> TextInputs:
    """Gather a batch of texts."""
    given = inputs_embeds if input_ids is None else input_ids
    if given is None or (input_ids is not None and inputs_embeds is not None):
        raise ValueError(
            f"Expected input_ids or inputs_embeds, got {'neither' if given is None else 'both'}. Pass one of the two."
        )
    batch, length = given.shape[:2]
    longest = longest_text(config.text_config)
    if length > longest:
        mend = (
            f"Lower the tokenizer's limit, where texts are cut: tokenizer.model_max_length = {longest} (that of "
            "processor.tokenizer, too, before training and saving). The stock text-classification pipeline cuts with "
            "truncation=True only. bga_mner.predict reads long texts in windows."
        )
        raise mismatch(f"texts of at most {longest} tokens, which the text encoder takes", length, mend)
    # without a mask nothing is padding, and attention is faster for knowing it
    padding_mask = attended = None if attention_mask is None else attention_mask.to(torch.bool)
    if attended is None:
        attended = torch.ones(batch, length, dtype=torch.bool, device=given.device)
    return TextInputs(input_ids, token_type_ids, position_ids, inputs_embeds, attended, padding_mask)


def check_images(
    config: BgaMnerConfig,
    pixel_values: Tensor | None,
    vision_states: Tensor | None,
    present: Tensor | None,
    attended: Tensor,
    reads: bool,
) -> ImageInputs | None:
    """Gather the images of texts (batch, length); `reads`: whether vision layers read text, so that no states fit."""
    batch = attended.shape[0]
    if config.text_only and not (pixel_values is None and vision_states is None):
        _refuse_images("pixel_values" if vision_states is None else "vision_states")
    if pixel_values is not None:
        check_pixels(config, pixel_values, batch)
        if vision_states is not None:
            raise ValueError("Expected pixel_values or vision_states, got both. Pass one of the two.")
    if vision_states is not None:
        _check_states(config, vision_states, batch, reads)
    values = pixel_values if vision_states is None else vision_states
    if values is None:
        return None
    if present is None:
        present = torch.ones(batch, dtype=torch.bool, device=values.device)
    elif present.shape != (batch,):
        expected = f"image_mask of shape (batch,) = ({batch},)"
        raise mismatch(expected, tuple(present.shape), "Give one value per sentence.")
    present = present.to(torch.bool)
    values = values.masked_fill(~present[:, None, None, None], 0)
    if vision_states is not None and values.shape[1] == 1:  # new layers run on what the backbone made
        return ImageInputs(values.squeeze(1), present, encoded=False)
    return ImageInputs(values, present, encoded=vision_states is not None)


def check_pixels(config: BgaMnerConfig, pixel_values: Tensor, batch: int) -> None:
    """Raise ValueError if images are not of shape (batch, channels, image_size, image_size)."""
    side = config.image_size
    if pixel_values.ndim != 4 or pixel_values.shape[0] != batch or pixel_values.shape[-2:] != (side, side):
        expected = f"pixel_values of shape (batch, channels, image_size, image_size) = ({batch}, 3, {side}, {side})"
        mend = "Let the processor make them; a sentence without an image takes zeros and image_mask=False."
        raise mismatch(expected, tuple(pixel_values.shape), mend)


def _check_states(config: BgaMnerConfig, vision_states: Tensor, batch: int, reads: bool) -> None:
    tokens, vision = config.num_vision_tokens, config.vision_config
    if vision_states.shape == (batch, 1, tokens, getattr(vision, "feature_channels", None)):
        return  # the layers are run, whatever they read
    if reads:
        raise ValueError(
            f"Expected pixel_values, since with hybrid_attention={config.hybrid_attention!r} the vision encoder reads "
            'generated text, got vision_states. Pass pixel_values, or set hybrid_attention="text".'
        )
    expected = (batch, config.num_stages + 1, tokens, vision.hidden_size)
    if vision_states.shape != expected:
        what = f"vision_states of shape (batch, stages + 1, vision tokens, vision width) = {expected}"
        raise mismatch(what, tuple(vision_states.shape), "Let this model's encode_images make them.")


def _refuse_images(given: str) -> NoReturn:
    expected = "texts alone, since this model has text_only=True and nothing that reads images"
    raise ValueError(f"Expected {expected}, got {given}. Leave that out, or load the whole model.")


def check_source(config: BgaMnerConfig, source: str | None, reads: bool) -> str:
    """Return what texts read; `reads` says whether layers read features at all."""
    source = source or config.visual_source
    if source not in ("generated", "real", "none"):
        raise mismatch("visual_source 'generated', 'real' or 'none'", source, "Pass one of these.")
    if config.text_only and source == "real":
        _refuse_images("visual_source='real'")
    if source == "real" and not reads:
        expected = 'layers that read features for visual_source="real"'
        raise mismatch(expected, "a model that was built without", "Leave visual_source out.")
    return source


def refuse_attentions(config: BgaMnerConfig, output_attentions: bool | None) -> None:
    """Refuse to return attention weights, which are never formed."""
    if config.output_attentions if output_attentions is None else output_attentions:
        expected = "output_attentions to be left out, as scaled_dot_product_attention forms no weights"
        mend = "What the stages read is in text_keep_masks, vision_keep_masks and generated_vision of what is returned."
        raise mismatch(expected, True, mend)


__all__ = ["ImageInputs", "check_images", "check_pixels", "check_source", "check_text", "refuse_attentions"]
