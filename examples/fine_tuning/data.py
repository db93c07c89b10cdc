"""Reading what the fine-tuning scripts learn from."""

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import datasets
from accelerate import PartialState
from datasets.data_files import SPLIT_KEYWORDS

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    ConllReport,
    cache_vision_states,
    labels_from_tags,
    read_annotations,
    read_conll,
    write_conll,
)
from bga_mner.configuration.errors import brief, shown
from bga_mner.examples.fine_tuning.arguments import DataArguments
from bga_mner.examples.fine_tuning.images import ImageReader
from bga_mner.examples.fine_tuning.stream import (
    check_columns,
    ids_named,
    open_stream,
    read_whole,
    row_id,
    tags_of,
    words_of,
)
from bga_mner.processing.data.conll_writing import writable
from bga_mner.processing.data.formats.writing import WRITTEN_FORMATS
from bga_mner.processing.images.image_folder import ImageCounter
from bga_mner.processing.tags.tag_conversion import Converted, TagError, convert_tags


logger = logging.getLogger("run_mner")

PARTS = ("train", "validation", "test")
# Options that say nothing of files.
_COLUMNS = ("tokens_column", "tags_column", "id_column")
# A stream has no report: nobody has read it yet.
Rows = datasets.Dataset | datasets.IterableDataset
Parts = dict[str, tuple[Rows, ConllReport | None]]


def read_data(data: DataArguments, seed: int, endless: bool = False) -> tuple[Parts, list[str]]:
    """Read what is given of the three sets; return them and the labels of all.

    Rows have the columns id, tokens, ner_tags (strings) and image. `seed` is for the shuffle buffer of a stream, and
    `endless` says whether a stream begins again at its end.
    """
    files = {part: getattr(data, f"{part}_file") for part in PARTS if getattr(data, f"{part}_file")}
    if bool(files) == bool(data.dataset_name):
        raise ValueError(
            f"Expected files or a dataset, got {'both' if files else 'neither'}. Give --train_file, "
            "--validation_file and --test_file, or --dataset_name."
        )
    if data.predictions_format not in (None, *WRITTEN_FORMATS):
        raise ValueError(
            f"Expected --predictions_format as one of {', '.join(WRITTEN_FORMATS)}, got "
            f"{shown(data.predictions_format)}. Name another."
        )
    if files:
        parts, named = _read_files(data, files), []
    else:
        parts, named = _read_dataset(data, seed, endless)
    return parts, _labels(parts, named)


def _read_files(data: DataArguments, files: Mapping[str, str]) -> Parts:
    for name in ("streaming", "dataset_config_name", *map("{}_split".format, PARTS), *_COLUMNS):
        if getattr(data, name) != getattr(DataArguments, name):
            raise ValueError(
                f"Expected --dataset_name beside --{name}, got files, which are read whole and have no such names. "
                "Drop one."
            )
    return {
        part: read_annotations(
            path,
            data.image_dir,
            format=data.file_format,
            scheme=data.tag_scheme,
            check_images=_checks_images(),
            return_report=True,
        )
        for part, path in files.items()
    }


def _checks_images() -> bool:
    """Tell whether this process checks images: once is enough, and the others pass over broken ones."""
    return PartialState().is_main_process


def _read_dataset(data: DataArguments, seed: int, endless: bool) -> tuple[Parts, list[str]]:
    """Read the splits of a data set; return them, and the labels that a stream was said to have."""
    with PartialState().main_process_first():
        splits = _load_splits(data)
    wanted = {part: getattr(data, f"{part}_split") or _default_split(part, splits) for part in PARTS}
    for part, split in wanted.items():
        if split not in splits and getattr(data, f"{part}_split"):
            raise ValueError(
                f"Expected one of the splits {shown(list(splits))} as --{part}_split, got {shown(split)}. Name another."
            )
    parts: Parts = {}
    named: list[str] = []
    for part, name in wanted.items():
        if name not in splits:
            continue
        if data.streaming and part == "train":
            stream, named = open_stream(splits[name], name, data, seed, endless)
            parts[part] = stream, None
        else:
            rows = read_whole(splits[name]) if data.streaming else splits[name]
            parts[part] = _read_split(rows, name, data, _checks_images())
    if not parts:
        raise ValueError(
            f"Expected a split named train, validation or test, got {shown(list(splits))}. Name it: --train_split."
        )
    return parts, named


