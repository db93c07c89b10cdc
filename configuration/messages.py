"""What error messages show of a value that came in: enough to recognise it, however large it is."""

from typing import Any


MOST_SHOWN = 200
"""Characters of a value in a message, so that a message of several values stays below 1,000."""


def shown(value: Any, limit: int = MOST_SHOWN) -> str:
    """Write a value for an error message.

    Parameters
    ----------
    value : object
        Anything; strings are quoted, so that spaces and line breaks in them are seen.
    limit : int, default 200
        Most characters of it.

    Returns
    -------
    str
        Its `repr`; of a longer one the beginning, and how long the value is.

    Examples
    --------
    >>> shown("B-PER")
    "'B-PER'"
    >>> shown("a" * 1000, limit=8)
    "'aaaaaaa... (1000 characters)"
    """
    if isinstance(value, str | bytes | bytearray) and len(value) > limit:
        unit = "characters" if isinstance(value, str) else "bytes"
        # only the beginning is written out: the whole may have megabytes
        return f"{repr(value[:limit])[:limit]}... ({len(value)} {unit})"
    text = repr(value)
    if len(text) <= limit:
        return text
    size = f" ({len(value)} items)" if hasattr(value, "__len__") else ""
    return f"{text[:limit]}...{size}"


__all__ = ["MOST_SHOWN", "shown"]
