"""Fine-tune, evaluate and apply BGA-MNER with the stock Trainer, on CoNLL files or a dataset of the Hub.

A first run, with pictures named ``<id>.jpg`` in a folder; the same command continues a run that was cut off::

    python examples/run_mner.py --train_file train.txt --validation_file valid.txt --test_file test.txt \
        --image_dir pictures --text_model bert-base-cased --vision_model openai/clip-vit-base-patch32 --output_dir out

Without pictures leave out ``--image_dir`` and ``--vision_model``. To predict with what was learned:
``--model_name_or_path out --test_file new.txt --do_predict --output_dir predicted``. All arguments may also stand in
one JSON file: ``python examples/run_mner.py arguments.json``. Several processes: ``torchrun --nproc_per_node 2 ...``.

Written to the output folder: model and processor, ``train_results.json``, ``eval_results.json`` (validation set),
``test_results.json``, ``data_report.json`` (what was read, with checksums), ``README.md`` (the model card, filled with
all of this), and of the test set, or the validation set
if there is no other, ``predictions.conll`` and ``predictions.jsonl``. The test scores are those of the written
predictions, for which long texts are read in windows; validation scores leave out what ``--max_length`` cuts off.
"""

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import transformers
from accelerate.utils import gather_object
from PIL import Image
from transformers import (
    AutoConfig,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
    set_seed,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, get_last_checkpoint

from bga_mner import (
    BadPictureError,
    BgaMnerConfig,
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    CardKeepingTrainer,
    ConllReport,
    DataCollatorForMner,
    LossPartsCallback,
    build_compute_metrics,
    cache_vision_states,
    labels_from_tags,
    load_image_processor,
    load_picture,
    lora_config,
    predict,
    read_conll,
    score_with_interval,
    summarize_training,
    write_conll,
)
from bga_mner.modeling_bga.encoders import longest_text
from bga_mner.processing.conll import PLACEHOLDER
from bga_mner.processing.word_encoding import default_max_length


logger = logging.getLogger("run_mner")

PARTS = ("train", "validation", "test")
Parts = dict[str, tuple[datasets.Dataset, ConllReport]]
# What a saved model can be given anew; everything else would change its weights.
CHANGEABLE: tuple[str, ...] = (
    "reconstruction_weight",
    "cycle_weight",
    "reconstruction_distance",
    "normalize_targets",
    "visual_target",
)
CHANGEABLE += ("entity_replacement_probability", "replaced_entities_read", "sampler_temperature", "generator_dropout")
CHANGEABLE += ("classifier_dropout",)
# Without pictures only the shape of this vision encoder matters: it says what features the text branch generates.
STAND_IN = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "patch_size": 16}


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class ModelArguments:
    """Which model to start from, and its options; those left out are what `BgaMnerConfig` says."""

    text_model: str | None = _flag(None, "Text encoder and tokenizer: folder or Hub name.")
    vision_model: str | None = _flag(
        None,
        "Vision encoder and image processor: folder, Hub name, or open_clip:<model>/<tag>. Needed with pictures only; "
        "without, a small random one stands in, which is never run.",
    )
    model_name_or_path: str | None = _flag(None, "Saved bga_mner model to continue from, in place of two encoders.")
    image_size: int | None = _flag(None, "Side of the pictures in pixels. Default: what the image processor makes.")
    num_bga_layers: int | None = _flag(None, "Number of aligned layers.")
    reconstruction_weight: float | None = _flag(None, "Weight of the reconstruction loss.")
    cycle_weight: float | None = _flag(None, "Weight of the cycle loss.")
    entity_replacement_probability: float | None = _flag(
        None, "Share of labelled sentences whose entities are replaced by random tokens, in training."
    )
    replaced_entities_read: str | None = _flag(
        None, "What these read: 'real' (the picture) or 'generated' (features that the true words generate)."
    )
    config_overrides: str | None = _flag(None, "Further options of BgaMnerConfig: key=value,key=value.")
    freeze_vision_encoder: bool = _flag(False, "Keep the vision encoder's weights.")
    cache_vision_states: bool = _flag(
        False, "With --freeze_vision_encoder: run it once over all pictures; they take space beside the training data."
    )
    lora_rank: int | None = _flag(
        None, "Train adapters of this rank on the encoders (not on a frozen one) and what is new; needs peft."
    )
    language: str | None = _flag(None, "For the model card: language of the texts, such as 'en'.")
    license: str | None = _flag(None, "For the model card: license of the weights, such as 'cc-by-4.0'.")


