"""BERT and three vision transformers written out in float64, one sentence or image at a time, for the reference.

Nothing here is padded, batched or split into heads by a view: what is hidden in the model doesn't exist here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedConfig


class Weights:
    """The weights below one name of a state dict."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str = "") -> None:
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name: str | int) -> Weights:
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def tensor(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]

    def has(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def __bool__(self) -> bool:
        return any(name.startswith(self.prefix) for name in self.tensors)


class Read(NamedTuple):
    """What a layer reads beside its own tokens: features (count, width), and what is added to their scores (count)."""

    features: Tensor
    bias: Tensor


def linear(weights: Weights, states: Tensor) -> Tensor:
    result = states @ weights.tensor("weight").T
    return result + weights.tensor("bias") if weights.has("bias") else result


def normalize(states: Tensor, eps: float = 1e-5) -> Tensor:
    centred = states - states.mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + eps)


def layer_norm(weights: Weights, states: Tensor, eps: float = 1e-5) -> Tensor:
    return normalize(states, eps) * weights.tensor("weight") + weights.tensor("bias")


def gelu(states: Tensor) -> Tensor:
    return states * (1 + torch.erf(states / math.sqrt(2))) / 2


def attention(queries: Tensor, keys: Tensor, values: Tensor, heads: int, bias: Tensor) -> Tensor:
    """Read `values` (n, width) with `queries` (m, width), head by head; `bias` (n) or (m, n) is added to the scores."""
    width = queries.shape[1] // heads
    read = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = queries[:, own] @ keys[:, own].T / math.sqrt(width) + bias
        read.append(torch.softmax(scores, dim=1) @ values[:, own])
    return torch.cat(read, dim=1)


def hybrid_attention(
    query: Weights, key: Weights, value: Weights, states: Tensor, read: Read | None, heads: int
) -> Tensor:
    """Attend as a layer does: queries from its own tokens, keys and values from these and from what it reads beside."""
    source, bias = states, torch.zeros(len(states), dtype=states.dtype)
    if read is not None:
        source, bias = torch.cat([states, read.features]), torch.cat([bias, read.bias])
    return attention(linear(query, states), linear(key, source), linear(value, source), heads, bias)


def embed_bert(weights: Weights, config: PreTrainedConfig, words: Tensor, types: Tensor, places: Tensor) -> Tensor:
    """Embed a sentence: word embeddings (length, width), type and position ids (length)."""
    part = weights["embeddings"]
    states = words + part.tensor("token_type_embeddings.weight")[types]
    states = states + part.tensor("position_embeddings.weight")[places]
    return layer_norm(part["LayerNorm"], states, config.layer_norm_eps)


def bert_layer(weights: Weights, config: PreTrainedConfig, states: Tensor, read: Read | None) -> Tensor:
    own, after = weights["attention"]["self"], weights["attention"]["output"]
    heads, eps = config.num_attention_heads, config.layer_norm_eps
    attended = hybrid_attention(own["query"], own["key"], own["value"], states, read, heads)
    states = layer_norm(after["LayerNorm"], states + linear(after["dense"], attended), eps)
    widened = gelu(linear(weights["intermediate"]["dense"], states))
    return layer_norm(weights["output"]["LayerNorm"], states + linear(weights["output"]["dense"], widened), eps)


# The three differ in names, in the activation, and in what stands before and behind the layers.
_CLIP_LAYER = ("layer_norm1", "self_attn", "out_proj", "layer_norm2")
_VISION_NAMES = {
    "clip_vision_model": ("encoder", "embeddings.patch_embedding", _CLIP_LAYER),
    "siglip_vision_model": ("encoder", "embeddings.patch_embedding", _CLIP_LAYER),
    "vit": (
        None,
        "embeddings.patch_embeddings.projection",
        ("layernorm_before", "attention", "o_proj", "layernorm_after"),
    ),
}


def embed_image(weights: Weights, config: PreTrainedConfig, image: Tensor) -> Tensor:
    """Embed an image (3, side, side): class token, if there is one, and patches row by row."""
    patch, kind = config.patch_size, config.model_type
    place = weights[_VISION_NAMES[kind][1]]
    kernel = place.tensor("weight")  # (width, 3, patch, patch)
    states = []
    if kind != "siglip_vision_model":
        name = "embeddings.class_embedding" if kind == "clip_vision_model" else "embeddings.cls_token"
        states.append(weights.tensor(name).flatten())
    for row in range(0, image.shape[1], patch):
        for column in range(0, image.shape[2], patch):
            cut = image[:, row : row + patch, column : column + patch]
            shown = (kernel * cut).sum(dim=(1, 2, 3))
            states.append(shown + place.tensor("bias") if place.has("bias") else shown)
    positions = "embeddings.position_embeddings" if kind == "vit" else "embeddings.position_embedding.weight"
    embedded = torch.stack(states) + weights.tensor(positions).view(len(states), -1)
    if kind == "clip_vision_model":
        embedded = layer_norm(weights["pre_layrnorm"], embedded, config.layer_norm_eps)
    return embedded


def vision_layer(weights: Weights, config: PreTrainedConfig, index: int, states: Tensor, read: Read | None) -> Tensor:
    above, _, (before_attention, attending, output, before_mlp) = _VISION_NAMES[config.model_type]
    part = (weights if above is None else weights[above])["layers"][index]
    own, eps = part[attending], config.layer_norm_eps
    normed = layer_norm(part[before_attention], states, eps)
    heads = config.num_attention_heads
    attended = hybrid_attention(own["q_proj"], own["k_proj"], own["v_proj"], normed, read, heads)
    states = states + linear(own[output], attended)
    widened = linear(part["mlp"]["fc1"], layer_norm(part[before_mlp], states, eps))
    return states + linear(part["mlp"]["fc2"], vision_activation(config, widened))


def vision_activation(config: PreTrainedConfig, states: Tensor) -> Tensor:
    if config.model_type == "clip_vision_model":
        return states * torch.sigmoid(1.702 * states)
    if config.model_type == "siglip_vision_model":
        return F.gelu(states, approximate="tanh")
    return gelu(states)


def vision_final_norm(weights: Weights, config: PreTrainedConfig, states: Tensor) -> Tensor:
    name = {"vit": "layernorm", "siglip_vision_model": "post_layernorm"}.get(config.model_type)
    return states if name is None else layer_norm(weights[name], states, config.layer_norm_eps)
