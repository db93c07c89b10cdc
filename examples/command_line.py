"""What the scripts of examples/ and benchmarks/ share at the command line: one line for a mistake, and exit codes.

Exit code 0: done; 2: a mistake in arguments, files or what is installed, which one line on stderr names; 130: stopped
with Ctrl+C. Whatever else goes wrong keeps its traceback, and exit code 1. `--debug` as a word of its own, or the
environment variable BGA_MNER_DEBUG, adds the traceback to the line.

Only the standard library is imported here, and first of all by each script: what is missing can be said too.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn


ERROR, STOPPED = 2, 130
DEBUG = "BGA_MNER_DEBUG"
MOST_CHARACTERS = 900
ROOT = Path(__file__).resolve().parents[1]
# Distributions whose modules have other names.
MODULES = {"open_clip_torch": "open_clip", "pytorch-crf": "torchcrf"}
# Errors of these packages that are no ValueError, but speak of files and values.
MISTAKES = {
    "datasets.exceptions": "DatasetsError",
    "huggingface_hub.errors": "StrictDataclassError",
    "optuna.exceptions": "OptunaError",
    "safetensors": "SafetensorError",
}
# Of a process that isn't the first. If all fail alike, the launcher ends the others in this time, and one line stands.
SECONDS_OF_SILENCE = 3.0


class ErrorsInOneLine(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that writes one line for a wrong argument, and says what was meant."""

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse as `argparse` does; an unknown argument is named, with the one that is spelt most like it."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
            plain = f"--{word.lstrip('-').replace('-', '_')}"
            flags = [flag for flag in _flags(self) if flag != "--help" and word.startswith("-")]
            meant = difflib.get_close_matches(plain, flags, n=1)
            self.error(f"unknown argument {_cut(word)!r}" + (f"; did you mean {meant[0]}?" if meant else ""))
        return options

    def error(self, message: str) -> NoReturn:
        """Exit with the message, without the usage: --help shows that."""
        self.exit(ERROR, f"error: {_one_line(message)} (--help lists the arguments)\n")


class Parser(ErrorsInOneLine):
    """Parser of a script, whose docstring --help shows as it is; that of a subcommand has none."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("epilog", f"--debug, or the variable {DEBUG}, shows where an error came from.")
        super().__init__(description=description, **options)


def _flags(parser: argparse.ArgumentParser) -> dict[str, None]:
    """Return the long flags of a parser and its subcommands, with underscores: a word may have hyphens instead."""
    found: dict[str, None] = {}
    for action in parser._actions:
        found |= dict.fromkeys(flag for flag in action.option_strings if "-" not in flag.removeprefix("--"))
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found |= _flags(command)
    return found


def at_least(least: float, kind: type[int] | type[float] = int, most: float = math.inf) -> Callable[[str], Any]:
    """Return a type for `add_argument`: a number within limits, which belong to it."""

    def read(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        # of no number, and of infinity, no comparison holds
        if not least <= value <= most or math.isinf(value):
            what = "a whole number" if kind is int else "a number"
            upper = f" and at most {most}" if math.isfinite(most) else ""
            raise argparse.ArgumentTypeError(f"expected {what} of at least {least}{upper}, got {_cut(text)!r}")
        return value

    return read


# Types for `add_argument` that nearly all scripts need.
positive, natural = at_least(1), at_least(0)
rate, share = at_least(0, float), at_least(0, float, 1)


def seeds(text: str) -> list[int]:
    """Read whole numbers with commas between: a type for `add_argument`."""
    if not re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)*", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"expected whole numbers with commas between, such as 0,1,2, got {_cut(text)!r}"
        )
    return _each_once([int(number) for number in text.split(",")])


def _each_once(values: list[Any]) -> list[Any]:
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if twice is not None:
        raise argparse.ArgumentTypeError(f"expected each value once, got {twice} twice")
    return values


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object: a type for `add_argument`."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'expected a JSON object such as {{"key": 1}}, got {_cut(text)!r}')
    return value


def names_of(known: Iterable[str], separator: str = ",") -> Callable[[str], list[str]]:
    """Return a type for `add_argument`: one or more of what is known."""

    def read(text: str) -> list[str]:
        found = [name.strip() for name in text.split(separator)]
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {_cut(name)}")
        return _each_once(found)

    return read


def check_output(path: Path | str, flag: str, folder: bool = True) -> None:
    """Refuse an output path that can't be written, before anything takes time: `flag` names a folder or a file."""
    path = Path(path)
    if not folder and path.is_dir():
        raise ValueError(f"Expected a file to write as {flag}, got the folder {_cut(str(path))!r}. Name a file in it.")
    for part in (path, *path.parents) if folder else path.parents:
        if part.exists() and not part.is_dir():
            raise ValueError(f"Expected a folder to write as {flag}, got the file {_cut(str(part))!r}. Name another.")