@dataclass
class DataArguments:
    """What to read."""

    train_file: str | None = _flag(None, "CoNLL file with IMGID lines to train on.")
    validation_file: str | None = _flag(None, "The same, to choose the best epoch by.")
    test_file: str | None = _flag(None, "The same, to predict; tags are not needed.")
    image_dir: str | None = _flag(None, "Folder of pictures: <id>.jpg, .jpeg or .png, or what --image_column names.")
    dataset_name: str | None = _flag(None, "Dataset of the Hub, or a folder that datasets.load_dataset reads.")
    dataset_config_name: str | None = _flag(None, "Configuration of that dataset.")
    train_split: str | None = _flag(None, "Default: train, where there is one.")
    validation_split: str | None = _flag(None, "Default: validation, where there is one.")
    test_split: str | None = _flag(None, "Default: test, where there is one.")
    tokens_column: str = _flag("tokens", "Column of lists of words.")
    tags_column: str = _flag("ner_tags", "Column of lists of tags: strings, or numbers that a ClassLabel names.")
    image_column: str = _flag("image", "Column of pictures, or of file names; 'none' leaves the pictures out.")
    id_column: str = _flag("id", "Column of ids. Without it: the number of the row.")
    max_length: int | None = _flag(None, "Most tokens of a text. Default: what the model reads.")
    overwrite_output_dir: bool = _flag(False, "Delete the checkpoints in output_dir instead of continuing from them.")


def _read_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments, dict[str, Any]]:
    """Read the command line, or the JSON file it names; the dict holds what the user gave, without defaults."""
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments), allow_abbrev=False)
    if len(argv) == 1 and argv[0].endswith(".json"):
        if not Path(argv[0]).is_file():
            raise ValueError(f"Expected a JSON file of arguments, but {argv[0]!r} is not a file. Check the path.")
        given = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    else:
        parser.parse_args(argv)  # shows --help with the defaults, which are taken away next
        absent = object()
        parser.set_defaults(**{item.name: absent for kind in parser.dataclass_types for item in fields(kind)})
        given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not absent}
    if not given.get("output_dir"):
        raise ValueError("Expected --output_dir, got none. Name the folder that the model and the results go to.")

    # Evaluate and save each epoch and keep the best, as far as the user does not say otherwise.
    evaluation, saving = given.get("eval_strategy"), given.get("save_strategy")
    evaluation = evaluation or (saving if saving in ("steps", "epoch") else "epoch")
    saving = saving or (evaluation if evaluation in ("steps", "epoch") else "epoch")
    defaults: dict[str, Any] = {"eval_strategy": evaluation, "save_strategy": saving, "save_total_limit": 2}
    if evaluation == saving == "steps":
        steps = {name: given[name] for name in ("save_steps", "eval_steps") if name in given}
        defaults |= dict.fromkeys(("save_steps", "eval_steps"), next(iter(steps.values()))) if steps else {}
    defaults["load_best_model_at_end"] = evaluation != "no" and saving in (evaluation, "best")
    defaults["metric_for_best_model"] = "f1"
    model, data, training = parser.parse_dict({**defaults, **given})
    training.remove_unused_columns = False  # or the Trainer drops the columns before they are encoded
    return model, data, training, given


def _read_data(data: DataArguments, training: TrainingArguments) -> Parts:
    """Read what is given of the three sets: columns id, tokens, ner_tags (strings) and image; and a report of each."""
    files = {part: getattr(data, f"{part}_file") for part in PARTS if getattr(data, f"{part}_file")}
    if bool(files) == bool(data.dataset_name):
        raise ValueError(
            f"Expected CoNLL files or a dataset, got {'both' if files else 'neither'}. Give --train_file, "
            "--validation_file and --test_file, or --dataset_name."
        )
    check = training.process_index == 0  # once is enough; the others pass over broken ones when they meet them
    if files:
        return {part: read_conll(path, data.image_dir, check_pictures=check, return_report=True)
                for part, path in files.items()}  # fmt: skip
    with training.main_process_first(desc="loading the dataset"):
        splits = datasets.load_dataset(data.dataset_name, data.dataset_config_name)
    wanted = {part: getattr(data, f"{part}_split") or part for part in PARTS}
    for part, split in wanted.items():
        if split not in splits and getattr(data, f"{part}_split"):
            raise ValueError(
                f"Expected one of the splits {list(splits)} as --{part}_split, got {split!r}. Name another."
            )
    parts = {part: _read_split(splits[name], name, data, check) for part, name in wanted.items() if name in splits}
    if not parts:
        raise ValueError(
            f"Expected a split named train, validation or test, got {list(splits)}. Name it: --train_split."
        )
    return parts


