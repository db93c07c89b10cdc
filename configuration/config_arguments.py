"""What a caller gives beside a saved configuration, or assigns to one: named in messages, never the file's fault."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_origin

from huggingface_hub.errors import StrictDataclassFieldValidationError

from .messages import shown


T = TypeVar("T")

ENCODERS = ("text_config", "vision_config")
_LABELS = ("id2label", "label2id")
# Of `from_pretrained`, by transformers itself or about what is loaded from where.
_NOT_OPTIONS: tuple[str, ...] = (
    "name_or_path",
    "return_unused_kwargs",
    "config",
    "trust_remote_code",
    "revision",
    "use_safetensors",
)
_NOT_OPTIONS += ("local_files_only", "force_download", "adapter_kwargs")


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
    """Refuse names that are an option's but for a letter or two.

    transformers keeps or ignores names that it doesn't know, and with them every misspelt option.

    Parameters
    ----------
    owner : type
        The configuration's class, whose attributes are no misspelt options.
    names : iterable of str
        What was given.
    fields : iterable of str
        The options.

    Raises
    ------
    ValueError
        At the first such name.
    """
    options = [name for name in fields if not name.startswith("_")]
    for name in names:
        if hasattr(owner, name) or name in options:
            continue
        if guess := get_close_matches(name, options, n=1, cutoff=0.85):
            raise ValueError(
                f"Expected an option of {owner.__name__}, got {shown(name)}. Did you mean {shown(guess[0])}?"
            )


def with_arguments(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put a caller's options into what a file holds.

    Parameters
    ----------
    saved : mapping of str to object
        What `config.json` holds.
    given : mapping of str to object
        Options. Of an encoder a dict changes what is in it, unless it names another family. One of `id2label`,
        `label2id` and `num_labels` replaces all that the file says of labels, except that a `num_labels` which agrees
        with the file changes nothing.

    Returns
    -------
    dict of str to object
        What the configuration is to be made of.
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


def checked_assignment(cls: type[T]) -> type[T]:
    """Make a `@strict` class say as a ValueError what a field must be, whoever sets it: constructor or assignment."""
    assign = cls.__setattr__

    def assign_checked(self: Any, name: str, value: Any) -> None:
        try:
            assign(self, name, value)
        except StrictDataclassFieldValidationError as error:
            if name in ENCODERS:  # of a field inside
                raise
            expected = _written(self.__dataclass_fields__[name].type)
            raise ValueError(f"{name} must be {expected}, but is {shown(value)}. Correct it.") from error

    cls.__setattr__ = assign_checked  # type: ignore[method-assign]
    return cls


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


__all__ = ["ENCODERS", "check_names", "checked_assignment", "given_arguments", "with_arguments"]
