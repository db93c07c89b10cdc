"""Reading what the fine-tuning scripts learn from, and writing what they predict."""

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets.data_files import SPLIT_KEYWORDS

from bga_mner import (
    BgaMnerProcessor,
    ConllReport,
    cache_vision_states,
    labels_from_tags,
    predict,
    read_annotations,
    read_conll,
    score_with_interval,
    write_annotations,
    write_conll,
)
from bga_mner.configuration.messages import brief, shown
from bga_mner.examples.fine_tuning.images import ImageReader
from bga_mner.examples.fine_tuning.model import CHANGEABLE, flag
from bga_mner.examples.fine_tuning.stream import (
    check_columns,
    ids_named,
    open_stream,
    read_whole,
    row_id,
    tags_of,
    words_of,
)
from bga_mner.processing.conll import writable
from bga_mner.processing.formats.writing import WRITTEN_FORMATS
from bga_mner.processing.picture_folder import PictureCounter
from bga_mner.processing.tag_conversion import Converted, TagError, convert_tags


logger = logging.getLogger("run_mner")

PARTS = ("train", "validation", "test")
# What each step can be done with; of several sets the first there is.
VERBS = {"do_train": ["train"], "do_eval": ["validation"], "do_predict": ["test", "validation"]}
# Options that say nothing of files.
_COLUMNS = ("tokens_column", "tags_column", "id_column")
# A stream has no report: nobody has read it yet.
Rows = datasets.Dataset | datasets.IterableDataset
Parts = dict[str, tuple[Rows, ConllReport | None]]


@dataclass
class DataArguments:
    """What to read."""

    train_file: str | None = flag(None, "File to train on: CoNLL, or JSON of an annotation tool.")
    validation_file: str | None = flag(None, "The same, to choose the best epoch by.")
    test_file: str | None = flag(None, "The same, to predict; tags are not needed.")
    image_dir: str | None = flag(
        None,
        "Folder of pictures: <id>.jpg, .png, .webp, .gif, .bmp, .tiff, .avif, ... in any case of letters, with the "
        "ending in the id or not. With --dataset_name also what names in --image_column are relative to.",
    )
    file_format: str | None = flag(
        None, "Format of the files: conll, doccano, ..., as read_annotations names it. Default: told from the content."
    )
    tag_scheme: str | None = flag(
        None, "Scheme of the tags: BIO, BIOES, IO, ..., as to_bio names it. Default: told from the tags."
    )
    predictions_format: str | None = flag(None, "Also write predictions for a tool: doccano, label-studio, ...")
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
    id_column: str = flag("id", "Column of ids. Without it: the number of the row.")
    max_length: int | None = flag(None, "Most tokens of a text. Default: what the model reads.")
    streaming: bool = flag(
        False, "Read the training set of --dataset_name while training, row by row; give --max_steps."
    )
    shuffle_buffer: int = flag(1000, "With --streaming: rows in memory that the next one is drawn from.")
    labels: str | None = flag(None, "With --streaming: all tags, as O,B-PER,I-PER,..., if no other set has them.")
    overwrite_output_dir: bool = flag(False, "Delete the checkpoints in output_dir instead of continuing from them.")


