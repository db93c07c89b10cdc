"""Configuration of the BGA-MNER model: every default lives here, and nowhere else."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import logging

from .arguments import ENCODERS, check_names, checked_assignment, explained, given_arguments, with_arguments
from .checks import (
    check_attention,
    check_labels,
    check_numbers,
    check_option,
    check_padding,
    check_switches,
    read_labels,
)
from .configuration_conv_stages import CONV_STAGES
from .encoder_configs import (
    check_families,
    make_encoder_config,
    marked_folder,
    own_image_size,
    square_side,
    without_folders,
)
from .encoder_families import BACKBONE_FAMILIES, TEXT_FAMILIES, VISION_FAMILIES
from .errors import mismatch, shown
from .hub.entry_points import AUTO_MAP, CUSTOM_PIPELINES
from .hub.remote_code import RemoteCodeMixin


try:
    from .former_names import in_todays_words
except ImportError:  # a saved model's code was saved with its configuration

    def in_todays_words(saved: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was saved as it is."""
        return dict(saved)


logger = logging.get_logger(__name__)

TEXT_ENCODERS = tuple(TEXT_FAMILIES)
"""`model_type` of the text encoders whose layers can read generated features."""

VISION_ENCODERS = (*VISION_FAMILIES, *BACKBONE_FAMILIES)
"""`model_type` of the vision encoders: transformers, and convolutional ones, which get new transformer layers."""

DEFAULT_ALIGNED_LAYERS = 2
PAPER: dict[str, Any] = {
    "hybrid_attention": "both",
    "visual_target": "layer",
    "keep_weighted_reconstruction": True,
    "generators_learn_from_labels": True,
    "sampler_reads_match": False,
    "reconstruction_weight": 1.0,
    "cycle_weight": 1.0,
    "loss_stages": "all",
    "context_hiding_probability": 0.0,
    "align_last_states": False,
}
"""Options of the paper's model that differ from the defaults; see [`BgaMnerConfig.paper`]."""
# Defaults have changed, and may again: a saved file says what these were.
_ALWAYS_SAVED = (
    *("visual_target", "context_hiding_probability", "reconstruction_weight", "cycle_weight"),
    *("gate_initial_bias", "loss_stages", "generators_learn_from_labels", "align_last_states"),
    "replaced_entities_read",
)
_OTHER_LABELS = {"id2label": "label2id", "label2id": "id2label"}
_READ = "a configuration of BGA-MNER"


