"""The models' base class: weight initialisation, loading and saving, and building a model from two encoders."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from ..configuration.configuration_bga_mner import BgaMnerConfig
from ..configuration.errors import mismatch
from ..configuration.hub.remote_code import RemoteCodeMixin
from .alignment.context_sampler import INITIAL_MATCH_WEIGHT, ContextSampler
from .alignment.cross_modal_generator import CrossModalGenerator
from .alignment.hybrid_attention import HybridProjection
from .alignment.visual_target import PooledTarget
from .crf.crf import ConditionalRandomField
from .encoders.encoder import longest_text, pretrained_part
from .saving.model_card_mixin import ModelCardMixin
from .saving.tokenizer_limit import lower_saved_limit


try:
    from .saving.checkpoint_files import CheckedFilesMixin
    from .training.frozen_parts import FrozenPartsMixin
except ImportError:  # a saved model's code leaves broken files to the libraries, and warns of nothing

    class CheckedFilesMixin:  # type: ignore[no-redef]
        """Take files as they are."""

        def check_savable(self) -> None:
            """Take the configuration as it is."""

    class FrozenPartsMixin:  # type: ignore[no-redef]
        """Train what is to be trained."""


class BgaMnerPreTrainedModel(FrozenPartsMixin, CheckedFilesMixin, ModelCardMixin, RemoteCodeMixin, PreTrainedModel):
    """Base class: weight initialisation, loading and saving, and building a model from two pretrained encoders."""

    config_class = BgaMnerConfig
    config: BgaMnerConfig
    base_model_prefix = "bga_mner"
    main_input_name = "input_ids"
    input_modalities = ("text", "image")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # the loss is a mean over sentences: Trainer would take it for a sum over tokens, and scale gradients wrongly
    accepts_loss_kwargs = False

    def __init__(self, config: BgaMnerConfig, *inputs: Any, **kwargs: Any) -> None:
        # first of all: transformers runs some attention functions from the Hub
        self._refuse_other_attention(getattr(config, "_attn_implementation", None))
        config.validate_consistency()  # options may have changed since it was made
        super().__init__(config, *inputs, **kwargs)
        self._built_from = deepcopy(config)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load as every model does, but safetensors alone, unless `use_safetensors=False` asks for pickled weights.

        Options of [`BgaMnerConfig`] may be given; new labels (`id2label`, `label2id` or `num_labels`) of another number
        need `ignore_mismatched_sizes=True`. Files that don't fit together, are broken, or ask for what isn't allowed
        are a ValueError, missing ones an OSError.
        """
        if kwargs.get("use_safetensors") is None:
            kwargs["use_safetensors"] = True
        if not isinstance(config := kwargs.get("config"), str | os.PathLike | PreTrainedConfig | None):
            raise mismatch("a configuration, or the folder of one, as config", config, "Pass one of these.")
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def set_attn_implementation(self, attn_implementation: str | dict, *args: Any, **kwargs: Any) -> None:
        """Accept "sdpa" only: hybrid attention is built on it, and any other would drop the generated features."""
        self._refuse_other_attention(attn_implementation)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **options: Any
    ) -> None:
        # all names of this option lead here: Trainer's, the model's, peft's
        if enable:
            if getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
                raise mismatch(
                    "activation checkpointing that keeps gradients of generated features, with use_reentrant=False",
                    True,
                    "Leave activation_checkpointing_kwargs (gradient_checkpointing_kwargs) out, or set it there.",
                )
            gradient_checkpointing_func = partial(gradient_checkpointing_func, use_reentrant=False)
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **options)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        push_to_hub: bool = False,
        *,
        text_only: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save as every model does, with the code that loads the folder where this package is missing.

        A tokenizer in the folder that allows longer texts than the text encoder takes is given its limit. If the
        configuration was changed so that the folder couldn't be loaded, a ValueError is raised and nothing written.

        Parameters
        ----------
        save_directory, is_main_process, state_dict, push_to_hub, **kwargs
            As `PreTrainedModel.save_pretrained` takes them.
        text_only : bool
            Save the text branch alone: without the vision encoder, the vision branch and its generator. What is loaded
            tags texts exactly as this model does, and takes no images; see `BgaMnerConfig.text_only`.
        """
        self.config.check_savable()
        self.check_savable()
        # Trainer restores a checkpoint without renaming, and would skip weights (ViT's) under the names of old releases
        kwargs.setdefault("save_original_format", False)
        if text_only and not self.config.text_only:
            model, state_dict = self._text_branch_alone(state_dict), None
        else:
            model = self
        kwargs |= {"is_main_process": is_main_process, "state_dict": state_dict, "push_to_hub": push_to_hub}
        if is_main_process:
            lower_saved_limit(save_directory, longest_text(self.config.text_config))
        super(BgaMnerPreTrainedModel, model).save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, *, text_only: bool = False, **kwargs: Any) -> Any:
        """Push to the Hub as every model does; `text_only` as in `save_pretrained`."""
        model = self._text_branch_alone() if text_only and not self.config.text_only else self
        return super(BgaMnerPreTrainedModel, model).push_to_hub(repo_id, **kwargs)

    def _text_branch_alone(self, weights: dict[str, Tensor] | None = None) -> BgaMnerPreTrainedModel:
        """Make a model of the text branch alone, good for saving: it shares the weights."""
        config = deepcopy(self.config)
        config.text_only = True
        if config.visual_source == "real":
            config.visual_source = "generated"  # what a text without an image reads
        if config.replaced_entities_read == "real":
            config.entity_replacement_probability = 0.0  # in pairs only, and there are none
        with torch.device("meta"):
            model = type(self)(config)
        weights = self.state_dict() if weights is None else weights
        model.load_state_dict({name: weights[name] for name in model.state_dict()}, assign=True)
        model.model_tags = self.model_tags
        return model

    @staticmethod
    def _refuse_other_attention(requested: str | dict | None) -> None:
        if requested not in (None, "sdpa"):
            raise mismatch("attn_implementation 'sdpa', on which BGA-MNER runs", requested, "Leave it out.")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # children come first, so these overwrite what was just done to the linear layers inside
        if isinstance(module, CrossModalGenerator | HybridProjection | ContextSampler):
            for child in module.modules():
                if isinstance(child, nn.Linear):
                    # keeps the scale of what passes through at any width; 0.02 would silence narrow models
                    init.xavier_uniform_(child.weight)
        if isinstance(module, CrossModalGenerator):
            init.normal_(module.modality_queries, mean=0.0, std=1.0)
        elif isinstance(module, HybridProjection):
            init.constant_(module.gate, module.gate_initial_bias)
        elif isinstance(module, ContextSampler):
            init.copy_(module.decision_bias, torch.tensor([module.initial_logit, 0.0]))
            if module.match_weight is not None:
                init.constant_(module.match_weight, INITIAL_MATCH_WEIGHT)
        elif isinstance(module, PooledTarget):
            init.zeros_(module.mean)
            init.ones_(module.variance)
            init.zeros_(module.images_seen)
        elif isinstance(module, ConditionalRandomField):
            for parameter in module.parameters():
                init.uniform_(parameter, -0.1, 0.1)
            module.reset_constraints()

    def freeze_vision_encoder(self, new_layers: bool = False) -> None:
        """Stop training the vision encoder, which then stays in evaluation mode.

        Parameters
        ----------
        new_layers : bool, default False
            Whether to freeze the untrained layers on a convolutional encoder too; they then hand on what the feature
            map shows, mixed at random.
        """
        base: Any = getattr(self, self.base_model_prefix, self)
        if base.vision_encoder is None:
            raise mismatch("a model with a vision encoder to freeze", "text_only=True", "Leave the call out.")
        (base.vision_encoder if new_layers else pretrained_part(base.vision_encoder)).requires_grad_(False)
        self.train(self.training)

    @classmethod
    def from_text_vision_pretrained(
        cls,
        text: str | PreTrainedModel,
        vision: str | PreTrainedModel,
        labels: Sequence[str] | None = None,
        preset: Literal["default", "paper"] = "default",
        **options: Any,
    ) -> BgaMnerPreTrainedModel:
        """Build a model from a pretrained text encoder and a pretrained vision encoder.

        Parameters
        ----------
        text, vision : str or PreTrainedModel
            Folder, Hub name, or encoder in memory (whose weights are copied). A CLIP or SigLIP checkpoint gives its
            vision tower, and so does a model of open_clip, named `open_clip:ViT-B-32/laion2b_s34b_b79k`.
        labels : list of str, optional
            Tags, for example ["O", "B-PER", "I-PER"]; their order gives the ids.
        preset : {"default", "paper"}
            What options that aren't given are: the defaults, or those of [`BgaMnerConfig.paper`].
        **options
            Further arguments of [`BgaMnerConfig`].

        Returns
        -------
        BgaMnerPreTrainedModel
            In evaluation mode. The encoders' weights are the pretrained ones, all others are new; a warning names
            them.
        """
        try:  # a saved model's code doesn't carry this
            from .encoders.from_pretrained import build_from_encoders
        except ImportError as error:
            raise ImportError(
                "Expected the package bga-mner, got a saved model's code alone. Run: pip install bga-mner."
            ) from error
        return build_from_encoders(cls, text, vision, labels, options, preset)


__all__ = ["BgaMnerPreTrainedModel"]
