"""Measure what a plain student keeps of what its teacher learned from images.

A teacher is trained on the generated corpus (`benchmarks/alignment.py`: half of the names are never labelled), and
teaches stock `BertForTokenClassification`s on the training texts, without labels and images. Scored on sentences of
never-labelled names, in the stock pipeline, by entity (and, as `f1_by_words`, with tags read at the first tokens of
words)::

    python benchmarks/distillation.py --seeds 0,1 --json

Students: `student` starts from its teacher's text encoder; `half` has half of its layers; `subwords` is new, and has a
tokenizer of its own, whose vocabulary is smaller; `of_text_only` is taught by a teacher that saw no images.

`--data_dir` names a folder with `train.txt` and `valid.txt` in CoNLL format instead: the teacher is trained by
`examples/run_mner.py` on these, without images, and scores are those of `valid.txt`. `--text_file` adds texts without
labels for a further student, `more_texts`::

    python benchmarks/distillation.py --data_dir twitter2017 --text_file tweets.jsonl --seeds 0,1 --json
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bga_mner.examples.command_line import Parser, names_of, positive, rate, run_main

from datasets import Dataset, concatenate_datasets
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, Trainer, set_seed

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    DataCollatorForStudent,
    add_teacher_probabilities,
    build_student,
    compare_with_teacher,
    distillation_loss,
    encode_for_student,
    read_conll,
)
from bga_mner.benchmarks import real_text
from bga_mner.examples.fine_tuning.lessons import read_running_text
from bga_mner.examples.reporting import mean_and_worst, print_json, print_table, start
from bga_mner.examples.synthetic.experiment import TEXT_ONLY, Experiment, Variant, add_options, read_options
from bga_mner.examples.synthetic.recipe import LONGEST_TEXT, training_arguments


STUDENTS = ("student", "half", "subwords", "of_text_only", "more_texts")
SUBWORDS = 300  # in the vocabulary of `subwords`: about half of the teacher's words


class Teacher(NamedTuple):
    """A trained model, sets of texts that it teaches on, and what both are scored on, by name."""

    model: BgaMnerForTokenClassification
    processor: BgaMnerProcessor
    texts: list[Dataset]
    tests: dict[str, Dataset]


def teach(teacher: Teacher, options: argparse.Namespace, seed: int, folder: Path, **student_options: Any) -> Any:
    """Train a student with the stock Trainer; return it and its tokenizer."""
    set_seed(seed)
    student, tokenizer = build_student(teacher.model, teacher.processor, **student_options)
    names = {"tokenizer": tokenizer, "id2label": teacher.model.config.id2label}
    taught = concatenate_datasets(
        [
            add_teacher_probabilities(texts, teacher.model, teacher.processor, cache_dir=folder / "taught")
            for texts in teacher.texts
        ]
    )
    rows = taught.map(encode_for_student, batched=True, remove_columns=taught.column_names, fn_kwargs=names)
    steps = -(-len(rows) // options.student_batch_size) * options.student_epochs
    rates = (options.student_batch_size, options.student_learning_rate)
    trainer = Trainer(
        model=student,
        args=training_arguments(folder, steps, *rates, seed, options.quiet),
        train_dataset=rows,
        data_collator=DataCollatorForStudent(tokenizer),
        compute_loss_func=partial(distillation_loss, temperature=options.student_temperature),
    )
    trainer.train()
    return student.eval(), tokenizer


def scores(teacher: Teacher, student: Any, tokenizer: Any) -> dict[str, dict[str, float]]:
    """Compare a student with its teacher: F1 by test set and their agreement, of both."""
    found: dict[str, dict[str, float]] = {"teacher": {}, "student": {}, "student_by_words": {}, "agreement": {}}
    for name, test in teacher.tests.items():
        report = compare_with_teacher(student, tokenizer, teacher.model, teacher.processor, test, batch_size=64)
        for who in ("teacher", "student", "student_by_words"):
            found[who][name] = report[who]["f1"]
        found["agreement"][name] = report["agreement"]
    return found


def new_encoder(sentences: Sequence[Sequence[str]], folder: Path) -> str:
    """Save a new tiny BERT with a tokenizer that parts words; return its folder."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=SUBWORDS, special_tokens=special, show_progress=False)
    backend.train_from_iterator([" ".join(words) for words in sentences], trainer)
    ends = [("[SEP]", backend.token_to_id("[SEP]")), ("[CLS]", backend.token_to_id("[CLS]"))]
    backend.post_processor = processors.BertProcessing(*ends)
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    longest = 4 * LONGEST_TEXT  # of pieces of words
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=longest, **names)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=longest,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def on_generated(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Train teachers that learn from pairs and from their texts alone, and their students; return scores by student."""
    experiment = Experiment(options, seed, folder)
    tests = {
        "f1": experiment.corpus.test_unseen_labels.remove_columns("image"),
        "labelled_f1": experiment.corpus.test_labelled.remove_columns("image"),
    }
    texts = experiment.corpus.train.select_columns("tokens")

    def make_teacher(variant: Variant) -> Teacher:
        model = experiment.train(variant).model.eval()
        return Teacher(model, experiment.processor, [texts], tests)

    teacher, found = make_teacher(Variant()), {}
    others: dict[str, dict[str, Any]] = {"student": {}, "half": {"num_layers": max(1, options.layers // 2)}}
    if "subwords" in options.students:
        others["subwords"] = {"checkpoint": new_encoder(texts["tokens"], folder / "subwords")}
    for name, student_options in others.items():
        if name in options.students:
            found[name] = scores(teacher, *teach(teacher, options, seed, folder, **student_options))
    if "of_text_only" in options.students:
        teacher = make_teacher(TEXT_ONLY)
        found["of_text_only"] = scores(teacher, *teach(teacher, options, seed, folder))
    return found


def on_real_text(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Train a teacher on labelled texts, as `benchmarks/real_text.py` does, and its students; return their scores."""
    data, trained = folder / "data", folder / "teacher"
    data.mkdir()
    real_text.copy_data(options.data_dir, data, options.max_train_sentences)
    arguments = real_text.training_arguments(options, seed, trained)
    real_text.train_ours(data, options.text_model or real_text.default_text_model(), arguments, options.max_length)
    train, valid = (read_conll(data / f"{part}.txt").select_columns(["tokens", "ner_tags"]) for part in real_text.PARTS)
    model, processor = BgaMnerForTokenClassification.from_pretrained(trained), BgaMnerProcessor.from_pretrained(trained)
    teacher, found = Teacher(model, processor, [train], {"f1": valid}), {}
    half = max(1, model.config.text_config.num_hidden_layers // 2)
    for name, student_options in (("student", {}), ("half", {"num_layers": half})):
        if name in options.students:
            found[name] = scores(teacher, *teach(teacher, options, seed, folder, **student_options))
    if "more_texts" in options.students:
        teacher.texts.append(read_running_text(str(options.text_file)))
        found["more_texts"] = scores(teacher, *teach(teacher, options, seed, folder))
    return found


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what was left out depends on where the texts come from."""
    parser = Parser(__doc__)
    add_options(parser)
    parser.add_argument("--students", type=names_of(STUDENTS), help=f"comma-separated list from {', '.join(STUDENTS)}")
    parser.add_argument("--student_epochs", type=positive, help="passes over the texts (default: 12, real texts: 5)")
    parser.add_argument("--student_batch_size", type=positive, help="default: 32, real texts: 16")
    parser.add_argument("--student_learning_rate", type=rate, help="default: 3e-3, real texts: 1e-4")
    parser.add_argument("--student_temperature", type=rate, default=1.0, help="as of examples/distill.py")
    parser.add_argument("--data_dir", type=Path, help="folder with train.txt and valid.txt, instead of generated texts")
    parser.add_argument("--text_file", type=Path, help="with --data_dir: more texts, as of examples/distill.py")
    parser.add_argument("--text_model", help="with --data_dir: the teacher's text encoder")
    parser.add_argument("--epochs", type=positive, default=5, help="with --data_dir: of the teacher")
    parser.add_argument("--max_length", type=positive, default=128, help="with --data_dir: maximum tokens of a text")
    parser.add_argument("--max_train_sentences", type=positive, help="with --data_dir: use only as many of each file")
    options = read_options(parser, argv)
    real = options.data_dir is not None
    possible = ("student", "half", *(("more_texts",) if options.text_file else ())) if real else STUDENTS[:4]
    if impossible := sorted(set(options.students or ()) - set(possible)):
        parser.error(f"--students {', '.join(impossible)}: possible here are {', '.join(possible)}")
    options.students = options.students or possible
    options.student_epochs = options.student_epochs or (5 if real else 12)
    options.student_batch_size = options.student_batch_size or (16 if real else 32)
    options.student_learning_rate = options.student_learning_rate or (1e-4 if real else 3e-3)
    if real:
        options.batch_size, options.learning_rate = 16, 1e-4  # of the teacher
    return options


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Run the benchmark, and print a table; return `teacher`, and scores by student, with one value per seed."""
    options = read_arguments(argv)
    start(options)
    console = Console(width=120)
    run = on_generated if options.data_dir is None else on_real_text
    found: dict[str, dict[str, list[float]]] = {}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            of_seed = run(options, seed, Path(folder))
        for name in options.students:
            by_who = of_seed[name]
            columns = {f"teacher_{key}": value for key, value in by_who["teacher"].items()}
            columns |= by_who["student"] | {"f1_by_words": by_who["student_by_words"]["f1"]}
            columns["agreement"] = by_who["agreement"]["f1"]
            for key, value in columns.items():
                found.setdefault(name, {}).setdefault(key, []).append(value)
            console.print(f"Seed {seed}, {name}: " + ", ".join(f"{key} {value:.4f}" for key, value in columns.items()))
    titles = list(next(iter(found.values())))
    rows = [(name, *(mean_and_worst(columns[key]) for key in titles)) for name, columns in found.items()]
    print_table("Students and their teachers, mean (worst) over seeds", ("student", *titles), rows, console)
    print_json(options, {"distillation": as_line(found)})
    return found


def as_line(found: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    """Put the scores of the plain student beside its teacher's; those of other students have their own keys."""
    line: dict[str, Any] = dict(found)
    if "student" in found:
        columns = found["student"]
        names = [key for key in columns if f"teacher_{key}" in columns]
        line["teacher"] = {name: columns[f"teacher_{name}"] for name in names}
        line["student"] = {name: columns[name] for name in names}
        line["agreement"] = columns["agreement"]
    return line


if __name__ == "__main__":
    run_main(main)
