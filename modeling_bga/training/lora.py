"""Low-rank adapters (LoRA, of the package peft) on both encoders, beside what is new and trained whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from ...configuration.errors import brief, listed, shown
from ..alignment.hybrid_attention import projection_names
from ..encoders.conv_stages import ConvStages
from ..encoders.encoder import encoder_layers
from ..pretrained_model import BgaMnerPreTrainedModel


if TYPE_CHECKING:
    from peft import LoraConfig


ENCODERS = ("text", "vision")


def lora_config(
    model: BgaMnerPreTrainedModel,
    r: int = 8,
    encoders: Sequence[str] = ENCODERS,
    **options: Any,
) -> LoraConfig:
    """Make the configuration of adapters for a model, for `peft.get_peft_model` or `model.add_adapter`.

    Adapters go on the query, key and value projections of the encoders' layers; generated features are read through
    these same projections, adapters included. What isn't pretrained is trained whole: samplers, generators, projections
    and gates, classifier and CRF, and the new layers on a convolutional encoder, which itself stays as it is.

    Parameters
    ----------
    model : BgaMnerPreTrainedModel
        The model, which isn't changed.
    r : int, default 8
        Rank of the adapters.
    encoders : sequence of {"text", "vision"}, default both
        Which get adapters; the weights of the other are frozen. A model with `text_only=True` has only the first.
    **options
        Further arguments of `peft.LoraConfig`, such as `lora_dropout`. `lora_alpha` is `2 * r` by default;
        `target_modules` replaces the projections, and `modules_to_save` what is trained whole.

    Returns
    -------
    peft.LoraConfig
        The configuration.

    Raises
    ------
    ValueError
        If peft isn't installed, an encoder has another name, or none has projections for adapters.

    Examples
    --------
    >>> from peft import get_peft_model  # doctest: +SKIP
    >>> adapted = get_peft_model(model, lora_config(model, r=8))  # doctest: +SKIP
    >>> whole = adapted.merge_and_unload()  # after training: a plain model again  # doctest: +SKIP
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ValueError(
            f"Expected peft, which makes adapters, but it can't be imported ({brief(error)}). Run: pip install peft"
        ) from error
    if unknown := sorted(set(encoders) - set(ENCODERS)):
        raise ValueError(f"Expected encoders of {ENCODERS}, got {shown(encoders)}. Leave out {listed(unknown)}.")
    base: Any = getattr(model, model.base_model_prefix, model)
    targets = []
    for kind in ENCODERS:
        encoder = getattr(base, f"{kind}_encoder")
        if kind in encoders and encoder is not None and not isinstance(encoder, ConvStages):
            names = {name for layer in encoder_layers(encoder) for part in layer.modules() for name in _names(part)}
            targets.append(rf"{kind}_encoder\..*\.({'|'.join(sorted(names))})")
    if not targets:
        raise ValueError(
            f"Expected an encoder with attention to put adapters on, but of {', '.join(map(repr, encoders)) or 'none'} "
            'this model has none. Name "text", whose encoder always has.'
        )
    defaults = {
        "lora_alpha": 2 * r,
        "target_modules": rf"(.*\.)?({'|'.join(targets)})",
        "modules_to_save": list(_new_modules(model)),
    }
    return LoraConfig(r=r, **{**defaults, **options})


def _names(module: nn.Module) -> tuple[str, ...]:
    return projection_names(module) or ()


def _new_modules(model: nn.Module, prefix: str = "") -> Iterator[str]:
    """Name the modules that no checkpoint of an encoder has weights for, each as large as peft takes it."""
    for name, child in model.named_children():
        if isinstance(child, BgaMnerPreTrainedModel | ConvStages | nn.ModuleList):  # peft takes no list as a whole
            yield from _new_modules(child, f"{prefix}{name}.")
        elif not isinstance(child, PreTrainedModel) and any(True for _ in child.parameters()):
            yield f"{prefix}{name}"


__all__ = ["lora_config"]