def _read_split(
    dataset: datasets.Dataset, split: str, data: DataArguments, check: bool
) -> tuple[datasets.Dataset, ConllReport]:
    """Bring a split to what `read_conll` gives, by writing it to a file and reading that."""
    defaults, columns = DataArguments(), dataset.column_names
    for flag in ("tokens_column", "tags_column", "image_column", "id_column"):
        name, must = getattr(data, flag), flag == "tokens_column" or getattr(data, flag) != getattr(defaults, flag)
        if must and name not in columns and (flag, name) != ("image_column", "none"):
            raise ValueError(
                f"Expected a column {name!r} in {split!r}, got {columns}. Name the right one with --{flag}."
            )
    tokens = [[_writable(word) for word in words or ()] for words in dataset[data.tokens_column]]
    ids = list(map(str, dataset[data.id_column] if data.id_column in columns else range(len(dataset))))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "split.conll")
        write_conll(file, tokens, _read_tags(dataset, data.tags_column), ids)
        read, report = read_conll(file, return_report=True)
    report.path = f"{data.dataset_name}:{split}"
    if data.image_column not in columns:
        return read, report
    report.pictures_checked = check
    if isinstance(dataset.features[data.image_column], datasets.Image):
        # kept as they are on disk: a dataset may be larger than memory
        pictures = dataset.select_columns(data.image_column).rename_column(data.image_column, "image")
    else:
        names = [
            name and {"bytes": None, "path": str(Path(data.image_dir or "", name))}
            for name in dataset[data.image_column]
        ]
        pictures = datasets.Dataset.from_dict({"image": names})
    pictures = pictures.cast_column("image", datasets.Image(decode=False))
    for row, item in enumerate(datasets.utils.tqdm(pictures, desc="Checking pictures", disable=not check)):
        kind = "missing" if item["image"] is None else None
        try:
            if check and kind is None:
                load_picture(item["image"])
        except BadPictureError as error:
            kind = error.kind
        report.pictures_found += kind is None
        report.pictures_missing += kind == "missing"
        if kind not in (None, "missing"):
            report.pictures_broken[kind] = report.pictures_broken.get(kind, 0) + 1
            report.examples[f"picture {kind}"] = [*report.examples.get(f"picture {kind}", []), ids[row]][:5]
    return datasets.concatenate_datasets([read.remove_columns("image"), pictures], axis=1), report


def _writable(word: str) -> str:
    """Mend what no CoNLL file can hold: white space as a word, and tabs and line breaks inside."""
    word = word.replace("\t", " ").replace("\r", " ").replace("\n", " ")
    return word if word.strip() and word.split()[0] != "-DOCSTART-" else PLACEHOLDER


def _read_tags(dataset: datasets.Dataset, column: str) -> list[list[str | None] | None]:
    """Read tags given as strings or as numbers that a ClassLabel names; None and -100 are unknown."""
    if column not in dataset.column_names:
        return [None] * len(dataset)
    kind = getattr(dataset.features[column], "feature", None)
    if not isinstance(kind, datasets.ClassLabel) and getattr(kind, "dtype", "string") not in ("string", "null"):
        raise ValueError(
            f"Expected strings or numbers of a ClassLabel in the column {column!r}, got {dataset.features[column]}. "
            "Give the numbers names: dataset.cast_column(..., datasets.List(datasets.ClassLabel(names=[...])))."
        )
    names = dict(enumerate(kind.names)) if isinstance(kind, datasets.ClassLabel) else {}
    unknown = (None, -100)
    return [tags and [None if tag in unknown else names.get(tag, tag) for tag in tags] for tags in dataset[column]]


def _options(arguments: ModelArguments) -> dict[str, Any]:
    """Collect the options of BgaMnerConfig that were given."""
    names = ("image_size", "num_bga_layers", "reconstruction_weight", "cycle_weight", "entity_replacement_probability")
    names += ("replaced_entities_read",)
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    for item in filter(None, (arguments.config_overrides or "").split(",")):
        name, equals, value = (text.strip() for text in item.partition("="))
        if not equals or name not in BgaMnerConfig.__dataclass_fields__ or name.endswith(("_config", "id", "label")):
            raise ValueError(
                f"Expected key=value,... with options of BgaMnerConfig as --config_overrides, got {item!r}."
            )
        try:
            options[name] = json.loads(value.lower())
        except json.JSONDecodeError:
            options[name] = value
    return options


