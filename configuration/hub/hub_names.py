"""Tell a name on the Hub from a folder of this machine, which is nobody else's business."""

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import HFValidationError, validate_repo_id


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
    same name. What was made in memory has no name.

    Examples
    --------
    >>> came_from_hub("google-bert/bert-base-cased"), came_from_hub("/home/me/gone"), came_from_hub("")
    (True, False, False)
    """
    return bool(name) and is_hub_name(name) and not Path(name).exists()


def marked_folder(name: str, loaded_here: bool = True) -> str:
    """Mark the name of a folder that is there now, "models/bert" as "./models/bert", and leave other names.

    A marked name is never taken for one on the Hub. The mark outlives a change of the working directory, and names no
    folder above it. `loaded_here` says whether the working directory is that in which the name was loaded. If not, a
    folder may not be there any more: a name on the Hub is one that the Hub's cache on this machine knows.
    """
    if not is_hub_name(name):
        return name
    is_cached = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}").is_dir()
    return f"./{name}" if Path(name).exists() or not (loaded_here or is_cached) else name


__all__ = ["came_from_hub", "is_hub_name", "marked_folder"]
