"""Find entities in texts of any length with a trained model."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from .pictures import as_picture_list
from .sequences import as_list
from .text_tagging import Entity, TaggedText, tag_texts
from .text_windows import read_texts


def predict(
    model: nn.Module,
    processor: Any,
    text: str | Sequence[str] | Sequence[Sequence[str]],
    images: Any = None,
    *,
    is_split_into_words: bool | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    stride: int | None = None,
    on_bad_image: str = "missing",
    visual_source: str | None = None,
    show_progress: bool = False,
) -> list[Any]:
    """Find the entities of texts.

    Parameters
    ----------
    model : torch.nn.Module
        Called with ``input_ids``, ``attention_mask``, ``token_type_ids`` where the tokenizer has them, and
        ``pixel_values`` and ``picture_mask`` where it reads pictures. Its output has ``predictions``, int64 (B, L),
        and ``logits``, (B, L, T), whose softmax gives the probabilities of the tags; its ``config.id2label`` names
        them. Its ``span_probabilities`` score entities; without such a method tags count as independent of each other.
        It runs in eval mode without gradients; afterwards every part is back in the mode it was in.
    processor : BgaMnerProcessor
        The model's processor.
    text : str, sequence of str or sequence of sequences of str
        A text, texts, or texts as lists of words. Running text is split by `processor.split_words`. A sequence may be a
        column of a dataset, pandas or pyarrow, an array or a generator.
    images : picture, sequence of (picture or None), or None
        One a text, for models that read real pictures; of a list in the place of one, the first that can be read.
        Otherwise they are ignored, and not even opened.
    is_split_into_words : bool or None
        True says that a list of strings holds the words of one text.
    batch_size : int
        Texts (or windows of long ones) at a time.
    max_length : int or None
        Most tokens the model reads at once; by default what both tokenizer and text encoder take, and at most what the
        encoder takes.
    stride : int or None
        How many tokens neighbouring windows of a longer text share; a quarter of the window by default. Each word
        is tagged where it has the most context.
    on_bad_image : {"missing", "raise"}
        What to do about broken pictures.
    visual_source : {"generated", "real", "none"}, optional
        What the text reads; the model's own default if left out.
    show_progress : bool
        Show a progress bar.

    Returns
    -------
    list of dict, or list of list of dict
        For each text its entities in order: "label", "score" (probability that exactly these words are an entity of
        this type), "word", "start" and "end", where ``text[start:end] == word``. If words were given, places are those
        in ``" ".join(words)``. A list of entities for a single text, a list of such lists otherwise.

    Raises
    ------
    ValueError
        If arguments do not fit together.

    Examples
    --------
    >>> predict(model, processor, "Kawhi wins in Toronto")  # doctest: +SKIP
    [{'label': 'PER', 'score': 0.98, 'word': 'Kawhi', 'start': 0, 'end': 5}, ...]
    """
    items = as_list(text)
    if items == [] and not is_split_into_words:
        return []
    # an iterator can be read once
    texts, single = _read_texts(text if items is None else items, images, is_split_into_words, processor)
    tag_texts(
        texts,
        model,
        processor,
        batch_size=batch_size,
        max_length=max_length,
        stride=stride,
        on_bad_image=on_bad_image,
        visual_source=visual_source,
        show_progress=show_progress,
    )
    found = [[_as_dict(entity) for entity in item.entities()] for item in texts]
    return found[0] if single else found


def _read_texts(
    text: Any, images: Any, is_split_into_words: bool | None, processor: Any
) -> tuple[list[TaggedText], bool]:
    if not hasattr(processor, "word_reader"):
        raise ValueError(
            f"Expected a model and its BgaMnerProcessor, got a {type(processor).__name__} as the second. Make one of a "
            "tokenizer: BgaMnerProcessor(image_processor, tokenizer, label2id=model.config.label2id)."
        )
    texts, single = read_texts(text, is_split_into_words, processor.word_reader)
    if images is not None:
        pictures = as_picture_list(images)
        if len(pictures) != len(texts):
            raise ValueError(
                f"Expected one item of `images` a text, got {len(pictures)} for {len(texts)} texts. Give None for "
                "a text without a picture. A text has one image: choose one, or repeat the text with each."
            )
        for item, picture in zip(texts, pictures, strict=True):
            item.picture = picture
    return texts, single


def _as_dict(entity: Entity) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in ("label", "score", "word", "start", "end")}


__all__ = ["predict"]
