"""Make an encoder's configuration of what is given for it, in the form in which the model reads it."""

import math
from typing import Any

from transformers import PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .arguments import explained
from .checks import check_encoder
from .configuration_conv_stages import CONV_STAGES, ConvStagesConfig
from .encoder_families import BACKBONE_FAMILIES, TEXT_FAMILIES, VISION_FAMILIES
from .errors import mismatch, shown


try:
    from .hub.hub_names import came_from_hub, marked_folder
except ImportError:  # a saved model's code names no encoder's origin, which may be a folder, when it saves again

    def came_from_hub(name: str) -> bool:
        """Take no name for one on the Hub."""
        return False

    def marked_folder(name: str, loaded_here: bool = True) -> str:
        """Return the name as it is."""
        return name


_TOWERS = {family.tower_of: name for name, family in VISION_FAMILIES.items() if family.tower_of}
_SUPPORTED = {
    "text": tuple(TEXT_FAMILIES),
    "vision": (*VISION_FAMILIES, *BACKBONE_FAMILIES, CONV_STAGES),
}


def make_encoder_config(
    name: str, config: dict | PreTrainedConfig | None, default: SubConfigSpec, image_size: int | None
) -> PreTrainedConfig:
    """Make the `text_config` or `vision_config` of a model; None stands for the default."""
    check_encoder(name, config)
    if name == "vision_config":
        config = _with_stages(_vision_tower(config))
    with explained(f"a {name}", fix="Correct it."):
        made, _ = default.create_subconfig(name, config)
    for part in (made, getattr(made, "backbone_config", None)):
        if isinstance(part, PreTrainedConfig):
            part.name_or_path = marked_folder(part.name_or_path)
    if hasattr(made, "vision_use_head"):
        made.vision_use_head = False  # SigLIP's pooling head would be loaded and never used
    if made.model_type == CONV_STAGES and image_size:
        made.fit_images(image_size)
    return made


def check_families(text_config: PreTrainedConfig, vision_config: PreTrainedConfig) -> None:
    """Refuse encoders whose attention would drop the generated features without a word."""
    for kind, config in (("text", text_config), ("vision", vision_config)):
        supported = _SUPPORTED[kind]
        if config.model_type not in supported:
            raise ValueError(
                f"Expected a {kind} encoder of {', '.join(supported)}, got {kind}_config.model_type="
                f"{shown(config.model_type)}, whose attention doesn't take generated features. Pass a {kind}_config "
                "(or checkpoint) of one of these families."
            )
    if getattr(text_config, "is_decoder", False):
        raise mismatch("a bidirectional text encoder, with text_config.is_decoder=False", True, "Set it to False.")


def own_image_size(config: PreTrainedConfig) -> int:
    """Return the image size that a vision encoder was made for."""
    if hasattr(config, "image_size"):
        return square_side(config.image_size, "vision_config.image_size")
    # NaFlex: it was trained on any shape of so many patches
    return math.isqrt(config.num_patches) * square_side(config.patch_size, "vision_config.patch_size")


def square_side(size: int | list[int] | tuple[int, ...], name: str) -> int:
    """Return the side of a square given as an int or a pair."""
    if isinstance(size, int):
        return size
    if len(set(size)) != 1:
        raise mismatch(f"a square {name}", size, "Use an encoder of square images and patches.")
    return int(size[0])


def without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Return an encoder's configuration, and those inside it, without where it came from unless that is the Hub."""
    return {
        name: without_folders(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name != "_name_or_path" or came_from_hub(value)
    }


def _vision_tower(config: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig | None:
    """Return the vision half of a whole CLIP or SigLIP configuration, and any other configuration as it is."""
    if isinstance(config, PreTrainedConfig) and config.model_type in _TOWERS:
        return config.vision_config
    if isinstance(config, dict) and config.get("model_type") in _TOWERS:
        return {"model_type": _TOWERS[config["model_type"]], **config.get("vision_config", {})}
    return config


def _with_stages(config: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig | None:
    """Put new transformer layers on top of a convolutional encoder, and return any other configuration as it is."""
    kind = config.model_type if isinstance(config, PreTrainedConfig) else (config or {}).get("model_type")
    if kind in BACKBONE_FAMILIES:
        return ConvStagesConfig(backbone_config=config)
    if kind == CONV_STAGES and isinstance(config, dict):
        return ConvStagesConfig(**{name: value for name, value in config.items() if name != "model_type"})
    return config


__all__ = [
    "check_families",
    "make_encoder_config",
    "marked_folder",
    "own_image_size",
    "square_side",
    "without_folders",
]
