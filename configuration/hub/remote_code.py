"""Save the code beside what is saved, so that it loads with `trust_remote_code=True` where this package is missing."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from .entry_points import CODE_FILES


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
        written = {".gitignore", *CODE_FILES}
        others = {name: time for name, time in files_timestamps.items() if name not in written}
        return super()._upload_modified_files(working_dir, repo_id, others, **kwargs)  # type: ignore[misc]


def write_code(folder: str | os.PathLike[str]) -> None:
    """Write the code, and a `.gitignore` if there is none, into a folder; what else is there is the user's."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in code_files().items():
        Path(folder, name).write_text(text, encoding="utf-8", newline="\n")
    gitignore = Path(folder, ".gitignore")
    if not gitignore.exists():
        gitignore.write_text(_GITIGNORE, encoding="utf-8", newline="\n")


@cache
def code_files() -> dict[str, str]:
    """Return the code that is saved, from file name to text: made of the package, or the saved code that runs."""
    folder = Path(__file__).parent
    if all((folder / name).is_file() for name in CODE_FILES):
        return {name: (folder / name).read_text(encoding="utf-8") for name in CODE_FILES}
    try:
        from .code_bundle import bundle_package
    except ImportError as error:
        raise ValueError(
            f"Expected {', '.join(CODE_FILES)} in one folder, got not all. Fetch the model's code again, or run: pip "
            "install bga-mner."
        ) from error
    return bundle_package()


__all__ = ["RemoteCodeMixin", "code_files", "write_code"]
