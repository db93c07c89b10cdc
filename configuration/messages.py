"""What error messages show of a value that came in: enough to recognise it, however large it is."""

from collections.abc import Iterable
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


def listed(values: Iterable[Any], limit: int = MOST_SHOWN) -> str:
    """Write several values for an error message, with commas between.

    Parameters
    ----------
    values : iterable of object
        Names of columns, labels, and the like.
    limit : int, default 200
        Most characters of all of them.

    Returns
    -------
    str
        As many as there is room for, at least one, each as `shown` writes it; and how many there are.

    Examples
    --------
    >>> listed(["id", "text"])
    "'id', 'text'"
    >>> listed(range(1000), limit=10)
    '0, 1, 2, 3, ... (1000 in all)'
    >>> listed([])
    'none'
    """
    values = list(values)
    text = ""
    for number, value in enumerate(values):
        item = shown(value, limit // 2)
        if number and len(text) + len(item) > limit:
            return f"{text}, ... ({len(values)} in all)"
        text = f"{text}, {item}" if number else item
    return text or "none"


def brief(text: BaseException | str, limit: int = 2 * MOST_SHOWN) -> str:
    r"""Write a text, or what another error says, for an error message: on one line, cut to a limit.

    Parameters
    ----------
    text : BaseException or str
        The error or text.
    limit : int, default 400
        Most characters.

    Returns
    -------
    str
        It without a full stop at the end, or the name of the error's class if it says nothing.

    Examples
    --------
    >>> brief(ValueError("no\nsuch thing."))
    'no such thing'
    """
    # of megabytes only the beginning is put on one line
    line = " ".join(str(text)[: 4 * limit].split()).removesuffix(".")
    return (line if len(line) <= limit else f"{line[:limit]}...") or type(text).__name__


__all__ = ["MOST_SHOWN", "brief", "listed", "shown"]
