"""What a caller gives beside a saved configuration, or assigns to one: named in messages, never the file's fault."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar, get_args, get_origin

from huggingface_hub.errors import StrictDataclassFieldValidationError

from .errors import mismatch


try:
    from .argument_errors import check_names, explained
except ImportError:  # a saved model's code lets misspelt names pass, as transformers does, and errors as they come

    def check_names(owner: type, names: Iterable[str], fields: Iterable[str]) -> None:
        """Let all names pass."""

    def explained(  # type: ignore[misc]
        what: str, arguments: Iterable[str] = (), fix: str = "", more: tuple[type[Exception], ...] = ()
    ) -> AbstractContextManager[None]:
        """Let errors pass as they are."""
        return nullcontext()


T = TypeVar("T")

ENCODERS = ("text_config", "vision_config")
_LABELS = ("id2label", "label2id")
# Of `from_pretrained`, by transformers itself or about what is loaded from where.
_NOT_OPTIONS = (
    *("name_or_path", "return_unused_kwargs", "config", "trust_remote_code", "revision", "use_safetensors"),
    *("local_files_only", "force_download", "adapter_kwargs"),
)


def given_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the arguments of a `from_pretrained` that a caller chose."""
    return {
        name: value
        for name, value in arguments.items()
        if not name.startswith("_")
        and name not in _NOT_OPTIONS
        and value is not None
        # what is not a string may compare element by element
        and not (isinstance(value, str) and value in ("auto", ""))
    }


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


def checked_assignment(cls: type[T]) -> type[T]:
    """Make a `@strict` class say as a ValueError what a field must be."""
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


def _written(kind: Any) -> str:
    """Write a type for people, such as "one of 'mse', None"."""
    values = [value for part in get_args(kind) for value in (get_args(part) if get_origin(part) is Literal else [part])]
    if get_origin(kind) is Literal or any(isinstance(value, str) for value in values):
        return f"one of {', '.join('None' if value is type(None) else repr(value) for value in values)}"
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


__all__ = ["ENCODERS", "check_names", "checked_assignment", "explained", "given_arguments", "with_arguments"]
