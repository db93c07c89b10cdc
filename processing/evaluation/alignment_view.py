"""Look into a model at work: what each stage keeps of text and image, and the patches that an entity matches."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ...configuration.errors import shown
from ...modeling_bga.alignment.context_sampler import padding_bias
from ..images.image_loading import limit_aspect_ratio, load_image
from ..inference.evaluation_mode import evaluating
from ..inference.text_tagging import longest_input
from ..tags.tag_scheme import spans_from_tags


if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

    from ...configuration.configuration_bga_mner import BgaMnerConfig
    from ...modeling_bga.alignment.cross_modal_generator import CrossModalGenerator
    from ...modeling_bga.modeling_bga_mner import BgaMnerModel
    from ...modeling_bga.token_classifier import BgaMnerForTokenClassification
    from ..processing_bga_mner import BgaMnerProcessor

__all__ = ["WHOLE", "Alignment", "EntityMatch", "align", "runs_right_to_left"]

WHOLE = (0.0, 0.0, 1.0, 1.0)  # left, top, right and bottom of an image that isn't cropped


class EntityMatch(NamedTuple):
    """An entity, and the patches that look like what its tokens generate."""

    phrase: str
    label: str
    # (rows, columns), from -1 to 1: of each real patch to the visual features that the last stage generates
    similarity: np.ndarray
    tokens: list[int]  # their positions


@dataclass
class Alignment:
    """What a model makes of one sentence and its image."""

    words: list[str]
    tokens: list[str]  # without the tokenizer's marks for blanks and continued words
    word_ids: list[int | None]  # the word that each token is of; None for special tokens
    text_keep: np.ndarray  # bool (stages, tokens): what each stage keeps
    patch_keep: np.ndarray  # bool (stages, rows, columns)
    matches: list[EntityMatch] = field(default_factory=list)  # one for each entity that the model finds
    # left, top, right and bottom of what the patches cover, as shares of width and height: image processors may crop
    seen: tuple[float, float, float, float] = WHOLE

    @property
    def right_to_left(self) -> bool:
        """Whether the sentence is written from right to left."""
        return runs_right_to_left(" ".join(self.words))

    @property
    def entity_tokens(self) -> set[int]:
        """Positions of the tokens of all entities."""
        return {position for match in self.matches for position in match.tokens}

    def token_groups(self) -> list[list[int]]:
        """Return the positions of the tokens, those of a word together.

        >>> keep = np.ones((1, 4), dtype=bool), np.ones((1, 1, 1), dtype=bool)
        >>> Alignment(["Kawhi"], ["[CLS]", "Ka", "whi", "[SEP]"], [None, 0, 0, None], *keep).token_groups()
        [[0], [1, 2], [3]]
        """
        groups: list[list[int]] = []
        for position, word in enumerate(self.word_ids):
            if word is not None and groups and self.word_ids[groups[-1][0]] == word:
                groups[-1].append(position)
            else:
                groups.append([position])
        return groups


def runs_right_to_left(text: str) -> bool:
    """Tell whether the first letter of a text that has a direction is Arabic, Hebrew and the like."""
    kinds = map(unicodedata.bidirectional, text)
    return next((kind != "L" for kind in kinds if kind in ("L", "R", "AL")), False)


def align(
    model: BgaMnerForTokenClassification, processor: BgaMnerProcessor, words: Sequence[str], image: Any
) -> Alignment:
    """Look into a model at work on a sentence with its image.

    Features are generated from an entity's tokens alone, and averaged over patches, since an object may be anywhere.
    What they share with the features of the sentence's other tokens says nothing about the entity, and is subtracted
    before they are compared with the real patches. A transformer's patches have seen the whole image, so a match
    need not stop at the object's outline.

    The model needs a text -> image generator; `image` is whatever `load_image` takes. A sentence that is longer than
    the model reads is cut, with a warning.
    """
    config = model.config
    generator = _check(model, words)
    image = load_image(image)
    batch = processor(
        [list(words)],
        images=[image],
        on_bad_image="raise",
        max_length=longest_input(processor.tokenizer, config.text_config),
        return_tensors="pt",
        return_word_ids=True,
    )
    word_ids = batch.pop("word_ids")[0]
    batch = batch.to(next(model.parameters()).device)
    side, first_patch = config.vision_grid_side, config.num_vision_prefix_tokens
    with evaluating(model):
        output = model(**batch, output_hidden_states=True)
        tags = [config.id2label[tag] for tag in output.predictions[0].tolist()]
        # real features as the generator's targets are: (patches, width)
        real = _patch_targets(model.bga_mner, output.vision_last_hidden_state)[0]
        states = output.hidden_states[config.text_config.num_hidden_layers - 1]  # they enter the last layer
        generate = _feature_generator(generator, config, states)
        matches = []
        for label, covered in _entities(tags, word_ids):
            similarity, positions = _match(generate, real, covered, word_ids)
            # (patches,) -> (rows, columns)
            grid = similarity.view(side, side).float().cpu().numpy()
            matches.append(EntityMatch(" ".join(words[word] for word in covered), label, grid, positions))
    # stages * (1, patches) -> (stages, rows, columns)
    patch_keep = torch.cat(output.vision_keep_masks)[:, first_patch:].unflatten(1, (side, side)) > 0
    return Alignment(
        words=list(words),
        tokens=_readable_tokens(processor.tokenizer, batch["input_ids"][0].tolist(), word_ids),
        word_ids=word_ids,
        text_keep=(torch.cat(output.text_keep_masks) > 0).cpu().numpy(),
        patch_keep=patch_keep.cpu().numpy(),
        matches=matches,
        seen=_seen_part(processor.image_processor, image),
    )


def _check(model: BgaMnerForTokenClassification, words: Sequence[str]) -> CrossModalGenerator:
    """Return the generator of the model's visual features, if it has one that generates what can be compared."""
    config, generator = model.config, model.bga_mner.text_branch.generator
    if isinstance(words, str) or not words:
        raise ValueError(
            f"Expected the words of a sentence as a list, got {shown(words)}. Split text with split_words()."
        )
    if generator is None:
        raise ValueError(
            "Expected a model with a text -> image generator, got use_text_to_image=False. Train one with it."
        )
    if config.visual_target == "layer" or not config.normalize_targets:
        raise ValueError(
            "Expected a model that generates normalised last states, since these are compared with the image's, got "
            f"visual_target={shown(config.visual_target)}, normalize_targets={config.normalize_targets}. Train one "
            'with visual_target="pooled" or "last" and normalize_targets=True.'
        )
    return generator


