"""Warn of parts that adapters of peft leave untrained, though no checkpoint has weights for them."""

from __future__ import annotations

from typing import Any

from transformers.utils import logging

from ..encoders.encoder import pretrained_part


logger = logging.get_logger(__name__)


class FrozenPartsMixin:
    """What tells that new parts are frozen; stands before `PreTrainedModel`."""

    def train(self, mode: bool = True) -> Any:
        """Set training mode, and warn if adapters of peft are on and what no checkpoint of an encoder has is frozen."""
        super().train(mode)  # type: ignore[misc]
        # peft leaves its configuration on the model that it adapts
        if mode and getattr(self, "peft_config", None) and (frozen := self._frozen_new_modules()):
            logger.warning_once(
                f"peft's adapters are trained, but these parts are frozen: {', '.join(frozen)}. No encoder's "
                "checkpoint has weights for them. Unless they were trained before, give peft the configuration of "
                "bga_mner.lora_config(model), or its modules_to_save."
            )
        return self

    def _frozen_new_modules(self) -> list[str]:
        """Name what isn't pretrained and has a weight that nothing trains, neither itself nor peft's copy of it."""
        model: Any = self
        base = getattr(model, model.base_model_prefix, model)
        encoders = [encoder for encoder in (base.text_encoder, base.vision_encoder) if encoder is not None]
        pretrained = {id(weight) for encoder in encoders for weight in pretrained_part(encoder).parameters()}
        return sorted(
            {
                ".".join(name.removeprefix("bga_mner.").split(".")[:-1][:2])
                for name, weight in model.named_parameters()
                # the original of a copy that is trained, and the layer below an adapter
                if not weight.requires_grad and not {"original_module", "base_layer"} & set(name.split("."))
                if id(weight) not in pretrained
            }
        )


__all__ = ["FrozenPartsMixin"]
