"""Teach a plain model what a BGA-MNER model knows: it needs no code of this package, and runs in the Hub's widget.

The student learns from the teacher's probabilities of texts, labelled or not, and sees no images::

    python examples/distill.py --teacher outputs/mner --train_file train.txt --text_file tweets.jsonl \
        --test_file test.txt --output_dir outputs/student

It starts from the teacher's own text encoder (`--num_layers 3` from three of its layers), or from `--student`, a folder
or a name on the Hub, which may have another tokenizer. Texts come from files or a dataset as in run_mner.py, and
running text from `--text_file`: .txt (one a line), .jsonl, .csv or .parquet with a column `text`. The same command goes
on with a run that was cut off.

Written to the output folder: the model and its tokenizer, `README.md` (the model card) and `distillation.json`, with
the scores of both on the test set (or else the validation set), and how often they agree.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import run_main

import datasets
from transformers import Trainer, TrainingArguments, set_seed

from bga_mner import (
    BgaMnerConfig,
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    DataCollatorForStudent,
    WholeCheckpointCallback,
    add_teacher_probabilities,
    build_student,
    check_settings,
    compare_with_teacher,
    distillation_loss,
    encode_for_student,
    last_whole_checkpoint,
    save_student,
)
from bga_mner.configuration.errors import brief, listed, shown
from bga_mner.examples.fine_tuning.arguments import ArgumentsParser, DataArguments, flag
from bga_mner.examples.fine_tuning.data import log_reports, read_data
from bga_mner.examples.fine_tuning.skeleton import logger, start_logging
from bga_mner.examples.fine_tuning.trainer_arguments import settings_of
from bga_mner.processing.serving.onnx_program import check_onnx_packages


TEACHERS = {kind.__name__: kind for kind in (BgaMnerForTokenClassification, BgaMnerForSequenceClassification)}
TEXT_READERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass
class DistillationArguments:
    """Who teaches whom, and how."""

    teacher: str | None = flag(None, "Saved bga_mner model: folder, or name on the Hub.")
    student: str | None = flag(None, "Encoder and tokenizer to start from. Default: the teacher's own.")
    num_layers: int | None = flag(None, "Of a student that starts from its teacher: number of layers. Default: all.")
    text_file: str | None = flag(
        None,
        "More texts: .txt (one a line), .jsonl, .csv or .parquet with a column 'text'. For a classifier's student also "
        "'target' (offsets) and 'label', as far as they are known.",
    )
    test_text_file: str | None = flag(None, "Texts to compare both on, in the same form, in place of --test_file.")
    gold_weight: float = flag(0.0, "Weight of known labels in the targets, between 0 and 1.")
    teacher_batch_size: int = flag(32, "Texts that the teacher reads at a time.")
    onnx: bool = flag(False, "Also write onnx/, which browsers load with Transformers.js. Needs the extra 'onnx'.")
    name: str | None = flag(None, "For the model card: the student's name.")
    language: str | None = flag(None, "For the model card: language of the texts, such as 'en'.")
    license: str | None = flag(None, "For the model card: license of the weights, such as 'cc-by-4.0'.")
    widget_text: str | None = flag(
        None, "For the model card: text that the Hub's widget shows. Default: the teacher's."
    )


def load_teacher(name: str | None) -> tuple[Any, BgaMnerProcessor]:
    """Load a teacher and its processor."""
    if name is None:
        raise ValueError("Expected --teacher, got none. Name the folder of a trained bga_mner model.")
    try:
        config = BgaMnerConfig.from_pretrained(name)
        kinds = [TEACHERS[kind] for kind in config.architectures or [] if kind in TEACHERS]
        if not kinds:
            raise ValueError(f"it is a {listed(config.architectures or [])}")
        return kinds[0].from_pretrained(name), BgaMnerProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a saved {' or '.join(TEACHERS)} as --teacher, got {shown(name)}: {brief(error)}. Check the path."
        ) from error


def read_running_text(file: str, streaming: bool = False, flag: str = "--text_file") -> Any:
    """Read the column `text` of a file, and what a classifier is asked about and answers."""
    path = Path(file)
    reader = TEXT_READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise ValueError(
            f"Expected a file that ends in one of {', '.join(TEXT_READERS)} as {flag}, got {shown(file)}. "
            "Correct the path, or give annotations with --train_file."
        )
    rows = datasets.load_dataset(reader, data_files=file, split="train", streaming=streaming)
    columns = rows.column_names or list(next(iter(rows), {}))
    if "text" not in columns:
        raise ValueError(f"Expected a column 'text' in {shown(file)}, got {shown(columns)}. Rename yours.")
    rows = rows.select_columns([name for name in ("text", "target", "label") if name in columns])
    return rows.filter(lambda row: bool(row["text"] and row["text"].strip()))


def read_texts(arguments: DistillationArguments, data: DataArguments, teacher: Any, seed: int) -> dict[str, list[Any]]:
    """Read what there is to learn from, by set: for `train` up to two sets of rows, for the others one each."""
    found: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    if data.dataset_name or data.train_file or data.validation_file or data.test_file:
        data.labels = data.labels or ",".join(map(str, teacher.config.id2label.values()))
        parts, _ = read_data(data, seed, endless=True)
        log_reports(parts)
        for part, (rows, _) in parts.items():
            found[part].append(rows.select_columns(["tokens", "ner_tags"]))
    if arguments.text_file:
        found["train"].append(read_running_text(arguments.text_file, data.streaming))
    if arguments.test_text_file:
        found["test"] = [read_running_text(arguments.test_text_file, flag="--test_text_file")]
    if not found["train"]:
        raise ValueError("Expected texts to learn from, got none. Give --train_file, --dataset_name or --text_file.")
    return found


def settings(arguments: DistillationArguments, training: TrainingArguments) -> dict[str, Any]:
    """Say what has to be the same for a run to go on as if it had not been cut off."""
    names = ("teacher", "student", "num_layers", "gold_weight", "text_file")
    return settings_of(training) | {name: getattr(arguments, name) for name in names}


def read_arguments(
    argv: Sequence[str],
) -> tuple[DistillationArguments, DataArguments, TrainingArguments]:
    """Read the command line, or the JSON file that it names."""
    parser = ArgumentsParser((DistillationArguments, DataArguments, TrainingArguments), __doc__)
    given = parser.read(argv, {"num_layers": 1, "gold_weight": 0, "teacher_batch_size": 1})
    defaults = {"save_strategy": "steps" if given.get("streaming") else "epoch", "save_total_limit": 2}
    arguments, data, training = parser.parse_dict({**defaults, **given})
    training.remove_unused_columns = False
    return arguments, data, training


def encode(rows: list[Any], arguments: DistillationArguments, data: DataArguments, pupil: Any, master: Any) -> Any:
    """Let the teacher answer, and bring its answers onto the student's tokens; sets of one kind become one."""
    (_, tokenizer), (teacher, processor) = pupil, master
    encoded = []
    for part in rows:
        taught = add_teacher_probabilities(part, teacher, processor, batch_size=arguments.teacher_batch_size)
        options = {
            "tokenizer": tokenizer,
            "id2label": teacher.config.id2label,
            "max_length": data.max_length,
            "gold_weight": arguments.gold_weight,
        }
        progress = {} if isinstance(taught, datasets.IterableDataset) else {"desc": "Encoding for the student"}
        encoded.append(
            taught.map(
                encode_for_student, batched=True, remove_columns=taught.column_names, fn_kwargs=options, **progress
            )
        )
    return encoded[0] if len(encoded) == 1 else datasets.concatenate_datasets(encoded)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the script with the arguments of the command line, or these; return what was measured."""
    arguments, data, training = read_arguments(list(sys.argv[1:] if argv is None else argv))
    if arguments.onnx:
        check_onnx_packages()  # rather than after the training
    start_logging(training.process_index == 0)
    set_seed(training.seed)
    teacher, processor = load_teacher(arguments.teacher)
    texts = read_texts(arguments, data, teacher, training.seed)
    if data.streaming and training.max_steps <= 0:
        raise ValueError("Expected --max_steps beside --streaming, got none, and a stream has no length. Give it.")
    teacher.to(training.device)
    student, tokenizer = build_student(teacher, processor, arguments.student, arguments.num_layers)
    rows = encode(texts["train"], arguments, data, (student, tokenizer), (teacher, processor))
    kept = settings(arguments, training)
    limit, training.save_total_limit = training.save_total_limit, None
    trainer = Trainer(
        model=student,
        args=training,
        data_collator=DataCollatorForStudent(tokenizer),
        train_dataset=rows,
        compute_loss_func=distillation_loss,
        # old checkpoints are deleted when the new one is whole, which the Trainer can't know
        callbacks=[WholeCheckpointCallback(kept, limit)],
    )
    checkpoint = None if data.overwrite_output_dir else last_whole_checkpoint(training.output_dir)
    if checkpoint is not None:
        check_settings(checkpoint, kept)
        logger.info("Continuing from %s; --overwrite_output_dir starts over.", checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    report: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        tested = next((part for part in ("test", "validation") if texts[part]), None)
        if tested is not None:
            report = compare_with_teacher(student.eval(), tokenizer, teacher, processor, texts[tested][0])
            report["data"] = f"{tested} set"
        finish(arguments, training, (student, tokenizer), teacher, trainer, report)
    return report


def finish(
    arguments: DistillationArguments,
    training: TrainingArguments,
    pupil: tuple[Any, Any],
    teacher: Any,
    trainer: Trainer,
    report: dict[str, Any],
) -> None:
    """Save the student with its card, and say how well it learned."""
    layers, rows = pupil[0].config.num_hidden_layers, trainer.train_dataset
    facts = {
        "started from": arguments.student or f"{layers} layers of the teacher's text encoder",
        "texts": "a stream" if isinstance(rows, datasets.IterableDataset) else len(rows),
        "steps": trainer.state.global_step,
        "batch size": trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps,
        "learning rate": training.learning_rate,
        "weight of known labels": arguments.gold_weight,
        "seed": training.seed,
    }
    save_student(
        training.output_dir,
        *pupil,
        teacher,
        training=facts,
        report=report,
        name=arguments.name,
        language=arguments.language,
        license=arguments.license,
        widget_texts=[arguments.widget_text] if arguments.widget_text else (),
        repository=training.hub_model_id,
        onnx=arguments.onnx,
    )
    Path(training.output_dir, "distillation.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for who in ("teacher", "student"):
        scores = [name for name in ("f1", "precision", "recall", "accuracy") if name in report.get(who, {})]
        if scores:
            logger.info("%s: %s", who.capitalize(), ", ".join(f"{name} {report[who][name]:.4f}" for name in scores))
    if report:
        logger.info("Agreement on %d texts: %.4f", report["texts"], report["agreement"])


if __name__ == "__main__":
    run_main(main)
