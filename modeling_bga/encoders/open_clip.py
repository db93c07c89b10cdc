"""Vision towers of open_clip, as the CLIP encoders that transformers knows.

A name `open_clip:ViT-B-32/laion2b_s34b_b79k` stands for a model and a tag of its weights, or a file of them. open_clip
is asked what the model is like and where its weights are; the encoder is transformers' own, with the same results, and
what is saved of it needs open_clip no more.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel
from transformers.image_utils import PILImageResampling

from ...configuration.errors import brief, shown


OPEN_CLIP = "open_clip:"
"""What the name of an open_clip model begins with."""

# What its towers may have beyond a size; anything else computes something that CLIP doesn't.
_SIZES = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"}
_HARMLESS = {
    "patch_dropout",  # in open_clip's own training only
    "output_tokens",
    "timm_model_pretrained",
    "attn_pooler_queries",
    "attn_pooler_heads",
}
_MODULES = {
    "conv1": "embeddings.patch_embedding",
    "ln_pre": "pre_layrnorm",  # transformers' spelling
    "ln_post": "post_layernorm",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")


class _Source(NamedTuple):
    """What open_clip knows of a name: the model's configuration, and what its tag says, which is empty for a file."""

    name: str
    weights: str
    model: Mapping[str, Any]
    tag: Mapping[str, Any]


def is_open_clip_name(name: Any) -> bool:
    """Say whether a name stands for a model of open_clip.

    Examples
    --------
    >>> is_open_clip_name("open_clip:ViT-B-32/laion2b_s34b_b79k"), is_open_clip_name("openai/clip-vit-base-patch32")
    (True, False)
    """
    return isinstance(name, str) and name.startswith(OPEN_CLIP)


def open_clip_config(name: str) -> CLIPVisionConfig:
    """Make the configuration of an open_clip model's vision tower, of the same sizes; nothing is downloaded.

    `name` is `open_clip:<model>/<tag>`, or `open_clip:<model>/<file>` with a file of weights (safetensors, or a pickle
    of tensors alone). Where a tag's weights were trained with quick GELU, that is what is used; open_clip itself only
    warns of models whose name says otherwise. ValueError if open_clip can't be imported, the model or the tag is
    unknown, or the tower isn't a plain vision transformer.
    """
    source = _find(name)
    vision = source.model["vision_cfg"]
    if reason := _why_not_clip(vision):
        raise ValueError(
            "Expected an open_clip model whose vision tower is a plain CLIP vision transformer, but that of "
            f"{shown(name)} {reason}. Take a ViT such as open_clip:ViT-B-32/laion2b_s34b_b79k; "
            "docs/reference/encoders.md lists other ways to convolutional and SigLIP encoders."
        )
    width = vision.get("width", 768)
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=int(width * vision.get("mlp_ratio", 4.0)),
        num_hidden_layers=vision.get("layers", 12),
        num_attention_heads=width // vision.get("head_width", 64),
        image_size=vision.get("image_size", 224),
        patch_size=vision.get("patch_size", 16),
        hidden_act="quick_gelu" if source.model.get("quick_gelu") or source.tag.get("quick_gelu") else "gelu",
        layer_norm_eps=1e-5,
        projection_dim=source.model["embed_dim"],
    )


def load_open_clip_encoder(name: str, config: CLIPVisionConfig | None = None) -> CLIPVisionModel:
    """Load the vision tower of an open_clip model, in evaluation mode and float32, without the projection.

    The weights of a tag are downloaded by open_clip, into the cache of the Hub. `config` is by default what
    `open_clip_config` makes. ValueError also if the file holds more than tensors, or other ones than the model has.
    """
    encoder = CLIPVisionModel(open_clip_config(name) if config is None else config)
    weights = _clip_weights(_read_weights(_find(name)))
    own = encoder.state_dict()
    differing = sorted(
        key for key in own.keys() | weights.keys() if key not in own or own[key].shape != _shape(weights, key)
    )
    if differing:
        key = differing[0]
        raise ValueError(
            f"Expected the weights of {shown(name)} to fit its model, but {len(differing)} don't, such as {key}: the "
            f"model has {_shape(own, key) or 'none'}, the file {_shape(weights, key) or 'none'}. Name the model that "
            "the weights are of."
        )
    encoder.load_state_dict(weights)
    return encoder.eval()


def open_clip_image_processor(name: str) -> CLIPImageProcessorPil:
    """Make the image processor of an open_clip model, as its weights were trained; nothing is downloaded.

    A file of weights doesn't say how images were prepared, and gets CLIP's ways.
    """
    side = open_clip_config(name).image_size
    tag = _find(name).tag
    square = {"height": side, "width": side}
    # the other way that open_clip has, "longest", goes with no tag of a vision transformer
    crops = tag.get("resize_mode", "shortest") != "squash"
    options: dict[str, Any] = {"size": {"shortest_edge": side} if crops else square, "do_center_crop": crops}
    for ours, theirs in (("image_mean", "mean"), ("image_std", "std")):
        if theirs in tag:
            options[ours] = list(tag[theirs])
    bilinear = tag.get("interpolation") == "bilinear"
    resample = PILImageResampling.BILINEAR if bilinear else PILImageResampling.BICUBIC
    return CLIPImageProcessorPil(crop_size=square, resample=resample, **options)


