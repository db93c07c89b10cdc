"""What a student learns from: a teacher, and texts of any of the forms that there are."""

import hashlib
from pathlib import Path
from typing import Any

import datasets

from bga_mner import BgaMnerProcessor
from bga_mner.configuration.errors import brief, shown
from bga_mner.examples.fine_tuning.arguments import DataArguments
from bga_mner.examples.fine_tuning.data import log_reports, read_data
from bga_mner.examples.fine_tuning.skeleton import logger
from bga_mner.examples.saved_models import load_saved


TEXT_READERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def load_teacher(name: str | None) -> tuple[Any, BgaMnerProcessor]:
    """Load a teacher and its processor."""
    if name is None:
        raise ValueError("Expected --teacher, got none. Name the folder of a trained bga_mner model.")
    try:
        return load_saved(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a saved bga_mner model as --teacher, got {shown(name)}: {brief(error)}. Check the path."
        ) from error


def read_running_text(file: str, flag: str = "--text_file") -> datasets.Dataset:
    """Read the column `text` of a file, and what a classifier is asked about and answers; empty texts are left out."""
    path = Path(file)
    reader = TEXT_READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise ValueError(
            f"Expected a file that ends in one of {', '.join(TEXT_READERS)} as {flag}, got {shown(file)}. "
            "Correct the path, or give annotations with --train_file."
        )
    nothing = ValueError(f"Expected texts in {shown(file)}, got none. Give another {flag}.")
    if not path.stat().st_size:
        raise nothing
    try:
        rows = datasets.load_dataset(reader, data_files=file, split="train")
    except datasets.exceptions.DatasetGenerationError as error:
        raise ValueError(
            f"Expected {path.suffix} as {flag}, got {shown(file)}, which can't be read: "
            f"{brief(error.__cause__ or error)}. Mend the file."
        ) from error
    columns = rows.column_names
    if "text" not in columns:
        raise ValueError(f"Expected a column 'text' in {shown(file)}, got {shown(columns)}. Rename yours.")
    rows = rows.select_columns([name for name in ("text", "target", "label") if name in columns])
    # a table may hold numbers
    rows = rows.cast_column("text", datasets.Value("string"))
    count = len(rows)
    rows = rows.filter(lambda row: bool(row["text"] and row["text"].strip()))
    if not len(rows):
        raise nothing
    if len(rows) < count:
        logger.warning("%d of %d rows of %s hold no text, and are left out.", count - len(rows), count, path.name)
    return rows


def read_texts(
    data: DataArguments, text_file: str | None, test_text_file: str | None, teacher: Any, keeps_tags: bool, seed: int
) -> dict[str, list[Any]]:
    """Read texts by set: for `train` up to two sets of rows, for the others one each.

    Known tags of the training set are read if `keeps_tags`; otherwise its tags may be any.
    """
    found: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    if data.dataset_name or data.train_file or data.validation_file or data.test_file:
        if not hasattr(teacher, "crf"):
            raise ValueError(
                "Expected --text_file and --test_text_file for a classifier's student, got tagged words. Put texts, "
                "targets and labels into such a file."
            )
        if data.streaming and text_file:
            raise ValueError(
                "Expected --streaming without --text_file, which is read whole, got both. Add the texts to the dataset."
            )
        data.image_column = "none"  # a student sees none
        data.labels = data.labels or ",".join(map(str, teacher.config.id2label.values()))
        parts, _ = read_data(data, seed, endless=True)
        log_reports(parts)
        for part, (rows, _) in parts.items():
            kept = ["tokens"] + ["ner_tags"] * (keeps_tags or part != "train")
            found[part].append(rows.select_columns(kept))
    if text_file:
        found["train"].append(read_running_text(text_file))
    if test_text_file:
        found["test"] = [read_running_text(test_text_file, "--test_text_file")]
    if not found["train"]:
        raise ValueError("Expected texts to learn from, got none. Give --train_file, --dataset_name or --text_file.")
    return found


def digest_of_files(*files: str | None) -> str:
    """Return what tells files apart by their content; of datasets of the Hub only the names can."""
    digest = hashlib.sha256()
    for file in filter(None, files):
        digest.update(Path(file).read_bytes() if Path(file).is_file() else file.encode())
    return digest.hexdigest()[:16]