def _load(name: str, labels: list[str], options: dict[str, Any]) -> tuple[Any, BgaMnerProcessor]:
    """Load a saved model, which must know the labels."""
    fixed = sorted(set(options) - set(CHANGEABLE))
    if fixed:
        raise ValueError(
            f"Expected no {', '.join(fixed)} beside --model_name_or_path, whose weights fit one value only. Leave it "
            f"out, or start from --text_model. These can be changed: {', '.join(CHANGEABLE)}."
        )
    config, processor = BgaMnerConfig.from_pretrained(name), BgaMnerProcessor.from_pretrained(name)
    unknown = sorted(set(labels) - set(config.label2id))
    if unknown:
        raise ValueError(
            f"Expected the labels of the model in {name!r}, {list(config.label2id)}, but the data also have {unknown}. "
            "Rename them in the data, or start a new model with --text_model and --vision_model."
        )
    for key, value in options.items():
        setattr(config, key, value)
    config.validate_consistency()
    processor.label2id = dict(config.label2id)
    return BgaMnerForTokenClassification.from_pretrained(name, config=config), processor


def _combine(
    text: str | None, vision: str | ViTModel | None, labels: list[str], options: dict[str, Any], pictures: bool
) -> tuple[Any, BgaMnerProcessor]:
    """Build a model from a text and a vision encoder."""
    if text is None:
        raise ValueError("Expected a model, got none. Give --text_model (and --vision_model), or --model_name_or_path.")
    if labels == ["O"]:
        raise ValueError("Expected entities to learn from, got no tag but 'O'. Check the files, or --tags_column.")
    text_config = AutoConfig.from_pretrained(text)
    # RoBERTa's tokenizer knows words of running text only with the space in front
    spaced = {"add_prefix_space": True} if text_config.model_type == "roberta" else {}
    tokenizer = AutoTokenizer.from_pretrained(text, **spaced)
    if vision is not None:
        image_processor = _image_processor(str(vision), options.get("image_size"))
    elif pictures:
        raise ValueError(
            "Expected --vision_model, since there are pictures, got none. Name a checkpoint, such as "
            "openai/clip-vit-base-patch32, or learn without pictures: leave out --image_dir, or --image_column none."
        )
    else:
        side, depth = options.get("image_size", 32), options.get("num_bga_layers") or text_config.num_hidden_layers
        vision = ViTModel(ViTConfig(image_size=side, num_hidden_layers=depth, **STAND_IN), add_pooling_layer=False)
        image_processor = ViTImageProcessorPil(size={"height": side, "width": side})
        logger.info(
            "No --vision_model: a random ViT of %d layers and %d pixels stands in; it is never run.", depth, side
        )
    # What the processor really makes: DINOv2's crops to 224 pixels, though its config says 518.
    options = {**options, "image_size": _side(image_processor)}
    model = BgaMnerForTokenClassification.from_text_vision_pretrained(text, vision, labels=labels, **options)
    return model, BgaMnerProcessor(image_processor, tokenizer, model.config.label2id)


def _image_processor(name: str, image_size: int | None) -> Any:
    """Load an image processor, and change the size of its pictures if asked to."""
    try:
        image_processor = load_image_processor(name)
    except OSError as error:
        raise ValueError(
            f"Expected an image processor in the vision model {name!r}, got none ({error}). Save one there: "
            "image_processor.save_pretrained."
        ) from error
    if image_size is None:
        return image_processor
    square = {"height": image_size, "width": image_size}
    options: dict[str, Any] = {"size": square}
    edge = image_processor.size.get("shortest_edge")
    if edge:
        # the margin that is cropped off keeps its share
        crop = image_processor.crop_size["height"] if image_processor.crop_size else edge
        options = {
            "size": {"shortest_edge": round(image_size * edge / crop)},
            "crop_size": square,
            "do_center_crop": True,
        }
    image_processor = load_image_processor(name, **options)
    if _side(image_processor) != image_size:
        raise ValueError(
            f"Expected pictures of --image_size {image_size} pixels, but the image processor of {name!r} makes "
            f"{_side(image_processor)}. Leave --image_size out, or edit its preprocessor_config.json."
        )
    return image_processor


def _side(image_processor: Any) -> int:
    """Find out the side of the pictures that an image processor makes."""
    height, width = image_processor(Image.new("RGB", (300, 200)), return_tensors="np")["pixel_values"].shape[-2:]
    if height != width:
        raise ValueError(f"Expected an image processor that makes square pictures, got {width} x {height} pixels.")
    return int(height)


