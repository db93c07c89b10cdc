"""Build a model from a pretrained text encoder and a pretrained vision encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, TypeVar

from transformers import (
    AutoConfig,
    AutoModel,
    CLIPVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2VisionModel,
    SiglipVisionModel,
)
from transformers.utils import logging

from ...configuration.arguments import check_names
from ...configuration.configuration_conv_stages import CONV_STAGES
from ...configuration.encoder_families import BACKBONE_FAMILIES
from ...configuration.errors import mismatch, shown
from ...configuration.hub.hub_names import marked_folder
from ..alignment.hybrid_attention import HYBRID_ATTENTION, register_hybrid_attention
from .conv_stages import ConvStages
from .encoder import pooler_argument, pretrained_part
from .open_clip import is_open_clip_name, load_open_clip_encoder, open_clip_config


logger = logging.get_logger(__name__)

Model = TypeVar("Model", bound=PreTrainedModel)

# Their checkpoints hold a text tower too, and AutoModel would build both.
_VISION_TOWERS = {
    "clip_vision_model": CLIPVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "siglip2_vision_model": Siglip2VisionModel,
}
_GIVEN = ("text_config", "vision_config")  # by the encoders


def build_from_encoders(
    cls: type[Model],
    text: str | PreTrainedModel,
    vision: str | PreTrainedModel,
    labels: Sequence[str] | None,
    options: dict[str, Any],
    preset: str = "default",
) -> Model:
    """Build a model of a class; see `BgaMnerPreTrainedModel.from_text_vision_pretrained`."""
    config_class: Any = cls.config_class
    # a name that is missing is taken for a method, which is no option either
    if unknown := sorted(name for name in options if name in _GIVEN or callable(getattr(config_class, name, callable))):
        # a configuration keeps whatever it is given, and saves it: a token, too
        check_names(config_class, unknown, config_class.__dataclass_fields__)
        raise ValueError(f"Expected options of BgaMnerConfig, got {shown(unknown)}. Leave them out.")
    if labels is not None:
        if isinstance(labels, str) or {"id2label", "label2id", "num_labels"} & options.keys():
            raise ValueError(
                f"Expected labels as a list, such as ['O', 'B-PER', 'I-PER'], and no other option of labels, got "
                f"{shown(labels)} and the options {shown(sorted(options))}. Pass such a list, or id2label."
            )
        options = {**options, "id2label": dict(enumerate(labels))}
    if preset not in ("default", "paper"):
        raise mismatch('the preset "default" or "paper"', preset, "Pass one of these.")
    if preset == "default":
        options = {**getattr(cls, "options_of_new", {}), **options}
    make_config = config_class.paper if preset == "paper" else config_class
    model = cls(make_config(text_config=_config_of(text), vision_config=_config_of(vision), **options))
    base: Any = getattr(model, cls.base_model_prefix, model)
    sources = {"text_encoder": text, "vision_encoder": vision}
    copied = [
        _copy_weights(name, getattr(base, name), source)
        for name, source in sources.items()
        if getattr(base, name) is not None  # as with text_only=True
    ]
    names = [name for name, _ in model.named_parameters()]
    new = {_module_name(name) for name in names if not any(f".{part}." in f".{name}" for part in copied)}
    logger.warning(
        "These weights are new and have to be trained: %s. All others come from the two encoders.",
        ", ".join(sorted(new)),
    )
    return model.eval()


def load_encoder(checkpoint: str, config: PreTrainedConfig) -> PreTrainedModel:
    """Load a pretrained encoder of a supported family from a folder, the Hub or open_clip, without a pooler."""
    if is_open_clip_name(checkpoint):
        return load_open_clip_encoder(checkpoint, config)
    if config.model_type in BACKBONE_FAMILIES:
        return AutoModel.from_pretrained(checkpoint, config=config)
    if config.model_type == CONV_STAGES:
        return ConvStages.from_pretrained(checkpoint, config=config)
    register_hybrid_attention()
    model_class = _VISION_TOWERS.get(config.model_type, AutoModel)
    options = {"config": config, "attn_implementation": HYBRID_ATTENTION, **pooler_argument(config.model_type)}
    return model_class.from_pretrained(checkpoint, **options)


def _copy_weights(name: str, encoder: PreTrainedModel, source: str | PreTrainedModel) -> str:
    """Copy a pretrained encoder's weights into a model's encoder of a name; return the module's name."""
    if pretrained_part(encoder) is not encoder and _config_of(source).model_type != encoder.config.model_type:
        # the new layers on top of a convolutional encoder are in no checkpoint
        encoder, name = pretrained_part(encoder), f"{name}.backbone"
    if isinstance(source, PreTrainedModel):
        pretrained = _encoder_in(source)
    else:
        pretrained = load_encoder(source, deepcopy(encoder.config))
    weights = pretrained.state_dict()
    if missing := encoder.state_dict().keys() - weights.keys():
        raise ValueError(
            f"Expected an encoder like {type(encoder).__name__}, got {type(source).__name__}, which lacks "
            f"{len(missing)} of its weights, such as {min(missing)}. Pass the encoder itself."
        )
    # what an encoder has beyond these, such as a pooler, is not used
    encoder.load_state_dict({key: weights[key] for key in encoder.state_dict()})
    return name


def _encoder_in(model: PreTrainedModel) -> PreTrainedModel:
    """Return the vision tower of a whole CLIP or SigLIP, the encoder below a task head, or the model itself."""
    return getattr(model, "vision_model", getattr(model, model.base_model_prefix, model))


def _config_of(source: str | PreTrainedModel) -> PreTrainedConfig:
    if not isinstance(source, str | os.PathLike | PreTrainedModel):
        raise ValueError(f"Expected an encoder as a folder, Hub name or model, got {shown(source)}. Pass one of these.")
    if is_open_clip_name(source):
        return open_clip_config(str(source))
    if not isinstance(source, PreTrainedModel):
        return AutoConfig.from_pretrained(source)
    config = deepcopy(source.config)
    config.name_or_path = marked_folder(config.name_or_path, loaded_here=False)
    return config


def _module_name(parameter_name: str) -> str:
    """Shorten a parameter's name to the first two modules below the base model."""
    return ".".join(parameter_name.removeprefix("bga_mner.").split(".")[:2]).removesuffix(".weight")


__all__ = ["build_from_encoders", "load_encoder"]
