"""Image processors that make squares, in place of those that cut pictures of any shape into patches."""

from __future__ import annotations

import math
from typing import Any

from transformers import SiglipImageProcessorPil


def squaring_processor(image_processor: Any) -> Any:
    """Replace SigLIP2's image processor for NaFlex; any other comes back as it is.

    Parameters
    ----------
    image_processor : transformers image processor or None
        Any.

    Returns
    -------
    transformers image processor or None
        In place of NaFlex's: one that makes squares of as many patches, with the same colours.
    """
    if "spatial_shapes" not in getattr(image_processor, "model_input_names", ()):
        return image_processor
    side = math.isqrt(image_processor.max_num_patches) * image_processor.patch_size
    names = ("do_resize", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    options = {name: getattr(image_processor, name) for name in names}
    return SiglipImageProcessorPil(size={"height": side, "width": side}, **options)