def _find_checkpoint(
    data: DataArguments, training: TrainingArguments, config: BgaMnerConfig, adapters: bool
) -> str | None:
    """Find the checkpoint to continue from, or make room for a new start."""
    found = get_last_checkpoint(training.output_dir)
    checkpoint = training.resume_from_checkpoint or found
    if data.overwrite_output_dir and checkpoint is found:
        # The Trainer keeps the checkpoints of most steps: old ones would push out the new.
        for folder in Path(training.output_dir).glob("checkpoint-*") if training.process_index == 0 else ():
            shutil.rmtree(folder)
        return None
    if checkpoint is not None:
        if Path(checkpoint, "adapter_config.json").is_file() != adapters:
            raise ValueError(
                f"Expected a checkpoint {'of' if adapters else 'without'} adapters in {checkpoint!r}, got the "
                "opposite. Give --lora_rank as before, or start over with --overwrite_output_dir."
            )
        # adapters are saved without the model's configuration
        old = config.label2id if adapters else BgaMnerConfig.from_pretrained(checkpoint).label2id
        if old != config.label2id:
            raise ValueError(
                f"Expected the labels {list(config.label2id)} in {checkpoint!r}, which belongs to other data, got "
                f"{list(old)}. Choose another --output_dir, or start over with --overwrite_output_dir."
            )
        logger.info("Continuing from %s; --overwrite_output_dir starts over.", checkpoint)
    return checkpoint