@checked_assignment
@strict
class BgaMnerConfig(RemoteCodeMixin, PreTrainedConfig):
    r"""
    Configuration of [`BgaMnerModel`], [`BgaMnerForTokenClassification`] and [`BgaMnerForSequenceClassification`].

    Options may be changed later, by assignment or `update`. Each is checked at once, and `id2label` and `label2id`
    follow each other. Whether options fit together is checked by `update`, when a model is made, and when it is saved.
    Where a default isn't that of the paper (arXiv 2308.02570), the reference of the configuration says why.

    Parameters
    ----------
    text_config : dict or PreTrainedConfig, optional
        Text encoder; `model_type` one of `TEXT_ENCODERS`. Default: BERT-base, as in the paper.
    vision_config : dict or PreTrainedConfig, optional
        Vision encoder; `model_type` one of `VISION_ENCODERS`, or a whole CLIP or SigLIP. A convolutional encoder is
        wrapped in a [`ConvStagesConfig`], which may also be given itself. Default: CLIP ViT-B/32, as in the paper.
    num_bga_layers : int, optional
        Stages: one before each of the last `num_bga_layers` layers of both encoders, paired from the top. Default: 2,
        or the depth of the shallower encoder if that is less.
    use_context_sampler : bool, default True
        SCS: sample the tokens and patches that the generators read. Off: they read all.
    sampler_temperature : float, default 1.0
        Temperature of the Gumbel softmax in training.
    sampler_initial_keep : float, default 0.9
        Share of positions that an untrained sampler keeps through *all* stages.
    sampler_reads_match : bool, default True
        Whether the vision sampler is told how well image and text match. No use with `hybrid_attention="both"`.
    keep_budget : float, default 1.0
        Share of patches that may be kept through all stages without a price; 1.0 switches the price off.
    keep_budget_weight : float, default 10.0
        Weight of the squared excess over the budget in the loss.
    use_text_to_image, use_image_to_text : bool, default True
        MCG: generate visual features from text, and text features from images.
    hybrid_attention : {"text", "both", "none"}, default "text"
        Whose layers attend to generated features; "none": the features only enter the losses.
    generator_num_layers : int, default 1
        Decoder layers of a cross-modal generator.
    generator_ffn_ratio : int or float, default 1
        Width of a generator's feed-forward block over the width of the features it generates.
    generator_dropout : float, default 0.1
        Dropout in the generators.
    generators_learn_from_labels : bool, default False
        Whether the loss of tags or labels trains the generators too, through the layers that read what they generate.
        Off: reconstruction and cycle alone do. On in a new classifier of `from_text_vision_pretrained`.
    gate_initial_bias : float, default 0.0
        Initial value of a layer's gate, a bias on the attention scores of generated keys.
    reconstruction_weight, cycle_weight : float, default 10.0 and 0.0
        alpha and beta in L = L_crf + alpha L_rec + beta L_cyc; 0 switches a loss off. In a new classifier of
        `from_text_vision_pretrained`, whose own loss is smaller than a sum over tokens, alpha is 1.
    loss_stages : {"all", "sampled"}, default "sampled"
        Stages at which images generate text in training, and at which this text and the cycles are compared: all, or
        one that is sampled for each pair. Texts generate at all stages.
    keep_weighted_reconstruction : bool, default False
        Whether positions that the other modality's sampler dropped need not be generated, as in the paper. Needs
        `visual_target="last"` or `"layer"`.
    reconstruction_distance : {"mse", "smooth_l1", "cosine"}, default "mse"
        Distance of generated and real features, averaged over dimensions ("cosine": one minus the similarity).
    normalize_targets : bool, default True
        Layer-normalise the real features before they are compared.
    visual_target : {"pooled", "last", "layer"}, default "pooled"
        What a stage's text -> image generator has to generate of the image: the class token and the mean patch of the
        vision encoder's last states, standardised over images; all of these states, one per patch; or all that enter
        the paired layer, as in the paper.
    entity_replacement_probability : float, default 0.0
        In training, the share of labelled sentences whose entity tokens (of a sequence classifier: the target's) are
        replaced by random ones.
    replaced_entities_read : {"generated", "real"}, default "generated"
        What these read: the features that the true words generate, or the image.
    context_hiding_probability : float, default 0.8
        In training of a tagger, the share of pairs of which words are hidden around the entities, so that a name has to
        make its image alone. Pairs with labels are sampled half as often. In those without, entities are those that
        the model finds.
    align_last_states : bool, default True
        Whether the text's last states, which the head reads, have to generate the image too, as those of the stages do.
    visual_source : {"generated", "real", "none"}, default "generated"
        What the text attends to: features generated from the text, those of the image (or generated ones where there is
        none, and in training where the text generates any), or nothing, as suits a training without images.
    constrain_transitions : bool, default True
        Forbid tag transitions that BIO forbids in the CRF.
    classifier_dropout : float, default 0.1
        Dropout before the tag or label scores.
    text_only : bool, default False
        Build the text branch alone, which takes no images and tags texts exactly as the whole model does; see
        [`BgaMnerPreTrainedModel.save_pretrained`].
    image_size : int, optional
        Side in pixels of the square images that the model is given. Default: the vision encoder's own.
    initializer_range : float, default 0.02
        Standard deviation of the tag classifier's initial weights.
    id2label, label2id : dict, optional
        Tags (or labels, of a sequence classifier) and their ids; either is enough.
    problem_type : {"regression", "single_label_classification", "multi_label_classification"}, optional
        What the labels of a sequence classifier are, as in transformers. If left out, the labels themselves tell.
    training_summary : dict, optional
        What is known of the training that the weights come from, as [`summarize_training`] collects it; the model card
        is filled with it. Training the model further marks it as outdated.

    Raises
    ------
    ValueError
        If an encoder isn't supported, there are more stages than layers, or two options contradict each other.

    Examples
    --------
    >>> from bga_mner import BgaMnerConfig
    >>> config = BgaMnerConfig(
    ...     text_config={"model_type": "bert", "num_hidden_layers": 2},
    ...     vision_config={"model_type": "vit", "num_hidden_layers": 3},
    ...     id2label={0: "O", 1: "B-PER", 2: "I-PER"},
    ... )
    >>> config.num_bga_layers, config.num_vision_tokens, config.label2id["B-PER"]
    (2, 197, 1)
    """

    model_type = "bga_mner"
    sub_configs_defaults = {  # noqa: RUF012 - transformers turns this class attribute into specs
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model"),
    }
    # Trainer.predict gathers what is not listed here: logits and predictions.
    # Trainer concatenates this with another list.
    keys_to_ignore_at_inference = [  # noqa: RUF012 - transformers' convention
        *("emissions", "crf_loss", "classification_loss", "reconstruction_loss", "cycle_loss", "keep_loss"),
        *("pair_match", "last_hidden_state", "vision_last_hidden_state", "generated_vision", "generated_text"),
        *("text_keep_masks", "vision_keep_masks", "hidden_states"),
    ]

    # Given as dict, PreTrainedConfig or None; afterwards a PreTrainedConfig, of a class that depends on the family.
    text_config: Any = None
    vision_config: Any = None
    num_bga_layers: int | None = None
    use_context_sampler: bool = True
    sampler_temperature: int | float = 1.0
    sampler_initial_keep: float = 0.9
    sampler_reads_match: bool = True
    keep_budget: int | float = 1.0
    keep_budget_weight: int | float = 10.0
    use_text_to_image: bool = True
    use_image_to_text: bool = True
    hybrid_attention: Literal["text", "both", "none"] = "text"
    generator_num_layers: int = 1
    generator_ffn_ratio: int | float = 1
    generator_dropout: int | float = 0.1
    generators_learn_from_labels: bool = False
    gate_initial_bias: int | float = 0.0
    reconstruction_weight: int | float = 10.0
    cycle_weight: int | float = 0.0
    loss_stages: Literal["all", "sampled"] = "sampled"
    keep_weighted_reconstruction: bool = False
    reconstruction_distance: Literal["mse", "smooth_l1", "cosine"] = "mse"
    normalize_targets: bool = True
    visual_target: Literal["pooled", "last", "layer"] = "pooled"
    entity_replacement_probability: int | float = 0.0
    replaced_entities_read: Literal["generated", "real"] = "generated"
    context_hiding_probability: int | float = 0.8
    align_last_states: bool = True
    visual_source: Literal["generated", "real", "none"] = "generated"
    constrain_transitions: bool = True
    classifier_dropout: int | float = 0.1
    text_only: bool = False
    image_size: int | None = None
    initializer_range: float = 0.02

    id2label: Any = None
    label2id: Any = None
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    training_summary: dict[str, Any] | None = None

    @classmethod
    def paper(cls, **options: Any) -> "BgaMnerConfig":
        """Make the configuration of the paper's model (arXiv 2308.02570); `options` are changed beside.

        All layers are aligned, those of both encoders read generated features, each stage generates the states of its
        own layer, and reconstruction is weighted by the keep masks. The defaults are what did better since.

        Examples
        --------
        >>> config = BgaMnerConfig.paper(id2label={0: "O", 1: "B-PER", 2: "I-PER"})
        >>> config.num_bga_layers, config.visual_target, config.hybrid_attention
        (12, 'layer', 'both')
        """
        config = cls(**(PAPER | options))
        if options.get("num_bga_layers") is None:
            config.num_bga_layers = min(config.depths)
        return config

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load as every configuration does, and change options; one of labels replaces all of the file's labels."""
        with explained(_READ, given_arguments(kwargs)):
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> "BgaMnerConfig":
        """Make one of a JSON file."""
        with explained(_READ):
            return cls.from_dict(cls._dict_from_json_file(json_file))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make one of what `config.json` holds, and of options that replace some of it; see `from_pretrained`."""
        with explained(_READ):
            kind = config_dict.get("model_type", cls.model_type)
            if kind != cls.model_type:
                mend = (
                    "Name the folder of a saved BGA-MNER model, or build one of two encoders: "
                    "from_text_vision_pretrained, or --text_model and --vision_model on a command line."
                )
                raise mismatch(f"a configuration with model_type {shown(cls.model_type)}", kind, mend)
            for name in ("attn_implementation", "_attn_implementation"):
                check_attention(config_dict.get(name))
            config_dict = in_todays_words(config_dict)
        check_names(cls, kwargs.keys() - config_dict.keys(), cls.__dataclass_fields__)
        given = {
            name: value
            for name, value in given_arguments(kwargs).items()
            if name in config_dict or (hasattr(cls, name) and not callable(getattr(cls, name)))
        }
        # "auto" and None are no options, but stand for what the file says
        others = {name: value for name, value in kwargs.items() if name not in given and name != "dtype"}
        try:
            return super().from_dict(with_arguments(config_dict, given), **others)
        except Exception:
            with explained(_READ):
                cls(**config_dict)  # raises if the file is wrong by itself
            with explained("arguments", given, f"Correct {', '.join(given)}."):
                raise

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign; refuse what the constructor refuses of this option alone."""
        was_there = name in self.__dict__
        if not was_there and not name.startswith("_"):
            check_names(type(self), [name], self.__dataclass_fields__)
        check_option(name, value)
        if name == "_name_or_path":
            value = marked_folder(value)
        # whatever is assigned for the first time, by the constructor, is completed in __post_init__
        if was_there and name in ENCODERS:
            value = make_encoder_config(name, value, self.sub_configs_defaults[name], self.image_size)
        elif was_there and name in _OTHER_LABELS:
            labels = read_labels(name, value)
            inverse = {label: number for number, label in labels.items()}
            value, other = (labels, inverse) if name == "id2label" else (inverse, labels)
            super().__setattr__(_OTHER_LABELS[name], other)
        elif was_there and name == "image_size" and value and self.vision_config.model_type == CONV_STAGES:
            self.vision_config.fit_images(value)
        super().__setattr__(name, value)

    def __post_init__(self, **kwargs: Any) -> None:
        if not self.is_remote_code():
            # The installed classes load what was saved, and `pipeline` must not ask for those in the folder.
            for name in ("auto_map", "custom_pipelines"):
                kwargs.pop(name, None)
        for name, value in kwargs.items():
            if isinstance(follows := getattr(type(self), name, None), property) and follows.fset is None:
                raise mismatch(f"no {name}, which follows from other options", value, "Leave it out.")
        count = kwargs.pop("num_labels", None)
        # copies: the model sets their attention implementation, which is no business of whoever made them
        self.text_config, self.vision_config = deepcopy(self.text_config), deepcopy(self.vision_config)
        self._complete_labels(count)
        super().__post_init__(**kwargs)
        check_families(self.text_config, self.vision_config)
        check_numbers(self)
        if self.image_size is None:
            self.image_size = own_image_size(self.vision_config)
        if self.vision_config.model_type == CONV_STAGES:
            self.vision_config.fit_images(self.image_size)
        if self.num_bga_layers is None:
            self.num_bga_layers = min(DEFAULT_ALIGNED_LAYERS, *self.depths)
        # Here, so that a plain ValueError comes out; `@strict` wraps what its own validators raise.
        self.validate_consistency()

    def update(self, config_dict: dict[str, Any]) -> None:
        """Change options, and check them against each other; if any is refused, all stay as they are."""
        with self._all_or_nothing():
            if config_dict.keys() >= _OTHER_LABELS.keys():
                check_labels(config_dict["id2label"], config_dict["label2id"])
            super().update(config_dict)

    def update_from_string(self, update_str: str) -> None:
        """Change options as in "cycle_weight=0.5,loss_stages=sampled"; see `update`."""
        with self._all_or_nothing():
            super().update_from_string(update_str)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save as every configuration does, unless it couldn't be loaded again."""
        self.check_savable()
        super().save_pretrained(save_directory, *args, **kwargs)

    def check_savable(self) -> None:
        """Refuse what couldn't be loaded again: options that contradict each other or that JSON can't hold."""
        self.validate_consistency()
        with explained("a configuration that can be saved", fix="Correct the option."):
            type(self)(**json.loads(self.to_json_string()))

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Check what was changed, and take all of it back if it is refused."""
        before = {**self.__dict__, **{name: deepcopy(getattr(self, name)) for name in ENCODERS}}
        try:
            yield
            self.validate_consistency()
        except Exception:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def validate_consistency(self) -> None:
        """Refuse what can't be built; `@strict` calls it again whenever the configuration is validated."""
        check_families(self.text_config, self.vision_config)
        check_numbers(self)
        check_padding(self.text_config, TEXT_FAMILIES[self.text_config.model_type].first_position is None)
        check_labels(self.id2label, self.label2id)
        check_option("training_summary", self.training_summary)
        depth = min(self.depths)
        if not 1 <= self.num_stages <= depth:
            expected = f"num_bga_layers between 1 and {depth}, the depth of the shallower encoder ({self.depths})"
            mend = "Lower it. To train without alignment, switch off use_text_to_image and use_image_to_text."
            raise mismatch(expected, self.num_bga_layers, mend)
        if self.vision_grid_side < 1:
            patch = self.vision_config.patch_size
            raise mismatch(f"image_size of at least one patch of {shown(patch)} pixels", self.image_size, "Raise it.")
        check_switches(self)
        if self.keep_budget < 1 and not self.text_only and not (self.use_context_sampler and self.use_image_to_text):
            logger.warning_once(
                "keep_budget does nothing: it prices what the vision sampler keeps, for which use_context_sampler and "
                "use_image_to_text have to be on."
            )

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds: what differs from the defaults, and the classes that read the folder."""
        values = super().to_diff_dict()
        values |= {name: without_folders(values[name]) for name in ENCODERS if name in values}
        values |= {name: getattr(self, name) for name in _ALWAYS_SAVED}
        return {**values, "auto_map": dict(AUTO_MAP), "custom_pipelines": deepcopy(CUSTOM_PIPELINES)}

    @property
    def num_stages(self) -> int:
        """Number of stages: `num_bga_layers`, once the configuration is complete."""
        return self.num_bga_layers or 0

    @property
    def depths(self) -> tuple[int, int]:
        """Number of layers of the text encoder and of the vision encoder."""
        return self.text_config.num_hidden_layers, self.vision_config.num_hidden_layers

    @property
    def text_reads_features(self) -> bool:
        """Whether layers of the text encoder can read visual features, generated or real."""
        return self.hybrid_attention != "none" and (self.use_text_to_image or self.visual_source == "real")

    @property
    def num_vision_tokens(self) -> int:
        """Positions of the vision encoder: class and register tokens, if it has any, and one per patch."""
        return self.vision_grid_side**2 + self.num_vision_prefix_tokens

    @property
    def num_target_positions(self) -> int:
        """Visual features that a text generates at a stage: one per vision token, or pooled ones."""
        return 2 if self.visual_target == "pooled" else self.num_vision_tokens

    @property
    def vision_grid_side(self) -> int:
        """Number of patches, or of cells of a feature map, along either side of an image."""
        if self.vision_config.model_type == CONV_STAGES:
            return self.vision_config.grid_side
        return (self.image_size or 0) // square_side(self.vision_config.patch_size, "vision_config.patch_size")

    @property
    def num_vision_prefix_tokens(self) -> int:
        """Positions of the vision encoder that stand for no patch: the class token, and registers after it."""
        return 1 + getattr(self.vision_config, "num_register_tokens", 0) if self.has_vision_class_token else 0

    @property
    def has_vision_class_token(self) -> bool:
        """Whether position 0 of the vision encoder is a class token."""
        family = VISION_FAMILIES.get(self.vision_config.model_type)
        return family is not None and family.has_class_token

    def _complete_labels(self, count: int | None) -> None:
        """Make labels of names, ids or their number."""
        given = {name: getattr(self, name) for name in _OTHER_LABELS if getattr(self, name) is not None}
        if len(given) == 2:
            check_labels(**given)
        if not given:
            self.num_labels = 2 if count is None else count
        for name, labels in given.items():
            if count is not None and count != len(labels):
                raise mismatch(f"num_labels to be the number of {name}, {len(labels)}", count, "Leave it out.")
            setattr(self, name, labels)


__all__ = ["DEFAULT_ALIGNED_LAYERS", "PAPER", "TEXT_ENCODERS", "VISION_ENCODERS", "BgaMnerConfig"]
