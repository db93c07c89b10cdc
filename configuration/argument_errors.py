"""Errors about names and values that a caller gives, or that a file holds: explained, and with the likely name."""

import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from huggingface_hub.errors import StrictDataclassError

from .errors import MOST_SHOWN, brief, mismatch, shown


UNEXPECTED: tuple[type[Exception], ...] = (
    *(TypeError, AttributeError, LookupError, ArithmeticError),
    *(AssertionError, RecursionError, json.JSONDecodeError),
)
"""What libraries raise at values that they don't expect."""

_UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")
_MOST_NAMES = 5  # of arguments in a message


@contextmanager
def reworded(
    expected: str, mend: str, is_known: Callable[[Exception], bool] = lambda error: isinstance(error, UNEXPECTED)
) -> Iterator[None]:
    """Raise a ValueError of the same grammar in place of the many errors of libraries; others pass."""
    try:
        yield
    except Exception as error:
        if not is_known(error):
            raise
        raise ValueError(
            f"Expected {expected}, got {type(error).__name__}: {brief(error, MOST_SHOWN)}. {mend}"
        ) from error


def check_names(owner: type, names: Iterable[str], fields: Iterable[str]) -> None:
    """Refuse names that aren't attributes of a class, and are one of the fields but for a letter or two.

    transformers keeps or ignores names that it doesn't know, and with them every misspelt option.
    """
    options = [name for name in fields if not name.startswith("_")]
    for name in names:
        if hasattr(owner, name) or name in options:
            continue
        if guess := get_close_matches(name, options, n=1, cutoff=0.85):
            raise mismatch(f"an option of {owner.__name__}", name, f"Did you mean {shown(guess[0])}?")


@contextmanager
def explained(
    what: str, arguments: Iterable[str] = (), fix: str = "", more: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Make one kind of error of the many that unexpected values give, in a file or in a caller's arguments."""
    names = list(arguments)
    if names and not fix:
        given = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        fix = f"Correct what was given as {given}. If the same is raised without, correct the file."
    known = (*UNEXPECTED, StrictDataclassError, *more)

    def is_known(error: Exception) -> bool:
        # of broken files of a tokenizer, tokenizers raises Exception itself, or what speaks of its own parts
        return isinstance(error, known) or type(error) is Exception or _is_of_tokenizer(error)

    with reworded(f"{what} that can be used", fix or "Correct the file, or fetch it again.", is_known):
        try:
            yield
        except TypeError as error:
            unknown = _UNKNOWN_ARGUMENT.search(str(error))
            if unknown is None or unknown[1] not in names:
                raise
            mend = "Correct its name, or leave it out. Beside config=... change options there."
            raise mismatch("arguments of from_pretrained or options of the model", unknown[1], mend) from error


def _is_of_tokenizer(error: Exception) -> bool:
    """Whether an error was raised where transformers makes a tokenizer of its parts."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return ".tokenization_" in frames[-1].f_globals.get("__name__", "")


__all__ = ["UNEXPECTED", "check_names", "explained", "reworded"]
