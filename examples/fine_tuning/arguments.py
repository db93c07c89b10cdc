"""How the fine-tuning scripts read their arguments: from the command line, or from one JSON file."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import DEBUG, ErrorsInOneLine, check_output

from transformers import HfArgumentParser

from bga_mner.configuration.messages import brief, shown


# The least that makes sense of what both scripts take; the rest is checked where it is used.
LEAST: dict[str, float] = dict.fromkeys(("max_length", "shuffle_buffer", "image_size", "num_bga_layers"), 1)
LEAST |= dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"), 1)
LEAST |= dict.fromkeys(("lora_rank", "num_train_epochs", "learning_rate", "warmup_steps", "weight_decay", "seed"), 0)
LEAST |= dict.fromkeys(("max_grad_norm", "save_steps", "dataloader_num_workers", "reconstruction_weight"), 0)
LEAST |= dict.fromkeys(("cycle_weight", "entity_replacement_probability"), 0)


class _ShortHelp(argparse.ArgumentDefaultsHelpFormatter):
    """Of each argument one spelling, and what it is for; there are nearly two hundred."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return action.option_strings[-1] if action.dest == "help" else action.option_strings[0]

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class ArgumentsParser(ErrorsInOneLine, HfArgumentParser):
    """Parser of a script whose arguments are the fields of dataclasses.

    Parameters
    ----------
    kinds : sequence of type
        The dataclasses.
    description : str or None
        The script's docstring.
    """

    def __init__(self, kinds: Sequence[Any], description: str | None) -> None:
        super().__init__(
            list(kinds),
            allow_abbrev=False,
            formatter_class=_ShortHelp,
            usage="%(prog)s --name value ... | arguments.json",
            description=(description or "").partition("\n")[0],
            epilog=f"--debug without a value, or the variable {DEBUG}, shows where an error came from.",
        )

    def read(self, argv: Sequence[str], more: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Read the command line, or the JSON file that is its only word.

        Parameters
        ----------
        argv : sequence of str
            The words.
        more : mapping of str to float, optional
            The least of further numbers, by name.

        Returns
        -------
        dict of str to object
            What was given, by name; without defaults.

        Raises
        ------
        ValueError
            If the file can't be read, or a number, the output folder or the checkpoint makes no sense.
        SystemExit
            If an argument is unknown, or of another type.
        """
        rest: dict[str, Any] = {}
        words = list(argv)
        if len(words) == 1 and not words[0].startswith("-"):
            words, rest = self._words_of(_read_json(words[0]))
        self.parse_args(words)  # shows --help with the defaults, which are taken away next
        absent = object()
        self.set_defaults(**{item.name: absent for kind in self.dataclass_types for item in fields(kind)})
        given = {name: value for name, value in vars(self.parse_args(words)).items() if value is not absent} | rest
        for name, least in (LEAST | (more or {})).items():
            value = given.get(name)
            # nothing is less than nan, and nothing more
            if isinstance(value, int | float) and not value >= least:
                raise ValueError(f"Expected --{name} of at least {least}, got {value}. Give another.")
        for name, value in given.items():
            if isinstance(value, str) and value.startswith("{"):
                try:
                    json.loads(value)
                except ValueError as error:
                    raise ValueError(
                        f"Expected JSON as --{name}, got {shown(value)}: {brief(error)}. Quote names and texts with "
                        "double quotes, and the whole with single ones."
                    ) from error
        if not given.get("output_dir"):
            raise ValueError("Expected --output_dir, got none. Name the folder that the model and the results go to.")
        check_output(given["output_dir"], "--output_dir")
        checkpoint = given.get("resume_from_checkpoint")
        if checkpoint not in (None, "auto") and not Path(checkpoint).is_dir():
            raise ValueError(
                f"Expected the folder of a checkpoint as --resume_from_checkpoint, got {shown(checkpoint)}. Leave it "
                "out, and the run goes on from the last whole one in --output_dir."
            )
        return given

    def _words_of(self, given: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
        """Write JSON values as a command line, which checks them; those that none can hold are left as they are."""
        flags = {flag: action.dest for action in self._actions for flag in action.option_strings}
        words, rest = [], {}
        for name, value in given.items():
            if (value is None or isinstance(value, list | dict)) and f"--{name}" in flags:
                rest[flags[f"--{name}"]] = value
            else:
                words.append(f"--{name}={value}")
        return words, rest


def _read_json(name: str) -> dict[str, Any]:
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"Expected arguments that begin with --, or one JSON file of them, but {shown(name)} is not a file. Check "
            "the path."
        )
    try:
        given = json.loads(path.read_bytes())  # bytes: with a mark of their order, and as UTF-16, too
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected JSON in {shown(name)}, but it can't be read: {brief(error)}. Mend the file."
        ) from error
    if not isinstance(given, dict):
        raise ValueError(
            f'Expected an object of arguments, as {{"output_dir": "out"}}, in {shown(name)}, got {shown(given)}.'
        )
    return given


__all__ = ["LEAST", "ArgumentsParser"]
