"""What a caller gives beside a saved configuration, or assigns to one: named in messages, never the file's fault."""

import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_origin

from huggingface_hub.errors import StrictDataclassError, StrictDataclassFieldValidationError

from .errors import UNEXPECTED, mismatch, reworded, shown


T = TypeVar("T")

ENCODERS = ("text_config", "vision_config")
_LABELS = ("id2label", "label2id")
# Of `from_pretrained`, by transformers itself or about what is loaded from where.
_NOT_OPTIONS = (
    *("name_or_path", "return_unused_kwargs", "config", "trust_remote_code", "revision", "use_safetensors"),
    *("local_files_only", "force_download", "adapter_kwargs"),
)
_UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")
_MOST_NAMES = 5  # of arguments in a message


def given_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the arguments of a `from_pretrained` that a caller chose, among those that transformers passes on by itself.

    Examples
    --------
    >>> given_arguments({"_from_auto": True, "cache_dir": None, "dtype": "auto", "image_size": 32})
    {'image_size': 32}
    """
    return {
        name: value
        for name, value in arguments.items()
        if not name.startswith("_")
        and name not in _NOT_OPTIONS
        and value is not None
        # what is not a string may compare element by element
        and not (isinstance(value, str) and value in ("auto", ""))
    }


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


def with_arguments(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put a caller's options into what `config.json` holds.

    Of an encoder a dict changes what is in it, unless it names another family. One of `id2label`, `label2id` and
    `num_labels` replaces all that the file says of labels, except a `num_labels` which agrees with the file.
    """
    merged = {**saved, **given}
    for name in ENCODERS:
        old, new = saved.get(name), given.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            kind = old.get("model_type")
            merged[name] = {**old, **new} if new.get("model_type", kind) == kind else new
    if given.get("num_labels") is not None and not given.keys() & set(_LABELS):
        known = saved.get("id2label") or saved.get("label2id")
        if known and len(known) == given["num_labels"]:
            return merged
    if given.keys() & {*_LABELS, "num_labels"}:
        for name in _LABELS:
            if name not in given:
                merged.pop(name, None)
    return merged


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


def checked_assignment(cls: type[T]) -> type[T]:
    """Make a `@strict` class say as a ValueError what a field must be, whoever sets it: constructor or assignment."""
    assign = cls.__setattr__

    def assign_checked(self: Any, name: str, value: Any) -> None:
        try:
            assign(self, name, value)
        except StrictDataclassFieldValidationError as error:
            if name in ENCODERS:  # of a field inside
                raise
            raise mismatch(f"{name} as {_written(self.__dataclass_fields__[name].type)}", value) from error

    cls.__setattr__ = assign_checked  # type: ignore[method-assign]
    return cls


def _is_of_tokenizer(error: Exception) -> bool:
    """Whether an error was raised where transformers makes a tokenizer of its parts."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return ".tokenization_" in frames[-1].f_globals.get("__name__", "")


def _written(kind: Any) -> str:
    """Write a type for people.

    Examples
    --------
    >>> _written(Literal["text", "none"]), _written(Literal["mse"] | None), _written(int | None), _written(bool)
    ("one of 'text', 'none'", "one of 'mse', None", 'int | None', 'bool')
    """
    values = [value for part in get_args(kind) for value in (get_args(part) if get_origin(part) is Literal else [part])]
    if get_origin(kind) is Literal or any(isinstance(value, str) for value in values):
        return f"one of {', '.join('None' if value is type(None) else repr(value) for value in values)}"
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


__all__ = ["ENCODERS", "check_names", "checked_assignment", "explained", "given_arguments", "with_arguments"]