def _patch_targets(base: BgaMnerModel, states: torch.Tensor) -> torch.Tensor:
    """Bring the patches of last states to where generated features are: (batch, patches, width)."""
    if base.pooled_target is not None:
        return base.pooled_target.patches(states)
    return base.visual_target(states)[:, base.config.num_vision_prefix_tokens :]


def _feature_generator(
    generator: CrossModalGenerator, config: BgaMnerConfig, states: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that generates the mean visual features (width,) from the tokens of a mask (tokens,)."""
    queries = generator.prepare(config.num_target_positions)
    # the last one of pooled features is the mean patch
    first_patch = -1 if config.visual_target == "pooled" else config.num_vision_prefix_tokens

    def generate(positions: torch.Tensor) -> torch.Tensor:
        bias = padding_bias(positions[None], states.dtype)  # (1, tokens)
        return generator(states, bias, queries)[0, first_patch:].mean(dim=0)

    return generate


def _match(
    generate: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    covered: range,
    word_ids: list[int | None],
) -> tuple[torch.Tensor, list[int]]:
    """Compare patches (patches, width) with what the tokens of some words generate: (patches,), and those tokens."""
    own = torch.tensor([word in covered for word in word_ids], device=real.device)
    special = torch.tensor([word is None for word in word_ids], device=real.device)
    rest = ~own & ~special
    wanted = generate(own) - (generate(rest) if rest.any() else 0)
    return F.cosine_similarity(real, wanted[None], dim=-1), own.nonzero().squeeze(1).tolist()


def _entities(tags: list[str], word_ids: list[int | None]) -> list[tuple[str, range]]:
    """Return type and words of each entity, as `predict` does: by the tags of the words' first tokens."""
    firsts: dict[int, str] = {}
    for tag, word in zip(tags, word_ids, strict=True):
        if word is not None:
            firsts.setdefault(word, tag)
    return [(label, range(start, end)) for label, start, end in spans_from_tags(firsts.values())]


def _readable_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int], word_ids: list[int | None]) -> list[str]:
    """Show tokens as text: RoBERTa's blanks and bytes and XLM-R's underlines undone, without BERT's ##."""
    readable = []
    for position, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        text = tokenizer.convert_tokens_to_string([token]).strip() or token
        if position and word_ids[position] is not None and word_ids[position] == word_ids[position - 1]:
            text = text.removeprefix("##") or text
        readable.append(text)
    return readable


def _seen_part(image_processor: BaseImageProcessor, image: Image.Image) -> tuple[float, float, float, float]:
    """Return what is left of an image after thin ones are cut and the image processor crops: see `Alignment.seen`."""
    cut = limit_aspect_ratio(image)
    width, height = cut.width / image.width, cut.height / image.height
    if getattr(image_processor, "do_center_crop", False):
        size, crop = image_processor.size, image_processor.crop_size
        resized = cut.width, cut.height
        if getattr(image_processor, "do_resize", True):
            if size.get("shortest_edge"):
                scale = size["shortest_edge"] / min(cut.size)
                resized = cut.width * scale, cut.height * scale
            else:
                resized = size["width"], size["height"]
        width, height = width * crop["width"] / resized[0], height * crop["height"] / resized[1]
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2