def _write_predictions(
    trainer: Trainer, processor: BgaMnerProcessor, rows: datasets.Dataset, max_length: int | None
) -> dict[str, Any]:
    """Predict, write both files, and score words as `build_compute_metrics` does; no scores without tags."""
    arguments = trainer.args
    share = -(-len(rows) // arguments.world_size)
    start = share * arguments.process_index
    part = rows[start : start + share]
    found = predict(
        trainer.model,
        processor,
        part["tokens"],
        part.get("image"),
        is_split_into_words=True if part["tokens"] else None,
        batch_size=arguments.per_device_eval_batch_size,
        max_length=max_length,
        show_progress=arguments.process_index == 0 and not arguments.disable_tqdm,
    )
    found = gather_object(found)
    ids, tokens, known = list(rows["id"]), list(rows["tokens"]), list(rows["ner_tags"])
    tags = [_tags(words, entities) for words, entities in zip(tokens, found, strict=True)]
    if arguments.process_index == 0:
        write_conll(Path(arguments.output_dir, "predictions.conll"), tokens, tags, ids)
        with Path(arguments.output_dir, "predictions.jsonl").open("w", encoding="utf-8") as file:
            for name, words, entities in zip(ids, tokens, found, strict=True):
                line = {"id": name, "text": " ".join(words), "entities": entities}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if all(tag is None for sentence in known for tag in sentence):
        return {}
    return score_with_interval(tags, known)


def _flat(scores: dict[str, Any]) -> dict[str, float]:
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


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run the script.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the command line by default.

    Returns
    -------
    dict of str to float
        All results: train_..., eval_... and test_....

    Raises
    ------
    ValueError
        If arguments, data and model do not fit together.
    """
    arguments, data, training, given = _read_arguments(list(sys.argv[1:] if argv is None else argv))
    is_main = training.process_index == 0
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO if is_main else logging.ERROR)
    if not is_main:
        transformers.utils.logging.set_verbosity_error()
        datasets.disable_progress_bars()
    set_seed(training.seed)

    parts = _read_data(data, training)
    for part, (_, report) in parts.items():
        logger.info("%s set: %s", part.capitalize(), str(report).replace("\n", "\n    "))
    usable = {"do_train": ["train"], "do_eval": ["validation"], "do_predict": ["test", "validation"]}
    wanted = [verb for verb in usable if given.get(verb)] or [verb for verb in usable if set(usable[verb]) & set(parts)]
    for verb in wanted:
        if not set(usable[verb]) & set(parts):
            raise ValueError(
                f"Expected a {' or '.join(usable[verb])} set for --{verb}, got {list(parts)} only. Give one."
            )
    if "do_train" not in wanted and not arguments.model_name_or_path:
        raise ValueError("Expected a trained model, since nothing is trained, got none. Give --model_name_or_path.")

    labels, options = (
        labels_from_tags(tags for rows, _ in parts.values() for tags in rows["ner_tags"]),
        _options(arguments),
    )
    if arguments.model_name_or_path and (arguments.text_model or arguments.vision_model):
        raise ValueError("Expected --model_name_or_path or --text_model and --vision_model, got both. Drop one.")
    if arguments.model_name_or_path:
        model, processor = _load(arguments.model_name_or_path, labels, options)
    else:
        pictures = any(report.pictures_found for _, report in parts.values())
        model, processor = _combine(arguments.text_model, arguments.vision_model, labels, options, pictures)
    if arguments.freeze_vision_encoder and not model.config.text_only:
        model.freeze_vision_encoder()
    if arguments.cache_vision_states and "do_train" in wanted and "image" in parts["train"][0].column_names:
        train, report = parts["train"]
        with training.main_process_first(desc="vision states"):
            parts["train"] = cache_vision_states(train, model.to(training.device), processor), report
    if arguments.lora_rank and "do_train" in wanted:
        from peft import get_peft_model

        seen = any(report.pictures_found for _, report in parts.values()) and not arguments.freeze_vision_encoder
        encoders = ("text", "vision") if seen else ("text",)
        model = get_peft_model(model, lora_config(model, arguments.lora_rank, encoders))
    longest = longest_text(model.config.text_config)
    processor.tokenizer.model_max_length = min(default_max_length(processor.tokenizer), longest)
    if data.max_length is not None and data.max_length > longest:
        raise ValueError(f"Expected --max_length of at most {longest}, which the model reads, got {data.max_length}.")

    # the text alone is what gets annotated: pictures would only take time
    kept = ["id", "tokens", "ner_tags"] + ["image"] * (model.config.visual_source == "real")
    sets = {part: rows if part == "train" else rows.select_columns(kept) for part, (rows, _) in parts.items()}
    encode = partial(processor.encode_examples, max_length=data.max_length)
    encoded = {part: rows.with_transform(encode) for part, rows in sets.items()}
    if "validation" not in parts or "do_train" not in wanted:
        training.eval_strategy, training.load_best_model_at_end = IntervalStrategy.NO, False
        training.save_strategy = SaveStrategy.EPOCH if training.save_strategy == "best" else training.save_strategy
    trainer = CardKeepingTrainer(
        model=model,
        args=training,
        data_collator=DataCollatorForMner(processor),
        train_dataset=encoded.get("train"),
        eval_dataset=encoded.get("validation"),
        processing_class=processor,
        compute_metrics=build_compute_metrics(model.config.id2label),
        # the scores of all tags would fill the memory, and only the best path counts
        preprocess_logits_for_metrics=lambda outputs, labels: outputs[1],
        callbacks=[LossPartsCallback()],
    )
    if is_main:
        found = {"labels": list(model.config.label2id), **{part: asdict(report) for part, (_, report) in parts.items()}}
        Path(training.output_dir).mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        Path(training.output_dir, "data_report.json").write_text(text, encoding="utf-8")

    trainer.accelerator.wait_for_everyone()  # the output folder is there for all
    results: dict[str, float] = {}
    scores: dict[str, dict[str, Any]] = {}

    def keep(part: str, metrics: dict[str, float]) -> None:
        trainer.log_metrics(part, metrics)
        trainer.save_metrics(part, metrics)
        results.update(metrics)

    if "do_train" in wanted:
        checkpoint = _find_checkpoint(data, training, model.config, bool(arguments.lora_rank))
        outcome = trainer.train(checkpoint)
        if arguments.lora_rank:
            # from here on a plain model: adapters are part of its weights
            trainer.model = trainer.model_wrapped = model = trainer.model.merge_and_unload()
        trainer.save_model()
        trainer.save_state()
        keep("train", outcome.metrics)
    if "do_eval" in wanted:
        scores["validation"] = trainer.evaluate()
        keep("eval", scores["validation"])
    if "do_predict" in wanted:
        part = "test" if "test" in sets else "validation"
        found = _write_predictions(trainer, processor, sets[part], data.max_length)
        if part == "test" and found:
            scores["test"] = found
            keep("test", {f"test_{name}": value for name, value in _flat(found).items()})
    if "do_train" in wanted:
        model.config.training_summary = summarize_training(
            trainer,
            data={part: report for part, (_, report) in parts.items()},
            scores=scores,
            language=arguments.language,
            license=arguments.license,
            datasets=[data.dataset_name] if data.dataset_name and not Path(data.dataset_name).exists() else [],
            resumed=checkpoint is not None,
        )
        trainer.save_model()  # again, with what was measured
    return results


if __name__ == "__main__":
    main()
