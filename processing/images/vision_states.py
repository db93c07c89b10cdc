"""What a frozen vision encoder made of an image, as bytes in a dataset's column."""

from io import BytesIO

import numpy as np

from ...configuration.errors import brief


# Name of the column, of the collator's key and of the model's argument.
VISION_STATES = "vision_states"


def read_vision_states(data: bytes) -> np.ndarray:
    """Read float32 (stages + 1, vision tokens, vision width) from numpy's file format; nothing in it is executed."""
    try:
        states = np.load(BytesIO(data), allow_pickle=False)
    except (TypeError, ValueError, EOFError) as error:
        raise _no_states(f"a {type(data).__name__} that is no array: {brief(error)}") from error
    if getattr(states, "ndim", 0) != 3 or states.dtype != np.float32:
        raise _no_states(f"{getattr(states, 'dtype', type(states).__name__)} {getattr(states, 'shape', '')}")
    return states


def _no_states(got: str) -> ValueError:
    expected = f"float32 (stages + 1, vision tokens, vision width) of cache_vision_states in {VISION_STATES!r}"
    return ValueError(f"Expected {expected}, got {got}. Drop the column, and cache anew.")


__all__ = ["VISION_STATES", "read_vision_states"]
