"""Checkpoints that are whole or don't count, so that a kill at any moment leaves one to go on from.

A checkpoint is a folder `checkpoint-<step>`. The last file written to it is a list of all others and their sizes,
after these have reached the disk; a folder that doesn't match its list isn't gone on from.
"""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints
from transformers.utils import logging

from ...configuration.errors import brief, shown


logger = logging.get_logger(__name__)

__all__ = [
    "WholeCheckpointCallback",
    "check_checkpoint",
    "check_settings",
    "last_whole_checkpoint",
    "seal_checkpoint",
    "write_checkpoint",
]

SEAL = "checkpoint_files.json"
_NAME = re.compile(r"^checkpoint-(\d+)$")
# What torch.save writes, whatever the file is called, begins like any zip archive.
_ZIP = b"PK\x03\x04"


def last_whole_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """Find the checkpoint to go on from: the last one that is whole.

    Those that aren't are passed over, with a warning that says why. Nothing is loaded or changed.

    Parameters
    ----------
    output_dir : str or path
        Folder of the checkpoints; need not exist.

    Returns
    -------
    str or None
        Path of a folder `checkpoint-<step>`, for `Trainer.train(resume_from_checkpoint=...)` or
        `Accelerator.load_state`; None if there is none.

    Examples
    --------
    >>> trainer.train(resume_from_checkpoint=last_whole_checkpoint("outputs/mner"))  # doctest: +SKIP
    """
    for _, folder in sorted(_checkpoints(output_dir), reverse=True):
        trouble = check_checkpoint(folder)
        if trouble is None:
            return str(folder)
        logger.warning("Passing over %s, which is not whole: %s.", folder, trouble)
    return None


def check_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """Say what is wrong with a checkpoint.

    Files have to be of the sizes that the list of files says, where there is one; safetensors as long as their headers
    say, archives of torch readable to the end, and JSON complete. A folder without a list, as a stock Trainer
    writes it, has to hold `trainer_state.json`, its last file.

    Parameters
    ----------
    folder : str or path
        A checkpoint.

    Returns
    -------
    str or None
        What is missing or broken; None if the checkpoint is whole.
    """
    folder = Path(folder)
    if (folder / SEAL).is_file():
        try:
            expected = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"]
            for name, size in expected.items():
                if not (folder / name).is_file():
                    return f"{name} is missing"
                if (folder / name).stat().st_size != size:
                    return f"{name} has {(folder / name).stat().st_size} bytes in place of {size}"
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            return f"{SEAL} cannot be read ({error})"
    elif not (folder / "trainer_state.json").is_file():
        return f"it has neither {SEAL} nor trainer_state.json, which are written last"
    for path in _files(folder):
        if (trouble := _trouble_with(path)) is not None:
            return f"{path.relative_to(folder)} {trouble}"
    return None


