"""What a frozen vision encoder made of an image, as bytes in a dataset's column."""

from io import BytesIO

import numpy as np

from ...configuration.errors import brief


# Name of the column, of the collator's key and of the model's argument.
VISION_STATES = "vision_states"


def write_vision_states(states: np.ndarray) -> bytes:
    """Return the states of one image, float32 (stages + 1, vision tokens, vision width), in numpy's file format.

    Of a convolutional encoder below new layers that are trained: (1, vision tokens, feature channels).

    Arrow's own nested lists would be read back as Python numbers, a hundred thousand an image.
    """
    file = BytesIO()
    np.save(file, states.astype(np.float32), allow_pickle=False)
    return file.getvalue()


def read_vision_states(data: bytes) -> np.ndarray:
    """Read what `write_vision_states` wrote; nothing in it is ever executed.

    Examples
    --------
    >>> read_vision_states(write_vision_states(np.zeros((2, 1, 3)))).shape
    (2, 1, 3)
    """
    try:
        states = np.load(BytesIO(data), allow_pickle=False)
    except (TypeError, ValueError, EOFError) as error:
        raise ValueError(
            f"Expected the column {VISION_STATES!r} as cache_vision_states writes it, got a "
            f"{type(data).__name__} that is no array: {brief(error)}. Drop the column, and cache anew."
        ) from error
    if getattr(states, "ndim", 0) != 3 or states.dtype != np.float32:
        raise ValueError(
            f"Expected float32 (stages + 1, vision tokens, vision width) in {VISION_STATES!r}, got "
            f"{getattr(states, 'dtype', type(states).__name__)} {getattr(states, 'shape', '')}. Drop the column, and "
            "cache anew."
        )
    return states


__all__ = ["VISION_STATES", "read_vision_states", "write_vision_states"]