def explain(error: BaseException) -> str:
    """Say in one line what went wrong; of an error of the system with the file's name."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        # transformers puts a sentence there: "The 'deepspeed>=0.9.3' distribution was not found and ..."
        package = re.sub(r"^The '([\w-]+).*", r"\1", error.name, flags=re.DOTALL).partition(".")[0]
        return f"Expected the package {package!r}, but it is not installed. Run: {_how_to_install(package)}"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return _one_line(f"{error.strerror}: {_cut(os.fsdecode(error.filename), 600)!r}")
    return _one_line(str(error)) or type(error).__name__


def show(error: BaseException) -> None:
    """Print an error as one line on stderr; one that nobody foresaw has its traceback in a file."""
    if int(os.environ.get("RANK", 0) or 0) > 0:
        time.sleep(SECONDS_OF_SILENCE)
    text = explain(error)
    if os.environ.get(DEBUG):
        traceback.print_exception(error, file=sys.stderr)
    elif not _is_foreseen(error):
        try:
            with tempfile.NamedTemporaryFile("w", prefix="bga_mner_", suffix=".log", delete=False) as file:
                traceback.print_exception(error, file=file)
            text += f" [traceback: {file.name}]"
        except OSError:  # the disk may be what is full
            text += " [--debug shows the traceback]"
    print(f"error: {text}", file=sys.stderr)


def run_main(main: Callable[[list[str]], Any], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a script to its exit code, see above; `main` raises what goes wrong, and may return an exit code."""
    words = _without_debug(sys.argv[1:] if arguments is None else list(arguments))
    try:
        code = main(words)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STOPPED)
    except Exception as error:
        if not _is_a_mistake(error):
            raise
        show(error)
        sys.exit(ERROR)
    sys.exit(code if type(code) is int else 0)


def _without_debug(words: list[str]) -> list[str]:
    """Take --debug out, unless a value follows: TrainingArguments have one of that name."""
    following = [*words, "--"][1:]
    ours = [word == "--debug" and after.startswith("-") for word, after in zip(words, following, strict=True)]
    if any(ours):
        os.environ[DEBUG] = "1"  # also of the processes that are started from here
    return [word for word, own in zip(words, ours, strict=True) if not own]


def _is_a_mistake(error: Exception) -> bool:
    """Tell whether an error is of the kind that arguments, files and what is installed give rise to."""
    if isinstance(error, ImportError):
        return error.path is None  # otherwise a package is there, but broken
    # only what is imported can have raised anything
    others = [getattr(sys.modules[module], name) for module, name in MISTAKES.items() if module in sys.modules]
    return isinstance(error, (ValueError, OSError, *others))


def _is_foreseen(error: BaseException) -> bool:
    """Tell whether the package or its scripts raised an error, which say what was expected, or it names a file."""
    if isinstance(error, ImportError) or (isinstance(error, OSError) and error.filename is not None):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    path = Path(frames[-1].filename).resolve() if frames else ROOT
    # the environment's own folder may be inside the clone
    return path.is_relative_to(ROOT) and "site-packages" not in path.relative_to(ROOT).parts


def _how_to_install(package: str) -> str:
    """Return the command that installs a package, as an extra if it belongs to one."""
    try:
        requirements = metadata.requires("bga-mner") or []
    except metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == .(\w[\w-]*)", requirement)
        if extra and MODULES.get(name, name.replace("-", "_").lower()) == package:
            return f'pip install "bga-mner[{extra.group(1)}]", or in a clone: pip install -e ".[{extra.group(1)}]"'
    return f"pip install {package}"


def _cut(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _one_line(text: str) -> str:
    return _cut(" ".join(text.split()), MOST_CHARACTERS)


def _explain_missing_package(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Show what can't be imported while a script starts, where no `run_main` catches it."""
    if isinstance(error, ModuleNotFoundError):
        show(error)
        sys.exit(ERROR)
    sys.__excepthook__(kind, error, trace)


if ROOT in Path(getattr(sys.modules["__main__"], "__file__", None) or ROOT).resolve().parents[1:3]:
    sys.excepthook = _explain_missing_package
