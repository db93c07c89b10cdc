"""Learning rates by layer: low for what is general in a pretrained encoder, high for what is new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..encoders.conv_stages import ConvStages
from ..encoders.encoder import encoder_layers, final_norm_module
from ..pretrained_model import BgaMnerPreTrainedModel


def layerwise_parameter_groups(
    model: BgaMnerPreTrainedModel,
    learning_rate: float,
    decay: float = 0.9,
    new_learning_rate: float | None = None,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Sort a model's parameters into groups for an optimizer, each with its learning rate.

    The top layer of either encoder has `learning_rate`, each layer below `decay` times the rate of the one above, and
    embeddings once more. What doesn't come from a pretrained encoder has `new_learning_rate`: samplers, generators,
    projections, classifier, CRF, adapters, and the new layers on a convolutional encoder, whose own weights all have
    `learning_rate`.

    Parameters
    ----------
    model : BgaMnerPreTrainedModel
        The model.
    learning_rate : float
        Of the encoders' top layers.
    decay : float, default 0.9
        Factor from one layer to the one below, at most 1.
    new_learning_rate : float, optional
        Of all that isn't pretrained. Default: ten times `learning_rate`.
    weight_decay : float, default 0.0
        Of weight matrices; biases, norms and gates have none.

    Returns
    -------
    list of dict
        For any torch optimizer: `params`, `lr`, `weight_decay`, and `name`, which says what is in the group. Parameters
        that aren't trained are in none.

    Raises
    ------
    ValueError
        If a rate isn't positive or `decay` isn't between 0 and 1.

    Examples
    --------
    >>> from torch.optim import AdamW
    >>> groups = layerwise_parameter_groups(model, 2e-5, decay=0.9, weight_decay=0.01)  # doctest: +SKIP
    >>> trainer = Trainer(model, arguments, optimizers=(AdamW(groups), None))  # doctest: +SKIP
    """
    if not 0 < decay <= 1:
        raise ValueError(f"Expected decay above 0 and at most 1, got {decay}. Set 1 for equal rates in all layers.")
    if new_learning_rate is None:
        new_learning_rate = 10 * learning_rate
    for name, rate in (("learning_rate", learning_rate), ("new_learning_rate", new_learning_rate)):
        if rate <= 0:
            raise ValueError(f"Expected {name} above 0, got {rate}. Set requires_grad=False on weights to keep them.")
    base: Any = getattr(model, model.base_model_prefix, model)
    # from the parameter to the name and the rate of its group; what is found first counts
    placed: dict[nn.Parameter, tuple[str, float]] = {}
    for encoder_name in ("text_encoder", "vision_encoder"):
        encoder = getattr(base, encoder_name)
        if encoder is not None:
            for part, module, depth in _parts(encoder):
                for name, parameter in module.named_parameters():
                    if "lora_" in name:  # an adapter is new, though it is inside
                        continue
                    placed.setdefault(parameter, (f"{encoder_name}.{part}", learning_rate * decay**depth))
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        name, rate = placed.get(parameter, ("new", new_learning_rate))
        decays = parameter.ndim > 1
        group = groups.setdefault(
            (name, decays),
            {
                "name": name if decays else f"{name}, no weight decay",
                "params": [],
                "lr": rate,
                "weight_decay": weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def _parts(encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Module, int]]:
    """List the pretrained parts of an encoder: name, module, and how many layers lie above."""
    if isinstance(encoder, ConvStages):
        yield "backbone", encoder.backbone, 0
        return
    layers = encoder_layers(encoder)
    for index, layer in enumerate(layers):
        yield f"layer {index}", layer, len(layers) - 1 - index
    norm = final_norm_module(encoder)
    if norm is not None:
        yield "norm", norm, 0
    # what is left stands before the layers, or is shared by all of them
    yield "embeddings", encoder, len(layers)


__all__ = ["layerwise_parameter_groups"]
