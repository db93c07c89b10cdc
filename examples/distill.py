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
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bga_mner.examples.command_line import run_main

from accelerate import PartialState
from datasets import Features, IterableDataset, List, Value, concatenate_datasets
from transformers import Trainer, TrainingArguments, set_seed

from bga_mner import (
    BgaMnerConfig,
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
from bga_mner.configuration.errors import shown
from bga_mner.configuration.hub.hub_names import came_from_hub
from bga_mner.examples.fine_tuning.arguments import ArgumentsParser, DataArguments, flag
from bga_mner.examples.fine_tuning.lessons import digest_of_files, load_teacher, read_texts
from bga_mner.examples.fine_tuning.skeleton import logger, start_logging
from bga_mner.examples.fine_tuning.trainer_arguments import settings_of
from bga_mner.processing.distillation.student_examples import longest_row
from bga_mner.processing.serving.onnx_program import check_onnx_packages


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
    temperature: float = flag(1.0, "Softens the answers of both; 3 suits a teacher that is sure of its texts.")
    teacher_batch_size: int = flag(32, "Texts that the teacher reads at a time.")
    onnx: bool = flag(False, "Also write onnx/, which browsers load with Transformers.js. Needs the extra 'onnx'.")
    name: str | None = flag(None, "For the model card: the student's name.")
    language: str | None = flag(None, "For the model card: language of the texts, such as 'en'.")
    license: str | None = flag(None, "For the model card: license of the weights, such as 'cc-by-4.0'.")
    widget_text: str | None = flag(
        None, "For the model card: text that the Hub's widget shows. Default: the teacher's."
    )


class Lesson(NamedTuple):
    """Who learns from whom."""

    student: Any
    tokenizer: Any
    teacher: Any
    processor: BgaMnerProcessor


def read_arguments(argv: Sequence[str]) -> tuple[DistillationArguments, DataArguments, TrainingArguments]:
    """Read the command line, or the JSON file that it names; refuse what would be found late, or has no meaning."""
    parser = ArgumentsParser((DistillationArguments, DataArguments, TrainingArguments), __doc__)
    given = parser.read(argv, {"num_layers": 1, "gold_weight": 0, "teacher_batch_size": 1})
    defaults = {"save_strategy": "steps" if given.get("streaming") else "epoch", "save_total_limit": 2}
    arguments, data, training = parser.parse_dict({**defaults, **given})
    if not arguments.temperature > 0:
        raise ValueError(f"Expected --temperature above 0, got {arguments.temperature}. Give another.")
    if arguments.gold_weight > 1:
        raise ValueError(f"Expected --gold_weight of at most 1, got {arguments.gold_weight}. Give another.")
    if training.eval_strategy != "no" or training.load_best_model_at_end or training.label_smoothing_factor:
        raise ValueError(
            "Expected no --eval_strategy, --load_best_model_at_end and --label_smoothing_factor: the loss is the "
            "teacher's, and both are scored at the end. Leave them out."
        )
    if data.streaming:
        if training.max_steps <= 0:
            raise ValueError("Expected --max_steps beside --streaming, got none, and a stream has no length. Give it.")
        # each process reads for itself: texts of different lengths can't be put together and handed out
        training.accelerator_config.dispatch_batches = False
    if arguments.onnx:
        check_onnx_packages()
    training.remove_unused_columns = False
    return arguments, data, training


def encode(rows: list[Any], lesson: Lesson, arguments: DistillationArguments, data: DataArguments, folder: Path) -> Any:
    """Let the teacher answer once, and bring its answers onto the student's tokens; several sets become one."""
    names = [name for name in lesson.tokenizer.model_input_names if name != "labels"]
    of_labels = Value("float32") if not hasattr(lesson.teacher, "crf") else List(Value("float32"))
    features = Features({name: List(Value("int64")) for name in names} | {"labels": List(of_labels)})
    options = {"max_length": data.max_length, "gold_weight": arguments.gold_weight}
    options |= {"tokenizer": lesson.tokenizer, "id2label": lesson.teacher.config.id2label}

    def encoded(batch: Any) -> dict[str, Any]:
        columns = encode_for_student(batch, **options)
        return {name: columns[name] for name in features}

    found = []
    with PartialState().main_process_first():
        for part in rows:
            taught = add_teacher_probabilities(
                part, lesson.teacher, lesson.processor, batch_size=arguments.teacher_batch_size, cache_dir=folder
            )
            found.append(taught.map(encoded, batched=True, remove_columns=taught.column_names, features=features))
    return found[0] if len(found) == 1 else concatenate_datasets(found)


def settings(arguments: DistillationArguments, data: DataArguments, training: TrainingArguments) -> dict[str, Any]:
    """Say what has to be the same for a run to go on as if it had not been cut off."""
    names = ("teacher", "student", "num_layers", "gold_weight", "temperature")
    texts = digest_of_files(data.train_file, data.dataset_name, arguments.text_file)
    chosen = {name: getattr(arguments, name) for name in names} | {"max_length": data.max_length}
    return settings_of(training) | chosen | {"texts (sha256)": texts}


def find_checkpoint(training: TrainingArguments, kept: dict[str, Any], start_over: bool) -> str | None:
    """Find the checkpoint that training goes on from; refuse a folder of something else."""
    config = Path(training.output_dir, "config.json")
    if (
        config.is_file()
        and json.loads(config.read_text(encoding="utf-8")).get("model_type") == BgaMnerConfig.model_type
    ):
        raise ValueError(
            f"Expected a folder for the student as --output_dir, got {shown(training.output_dir)}, which holds a model "
            "of bga_mner, perhaps the teacher. Name another."
        )
    checkpoint = training.resume_from_checkpoint
    if checkpoint in (None, "auto"):
        checkpoint = None if start_over else last_whole_checkpoint(training.output_dir)
    if checkpoint is not None:
        check_settings(checkpoint, kept)
        logger.info("Continuing from %s; --overwrite_output_dir starts over.", checkpoint)
    return checkpoint


def train(
    lesson: Lesson,
    rows: Any,
    training: TrainingArguments,
    kept: dict[str, Any],
    checkpoint: str | None,
    temperature: float,
) -> Trainer:
    """Train with the stock Trainer, from a checkpoint if there is one."""
    limit, training.save_total_limit = training.save_total_limit, None
    trainer = Trainer(
        model=lesson.student,
        args=training,
        data_collator=DataCollatorForStudent(lesson.tokenizer),
        train_dataset=rows,
        compute_loss_func=partial(distillation_loss, temperature=temperature),
        # old checkpoints are deleted when the new one is whole, which the Trainer can't know
        callbacks=[WholeCheckpointCallback(kept, limit)],
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def card_rows(lesson: Lesson, arguments: DistillationArguments, trainer: Trainer, texts: list[Any]) -> dict[str, Any]:
    """Collect what the model card says of the training."""
    layers = f"{lesson.student.config.num_hidden_layers} layers of the teacher's text encoder"
    other = arguments.student if came_from_hub(arguments.student or "") else "another encoder"
    streams = any(isinstance(rows, IterableDataset) for rows in texts)
    training = trainer.args
    return {
        "started from": other if arguments.student else layers,
        "texts": "a stream" if streams else sum(map(len, texts)),
        "steps": trainer.state.global_step,
        "batch size": training.train_batch_size * training.gradient_accumulation_steps * training.world_size,
        "learning rate": training.learning_rate,
        "weight of known labels": arguments.gold_weight,
        "temperature": arguments.temperature,
        "seed": training.seed,
    }


def log_scores(report: dict[str, Any]) -> None:
    """Say how well both do."""
    for who, name in (("teacher", "Teacher"), ("student", "Student"), ("student_by_words", "Student, word by word")):
        scores = [name for name in ("f1", "precision", "recall", "accuracy") if name in report.get(who, {})]
        if scores:
            logger.info("%s: %s", name, ", ".join(f"{name} {report[who][name]:.4f}" for name in scores))
    if not report:
        logger.warning("Nothing to compare on: give --validation_file, --test_file or --test_text_file.")
    else:
        logger.info("Agreement on %d texts: %.4f", report["texts"], report["agreement"])


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the script with the arguments of the command line, or these; return what was measured."""
    arguments, data, training = read_arguments(list(sys.argv[1:] if argv is None else argv))
    start_logging(training.process_index == 0)
    set_seed(training.seed)
    kept = settings(arguments, data, training)
    checkpoint = find_checkpoint(training, kept, data.overwrite_output_dir)
    teacher, processor = load_teacher(arguments.teacher)
    files = (arguments.text_file, arguments.test_text_file)
    texts = read_texts(data, *files, teacher, arguments.gold_weight > 0, training.seed)
    teacher.to(training.device)
    lesson = Lesson(*build_student(teacher, processor, arguments.student, arguments.num_layers), teacher, processor)
    longest_row(lesson.tokenizer, data.max_length)  # refused before the teacher is asked
    rows = encode(texts["train"], lesson, arguments, data, Path(training.output_dir, "taught"))
    trainer = train(lesson, rows, training, kept, checkpoint, arguments.temperature)
    report: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        lesson.student.eval()
        tested = next((part for part in ("test", "validation") if texts[part]), None)
        if tested is not None:
            report = compare_with_teacher(*lesson, texts[tested][0]) | {"data": f"{tested} set"}
        save_student(
            training.output_dir,
            *lesson[:3],
            training=card_rows(lesson, arguments, trainer, texts["train"]),
            report=report,
            name=arguments.name,
            language=arguments.language,
            license=arguments.license,
            widget_texts=[arguments.widget_text] if arguments.widget_text else (),
            repository=training.hub_model_id,
            onnx=arguments.onnx,
        )
        Path(training.output_dir, "distillation.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        log_scores(report)
    return report


if __name__ == "__main__":
    run_main(main)
