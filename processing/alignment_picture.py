"""Draw what a model aligned: the patches that each stage keeps, and the patches that an entity's features match."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F


@dataclass
class Alignment:
    """What a model makes of one sentence and its picture.

    Attributes
    ----------
    tokens : list of str
        The text as the tokenizer cut it.
    text_keep : numpy.ndarray of bool, shape (stages, tokens)
        Tokens that each stage keeps.
    patch_keep : numpy.ndarray of bool, shape (stages, rows, columns)
        Patches that each stage keeps.
    matches : list of (str, str, numpy.ndarray of float, shape (rows, columns))
        For each entity its words, its label, and the similarity, between -1 and 1, of each real patch to the visual
        features that the last stage generates from the entity's tokens.
    """

    tokens: list[str]
    text_keep: np.ndarray
    patch_keep: np.ndarray
    matches: list[tuple[str, str, np.ndarray]]


@torch.no_grad()
def align(model: Any, processor: Any, words: Sequence[str], image: Any) -> Alignment:
    """Look into a model at work on a sentence with its picture.

    Features are generated from an entity's tokens alone, and averaged over patches, since an object may be anywhere.
    What they share with the features of the sentence's other tokens says nothing about the entity, and is subtracted
    before they are compared with the real patches. A transformer's patches have seen the whole picture, so a match
    need not stop at the object's outline.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        A model with a text -> image generator.
    processor : BgaMnerProcessor
        The model's processor.
    words : sequence of str
        The sentence.
    image : picture
        Whatever `load_picture` takes.

    Returns
    -------
    Alignment
        Keep masks and similarities.

    Raises
    ------
    ValueError
        If the picture can't be used, or the model generates no visual features.
    """
    base, config = model.bga_mner, model.config
    if base.text_branch.generator is None:
        raise ValueError("Expected a model with a text -> image generator, got one with use_text_to_image=False.")
    if config.visual_target != "last" or not config.normalize_targets:
        raise ValueError(
            "Expected a model that generates normalised last states, since these are compared with the picture's, got "
            f"visual_target={config.visual_target!r}, normalize_targets={config.normalize_targets}. Train one with "
            'visual_target="last" and normalize_targets=True.'
        )
    batch = processor([list(words)], images=[image], on_bad_image="raise", return_tensors="pt", return_word_ids=True)
    word_ids = batch.pop("word_ids")[0]
    batch = batch.to(next(model.parameters()).device)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        output = model(**batch, output_hidden_states=True)
    finally:
        for module, training in modes:
            module.training = training

    side = config.image_size // config.vision_config.patch_size
    first_patch = int(config.has_vision_class_token)
    tags = [config.id2label[tag] for tag in output.predictions[0].tolist()]
    # real features as the generator's targets are: (patches, width)
    real = F.layer_norm(output.vision_last_hidden_state[0], (config.vision_config.hidden_size,))[first_patch:]
    states = output.hidden_states[config.text_config.num_hidden_layers - 1]  # they enter the last layer
    special = torch.tensor([word is None for word in word_ids], device=states.device)

    def generate(positions: torch.Tensor) -> torch.Tensor:
        bias = torch.zeros(1, len(word_ids), dtype=states.dtype, device=states.device)
        bias = bias.masked_fill(~positions, torch.finfo(states.dtype).min)
        return base.text_branch.generator(states, bias, config.num_vision_tokens)[0, first_patch:].mean(dim=0)

    matches = []
    for label, covered in _entities(tags, word_ids):
        own = torch.tensor([word in covered for word in word_ids], device=states.device)
        rest = ~own & ~special
        wanted = generate(own) - (generate(rest) if rest.any() else 0)
        similarity = F.cosine_similarity(real, wanted[None], dim=-1)
        phrase = " ".join(words[word] for word in sorted(covered))
        # (patches,) -> (rows, columns)
        matches.append((phrase, label, similarity.view(side, side).float().cpu().numpy()))
    # stages * (1, patches) -> (stages, rows, columns)
    patch_keep = torch.cat(output.vision_keep_masks)[:, first_patch:].unflatten(1, (side, side)) > 0
    return Alignment(
        processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist()),
        (torch.cat(output.text_keep_masks) > 0).cpu().numpy(),
        patch_keep.cpu().numpy(),
        matches,
    )


def _entities(tags: list[str], word_ids: list[int | None]) -> list[tuple[str, set[int]]]:
    """Collect the words of each entity from the tags of the words' first tokens."""
    entities: list[tuple[str, set[int]]] = []
    previous = None
    for tag, word in zip(tags, word_ids, strict=True):
        if word is None or word == previous:
            continue
        previous = word
        if tag.startswith("B-"):
            entities.append((tag[2:], {word}))
        elif tag.startswith("I-") and entities and word - 1 in entities[-1][1]:
            entities[-1][1].add(word)
    return entities


def draw_alignment(alignments: Sequence[tuple[Alignment, Any]], path: str | os.PathLike[str]) -> None:
    """Draw alignments as one PNG, a row each: the picture, the kept patches of each stage, and each entity's match.

    Needs matplotlib, which the extra `examples` installs.

    Parameters
    ----------
    alignments : sequence of (Alignment, PIL.Image.Image)
        Alignments with their pictures.
    path : str or os.PathLike
        Where to write the PNG.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    if not alignments:
        raise ValueError("Expected at least one alignment to draw, got none.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stages = alignments[0][0].patch_keep.shape[0]
    most = max(len(alignment.matches) for alignment, _ in alignments)
    columns = 1 + stages + most
    figure = Figure(figsize=(2.3 * columns, 2.9 * len(alignments)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(alignments), columns, squeeze=False)
    for row, (alignment, image) in zip(grid, alignments, strict=True):
        for axis in row:
            axis.set_axis_off()
        extent = (0, image.width, image.height, 0)
        row[0].imshow(image, extent=extent)
        row[0].set_title(_wrap(_sentence(alignment.tokens)), fontsize=7, loc="left")
        for stage, kept in enumerate(alignment.patch_keep):
            axis = row[1 + stage]
            axis.imshow(image, extent=extent)
            veil = np.zeros((*kept.shape, 4))
            veil[~kept] = (1, 1, 1, 0.85)
            axis.imshow(veil, extent=extent, interpolation="nearest")
            read = int(alignment.text_keep[stage].sum())
            axis.set_title(
                f"stage {stage + 1}: {kept.mean():.0%} of patches,\n{read} of {len(alignment.tokens)} tokens kept",
                fontsize=7,
            )
        for axis, (phrase, label, similarity) in zip(row[1 + stages :], alignment.matches, strict=False):
            axis.imshow(image.convert("L"), extent=extent, cmap="gray", alpha=0.6)
            shown = axis.imshow(
                similarity, extent=extent, cmap="coolwarm", vmin=-1, vmax=1, alpha=0.65, interpolation="bilinear"
            )
            axis.set_title(f"patches that match\n“{_sentence([phrase])}” ({label})", fontsize=7)
            figure.colorbar(shown, ax=axis, shrink=0.6).ax.tick_params(labelsize=6)
    figure.savefig(path, dpi=150)


def _sentence(tokens: list[str]) -> str:
    """Join tokens to a title; emoji, which matplotlib's font lacks, become a square."""
    text = " ".join(token for token in tokens if not token.startswith("[")).replace(" ##", "")
    return "".join(character if ord(character) < 0x2600 else "□" for character in text)


def _wrap(text: str, width: int = 34) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


__all__ = ["Alignment", "align", "draw_alignment"]
