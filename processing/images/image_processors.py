"""The image processor that goes with a vision encoder's name."""

from typing import Any

from transformers import AutoImageProcessor, ViTImageProcessorPil
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_processing_utils import BaseImageProcessor

from ...modeling_bga.encoders.open_clip import is_open_clip_name, open_clip_image_processor
from .square_images import squaring_processor


def load_image_processor(name: str, **options: Any) -> BaseImageProcessor:
    """Load the image processor of a vision encoder.

    Parameters
    ----------
    name : str
        What `from_text_vision_pretrained` takes for `vision`: folder, Hub name, or `open_clip:<model>/<tag>`.
    **options
        What to change of it, such as `size`.

    Returns
    -------
    transformers.BaseImageProcessor
        For [`BgaMnerProcessor`]. In place of one that makes no squares (SigLIP2's for NaFlex) or can't be saved
        (timm's) a stock one with the same colours.

    Raises
    ------
    OSError
        If a folder or a repository has none.
    ImportError
        If it needs a library that isn't installed, as timm's needs torchvision.
    ValueError
        If an open_clip model isn't known, or can't be used, or timm's image processor can't be replaced.

    Examples
    --------
    >>> load_image_processor("open_clip:ViT-B-32/laion2b_s34b_b79k").crop_size["height"]  # doctest: +SKIP
    224
    """
    if is_open_clip_name(name):
        image_processor = open_clip_image_processor(name)
    else:
        try:
            found = AutoImageProcessor.from_pretrained(name, **options)
        except (ImportError, ValueError):  # of a missing library
            settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
            if not str(settings.pop("image_processor_type", "")).startswith("DINOv3ViT"):
                raise
            # DINOv3's runs on torchvision alone; without it, the same but for the rounding of what is resized
            found = ViTImageProcessorPil.from_dict({**settings, **options})
        image_processor = squaring_processor(found)
        if image_processor is found:
            return found
    return type(image_processor).from_dict({**image_processor.to_dict(), **options}) if options else image_processor


__all__ = ["load_image_processor"]
