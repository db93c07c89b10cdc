"""The model that the fine-tuning scripts start from, and the arguments that choose it."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image
from transformers import AutoConfig, AutoTokenizer, ViTConfig, ViTImageProcessorPil, ViTModel

from bga_mner import (
    TEXT_ENCODERS,
    BgaMnerConfig,
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    load_image_processor,
    lora_config,
)
from bga_mner.configuration.errors import brief, listed, shown
from bga_mner.examples.fine_tuning.arguments import ModelArguments
from bga_mner.modeling_bga.encoders.encoder import longest_text
from bga_mner.processing.inference.text_tagging import longest_input


logger = logging.getLogger("run_mner")

# What a saved model can be given anew; everything else would change its weights.
CHANGEABLE: tuple[str, ...] = (
    *("reconstruction_weight", "cycle_weight", "reconstruction_distance", "normalize_targets", "visual_target"),
    *("entity_replacement_probability", "replaced_entities_read", "context_hiding_probability", "align_last_states"),
    "loss_stages",
    *("sampler_temperature", "generator_dropout", "classifier_dropout", "generators_learn_from_labels"),
    "visual_source",
)
# Without images only the shape of this vision encoder matters: it says what features the text branch generates.
STAND_IN = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "patch_size": 16}


def build_model(
    arguments: ModelArguments, labels: list[str], images: bool, max_length: int | None
) -> tuple[Any, BgaMnerProcessor]:
    """Load the saved model, or build one from two encoders, and make its processor.

    `labels` are the BIO labels of the data, and `images` says whether it has any. The vision encoder is frozen if
    that was asked for.
    """
    options = _options(arguments)
    if arguments.cache_vision_states and not arguments.freeze_vision_encoder:
        raise ValueError(
            "Expected --freeze_vision_encoder beside --cache_vision_states, got none: the states of an encoder that is "
            "trained change with each step. Give both, or neither."
        )
    if arguments.model_name_or_path and (arguments.text_model or arguments.vision_model):
        raise ValueError("Expected --model_name_or_path or --text_model and --vision_model, got both. Drop one.")
    if arguments.model_name_or_path:
        if arguments.preset != "default":
            raise ValueError(
                "Expected no --preset beside --model_name_or_path, whose options are saved, got "
                f"{shown(arguments.preset)}. Leave it out, or start from --text_model."
            )
        model, processor = _load(arguments.model_name_or_path, labels, options)
    else:
        options["preset"] = arguments.preset
        model, processor = _combine(arguments.text_model, arguments.vision_model, labels, options, images)
    if arguments.freeze_vision_encoder and not model.config.text_only:
        model.freeze_vision_encoder()
    longest = longest_text(model.config.text_config)
    processor.tokenizer.model_max_length = longest_input(processor.tokenizer, model.config.text_config)
    if max_length is not None and max_length > longest:
        raise ValueError(
            f"Expected --max_length of at most {longest}, which the model reads, got {max_length}. Lower it."
        )
    return model, processor


def add_adapters(model: Any, arguments: ModelArguments, images: bool) -> Any:
    """Wrap a model for the training of adapters, if `lora_rank` says so; the model as it is otherwise.

    Without images the vision encoder is never run, and its adapters would learn nothing.
    """
    if not arguments.lora_rank:
        return model
    encoders = ("text", "vision") if images and not arguments.freeze_vision_encoder else ("text",)
    config = lora_config(model, arguments.lora_rank, encoders)
    from peft import get_peft_model

    return get_peft_model(model, config)


def _options(arguments: ModelArguments) -> dict[str, Any]:
    """Collect the options of BgaMnerConfig that were given."""
    names = ("image_size", "num_bga_layers", "reconstruction_weight", "cycle_weight", "entity_replacement_probability")
    names += ("replaced_entities_read",)
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    for item in filter(None, (arguments.config_overrides or "").split(",")):
        name, equals, value = (text.strip() for text in item.partition("="))
        if not equals or name not in BgaMnerConfig.__dataclass_fields__ or name.endswith(("_config", "id", "label")):
            raise ValueError(
                f"Expected key=value,... with options of BgaMnerConfig as --config_overrides, got {shown(item)}. "
                "Mend it."
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
            f"Expected a saved model's own {listed(fixed)}, got others beside --model_name_or_path. Leave them "
            f"out, or start from --text_model. These can be changed: {', '.join(CHANGEABLE)}."
        )
    with _reading("a saved model", "--model_name_or_path", name, "train first"):
        config, processor = BgaMnerConfig.from_pretrained(name), BgaMnerProcessor.from_pretrained(name)
    unknown = sorted(set(labels) - set(config.label2id))
    if unknown:
        raise ValueError(
            f"Expected the labels of the model in {shown(name)}, {listed(config.label2id)}, got also "
            f"{listed(unknown)}. Rename them in the data, or start a new model with --text_model and --vision_model."
        )
    generated = config.num_target_positions
    for key, value in options.items():
        setattr(config, key, value)
    if config.num_target_positions != generated:
        raise ValueError(
            f"Expected a visual_target that the {generated} modality queries in {shown(name)} can generate, got "
            f"{shown(config.visual_target)} with {config.num_target_positions}. Leave it out, or give --text_model."
        )
    config.validate_consistency()
    processor.label2id = dict(config.label2id)
    with _reading("a saved model", "--model_name_or_path", name, "train first"):
        return BgaMnerForTokenClassification.from_pretrained(name, config=config), processor


def _combine(
    text: str | None, vision: str | ViTModel | None, labels: list[str], options: dict[str, Any], images: bool
) -> tuple[Any, BgaMnerProcessor]:
    """Build a model from a text and a vision encoder."""
    if text is None:
        raise ValueError("Expected a model, got none. Give --text_model (and --vision_model), or --model_name_or_path.")
    if labels == ["O"]:
        raise ValueError("Expected entities to learn from, got no tag but 'O'. Check the files, or --tags_column.")
    text_config, tokenizer = _text_encoder(text)
    if vision is not None:
        image_processor = _image_processor(str(vision), options.get("image_size"))
    elif images:
        raise ValueError(
            "Expected --vision_model, since there are images, got none. Name a checkpoint, such as "
            "openai/clip-vit-base-patch32, or learn without images: leave out --image_dir, or --image_column none."
        )
    else:
        side, depth = options.get("image_size", 32), options.get("num_bga_layers") or text_config.num_hidden_layers
        vision = ViTModel(ViTConfig(image_size=side, num_hidden_layers=depth, **STAND_IN), add_pooling_layer=False)
        image_processor = ViTImageProcessorPil(size={"height": side, "width": side})
        logger.info(
            "No --vision_model: a random ViT of %d layers and %d pixels stands in; it is never run.", depth, side
        )
    if not images:  # nothing learns to generate what texts could read
        options = {"visual_source": "none", **options}
    # What the processor really makes: DINOv2's crops to 224 pixels, though its config says 518.
    options = {**options, "image_size": _side(image_processor)}
    model = BgaMnerForTokenClassification.from_text_vision_pretrained(text, vision, labels=labels, **options)
    return model, BgaMnerProcessor(image_processor, tokenizer, model.config.label2id)


def _text_encoder(name: str) -> tuple[Any, Any]:
    """Load the configuration and the tokenizer of a text encoder."""
    with _reading("a text encoder with its tokenizer", "--text_model", name, "the name on the Hub"):
        config = AutoConfig.from_pretrained(name)
    if config.model_type not in TEXT_ENCODERS:
        saved = " It is a saved model, for --model_name_or_path." if config.model_type == "bga_mner" else ""
        raise ValueError(
            f"Expected a text encoder of one of {', '.join(TEXT_ENCODERS)} as --text_model, got "
            f"{shown(config.model_type)} in {shown(name)}.{saved} Name another."
        )
    with _reading("a text encoder with its tokenizer", "--text_model", name, "the name on the Hub"):
        # RoBERTa's tokenizer knows words of running text only with the space in front
        spaced = {"add_prefix_space": True} if config.model_type == "roberta" else {}
        return config, AutoTokenizer.from_pretrained(name, **spaced)


@contextmanager
def _reading(what: str, flag: str, name: str, mend: str) -> Iterator[None]:
    """Say of what can't be loaded which argument named it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected {what} as {flag}, got {shown(name)}, which can be read neither here nor from the Hub: "
            f"{brief(error)}. Check the path, or {mend}."
        ) from error


