"""Stock image processors that make squares, in place of those that don't, or can't be saved."""

import math
from typing import Any

from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import PILImageResampling

from ...configuration.errors import shown


def squaring_processor(image_processor: Any) -> BaseImageProcessor | None:
    """Replace SigLIP2's image processor for NaFlex, and timm's; any other comes back as it is.

    In place of NaFlex's: one that makes squares of as many patches, with the same colours. In place of timm's, which
    makes torch tensors alone and isn't saved: one with the same size, crop and colours.
    """
    if "input_size" in (getattr(image_processor, "data_config", None) or ()):
        return _replacement_of_timm(image_processor.data_config)
    if "spatial_shapes" not in getattr(image_processor, "model_input_names", ()):
        return image_processor
    side = math.isqrt(image_processor.max_num_patches) * image_processor.patch_size
    names = ("do_resize", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    options = {name: getattr(image_processor, name) for name in names}
    return SiglipImageProcessorPil(size={"height": side, "width": side}, **options)


def _replacement_of_timm(timm: dict[str, Any]) -> CLIPImageProcessorPil:
    """Make an image processor that does what timm does in evaluation with this configuration."""
    height, width = timm["input_size"][-2:]
    mode = timm.get("crop_mode") or "center"
    if height != width or mode not in ("center", "squash"):
        raise ValueError(
            "Expected an image processor of timm that makes squares without padding, got input_size="
            f"{shown(tuple(timm['input_size']))} and crop_mode={shown(mode)}. Correct pretrained_cfg in its "
            "config.json."
        )
    # timm makes images larger, by a share that is then cut off
    edge = math.floor(height / (timm.get("crop_pct") or 0.875))
    resample = getattr(PILImageResampling, str(timm.get("interpolation") or "bilinear").upper())
    return CLIPImageProcessorPil(
        size={"height": edge, "width": edge} if mode == "squash" else {"shortest_edge": edge},
        crop_size={"height": height, "width": width},
        resample=resample,
        image_mean=list(timm["mean"]),
        image_std=list(timm["std"]),
    )


__all__ = ["squaring_processor"]