def _default_split(part: str, splits: Iterable[str]) -> str:
    """Find a set under the names that `datasets` gives it in folders: dev, valid and val are validation sets."""
    return next((name for name in (part, *SPLIT_KEYWORDS[datasets.Split(part)]) if name in splits), part)


def _load_splits(data: DataArguments) -> Mapping[str, Rows]:
    """Load a data set of the Hub or of a folder, whichever way it was written."""
    folder = Path(data.dataset_name or "")
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        saved = datasets.load_from_disk(str(folder))
        saved = saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict(train=saved)
        return {name: rows.to_iterable_dataset() if data.streaming else rows for name, rows in saved.items()}
    if folder.is_file():
        raise ValueError(
            f"Expected a folder or a name as --dataset_name, got the file {shown(str(folder))}. Give its folder."
        )
    try:
        return datasets.load_dataset(data.dataset_name, data.dataset_config_name, streaming=data.streaming)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        reason = error.__cause__ or error
        raise ValueError(
            f"Expected a data set of the Hub or a folder as --dataset_name, got {shown(data.dataset_name)}, which "
            f"can't be read: {brief(reason)}. Check the name, or the files."
        ) from error


def _labels(parts: Parts, named: list[str]) -> list[str]:
    """Collect the labels of all sets; of a stream, which isn't read in advance, those that were named."""
    found = labels_from_tags([named, *(tags for rows, report in parts.values() if report for tags in rows["ner_tags"])])
    if found == ["O"] and any(report is None for _, report in parts.values()):
        raise ValueError(
            "Expected tags that a ClassLabel names, since a stream is not read in advance, got none. Give all of them: "
            "--labels O,B-PER,I-PER,..."
        )
    return found


def log_reports(parts: Parts) -> None:
    """Say what was read, and warn of what no one may have meant."""
    for part, (_, report) in parts.items():
        text = "a stream, which is read in training" if report is None else str(report).replace("\n", "\n    ")
        logger.info("%s set: %s", part.capitalize(), text)
    reports = {part: report for part, (_, report) in parts.items() if report is not None}
    train = reports.get("train")
    if train is not None and not train.images_found and (train.images_missing or train.images_broken):
        logger.warning(
            "No image of the training set was found or could be read, so the model learns from text alone. In "
            "--image_dir they have to be called by their ids (of the lines 'IMGID:<id>'), or as --image_column says: "
            "<id>.jpg, .png, .webp, ..."
        )
    for part, report in reports.items():
        # of a set without tags nothing can be told
        if train is not None and report.entities and (other := sorted(set(report.entities) - set(train.entities))):
            logger.warning(
                "Entity types of the %s set that the training set hasn't: %s (it has %s). Rename what is the same.",
                *(part, ", ".join(other), ", ".join(sorted(train.entities)) or "none"),
            )


def write_report(output_dir: str, labels: list[str], parts: Parts) -> None:
    """Write what was read to `data_report.json`."""
    found = {"labels": labels, **{part: asdict(report) for part, (_, report) in parts.items() if report is not None}}
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    Path(output_dir, "data_report.json").write_text(text, encoding="utf-8")


def has_images(parts: Parts) -> bool:
    """Tell whether there are images; of a stream, whether there is a column of them."""
    return any(
        "image" in (rows.column_names or ()) if report is None else report.images_found > 0
        for rows, report in parts.values()
    )