def _import_open_clip() -> Any:
    try:
        import open_clip
        import open_clip.factory
    except (ImportError, RuntimeError) as error:  # torchvision raises the latter where it doesn't fit to torch
        raise ValueError(
            f"Expected open_clip, since the name of a vision encoder begins with {OPEN_CLIP!r}, but it can't be "
            f"imported ({brief(error)}). Run: pip install open_clip_torch torchvision, the latter in the build (CPU "
            "or CUDA) that torch has."
        ) from error
    return open_clip


def _find(name: str) -> _Source:
    open_clip = _import_open_clip()
    model_name, _, weights = name.removeprefix(OPEN_CLIP).partition("/")
    model = open_clip.get_model_config(model_name) if ":" not in model_name else None
    if model is None:
        raise ValueError(
            f"Expected a model of open_clip in {shown(name)}, got {shown(model_name)}. "
            f"{_near(model_name, open_clip.list_models())} All: open_clip.list_models()."
        )
    tag = open_clip.get_pretrained_cfg(model_name, weights)
    if not tag and not os.path.isfile(weights):
        tags = open_clip.list_pretrained_tags_by_model(model_name)
        raise ValueError(
            f"Expected a tag of open_clip's {model_name} after the '/' of {shown(name)}, or a file of weights, got "
            f"{shown(weights or 'nothing')}. {_near(weights, tags)}"
        )
    return _Source(name, weights, model, tag)


def _near(name: str, known: Sequence[str]) -> str:
    """Name what was meant, or could be taken instead."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = [lowered[match] for match in get_close_matches(name.lower(), lowered, n=3)]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"There are {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}." if known else "It has none."


def _why_not_clip(vision: Mapping[str, Any]) -> str:
    """Say what keeps a tower from being a CLIP vision transformer; nothing if it is one."""
    if vision.get("timm_model_name"):
        return f"is timm's {vision['timm_model_name']}"
    if not isinstance(vision.get("layers", 12), int):
        return "is a ModifiedResNet, which has no layers that attend"
    if vision.get("attentional_pool"):
        return "pools by attention (attentional_pool)"
    if vision.get("no_ln_pre"):
        return "has no norm before its layers (no_ln_pre)"
    sides = (vision.get("image_size", 224), vision.get("patch_size", 16))
    if not all(isinstance(side, int) for side in sides):
        return f"reads images or patches that are not square ({sides[0]}, {sides[1]})"
    # zero, None or the default switch a setting off
    off = (None, False, 0, "", "tok", "learnable", "default")
    others = sorted(
        key for key, value in vision.items() if key not in _SIZES | _HARMLESS and not any(value == x for x in off)
    )
    return f"has {', '.join(f'{key}={vision[key]!r}' for key in others)}" if others else ""


def _read_weights(source: _Source) -> Mapping[str, torch.Tensor]:
    open_clip = _import_open_clip()
    path = open_clip.download_pretrained(source.tag) if source.tag else source.weights
    try:
        return open_clip.factory.load_state_dict(path, device="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(
            f"Expected tensors alone in the weights of {shown(source.name)}, got something else in "
            f"{shown(os.fspath(path))} ({brief(error)}). Save the state dict as safetensors."
        ) from error


def _clip_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the vision tower's weights the names that transformers has for them."""
    renamed = {}
    for key, tensor in weights.items():
        if not key.startswith("visual.") or key == "visual.proj":
            continue
        key, stem = key.removeprefix("visual."), ""
        if block := _BLOCK.fullmatch(key):
            stem, key = f"encoder.layers.{block[1]}.", block[2]
        module, _, kind = key.rpartition(".")
        if key == "class_embedding":
            renamed["embeddings.class_embedding"] = tensor
        elif key == "positional_embedding":
            renamed["embeddings.position_embedding.weight"] = tensor
        elif key.startswith("attn.in_proj_"):
            # (3 * width, ...) -> 3 times (width, ...)
            for name, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{stem}self_attn.{name}_proj.{key.removeprefix('attn.in_proj_')}"] = part
        else:
            renamed[f"{stem}{_MODULES.get(module, module)}.{kind}"] = tensor
    return renamed


def _shape(weights: Mapping[str, torch.Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(weights[key].shape) if key in weights else None


__all__ = [
    "OPEN_CLIP",
    "is_open_clip_name",
    "load_open_clip_encoder",
    "open_clip_config",
    "open_clip_image_processor",
]