def _image_processor(name: str, image_size: int | None) -> Any:
    """Load an image processor, and change the size of its images if asked to."""
    try:
        image_processor = load_image_processor(name)
    except OSError as error:
        raise ValueError(
            f"Expected an image processor in the vision model {shown(name)}, got none ({brief(error)}). If it is "
            "one, and no text model, save one there: image_processor.save_pretrained."
        ) from error
    except ImportError as error:
        raise ValueError(
            f"Expected what the image processor of {shown(name)} needs, got an error: {brief(error)}. Install it."
        ) from error
    if image_size is None:
        return image_processor
    size = getattr(image_processor, "size", None) or {}
    keeps_shape = size.get("shortest_edge") is not None
    edge = size.get("shortest_edge" if keeps_shape else "height") or image_size
    crop = getattr(image_processor, "crop_size", None) if getattr(image_processor, "do_center_crop", None) else None
    # the margin that is cropped off keeps its share
    side = round(image_size * edge / (crop["height"] if crop else edge))
    options: dict[str, Any] = {"size": {"shortest_edge": side} if keeps_shape else {"height": side, "width": side}}
    if keeps_shape or crop:
        options |= {"crop_size": {"height": image_size, "width": image_size}, "do_center_crop": True}
    image_processor = load_image_processor(name, **options)
    if _side(image_processor) != image_size:
        raise ValueError(
            f"Expected images of --image_size {image_size} pixels, got {_side(image_processor)} from the image "
            f"processor of {shown(name)}. Leave --image_size out, or edit its preprocessor_config.json."
        )
    return image_processor


def _side(image_processor: Any) -> int:
    """Find out the side of the images that an image processor makes."""
    height, width = image_processor(Image.new("RGB", (300, 200)), return_tensors="np")["pixel_values"].shape[-2:]
    if height != width:
        raise ValueError(
            f"Expected an image processor that makes square images, got {width} x {height} pixels. Name another."
        )
    return int(height)