def check_settings(folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of other data or settings, from which a run would not go on but turn into another.

    Parameters
    ----------
    folder : str or path
        A checkpoint.
    settings : mapping of str to JSON value
        What the run has, in the form in which it was handed to `write_checkpoint` or `WholeCheckpointCallback`. What
        the checkpoint says nothing of is not compared.

    Raises
    ------
    ValueError
        If something is different.
    """
    file = Path(folder, SEAL)
    if not file.is_file():
        return
    kept = json.loads(file.read_text(encoding="utf-8")).get("settings", {})
    given = json.loads(json.dumps(settings))
    other = {name: (kept[name], value) for name, value in given.items() if name in kept and kept[name] != value}
    if other:
        differences = [f"{name} was {shown(old)} and is {shown(new)}" for name, (old, new) in sorted(other.items())]
        raise ValueError(
            f"Expected the data and settings that {shown(str(folder))} was written with, got others: "
            f"{brief('; '.join(differences), 500)}. Go on with those, choose another --output_dir, or start over with "
            "--overwrite_output_dir."
        )


def seal_checkpoint(folder: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> None:
    """Bring a checkpoint's files to the disk, and then write the list of them that says that it is whole."""
    folder = Path(folder)
    files = [path for path in _files(folder) if path.name != SEAL]
    for path in files:
        _sync(path)
    for inner in {path.parent for path in files} | {folder}:
        _sync(inner)
    content = {"files": {str(path.relative_to(folder)): path.stat().st_size for path in files}}
    content |= {"settings": dict(settings or {})}
    draft = folder / f".{SEAL}"
    draft.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _sync(draft)
    draft.rename(folder / SEAL)
    _sync(folder)


@contextmanager
def write_checkpoint(
    output_dir: str | os.PathLike[str],
    step: int,
    settings: Mapping[str, Any] | None = None,
    keep: int | None = None,
    protected: int | None = None,
) -> Iterator[Path]:
    """Write `checkpoint-<step>` in a folder of another name, which gets its own when all is on the disk.

    All processes have to enter and to leave.

    Parameters
    ----------
    output_dir : str or path
        Where the checkpoints are.
    step : int
        Steps taken so far.
    settings : mapping of str to JSON value, optional
        What `check_settings` is to compare.
    keep : int, optional
        How many checkpoints to keep; older ones are deleted at the end. Default: all.
    protected : int, optional
        Step whose checkpoint is kept in any case, such as the best.

    Yields
    ------
    Path
        Folder to write to.

    Examples
    --------
    >>> with write_checkpoint("outputs/mner", step) as folder:  # doctest: +SKIP
    ...     accelerator.save_state(folder)
    """
    state, final = PartialState(), Path(output_dir, f"checkpoint-{step}")
    draft = final.with_name(f".unfinished-{final.name}")
    if state.is_main_process:
        # of a run that was killed while it wrote
        for left in final.parent.glob(".unfinished-*"):
            shutil.rmtree(left)
        draft.mkdir(parents=True)
    state.wait_for_everyone()
    yield draft
    state.wait_for_everyone()
    if state.is_main_process:
        seal_checkpoint(draft, settings)
        if final.exists():  # passed over as not whole, or of a run that started from an earlier one
            shutil.rmtree(final)
        draft.rename(final)
        _sync(final.parent)
        if keep is not None:
            _delete_old(output_dir, keep, {step, protected})
    state.wait_for_everyone()


def _delete_old(output_dir: str | os.PathLike[str], keep: int, spared: set[int | None]) -> None:
    """Delete the oldest checkpoints."""
    # transformers' `rotate_checkpoints` spares the highest step, which need not be the one just written
    found = sorted(_checkpoints(output_dir))
    old = [folder for step, folder in found if step not in spared]
    for folder in old[: max(0, len(found) - max(keep, len(found) - len(old)))]:
        shutil.rmtree(folder)


class WholeCheckpointCallback(TrainerCallback):
    """Make a Trainer's checkpoints count only when they are whole.

    The Trainer writes into `checkpoint-<step>` itself; this brings all files to the disk and then writes the list
    that `last_whole_checkpoint` goes by. It deletes old checkpoints only after that, so give `save_total_limit` to
    this callback and not to the Trainer. When a training starts, what stands at later steps than its own, broken or
    of a run that is done with, is renamed to `superseded-checkpoint-<step>`: the Trainer would write over it, file
    by file.

    Parameters
    ----------
    settings : mapping of str to JSON value, optional
        What `check_settings` is to compare.
    save_total_limit : int, optional
        How many checkpoints to keep, as `TrainingArguments.save_total_limit`. Default: all.

    Examples
    --------
    >>> trainer = Trainer(..., callbacks=[WholeCheckpointCallback(save_total_limit=2)])  # doctest: +SKIP
    >>> trainer.train(resume_from_checkpoint=last_whole_checkpoint(trainer.args.output_dir))  # doctest: +SKIP
    """

    def __init__(self, settings: Mapping[str, Any] | None = None, save_total_limit: int | None = None) -> None:
        self.settings = settings
        self.save_total_limit = save_total_limit

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put checkpoints of later steps aside."""
        if state.is_world_process_zero and args.output_dir is not None:
            for step, folder in _checkpoints(args.output_dir):
                if step > state.global_step:
                    aside = folder.with_name(f"superseded-{folder.name}")
                    shutil.rmtree(aside, ignore_errors=True)
                    folder.rename(aside)
                    logger.warning(
                        "Training starts at step %d: %s is now called %s.", state.global_step, folder, aside.name
                    )
        PartialState().wait_for_everyone()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say that the checkpoint is whole, when all processes have written their part."""
        PartialState().wait_for_everyone()
        folder = Path(args.output_dir or ".", f"checkpoint-{state.global_step}")
        if state.is_world_process_zero and folder.is_dir():
            seal_checkpoint(folder, self.settings)
            rotate_checkpoints(
                str(folder.parent), self.save_total_limit, best_model_checkpoint=state.best_model_checkpoint
            )
        PartialState().wait_for_everyone()


def _checkpoints(output_dir: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """List checkpoints and their steps, whole or not, in any order."""
    found = Path(output_dir).iterdir() if Path(output_dir).is_dir() else ()
    matches = [(_NAME.match(path.name), path) for path in found if path.is_dir()]
    return [(int(match.group(1)), path) for match, path in matches if match]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)


def _sync(path: Path) -> None:
    """Have the system write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _trouble_with(path: Path) -> str | None:
    """Say what is wrong with a file; None also for those of kinds that show nothing."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:  # compares the file's size with its header
                tensors.keys()
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix in (".pt", ".pth", ".bin", ".pkl"):
            with path.open("rb") as file:
                if file.read(len(_ZIP)) != _ZIP:
                    return "is not what torch.save writes, or the beginning of it is missing"
                with zipfile.ZipFile(file) as archive:
                    if (broken := archive.testzip()) is not None:
                        return f"has a broken part, {broken}"
    except (SafetensorError, zipfile.BadZipFile, OSError, ValueError) as error:
        return f"is cut off or broken ({error})"
    return None
