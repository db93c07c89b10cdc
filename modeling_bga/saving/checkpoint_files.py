"""What is allowed in the files that hold a model's weights; they may be a stranger's."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ...configuration.arguments import explained, given_arguments
from ...configuration.errors import brief, shown


# More numbers than these are not made up where weights are missing from a checkpoint: 4 GiB of float32.
MAX_MISSING_NUMBERS = 2**30
# Of a configuration: no weight depends on these.
_CHANGING = ("_name_or_path", "architectures", "dtype", "problem_type", "training_summary", "label2id")


class CheckedFilesMixin:
    """What a model asks of the files that it is loaded from and saved to; stands before `PreTrainedModel`."""

    _built_from: PreTrainedConfig

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as every model does; files that can't be used, or may not be, are a ValueError."""
        with explained_weights(given_arguments(kwargs)):
            check_shard_index(pretrained_model_name_or_path, kwargs.get("subfolder") or "", kwargs.get("variant"))
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)  # type: ignore[misc]

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: Any) -> Any:
        # transformers' step after reading a checkpoint: what wasn't in it is made
        missing, others = loading_info.missing_and_mismatched(), loading_info.mismatched_keys
        check_weights_to_make(model, missing, others, load_config.ignore_mismatched_sizes)
        return PreTrainedModel._finalize_model_loading(model, load_config, loading_info)

    def check_savable(self) -> None:
        """Refuse a configuration that was changed so that what is saved couldn't be loaded."""
        check_config_fits(self, self._built_from)


def check_shard_index(folder: str | os.PathLike[str] | None, subfolder: str = "", variant: str | None = None) -> None:
    """Refuse a list of files of weights that names something else than safetensors files beside it.

    Nothing is done if this is no folder of this machine: names on the Hub can't leave their repository.
    """
    if not isinstance(folder, str | os.PathLike):
        return
    path = Path(folder, subfolder, f"model.safetensors.index{f'.{variant}' if variant else ''}.json")
    if not path.is_file():
        return
    try:
        names = set(json.loads(path.read_bytes())["weight_map"].values())
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(
            f"Expected a JSON object with a 'weight_map' from weights to files in {shown(str(path))}, got "
            f"{type(error).__name__}: {brief(error)}. Save the model again."
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(
                f"Expected names of safetensors files of the same folder in {shown(str(path))}, got {shown(name)}. "
                "Save the model again."
            )


def check_weights_to_make(
    model: nn.Module, missing: Iterable[str], mismatched: Iterable[tuple], may_mismatch: bool
) -> None:
    """Refuse to make new weights in place of others, or so many that they would fill the memory.

    What is in the checkpoint can't be larger than its files; transformers makes the rest before it looks at shapes.
    `mismatched` has names, shapes in the checkpoint, and shapes in the model.
    """
    others = sorted(mismatched, key=lambda entry: entry[0])
    if others and not may_mismatch:
        name, found, expected = others[0]
        raise ValueError(
            f"Expected weights of the shapes that the configuration asks for, {shown(tuple(expected))} for {name}, got "
            f"{shown(tuple(found))}; {len(others)} have another shape. Take config.json and weights from the same "
            "model. If you gave other labels or sizes, let new weights replace these with ignore_mismatched_sizes=True."
        )
    sizes = {name: tensor.numel() for name, tensor in model.state_dict(keep_vars=True).items()}
    count = sum(sizes.get(name, 0) for name in missing)
    if count > MAX_MISSING_NUMBERS:
        largest = max(missing, key=lambda name: sizes.get(name, 0))
        raise ValueError(
            f"Expected a checkpoint that has the weights which config.json asks for, got one in which "
            f"{count:,} numbers are missing, most of them of {largest}. Check the sizes in config.json, "
            "or fetch the weights again."
        )


def check_config_fits(model: PreTrainedModel, built_from: PreTrainedConfig) -> None:
    """Refuse a configuration that was changed since the model was made so that what is saved couldn't be loaded.

    The present one may not ask for other weights than the model has, nor have labels with other transitions.
    """
    config = model.config
    before, now = (_of_structure(values.to_dict()) for values in (built_from, config))
    if before == now:
        return
    old, new = _shapes(type(model), built_from), _shapes(type(model), config)
    # what both ask for may have other names and shapes by now, as with adapters, or when quantised
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    # whoever resizes embeddings changes both
    present = {name: tuple(tensor.shape) for name, tensor in model.state_dict(keep_vars=True).items()}
    others = [name for name in changed if present.get(name) != new.get(name)]
    if others:
        names = ", ".join(sorted(name for name in now if now[name] != before.get(name)))
        raise ValueError(
            f"Expected a configuration that fits the weights, got one in which {shown(names)} changed since the model "
            f"was made, without {others[0]}. Change it back, or give what is new to from_pretrained."
        )


def _shapes(cls: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, Any]:
    """Return the shapes of all weights of a model, and the CRF's constraints, without memory for weights."""
    with torch.device("meta"):
        model = cls(deepcopy(config))
    shapes: dict[str, Any] = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if hasattr(model, "crf"):
        shapes["crf.allowed_transitions"] = model.crf.constraints
    return shapes


def _of_structure(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what making, training or saving a model changes."""
    return {
        name: _of_structure(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in _CHANGING
    }


def explained_weights(arguments: Iterable[str] = ()) -> AbstractContextManager[None]:
    """Make one kind of error of the many that broken or foreign weights give; see `explained`."""
    what = "a configuration and whole safetensors files"
    return explained(what, arguments, more=(SafetensorError, pickle.UnpicklingError))


__all__ = [
    "CheckedFilesMixin",
    "check_config_fits",
    "check_shard_index",
    "check_weights_to_make",
    "explained_weights",
]
