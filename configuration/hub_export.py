"""Save the code beside what is saved, so that it loads with `trust_remote_code=True` where this package is missing.

A repository of the Hub holds code as flat files: of what a file imports, transformers copies only its neighbours. So
the folders of this package are laid into one, and `from ..folder.file import X` becomes `from .file import X`. The
copies can do the same again: whoever loads them, saves and pushes, loses no file.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import HFValidationError, validate_repo_id


# `from .file import` and `from ..folder.file import`; the groups are what stands before, the folder and the file.
_RELATIVE_IMPORT = re.compile(r"^(\s*from )\.(?:\.(\w+)\.)?(\w+)(?= import )", re.MULTILINE)

# Trainer pickles its arguments beside every model. The Hub obeys this file, and leaves them out of what is pushed.
_GITIGNORE = "training_args.bin\n"


class RemoteCodeMixin:
    """Saving and pushing with the code; stands before a configuration's, processor's or model's base class."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save as every object of this kind does, and write the code that loads the folder."""
        # models are saved by every process, and of a file in the folder's place the base class tells
        if kwargs.get("is_main_process", True) and not os.path.isfile(save_directory):
            write_code(save_directory)
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, files_timestamps: dict[str, float], **kwargs: Any
    ) -> Any:
        # `save_pretrained(push_to_hub=True)` uploads what changed since these times, and the code was written before
        written = {".gitignore", *code_files()}
        others = {name: time for name, time in files_timestamps.items() if name not in written}
        return super()._upload_modified_files(working_dir, repo_id, others, **kwargs)  # type: ignore[misc]


def entry_points() -> tuple[dict[str, type], dict[str, type]]:
    """Return the classes by which a repository is loaded.

    Everything else that has to be in a repository is what their files import, and these imports are also how
    transformers finds all files from any one of them: it reads them in the text, whether executed or not.

    Returns
    -------
    by_auto_class : dict of str to type
        From the name of an Auto class to the class that it loads.
    by_task : dict of str to type
        From the task of a pipeline to its class.
    """
    from ..modeling_bga.modeling_bga_mner import BgaMnerModel
    from ..modeling_bga.sequence_classifier import BgaMnerForSequenceClassification
    from ..modeling_bga.token_classifier import BgaMnerForTokenClassification
    from ..processing.pipeline_bga_mner import BgaMnerPipeline
    from ..processing.processing_bga_mner import BgaMnerProcessor
    from .configuration_bga_mner import BgaMnerConfig

    by_auto_class = {
        "AutoConfig": BgaMnerConfig,
        "AutoModel": BgaMnerModel,
        "AutoModelForSequenceClassification": BgaMnerForSequenceClassification,
        "AutoModelForTokenClassification": BgaMnerForTokenClassification,
        "AutoProcessor": BgaMnerProcessor,
    }
    return by_auto_class, {"multimodal-ner": BgaMnerPipeline}


def auto_map() -> dict[str, str]:
    """Return the entry `auto_map` of `config.json` and `processor_config.json`: which class each Auto class loads."""
    return {name: _reference(loaded) for name, loaded in entry_points()[0].items()}


def custom_pipelines() -> dict[str, dict[str, Any]]:
    """Return the entry `custom_pipelines` of `config.json`: which class `pipeline(task, ...)` takes."""
    models = ["AutoModelForTokenClassification"]
    return {task: {"impl": _reference(loaded), "pt": models} for task, loaded in entry_points()[1].items()}


def write_code(folder: str | os.PathLike[str]) -> None:
    """Write the flat code files into a folder, and a `.gitignore` if it has none.

    Parameters
    ----------
    folder : str or path
        Made if it isn't there; files of the same names are replaced.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in code_files().items():
        Path(folder, name).write_text(text, encoding="utf-8", newline="\n")
    gitignore = Path(folder, ".gitignore")
    if not gitignore.exists():
        gitignore.write_text(_GITIGNORE, encoding="utf-8", newline="\n")


@cache
def code_files() -> dict[str, str]:
    """Return the flat code files, from name to text: this file, and all that is imported from it on."""
    return flatten(Path(__file__))


def flatten(file: Path) -> dict[str, str]:
    """Lay a file, and all that it imports from its neighbours, directly or not, into one folder.

    Parameters
    ----------
    file : path
        Where to begin; `from .file import X` and `from ..folder.file import X` are followed, wherever they stand.

    Returns
    -------
    dict of str to str
        From file name to text, in which every import names a file of the same folder.

    Raises
    ------
    ValueError
        If two files of different folders have the same name.
    """
    found: dict[str, Path] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if found.setdefault(path.name, path) != path:
            raise ValueError(
                f"Expected file names that differ, since they are laid into one folder, got {found[path.name]} and "
                f"{path}. Rename one."
            )
        for _, folder, name in _RELATIVE_IMPORT.findall(path.read_text(encoding="utf-8")):
            imported = (path.parent.parent / folder if folder else path.parent) / f"{name}.py"
            if found.get(imported.name) != imported:
                waiting.append(imported)
    flat = {name: _RELATIVE_IMPORT.sub(r"\1.\3", path.read_text(encoding="utf-8")) for name, path in found.items()}
    return dict(sorted(flat.items()))


def is_hub_name(name: str) -> bool:
    """Whether a string can be the name of a repository on the Hub, such as "google-bert/bert-base-cased".

    Examples
    --------
    >>> is_hub_name("google-bert/bert-base-cased"), is_hub_name("/home/me/model")
    (True, False)
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def came_from_hub(name: str) -> bool:
    """Whether what was loaded by a name came from the Hub, rather than from a folder of this machine or from nowhere.

    A folder needn't be there any more: an absolute path is never a name on the Hub, and neither is what
    `marked_folder` marked when it was loaded. What is there is local, as for transformers, even if a repository has the
    same name.

    Parameters
    ----------
    name : str
        What was given to `from_pretrained`, as in a configuration's `name_or_path`; empty for what was made in memory.

    Returns
    -------
    bool
        Whether the name may be published.

    Examples
    --------
    >>> came_from_hub("google-bert/bert-base-cased"), came_from_hub("/home/me/gone"), came_from_hub("")
    (True, False, False)
    """
    return bool(name) and is_hub_name(name) and not Path(name).exists()


def marked_folder(name: str, loaded_here: bool = True) -> str:
    """Mark the name of something that is there now as a folder's, so that it is never taken for a name on the Hub.

    The mark outlives a change of the working directory, and names no folder above it.

    Parameters
    ----------
    name : str
        What was given to `from_pretrained`.
    loaded_here : bool, default True
        Whether the working directory is that in which it was loaded, or the name is known to be a good one. If not, a
        folder may have been left behind: a name on the Hub is one that the Hub's cache on this machine knows.

    Returns
    -------
    str
        "./models/bert" for "models/bert" if there is one here; any other name as it is.

    Examples
    --------
    >>> marked_folder("google-bert/bert-base-cased"), marked_folder("/home/me/model")
    ('google-bert/bert-base-cased', '/home/me/model')
    """
    if not is_hub_name(name):
        return name
    is_cached = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}").is_dir()
    return f"./{name}" if Path(name).exists() or not (loaded_here or is_cached) else name


def _reference(loaded: type) -> str:
    """Name a class as transformers does in a repository: file and class."""
    return f"{loaded.__module__.rpartition('.')[2]}.{loaded.__name__}"


__all__ = [
    "RemoteCodeMixin",
    "auto_map",
    "came_from_hub",
    "code_files",
    "custom_pipelines",
    "entry_points",
    "flatten",
    "is_hub_name",
    "marked_folder",
    "write_code",
]
