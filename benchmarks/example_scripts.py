"""Import the scripts of examples/, which bring the recipes that are measured here."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any


EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load_example(name: str) -> Any:
    """Import a script of examples/.

    Parameters
    ----------
    name : str
        Such as "quickstart". Scripts of both folders that share a name can't be told apart this way.

    Returns
    -------
    module
        The script.

    Raises
    ------
    ValueError
        If it isn't there.
    """
    path = EXAMPLES / f"{name}.py"
    if not path.is_file():
        raise ValueError(f"Expected the script {str(path)!r} beside the benchmarks, but it is not there.")
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))  # the scripts there import each other
    return import_module(name)


# What all scripts share at the command line.
command_line = load_example("command_line")
Parser, run_main, check_output = command_line.Parser, command_line.run_main, command_line.check_output
positive, natural, share, rate = (getattr(command_line, name) for name in ("positive", "natural", "share", "rate"))
seeds, names_of, json_object = command_line.seeds, command_line.names_of, command_line.json_object
