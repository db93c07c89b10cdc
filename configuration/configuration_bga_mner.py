"""Configuration of the BGA-MNER model: every default lives here, and nowhere else."""

import math
from contextlib import suppress
from copy import deepcopy
from difflib import get_close_matches
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .config_checks import check_attention, check_given, check_numbers, check_padding, explained
from .configuration_conv_stages import CONV_STAGES, ConvStagesConfig
from .encoder_families import BACKBONE_FAMILIES, TEXT_FAMILIES, VISION_FAMILIES
from .hub_export import RemoteCodeMixin, auto_map, came_from_hub, custom_pipelines


TEXT_ENCODERS = tuple(TEXT_FAMILIES)
"""`model_type` of the text encoders whose layers can read generated features."""

VISION_ENCODERS = (*VISION_FAMILIES, *BACKBONE_FAMILIES)
"""`model_type` of the vision encoders: transformers, and convolutional ones, which get new transformer layers."""

_VISION_TOWERS = {family.tower_of: name for name, family in VISION_FAMILIES.items() if family.tower_of}
_DEFAULT_ALIGNED_LAYERS = 4


@strict
class BgaMnerConfig(RemoteCodeMixin, PreTrainedConfig):
    r"""
    Configuration of [`BgaMnerModel`], [`BgaMnerForTokenClassification`] and [`BgaMnerForSequenceClassification`].

    "Paper" below is arXiv 2308.02570; where a default is not the paper's, the reason is given.

    Parameters
    ----------
    text_config : dict or PreTrainedConfig, optional
        Text encoder; `model_type` one of `TEXT_ENCODERS`, "bert" where a dict names none. Default: BERT-base, as in
        the paper.
    vision_config : dict or PreTrainedConfig, optional
        Vision encoder; `model_type` one of `VISION_ENCODERS`, "clip_vision_model" where a dict names none. A whole
        CLIP or SigLIP configuration stands for its vision tower. A convolutional encoder is wrapped in a
        [`ConvStagesConfig`], which may also be given itself. Default: CLIP ViT-B/32, as in the paper.
    num_bga_layers : int, optional
        Number of stages: one stands before each of the last `num_bga_layers` layers of both encoders, paired from the
        top. Default: 4, or the depth of the shallower encoder if that is less. The paper aligns all 12 layers; every
        stage costs a generator pass at inference.
    use_context_sampler : bool, default True
        SCS: sample the tokens and patches that the generators read. Off: they read all (paper's ablation).
    sampler_temperature : float, default 1.0
        Temperature of the Gumbel softmax in training (1.0 is the neutral choice; the paper states none).
    sampler_initial_keep : float, default 0.9
        Share of positions that an untrained sampler keeps through *all* stages. The keep mask of a stage is the
        product of all decisions so far, so an even start (0.5 a stage) would leave the last of four stages 6 %.
    sampler_reads_match : bool, default True
        Whether the vision sampler is told how well what the text generates fits the picture, so that pairs that don't
        belong together keep less (not in the paper). No use with `hybrid_attention="both"`, where pictures are read
        before their texts.
    keep_budget : float, default 1.0
        Share of patches that may be kept through all stages without a price; 1.0 switches the price off. The paper
        has none, and without one a sampler has little reason to drop anything: attention can look away.
    keep_budget_weight : float, default 10.0
        Weight of the squared excess over the budget in the loss.
    use_text_to_image, use_image_to_text : bool, default True
        MCG: generate visual features from text, and text features from pictures (paper's ablations). Without
        `use_text_to_image` the text branch is a plain encoder.
    hybrid_attention : {"text", "both", "none"}, default "text"
        Whose layers attend to generated features. The paper's is "both". There the vision encoder reads text that was
        generated from its own states, and its states, which are the targets of reconstruction, drift towards what is
        easy to generate: on the generated corpus this cost most of the type accuracy on never-labelled names. "none":
        the features only enter the losses.
    generator_num_layers : int, default 1
        Decoder layers of a cross-modal generator.
    generator_ffn_ratio : int or float, default 1
        Width of a generator's feed-forward block over the width of the features it generates. 4 is the usual ratio; 1
        is chosen because the generator runs at inference, and 2 did no better on the generated corpus.
    generator_dropout : float, default 0.1
        Dropout in the generators, as in BERT.
    gate_initial_bias : float, default -4.0
        Initial value of a layer's gate, a bias on the scores of generated keys. With 50 generated and 30 own keys of
        equal score, -4 gives the generated ones 3 % of the attention: training starts from the pretrained encoder.
    reconstruction_weight : float, default 1.0
        alpha in L = L_crf + alpha L_rec + beta L_cyc.
    cycle_weight : float, default 1.0
        beta in the same sum.
    loss_stages : {"all", "drawn"}, default "all"
        Stages whose text is generated from pictures, reconstructed and sent through the cycles in training: all, as in
        the paper, or one that is drawn for each pair in each step, which has the same mean and costs less. What text
        generates is needed and reconstructed at all stages. No difference in evaluation, nor with
        `hybrid_attention="both"`, where pictures generate text for their own layers.
    reconstruction_distance : {"mse", "smooth_l1", "cosine"}, default "mse"
        Distance of generated and real features, averaged over dimensions ("cosine": one minus the similarity).
    normalize_targets : bool, default True
        Layer-normalise the real features before they are compared. Raw hidden states are dominated by a few
        dimensions, and a generator that fits these has learned nothing.
    visual_target : {"last", "layer"}, default "last"
        What a stage's text -> image generator has to generate: the vision encoder's last states, or those that enter
        the paired layer. The last ones name objects best.
    entity_replacement_probability : float, default 0.0
        In training, the share of labelled sentences whose entity tokens are replaced by random ones: context says
        where the entity is, only what is read beside the words says of what type (not in the paper). Of a sequence
        classifier, the tokens of the target.
    replaced_entities_read : {"real", "generated"}, default "real"
        What these read. "real" ("visual teaching"): the picture; of labelled pairs the step from visual concept to type
        is learned, from all others the step from name to visual concept (the alignment losses leave these out, and
        sentences without a picture aren't replaced). "generated": the features that the true words generate,
        detached, in a second pass; no picture is needed for it. With `hybrid_attention="none"`: nothing.
    visual_source : {"generated", "real", "none"}, default "generated"
        What the text attends to at inference: features generated from the text (paper), real ones (ablation, and for
        callers who have a picture; sentences without one fall back to generated features), or nothing. In training it
        attends to generated features, and to real ones only where nothing generates any.
    constrain_transitions : bool, default True
        Forbid tag transitions that BIO forbids in the CRF.
    classifier_dropout : float, default 0.1
        Dropout before the tag or label scores, as in BERT.
    text_only : bool, default False
        Build the text branch alone: no vision encoder, no generator of text features, and no pictures. It tags texts
        exactly as the whole model does; [`BgaMnerPreTrainedModel.save_pretrained`] makes such a model of a trained one.
    image_size : int, optional
        Side in pixels of the square pictures that the model is given. Default: the vision encoder's own. Fewer pixels
        mean fewer visual features to generate at inference.
    initializer_range : float, default 0.02
        Standard deviation of the tag classifier's initial weights, as in BERT.
    id2label, label2id : dict, optional
        Tags (or labels, of a sequence classifier) and their ids; either is enough, the other is made from it.
    training_summary : dict, optional
        What is known of the training that the weights come from: data, hyperparameters, scores, as
        [`summarize_training`] collects them. Values are JSON's; the model card is filled with them on each save. None
        if nothing was recorded. Training the model further marks it as outdated.

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
        "emissions",
        "crf_loss",
        "classification_loss",
        "reconstruction_loss",
        "cycle_loss",
        "keep_loss",
        "pair_match",
        "last_hidden_state",
        "vision_last_hidden_state",
        "generated_vision",
        "generated_text",
        "text_keep_masks",
        "vision_keep_masks",
        "hidden_states",
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
    gate_initial_bias: int | float = -4.0
    reconstruction_weight: int | float = 1.0
    cycle_weight: int | float = 1.0
    loss_stages: Literal["all", "drawn"] = "all"
    reconstruction_distance: Literal["mse", "smooth_l1", "cosine"] = "mse"
    normalize_targets: bool = True
    visual_target: Literal["last", "layer"] = "last"
    entity_replacement_probability: int | float = 0.0
    replaced_entities_read: Literal["real", "generated"] = "real"
    visual_source: Literal["generated", "real", "none"] = "generated"
    constrain_transitions: bool = True
    classifier_dropout: int | float = 0.1
    text_only: bool = False
    image_size: int | None = None
    initializer_range: float = 0.02

    id2label: Any = None
    label2id: Any = None
    training_summary: dict[str, Any] | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load as every configuration does; what can't be one is a ValueError that says so."""
        with explained("a configuration of BGA-MNER"):
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make one of what `config.json` holds; what can't be one is a ValueError that says so."""
        with explained("a configuration of BGA-MNER"):
            kind = config_dict.get("model_type", cls.model_type)
            if kind != cls.model_type:
                raise ValueError(
                    f"Expected a configuration with model_type {cls.model_type!r}, got {str(kind)[:80]!r}. Name the "
                    "folder of a saved BGA-MNER model, or build one of two encoders: from_text_vision_pretrained, or "
                    "--text_model and --vision_model on a command line."
                )
            for name in ("attn_implementation", "_attn_implementation"):
                check_attention(config_dict.get(name))
            return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        fields = [name for name in self.__dataclass_fields__ if not name.startswith("_")]
        for name in kwargs:
            guess = get_close_matches(name, fields, n=1, cutoff=0.85)
            if guess and not hasattr(type(self), name):
                # Unknown arguments are kept, as in every transformers configuration, so a typing error would be too.
                raise ValueError(f"Expected an option of BgaMnerConfig, got {name!r}. Did you mean {guess[0]!r}?")
        if not self.is_remote_code():
            # The installed classes load what was saved, and `pipeline` must not ask for those in the folder.
            for name in ("auto_map", "custom_pipelines"):
                kwargs.pop(name, None)
        check_given(self.text_config, self.vision_config, self.id2label, self.label2id)
        # Copies: the model sets their attention implementation, which is no business of whoever made them.
        self.text_config = deepcopy(self.text_config)
        self.vision_config = _with_stages(_vision_tower(deepcopy(self.vision_config)))
        if self.id2label is None and self.label2id is not None:
            self.id2label = {int(index): label for label, index in self.label2id.items()}
        super().__post_init__(**kwargs)
        self._check_encoders()
        check_numbers(self)
        if self.id2label is not None:
            # PreTrainedConfig leaves label2id as given, or unset
            derived = {label: index for index, label in self.id2label.items()}
            if self.label2id is not None and {k: int(v) for k, v in self.label2id.items()} != derived:
                raise ValueError(
                    f"id2label and label2id must be each other's inverse, but id2label={self.id2label} and "
                    f"label2id={self.label2id}. Pass only one of them; the other is made from it."
                )
            self.label2id = derived
        if hasattr(self.vision_config, "vision_use_head"):
            self.vision_config.vision_use_head = False  # SigLIP's pooling head would be loaded and never used
        if self.image_size is None:
            self.image_size = self._own_image_size()
        if self.vision_config.model_type == CONV_STAGES:
            self.vision_config.fit_pictures(self.image_size)
        if self.num_bga_layers is None:
            self.num_bga_layers = self._own_num_bga_layers()
        # Here, so that a plain ValueError comes out; `@strict` wraps what its own validators raise.
        self.validate_consistency()

    def validate_consistency(self) -> None:
        """Refuse what can't be built; `@strict` calls it again whenever the configuration is validated."""
        self._check_encoders()
        check_numbers(self)
        check_padding(self.text_config, TEXT_FAMILIES[self.text_config.model_type].first_position is None)
        self._check_stages()
        self._check_ranges()
        self._check_switches()

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds: what differs from the defaults, and the classes that read the folder.

        Where an encoder came from is named only if it is a name on the Hub: a folder of the machine that trained the
        model is nobody else's business.
        """
        values = super().to_diff_dict()
        for name in ("text_config", "vision_config"):
            if name in values:
                values[name] = _without_folders(values[name])
        return {**values, "auto_map": auto_map(), "custom_pipelines": custom_pipelines()}

    def option_default(self, name: str) -> Any:
        """Return the default of an option; where that is None, what it becomes with these encoders.

        Parameters
        ----------
        name : str
            Of the option.

        Returns
        -------
        object
            The default. None of the picture size if the vision encoder was made for oblong pictures.
        """
        if name == "num_bga_layers":
            return self._own_num_bga_layers()
        if name == "image_size":
            if self.vision_config.model_type == CONV_STAGES:
                # these layers were fitted to the size that was chosen; what is below them still knows its own
                return ConvStagesConfig(backbone_config=deepcopy(self.vision_config.backbone_config)).image_size
            with suppress(ValueError):
                return self._own_image_size()
        return getattr(BgaMnerConfig, name)

    @property
    def num_stages(self) -> int:
        """Number of stages: `num_bga_layers`, which is None only until the configuration is complete."""
        return self.num_bga_layers or 0

    @property
    def text_reads_features(self) -> bool:
        """Whether layers of the text encoder can read visual features, generated or real."""
        return self.hybrid_attention != "none" and (self.use_text_to_image or self.visual_source == "real")

    @property
    def num_vision_tokens(self) -> int:
        """Positions of the vision encoder: one per patch, behind class and register tokens, if it has any."""
        return self.vision_grid_side**2 + self.num_vision_prefix_tokens

    @property
    def vision_grid_side(self) -> int:
        """Number of patches, or of cells of a feature map, along either side of a picture."""
        if self.vision_config.model_type == CONV_STAGES:
            return self.vision_config.grid_side
        return (self.image_size or 0) // _square_side(self.vision_config.patch_size, "vision_config.patch_size")

    @property
    def num_vision_prefix_tokens(self) -> int:
        """Positions of the vision encoder that stand for no patch: the class token, and registers behind it."""
        if not self.has_vision_class_token:
            return 0
        return 1 + getattr(self.vision_config, "num_register_tokens", 0)

    @property
    def has_vision_class_token(self) -> bool:
        """Whether position 0 of the vision encoder is a class token."""
        family = VISION_FAMILIES.get(self.vision_config.model_type)
        return family is not None and family.has_class_token

    def _own_num_bga_layers(self) -> int:
        """Return how many stages there are by default, which the shallower encoder must have layers for."""
        depths = (self.text_config.num_hidden_layers, self.vision_config.num_hidden_layers)
        return min(_DEFAULT_ALIGNED_LAYERS, *depths)

    def _own_image_size(self) -> int:
        """Return the picture size that the vision encoder was made for."""
        if hasattr(self.vision_config, "image_size"):
            return _square_side(self.vision_config.image_size, "vision_config.image_size")
        # NaFlex: it was trained on any shape of so many patches
        patch = _square_side(self.vision_config.patch_size, "vision_config.patch_size")
        return math.isqrt(self.vision_config.num_patches) * patch

    def _check_encoders(self) -> None:
        """Refuse encoders whose attention would drop the generated features without a word."""
        for kind, config, supported in (
            ("text", self.text_config, TEXT_ENCODERS),
            ("vision", self.vision_config, (*VISION_ENCODERS, CONV_STAGES)),
        ):
            if config.model_type not in supported:
                raise ValueError(
                    f"The {kind} encoder must be one of {', '.join(supported)}, but {kind}_config has "
                    f"model_type={config.model_type!r}, whose attention doesn't take generated features. "
                    f"Pass a {kind}_config (or checkpoint) of one of these families."
                )
        if getattr(self.text_config, "is_decoder", False):
            raise ValueError(
                "The text encoder must be bidirectional, but text_config.is_decoder is True. Set it to False."
            )

    def _check_stages(self) -> None:
        """Refuse stages, labels and sizes that can't be built."""
        depths = {
            "text": self.text_config.num_hidden_layers,
            "vision": self.vision_config.num_hidden_layers,
        }
        if not 1 <= self.num_stages <= min(depths.values()):
            raise ValueError(
                f"num_bga_layers must be between 1 and {min(depths.values())}, the depth of the shallower encoder "
                f"(text {depths['text']}, vision {depths['vision']} layers), but is {self.num_bga_layers}. Lower it "
                "or leave it out. To train without alignment, switch off use_text_to_image and use_image_to_text."
            )
        if self.vision_grid_side < 1:
            raise ValueError(
                f"image_size must be at least one patch of {self.vision_config.patch_size} pixels, but is "
                f"{self.image_size}. Raise it."
            )
        if sorted(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(
                f"id2label must number the tags 0, 1, 2, ... without gaps, but has the ids {sorted(self.id2label)}."
            )

    def _check_ranges(self) -> None:
        """Refuse numbers outside their range."""
        for name in ("generator_dropout", "classifier_dropout", "entity_replacement_probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a probability and must be between 0 and 1, but is {value}.")
        if not 0 < self.sampler_initial_keep < 1:
            raise ValueError(
                f"sampler_initial_keep must lie between 0 and 1, both excluded, but is {self.sampler_initial_keep}. "
                "To keep every position, set use_context_sampler=False."
            )
        for name in ("sampler_temperature", "generator_ffn_ratio", "generator_num_layers", "initializer_range"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, but is {getattr(self, name)}.")
        if not 0 < self.keep_budget <= 1:
            raise ValueError(
                f"keep_budget is a share of positions, above 0 and at most 1, but is {self.keep_budget}. "
                "1 switches it off."
            )
        for name in ("reconstruction_weight", "cycle_weight", "keep_budget_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}. 0 switches the loss off.")

    def _check_switches(self) -> None:
        """Refuse options that contradict each other."""
        if self.text_only and self.visual_source == "real":
            raise ValueError(
                'visual_source="real" reads pictures, for which a model with text_only=True has no encoder. Set '
                'visual_source="generated".'
            )
        if self.visual_source == "real" and self.hybrid_attention == "none":
            raise ValueError(
                'visual_source="real" lets the text attend to real pictures, which hybrid_attention="none" forbids. '
                'Set hybrid_attention="text".'
            )
        if (
            self.entity_replacement_probability > 0
            and self.replaced_entities_read == "real"
            and not self.text_reads_features
        ):
            raise ValueError(
                "entity_replacement_probability > 0 hides entities from a text that reads the picture instead; with "
                f"hybrid_attention={self.hybrid_attention!r}, use_text_to_image={self.use_text_to_image} and "
                f"visual_source={self.visual_source!r} it reads none. Set it to 0, let the text read features, or set "
                'replaced_entities_read="generated", which needs no picture.'
            )


def _without_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Return an encoder's configuration, and those inside it, without where it came from unless that is the Hub."""
    return {
        name: _without_folders(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if name != "_name_or_path" or came_from_hub(value)
    }


def _vision_tower(config: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig | None:
    """Return the vision half of a whole CLIP or SigLIP configuration, and any other configuration as it is."""
    if isinstance(config, PreTrainedConfig) and config.model_type in _VISION_TOWERS:
        return config.vision_config
    if isinstance(config, dict) and config.get("model_type") in _VISION_TOWERS:
        return {"model_type": _VISION_TOWERS[config["model_type"]], **config.get("vision_config", {})}
    return config


def _with_stages(config: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig | None:
    """Put new transformer layers on top of a convolutional encoder, and return any other configuration as it is."""
    kind = config.model_type if isinstance(config, PreTrainedConfig) else (config or {}).get("model_type")
    if kind in BACKBONE_FAMILIES:
        return ConvStagesConfig(backbone_config=config)
    if kind == CONV_STAGES and isinstance(config, dict):
        return ConvStagesConfig(**{name: value for name, value in config.items() if name != "model_type"})
    return config


def _square_side(size: int | list[int] | tuple[int, ...], name: str) -> int:
    """Return the side of a square given as an int or a pair; raise ValueError for any other shape."""
    if isinstance(size, int):
        return size
    if len(set(size)) != 1:
        raise ValueError(f"{name} must be square, but is {size}. Use an encoder of square pictures and patches.")
    return int(size[0])


__all__ = ["TEXT_ENCODERS", "VISION_ENCODERS", "BgaMnerConfig"]