def read_data(data: DataArguments, seed: int, endless: bool = False) -> tuple[Parts, list[str]]:
    """Read what is given of the three sets.

    Parameters
    ----------
    data : DataArguments
        Where they are.
    seed : int
        For the shuffle buffer of a stream.
    endless : bool
        Whether a stream begins again at its end.

    Returns
    -------
    tuple of dict of str to tuple and list of str
        By set the rows, with columns id, tokens, ner_tags (strings) and image, and a report on them, which is None for
        a stream. And the labels of all sets.

    Raises
    ------
    ValueError
        If arguments and data do not fit together.
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
            f"{shown(data.predictions_format)}."
        )
    check = PartialState().is_main_process  # once is enough; the others pass over broken ones when they meet them
    if files:
        for name in ("streaming", "dataset_config_name", *map("{}_split".format, PARTS), *_COLUMNS):
            if getattr(data, name) != getattr(DataArguments, name):
                raise ValueError(
                    f"Expected --dataset_name beside --{name}, got files, which are read whole and have no such names. "
                    "Drop one."
                )
        parts = {part: read_annotations(path, data.image_dir, format=data.file_format, scheme=data.tag_scheme,
                                        check_pictures=check, return_report=True)
                 for part, path in files.items()}  # fmt: skip
        return parts, _labels(parts, [])
    with PartialState().main_process_first():
        splits = _load_splits(data)
    wanted = {part: getattr(data, f"{part}_split") or _default_split(part, splits) for part in PARTS}
    for part, split in wanted.items():
        if split not in splits and getattr(data, f"{part}_split"):
            raise ValueError(
                f"Expected one of the splits {shown(list(splits))} as --{part}_split, got {shown(split)}. Name another."
            )
    parts, named = {}, []
    for part, name in wanted.items():
        if name not in splits:
            continue
        if data.streaming and part == "train":
            stream, named = open_stream(splits[name], name, data, seed, endless)
            parts[part] = stream, None
        else:
            parts[part] = _read_split(read_whole(splits[name]) if data.streaming else splits[name], name, data, check)
    if not parts:
        raise ValueError(
            f"Expected a split named train, validation or test, got {shown(list(splits))}. Name it: --train_split."
        )
    return parts, _labels(parts, named)


def _default_split(part: str, splits: Iterable[str]) -> str:
    """Find a set under the names that `datasets` gives it in folders: dev, valid and val are validation sets."""
    return next((name for name in (part, *SPLIT_KEYWORDS[datasets.Split(part)]) if name in splits), part)


def _load_splits(data: DataArguments) -> Any:
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


def prepare_rows(
    parts: Parts, model: Any, processor: BgaMnerProcessor, *, max_length: int | None, cache: bool
) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Make of the sets what a data loader reads.

    Parameters
    ----------
    parts : dict of str to tuple
        As `read_data` gives them.
    model, processor
        Of the run.
    max_length : int or None
        Most tokens of a text.
    cache : bool
        Whether to run the vision encoder over the training pictures now.

    Returns
    -------
    tuple of two dicts of str to datasets.Dataset
        The rows, and the same encoded when they are read: by the workers of a data loader, if it has any.
    """
    # the text alone is what gets annotated: pictures would only take time
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


def log_reports(parts: Parts) -> None:
    """Say what was read, and warn of what no one may have meant."""
    for part, (_, report) in parts.items():
        text = "a stream, which is read in training" if report is None else str(report).replace("\n", "\n    ")
        logger.info("%s set: %s", part.capitalize(), text)
    reports = {part: report for part, (_, report) in parts.items() if report is not None}
    train = reports.get("train")
    if train is not None and not train.pictures_found and (train.pictures_missing or train.pictures_broken):
        logger.warning(
            "No picture of the training set was found or could be read, so the model learns from text alone. In "
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


def warn_if_done(begun: int | None, last: int) -> None:
    """Say that a run of `last` steps was over already, if the checkpoint that it went on from is of that step."""
    if begun is not None and begun >= last:
        logger.warning(
            "Nothing was left to train: the checkpoint is of the last step, %d. Give --overwrite_output_dir to start "
            "over, another --output_dir for another training, or a larger --num_train_epochs to train on.",
            last,
        )


def write_report(output_dir: str, labels: list[str], parts: Parts) -> None:
    """Write what was read to ``data_report.json``."""
    found = {"labels": labels, **{part: asdict(report) for part, (_, report) in parts.items() if report is not None}}
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    Path(output_dir, "data_report.json").write_text(text, encoding="utf-8")


def has_pictures(parts: Parts) -> bool:
    """Tell whether there are pictures; of a stream, whether there is a column of them."""
    return any(
        "image" in (rows.column_names or ()) if report is None else report.pictures_found > 0
        for rows, report in parts.values()
    )


def data_settings(parts: Parts, model: Any, max_length: int | None) -> dict[str, Any]:
    """Say what of data and model has to be the same for a run to go on from a checkpoint."""
    report = parts["train"][1] if "train" in parts else None
    return {
        "labels": list(model.config.label2id),
        "training data (sha256)": report and report.sha256,
        "max_length": max_length,
        "trained parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        **{name: value for name, value in model.config.to_dict().items() if name in CHANGEABLE},
    }


def wanted_verbs(given: Mapping[str, Any], parts: Parts, saved: bool) -> list[str]:
    """Choose what to do: what was asked for, or all that there is data for.

    Raises
    ------
    ValueError
        If there is no data for what was asked for, or nothing is trained and no `saved` model is given.
    """
    wanted = [verb for verb in VERBS if given.get(verb)] or [verb for verb in VERBS if set(VERBS[verb]) & set(parts)]
    for verb in wanted:
        if not set(VERBS[verb]) & set(parts):
            raise ValueError(
                f"Expected a {' or '.join(VERBS[verb])} set for --{verb}, got {shown(list(parts))} only. Give one."
            )
    if "do_train" not in wanted and not saved:
        raise ValueError("Expected a trained model, since nothing is trained, got none. Give --model_name_or_path.")
    return wanted


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
    images = ImageReader.of_split(dataset.features, data)
    if images is None:
        return read, report
    pictures = _read_images(dataset, images, list(map(str, given)), PictureCounter(report, check))
    return datasets.concatenate_datasets([read.remove_columns("image"), pictures], axis=1), report


def _read_images(
    dataset: datasets.Dataset, images: ImageReader, ids: list[str], counter: PictureCounter
) -> datasets.Dataset:
    """Read and count the images of a split; those that it holds stay on disk, since they may be larger than memory."""
    rows: Any = [None] * len(ids)
    if images.column is not None:
        rows = dataset.select_columns(images.column)
        if images.is_stored:
            rows = rows.cast_column(images.column, images.feature)
        stored = rows if images.column == "image" else rows.rename_column(images.column, "image")
        rows = rows[images.column]
    chosen = []
    for value, name in zip(datasets.utils.tqdm(rows, "Checking pictures", disable=not counter.check), ids, strict=True):
        try:
            picture = counter.choose(name, *images.read(value, name))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"In the image of row {shown(name, 50)} of {counter.report.path}: {brief(error)}."
            ) from error
        if not images.is_stored:
            chosen.append(picture)
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


