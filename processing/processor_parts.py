"""What a processor is made of: checked when it is made, and so in files that it was saved in."""

import math
from collections.abc import Iterable, Mapping
from inspect import signature

from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from ..configuration.arguments import check_names
from ..configuration.errors import shown
from .images.square_images import squaring_processor
from .tags.tag_lists import check_label2id


# Pixels of a side, more than any vision encoder reads. A file may ask for a million, and each image fill the memory.
MAX_SIDE = 2_048


def checked_parts(
    image_processor: BaseImageProcessor | None,
    tokenizer: PreTrainedTokenizerBase | None,
    label2id: Mapping[str, int] | None,
) -> tuple[BaseImageProcessor | None, dict[str, int] | None]:
    """Refuse parts that no processor can be made of; return an image processor that makes squares, and plain labels."""
    _check_tokenizer(tokenizer)
    image_processor = squaring_processor(image_processor)
    _check_side(image_processor)
    return image_processor, None if label2id is None else check_label2id(label2id)


def check_options(processor: ProcessorMixin, names: Iterable[str]) -> None:
    """Refuse names of options that none of the parts knows: tokenizers and image processors keep or ignore them."""
    names = set(names)
    known = {*signature(type(processor).__init__).parameters, *processor.tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    known |= processor.tokenizer.init_kwargs.keys() - names
    if processor.image_processor is not None:
        known |= processor.image_processor.valid_kwargs.__annotations__.keys()
    check_names(type(processor), names - known, known)


def _check_side(image_processor: BaseImageProcessor | None) -> None:
    """Refuse an image processor that makes images of more than `MAX_SIDE` pixels a side."""
    for name in ("size", "crop_size", "pad_size"):
        size = getattr(image_processor, name, None)
        # a dict, or transformers' own class that can be made one
        sides = {"": size} if size is None or isinstance(size, int | float) else dict(size)
        if "shortest_edge" in sides:
            sides.pop("longest_edge", None)  # an upper bound alone
        for side in sides.values():
            if isinstance(side, int | float) and not 0 < side <= MAX_SIDE:
                raise ValueError(
                    f"Expected an image processor that makes images of 1 to {MAX_SIDE:,} pixels a side, got {name}="
                    f"{sides}. Correct its size."
                )


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Refuse slow tokenizers, and what a broken file makes of one."""
    if tokenizer is None:
        raise ValueError("Expected a tokenizer, got None. Load one with transformers.AutoTokenizer.from_pretrained.")
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            "Expected a fast tokenizer, since only those tell which word a token belongs to, got the slow "
            f"{type(tokenizer).__name__}. Load one with PreTrainedTokenizerFast(tokenizer_file='tokenizer.json')."
        )
    limit = tokenizer.model_max_length
    if not isinstance(limit, int) and not (isinstance(limit, float) and math.isfinite(limit)):
        raise ValueError(f"Expected a number as model_max_length of the tokenizer, got {shown(limit)}. Set it.")
    unknown = tokenizer.unk_token
    if unknown is not None and tokenizer.backend_tokenizer.token_to_id(str(unknown)) is None:
        raise ValueError(
            f"Expected the unknown token {shown(unknown)} in the tokenizer's vocabulary, but it isn't there. Set "
            "tokenizer.unk_token to one that is."
        )


__all__ = ["check_options", "checked_parts"]
