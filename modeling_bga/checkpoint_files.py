"""What is allowed in the files that hold a model's weights; they may be a stranger's."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..configuration.config_checks import explained
from ..configuration.messages import shown


# More numbers than these are not made up where weights are missing from a checkpoint: 4 GiB of float32.
MAX_MISSING_NUMBERS = 2**30


def check_shard_index(folder: Any, subfolder: str = "", variant: str | None = None) -> None:
    """Refuse a list of files of weights that names something else than safetensors files beside it.

    Parameters
    ----------
    folder : object
        Folder; nothing is done if it is no folder of this machine. Names on the Hub can't leave their repository.
    subfolder : str
        Folder in it.
    variant : str, optional
        Part of the list's name, such as "fp16".

    Raises
    ------
    ValueError
        If it does.
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
            f"Expected a JSON object with a 'weight_map' from weights to files in {shown(str(path))}, but it can't be "
            f"read: {type(error).__name__}: {str(error)[:200]}. Save the model again."
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(
                f"Expected names of safetensors files of the same folder in {shown(str(path))}, got {shown(name)}. "
                "Save the model again."
            )


def check_weights_to_make(model: Any, missing: Iterable[str], mismatched: Iterable[Any], may_mismatch: bool) -> None:
    """Refuse to make new weights in place of others, or so many that they would fill the memory.

    What is in the checkpoint can't be larger than its files; transformers makes the rest before it looks at shapes.

    Parameters
    ----------
    model : torch.nn.Module
        The model; weights that aren't in the checkpoint are on the "meta" device still.
    missing : iterable of str
        Names of weights that the checkpoint doesn't have, or in another shape.
    mismatched : iterable of (str, shape, shape)
        Names of weights of another shape, and the shapes in the checkpoint and in the model.
    may_mismatch : bool
        Whether new weights may replace these.

    Raises
    ------
    ValueError
        If there are weights of another shape, or the missing ones hold more than `MAX_MISSING_NUMBERS` numbers.
    """
    others = sorted(mismatched, key=lambda entry: entry[0])
    if others and not may_mismatch:
        name, found, expected = others[0]
        raise ValueError(
            f"Expected weights of the shapes that config.json asks for, {tuple(expected)} for {name}, got "
            f"{tuple(found)}; {len(others)} have another shape. Take both files from the same model, or let new "
            "weights replace these with ignore_mismatched_sizes=True."
        )
    sizes = {name: tensor.numel() for name, tensor in model.state_dict(keep_vars=True).items()}
    count = sum(sizes.get(name, 0) for name in missing)
    if count > MAX_MISSING_NUMBERS:
        largest = max(missing, key=lambda name: sizes.get(name, 0))
        raise ValueError(
            f"Expected a checkpoint that has the weights which config.json asks for, but {count:,} numbers are "
            f"missing, most of them of {largest}. Check the sizes in config.json, or fetch the weights again."
        )


@contextmanager
def explained_weights() -> Iterator[None]:
    """Make one kind of error of the many that broken or foreign weights give.

    Raises
    ------
    ValueError
        In place of errors about the file's format, types and keys. Others pass, such as OSError of a file that
        isn't there.
    """
    try:
        with explained("a configuration and weights"):
            yield
    except (SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"Expected weights as whole safetensors files, but one can't be read: {str(error)[:200]}. Fetch it again."
        ) from error


__all__ = ["check_shard_index", "check_weights_to_make", "explained_weights"]
