"""Score a model with images, without some of them, and with wrong ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import datasets
from transformers.utils.logging import tqdm

from ...configuration.errors import listed, shown
from ..inference.text_tagging import tag_texts
from ..inference.text_windows import texts_read_ahead
from ..tags.label_map import check_dataset, entity_types, map_labels, name_tags
from ..tags.tag_scheme import repair_bio
from ..text.given_words import tags_of_given_words
from ..text.text_input import SplitText, as_sentences
from .bootstrap import bootstrap_interval, paired_bootstrap
from .image_ablation import choose_images, mismatch_images


if TYPE_CHECKING:
    from ...modeling_bga.token_classifier import BgaMnerForTokenClassification
    from ..processing_bga_mner import BgaMnerProcessor

__all__ = ["REMOVED_SHARES", "predict_tags", "robustness_report"]

# How many images the papers' tables take away at test; all of them is the row that reads text only.
REMOVED_SHARES = (0.25, 0.5, 0.75)


def predict_tags(
    model: BgaMnerForTokenClassification,
    processor: BgaMnerProcessor,
    dataset: datasets.Dataset,
    visual_source: str | None = None,
    batch_size: int | None = None,
    show_progress: bool = True,
) -> list[list[str]]:
    """Tag the words of a dataset.

    Texts that are longer than the model reads are tagged in overlapping windows, as `predict` does, so that each word
    gets a tag.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        A trained model.
    processor : BgaMnerProcessor
        The model's processor.
    dataset : datasets.Dataset
        With the column `tokens` (lists of words); `image` is looked at if `visual_source` is "real".
    visual_source : {"generated", "real", "none"}, optional
        What the text reads: generated features; the images' own, and generated ones where there is no image or a
        broken one; or none. By default what the model reads of texts alone: "none" if it was trained so, or else
        "generated".
    batch_size : int, optional
        Texts (or windows of long ones) at a time; by default as of `predict`.
    show_progress : bool, default True
        Show a progress bar.

    Returns
    -------
    list of list of str
        One BIO tag per word, in the order of the dataset; entities begin with "B-".

    Raises
    ------
    ValueError
        If a column is missing or `tokens` holds no lists of words, or the model can't read this source.
    """
    if visual_source is None:
        visual_source = _without_images(model)
    needed = ["tokens"] + ["image"] * (visual_source == "real")
    check_dataset(dataset, needed)
    if isinstance(dataset.features["tokens"], datasets.Value):
        raise ValueError(
            f"Expected lists of words in the column 'tokens', got {dataset.features['tokens']}. Split the texts first "
            "(bga_mner.split_words); bga_mner.predict takes running text."
        )
    rows = dataset.select_columns(needed).with_format(None)
    if "image" in needed:
        rows = rows.cast_column("image", datasets.Image(decode=False))
    tags: list[list[str]] = []
    # a part at a time, so that a dataset's images may be larger than memory; several batches, to sort by length
    part = texts_read_ahead(batch_size, with_images="image" in needed)
    with tqdm(total=len(rows), desc="Tagging", unit="sentence", disable=not show_progress) as progress:
        for start in range(0, len(rows), part):
            batch = rows[start : start + part]
            sentences, _, _ = as_sentences(batch["tokens"], True, batched=True)
            images = batch.get("image", [None] * len(sentences))
            texts = [
                SplitText.from_words(words, processor.word_reader, image)
                for words, image in zip(sentences, images, strict=True)
            ]
            tagged = tag_texts(texts, model, processor, batch_size=batch_size, visual_source=visual_source)
            found = [
                tags_of_given_words(text, item.tags, len(words))
                for text, item, words in zip(texts, tagged, sentences, strict=True)
            ]
            tags += [[str(tag) for tag in repair_bio(item)[0]] for item in found]
            progress.update(len(texts))
    return tags


def robustness_report(
    model: BgaMnerForTokenClassification,
    processor: BgaMnerProcessor,
    dataset: datasets.Dataset,
    *,
    label_map: Mapping[str, str | None] | None = None,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int | None = None,
    show_progress: bool = True,
) -> list[dict[str, Any]]:
    """Score a model under conditions that differ in the images that it reads at test.

    The first condition is what the others are compared with: all images are read. Then 25, 50 and 75 % of them are
    removed, and all: the model generates what it reads instead. Last, each sentence that has an image reads that of
    another one. Where no sentence has an image, or the model can't read any (it has no layers that read features, or
    no vision encoder: `text_only`), text alone is scored.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        A trained model.
    processor : BgaMnerProcessor
        The model's processor.
    dataset : datasets.Dataset
        With the columns `tokens`, `ner_tags` (BIO tags, or ids that a `ClassLabel` names) and optionally `image`,
        as of `read_conll`. Sentences without any known tag are left out.
    label_map : mapping of str to (str or None), optional
        Renames types in what is predicted and in what is expected (see `map_labels`), for a model that was trained on
        a data set whose types have other names.
    samples, confidence
        As for `bootstrap_interval` and `paired_bootstrap`.
    seed : int, default 0
        Of the bootstrap, and of which images are removed and swapped.
    batch_size : int, optional
        Texts at a time.
    show_progress : bool, default True
        Show progress bars.

    Returns
    -------
    list of dict
        For each condition `condition` (its name), `sentences` (number of those scored), `images` (number of
        those that read one), what `bootstrap_interval` gives, and as `compared` what `paired_bootstrap` gives for
        this condition minus the first; None in the first.

    Raises
    ------
    ValueError
        If a column is missing, nothing has a known tag, or `label_map` names a type that neither model nor data have.
    """
    check_dataset(dataset, ["tokens", "ner_tags"])
    # picked by number: Dataset.filter would write the images anew
    known = [row for row, tags in enumerate(_tags_column(dataset)) if any(tag is not None for tag in tags or ())]
    if not known:
        raise ValueError("Expected sentences with known tags to score against, got none. Give a labelled test set.")
    dataset = dataset.select(known)
    labels = [str(label) for label in model.config.id2label.values()]
    references, renamed = _rename(list(_tags_column(dataset)), labels, label_map or {})

    def tag(rows: datasets.Dataset, visual_source: str) -> list[list[str]]:
        found = predict_tags(model, processor, rows, visual_source, batch_size, show_progress)
        return [[renamed[label] for label in tags] for tags in found]

    # a model without its vision encoder still has the layers that read features, but only generated ones
    text_source = _without_images(model)
    reads = model.config.text_reads_features and not model.config.text_only and text_source != "none"
    having = choose_images(dataset, 1.0, seed) if reads and "image" in dataset.column_names else []
    report: list[dict[str, Any]] = []
    first: list[list[str]] | None = None
    for name, images, predictions in _conditions(tag, dataset, having, text_source, seed):
        scores = bootstrap_interval(predictions, references, samples, confidence, seed)
        compared = (
            None if first is None else paired_bootstrap(predictions, first, references, samples, confidence, seed)
        )
        first = first or predictions
        numbers = {"sentences": len(references), "images": images}
        report.append({"condition": name, **numbers, **scores, "compared": compared})
    return report


def _conditions(
    tag: Callable[[datasets.Dataset, str], list[list[str]]],
    dataset: datasets.Dataset,
    having: list[int],
    text_source: str,
    seed: int,
) -> Iterator[tuple[str, int, list[list[str]]]]:
    """Yield name, number of images that are read, and tags of each condition; `having`: rows with an image."""
    text_only = tag(dataset, text_source)
    if having:
        with_images = tag(dataset, "real")
        yield "all images", len(having), with_images
        for share in REMOVED_SHARES:
            removed = set(choose_images(dataset, share, seed))
            # sentences don't see each other: without its image, one is tagged as among text only
            mixed = [(text_only if row in removed else with_images)[row] for row in range(len(dataset))]
            yield f"{share:.0%} removed", len(having) - len(removed), mixed
    yield "100% removed: text only" if having else "text only", 0, text_only
    if len(having) > 1:
        yield "mismatched images", len(having), tag(mismatch_images(dataset, 1.0, seed), "real")


def _without_images(model: BgaMnerForTokenClassification) -> str:
    """Return what a text without an image reads."""
    return "none" if model.config.visual_source == "none" else "generated"


def _tags_column(dataset: datasets.Dataset) -> Any:
    return name_tags(dataset.select_columns("ner_tags"))["ner_tags"]


def _rename(
    references: list[list[str | None]], labels: list[str], label_map: Mapping[str, str | None]
) -> tuple[list[list[str | None]], dict[str, str]]:
    """Rename the types of the references, and say what each of the model's labels becomes."""
    of_data, of_model = entity_types(references), entity_types([labels])
    unknown = sorted(set(label_map) - {*of_data, *of_model})
    if unknown:
        raise ValueError(
            f"Expected types of the model ({listed(of_model)}) or the data ({listed(of_data)}) as keys of "
            f"label_map, got {listed(unknown)}. Choose from these."
        )
    renamed_references, (renamed_labels,) = (
        map_labels(tags, {kind: name for kind, name in label_map.items() if kind in types})
        for tags, types in ((references, of_data), ([labels], of_model))
    )
    if never := sorted(set(entity_types(renamed_references)) - set(entity_types([renamed_labels]))):
        warnings.warn(
            f"The data have types that the model can't predict, which score 0: {listed(never)}; it has "
            f"{listed(of_model)}. Name with label_map what is the same, or drop them: {{{shown(never[0])}: None}}.",
            stacklevel=3,
        )
    return renamed_references, dict(zip(labels, renamed_labels, strict=True))
