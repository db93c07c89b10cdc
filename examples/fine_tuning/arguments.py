"""How the fine-tuning scripts read their arguments: from the command line, or from one JSON file."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import DEBUG, ErrorsInOneLine, check_output

from transformers import HfArgumentParser

from bga_mner.configuration.errors import brief, shown


# The least that makes sense of what both scripts take; the rest is checked where it is used.
LEAST: dict[str, float] = dict.fromkeys(("max_length", "shuffle_buffer", "image_size", "num_bga_layers"), 1)
LEAST |= dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"), 1)
LEAST |= dict.fromkeys(("lora_rank", "num_train_epochs", "learning_rate", "warmup_steps", "weight_decay", "seed"), 0)
LEAST |= dict.fromkeys(("max_grad_norm", "save_steps", "dataloader_num_workers", "reconstruction_weight"), 0)
LEAST |= dict.fromkeys(("cycle_weight", "entity_replacement_probability"), 0)


def flag(default: Any, text: str) -> Any:
    """Declare a command-line flag of a dataclass."""
    return field(default=default, metadata={"help": text})


@dataclass
class ModelArguments:
    """Which model to start from, and its options; those left out are what `BgaMnerConfig` says."""

    text_model: str | None = flag(None, "Text encoder and tokenizer: folder, or name on the Hub.")
    vision_model: str | None = flag(
        None,
        "Vision encoder and image processor: folder, name on the Hub, or open_clip:<model>/<tag>. Needed for images; "
        "otherwise a small random one stands in, which is never run.",
    )
    model_name_or_path: str | None = flag(None, "Saved bga_mner model to continue from, instead of two encoders.")
    preset: str = flag("default", "What options that are left out are: 'default', or 'paper' (the paper's model).")
    image_size: int | None = flag(None, "Side of the images in pixels. Default: the image processor's.")
    num_bga_layers: int | None = flag(None, "Number of aligned layers.")
    reconstruction_weight: float | None = flag(None, "Weight of the reconstruction loss.")
    cycle_weight: float | None = flag(None, "Weight of the cycle loss.")
    entity_replacement_probability: float | None = flag(
        None, "Share of labelled training sentences whose entities are replaced by random tokens."
    )
    replaced_entities_read: str | None = flag(
        None,
        "What sentences with replaced entities read: 'generated' (from the true words; the default) or 'real' (the "
        "image).",
    )
    config_overrides: str | None = flag(None, "Additional options of BgaMnerConfig: key=value,key=value.")
    freeze_vision_encoder: bool = flag(False, "Don't train the vision encoder.")
    cache_vision_states: bool = flag(
        False, "With --freeze_vision_encoder: run it once over all images and cache its states on disk."
    )
    lora_rank: int | None = flag(
        None,
        "Of run_mner.py: train adapters of this rank on the encoders (on the text encoder alone if the other is frozen "
        "or not needed) and what is new, and merge them at the end. Needs peft.",
    )
    language: str | None = flag(None, "For the model card: language of the texts, such as 'en'.")
    license: str | None = flag(None, "For the model card: license of the weights, such as 'cc-by-4.0'.")


@dataclass
class DataArguments:
    """What to read."""

    train_file: str | None = flag(None, "Training file: CoNLL, or JSON from an annotation tool.")
    validation_file: str | None = flag(None, "Validation file, which selects the best checkpoint.")
    test_file: str | None = flag(None, "Test file to predict; tags are optional.")
    image_dir: str | None = flag(
        None,
        "Folder of images: <id>.jpg, .png, .webp, .gif, .bmp, .tiff, .avif, ... in any case of letters, with the "
        "ending in the id or not. With --dataset_name also what names in --image_column are relative to.",
    )
    file_format: str | None = flag(
        None, "Format of the files: conll, doccano, ..., as read_annotations names it. Default: told from the content."
    )
    tag_scheme: str | None = flag(
        None, "Scheme of the tags: BIO, BIOES, IO, ..., as to_bio names it. Default: told from the tags."
    )
    predictions_format: str | None = flag(
        None, "Also write the predictions for an annotation tool: doccano, label-studio, ..."
    )
    dataset_name: str | None = flag(
        None,
        "Dataset of the Hub, or a folder that datasets reads: Parquet, JSONL, CSV, images with metadata.jsonl, or "
        "what save_to_disk wrote.",
    )
    dataset_config_name: str | None = flag(None, "Configuration of that dataset.")
    train_split: str | None = flag(None, "Default: train, where there is one.")
    validation_split: str | None = flag(None, "Default: validation, or dev, valid, val, where there is one.")
    test_split: str | None = flag(None, "Default: test, where there is one.")
    tokens_column: str = flag("tokens", "Column of lists of words; of strings, they are parted by white space.")
    tags_column: str = flag("ner_tags", "Column of lists of tags: strings, or numbers that a ClassLabel names.")
    image_column: str = flag(
        "image",
        "Column of images, of names of files (with or without endings), or of lists of these, whose first readable one "
        "is taken. 'none' leaves them out. Without such a column --image_dir has files called by the ids.",
    )
    id_column: str = flag("id", "Column of ids. Default: row numbers.")
    max_length: int | None = flag(None, "Maximum tokens per text. Default: the model's maximum.")
    streaming: bool = flag(
        False, "Read the training set of --dataset_name while training, row by row; give --max_steps."
    )
    shuffle_buffer: int = flag(1000, "With --streaming: size of the shuffle buffer in rows.")
    labels: str | None = flag(None, "With --streaming: all tags, as O,B-PER,I-PER,..., if no other set has them.")
    overwrite_output_dir: bool = flag(False, "Start over instead of continuing from checkpoints in output_dir.")


@dataclass
class LoopArguments:
    """How to train; the names are those of TrainingArguments."""

    output_dir: str = flag("", "Output folder for the model and the results.")
    do_train: bool = flag(False, "Train. Without --do_train, --do_eval and --do_predict, all that have data are run.")
    do_eval: bool = flag(False, "Evaluate on the validation set at the end.")
    do_predict: bool = flag(False, "Predict the test set, or else the validation set.")
    num_train_epochs: int = flag(3, "Passes over the training set.")
    max_steps: int = flag(-1, "Number of steps, instead of epochs.")
    per_device_train_batch_size: int = flag(8, "Batch size per process in training.")
    per_device_eval_batch_size: int = flag(8, "Batch size per process in evaluation.")
    gradient_accumulation_steps: int = flag(1, "Batches per optimizer step.")
    learning_rate: float = flag(5e-5, "Peak learning rate.")
    lr_scheduler_type: str = flag("linear", "Scheduler, as named by transformers.get_scheduler.")
    warmup_steps: int = flag(0, "Warm-up steps.")
    weight_decay: float = flag(0.0, "Weight decay of AdamW, except for biases and norms.")
    max_grad_norm: float = flag(1.0, "Maximum gradient norm for clipping; 0 disables it.")
    mixed_precision: str | None = flag(None, "no, bf16 or fp16. Default: accelerate's configuration.")
    seed: int = flag(42, "Random seed.")
    logging_steps: int = flag(50, "Steps between log entries.")
    save_steps: int = flag(0, "Steps between checkpoints; 0: one per epoch, after evaluation.")
    save_total_limit: int = flag(2, "Number of checkpoints to keep.")
    resume_from_checkpoint: str | None = flag(
        None, "Checkpoint folder. Default, or 'auto': the last complete one, if any."
    )
    dataloader_num_workers: int = flag(0, "Worker processes that load the data.")
    use_cpu: bool = flag(False, "Train on the CPU.")
    disable_tqdm: bool = flag(False, "Hide progress bars.")


class _ShortHelp(argparse.ArgumentDefaultsHelpFormatter):
    """Of each argument one spelling, and what it is for; there are nearly two hundred."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return action.option_strings[-1] if action.dest == "help" else action.option_strings[0]

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class ArgumentsParser(ErrorsInOneLine, HfArgumentParser):
    """Parser of a script whose arguments are the fields of dataclasses, and whose docstring says what it does."""

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
        """Read the command line, or the JSON file that is its only word; return what was given, without defaults.

        `more` is the least of further numbers, by name, beside `LEAST`.
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
            f"Expected arguments that begin with --, or one JSON file of them, got {shown(name)}, which is not a file. "
            "Check the path."
        )
    try:
        given = json.loads(path.read_bytes())  # bytes: with a mark of their order, and as UTF-16, too
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected JSON in {shown(name)}, got what can't be read: {brief(error)}. Mend the file."
        ) from error
    if not isinstance(given, dict):
        raise ValueError(
            f'Expected an object of arguments, as {{"output_dir": "out"}}, in {shown(name)}, got {shown(given)}. Mend '
            "the file."
        )
    return given