def prepare_rows(
    parts: Parts,
    model: BgaMnerForTokenClassification,
    processor: BgaMnerProcessor,
    *,
    max_length: int | None,
    cache: bool,
) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Return the sets as they are annotated, and the same encoded when they are read, by any workers of a loader."""
    # the text alone is what gets annotated: images would only take time
    kept = ["id", "tokens", "ner_tags"] + ["image"] * (model.config.visual_source == "real")
    sets = {part: rows if part == "train" else rows.select_columns(kept) for part, (rows, _) in parts.items()}
    if cache and "train" in sets and "image" in (sets["train"].column_names or ()):
        with PartialState().main_process_first():
            sets["train"] = cache_vision_states(sets["train"], model.to(PartialState().device), processor)
    encode = partial(processor.encode_examples, max_length=max_length)
    encoded = {
        part: rows.with_transform(encode)
        if isinstance(rows, datasets.Dataset)
        else rows.map(encode, batched=True, batch_size=1, remove_columns=rows.column_names)
        for part, rows in sets.items()
    }
    return sets, encoded


def _read_split(
    dataset: datasets.Dataset, split: str, data: DataArguments, check: bool
) -> tuple[datasets.Dataset, ConllReport]:
    """Bring a split to what `read_conll` gives, by writing it to a file and reading that."""
    columns = dataset.column_names
    check_columns(columns, split, data)
    if not len(dataset):
        raise ValueError(f"Expected rows in {data.dataset_name}:{split}, got none. Leave the split out, or mend it.")
    tokens = [list(map(writable, words_of(words))) for words in dataset[data.tokens_column]]
    given = list(dataset[data.id_column]) if data.id_column in columns else list(range(len(dataset)))
    ids = [row_id(value, number) for number, value in enumerate(given)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "split.conll")
        tagged = _read_tags(dataset, data)
        try:
            write_conll(file, tokens, tagged.tags, ids)
        except ValueError as error:
            raise ValueError(f"In {data.dataset_name}:{split}: {brief(error)}.") from error
        read, report = read_conll(file, return_report=True)
    report.scheme, report.repaired_tags = tagged.scheme, tagged.broken
    report.path = f"{data.dataset_name}:{split}"
    reader = ImageReader.of_split(dataset.features, data)
    if reader is None:
        return read, report
    images = _read_images(dataset, reader, list(map(str, given)), ImageCounter(report, check))
    return datasets.concatenate_datasets([read.remove_columns("image"), images], axis=1), report


def _read_images(
    dataset: datasets.Dataset, images: ImageReader, ids: list[str], counter: ImageCounter
) -> datasets.Dataset:
    """Read and count the images of a split; those that it holds stay on disk, since they may be larger than memory."""
    values: Iterable[object] = [None] * len(ids)
    if images.column is not None:
        column = dataset.select_columns(images.column)
        if images.is_stored:
            column = column.cast_column(images.column, images.feature)
        stored = column if images.column == "image" else column.rename_column(images.column, "image")
        values = column[images.column]
    chosen = []
    for value, name in zip(datasets.utils.tqdm(values, "Checking images", disable=not counter.check), ids, strict=True):
        try:
            image = counter.choose(name, *images.read(value, name))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"In the image of row {shown(name, 50)} of {counter.report.path}: {brief(error)}."
            ) from error
        if not images.is_stored:
            chosen.append(image)
    if images.is_stored:
        return stored
    return datasets.Dataset.from_dict(
        {"image": chosen}, features=datasets.Features({"image": datasets.Image(decode=False)})
    )


def _read_tags(dataset: datasets.Dataset, data: DataArguments) -> Converted:
    """Read tags given as strings or as numbers that a ClassLabel names."""
    column = data.tags_column
    if column not in dataset.column_names:
        return Converted([None] * len(dataset), "IOB2", 0)
    names = ids_named(dataset.features[column], column)
    try:
        return convert_tags([tags_of(tags, names) for tags in dataset[column]], data.tag_scheme)
    except TagError as error:
        raise ValueError(f"In row {error.sentence} of the column {shown(column)}: {brief(error)}.") from None