def write_predictions(
    model: Any,
    processor: BgaMnerProcessor,
    rows: datasets.Dataset,
    output_dir: str,
    *,
    batch_size: int,
    max_length: int | None,
    show_progress: bool,
    split: bool = True,
    annotation_format: str | None = None,
) -> dict[str, Any]:
    """Predict, write both files, and score words as `build_compute_metrics` does; no scores without tags.

    Parameters
    ----------
    model, processor
        Of the run.
    rows : datasets.Dataset
        What to predict.
    output_dir : str
        Where ``predictions.conll`` and ``predictions.jsonl`` go.
    batch_size, max_length, show_progress
        As `predict` takes them.
    split : bool
        Whether each process takes a share. A model whose weights are spread over processes runs in all of them at the
        same time, so then each has to take everything.
    annotation_format : str or None
        Write ``predictions.<format>.json`` (or ``.jsonl``), too, as `write_annotations` does.

    Returns
    -------
    dict
        What `score_with_interval` gives; empty without tags.
    """
    state = PartialState()
    share = -(-len(rows) // state.num_processes) if split else len(rows)
    start = share * state.process_index if split else 0
    part = rows[start : start + share]
    found = predict(
        model,
        processor,
        part["tokens"],
        part.get("image"),
        is_split_into_words=True if part["tokens"] else None,
        batch_size=batch_size,
        max_length=max_length,
        show_progress=state.is_main_process and show_progress,
    )
    found = gather_object(found) if split else found
    ids, tokens, known = list(rows["id"]), list(rows["tokens"]), list(rows["ner_tags"])
    tags = [_tags(words, entities) for words, entities in zip(tokens, found, strict=True)]
    if state.is_main_process:
        write_conll(Path(output_dir, "predictions.conll"), tokens, tags, ids)
        with Path(output_dir, "predictions.jsonl").open("w", encoding="utf-8") as file:
            for name, words, entities in zip(ids, tokens, found, strict=True):
                line = {"id": name, "text": " ".join(words), "entities": entities}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if annotation_format:
            ending = "json" if annotation_format in ("label-studio", "spacy", "gliner") else "jsonl"
            copy = Path(output_dir, f"predictions.{annotation_format}.{ending}")
            write_annotations(copy, tokens, found, annotation_format, ids=ids)
    if all(tag is None for sentence in known for tag in sentence):
        return {}
    return score_with_interval(tags, known)


def flat_scores(scores: dict[str, Any]) -> dict[str, float]:
    """Bring scores to the form of a Trainer's metrics."""
    flat = {name: value for name, value in scores.items() if name not in ("types", "samples", "confidence")}
    by_type = scores["types"].items()
    return flat | {f"{name}_{kind}": value for kind, values in by_type for name, value in values.items()}


def _tags(words: list[str], entities: list[dict[str, Any]]) -> list[str]:
    """Turn entities with places in the text into one tag a word."""
    tags, place = [], 0
    for word in words:
        inside = next((entity for entity in entities if entity["start"] <= place < entity["end"]), None)
        tags.append(f"{'B' if inside['start'] == place else 'I'}-{inside['label']}" if inside else "O")
        place += len(word) + 1
    return tags
