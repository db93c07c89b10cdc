"""Find entities in texts of any length with a trained model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from ..images.image_encoding import image_of_each_text
from ..images.image_loading import Images
from ..processing_bga_mner import BgaMnerProcessor
from ..sequences import as_list
from ..text.given_words import split_texts
from .text_tagging import find_entities


def predict(
    model: PreTrainedModel,
    processor: BgaMnerProcessor,
    text: str | Sequence[str] | Sequence[Sequence[str]],
    images: Images = None,
    *,
    is_split_into_words: bool | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    on_bad_image: str = "missing",
    visual_source: str | None = None,
    show_progress: bool = False,
) -> list[Any]:
    """Find the entities of texts.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        Or another tagger, such as a student, whose output has `logits`, (B, L, T), and perhaps `predictions`, int64
        (B, L). Without a `span_probabilities` tags count as independent of each other. It runs in eval mode without
        gradients; afterwards every part is back in the mode it was in.
    processor : BgaMnerProcessor
        The model's processor.
    text : str, sequence of str or sequence of sequences of str
        A text, texts, or texts as lists of words. Running text is split by `processor.split_words`. A sequence may be a
        column of a dataset, pandas or pyarrow, an array or a generator.
    images : image, sequence of (image or None), or None
        One for each text, for models that read real images; of a list in the place of one, the first that can be
        read. Otherwise they are ignored, and not even opened.
    is_split_into_words : bool or None
        True says that a list of strings holds the words of one text.
    batch_size : int or None
        Texts (or windows of long ones) at a time; by default as many as the device is fastest with: batches have about
        the same number of tokens, the fewer the wider the encoder. Of models that read real images 16.
    max_length : int or None
        Most tokens the model reads at once; by default what both tokenizer and text encoder take, and at most what the
        encoder takes.
    stride : int or None
        How many tokens neighbouring windows of a longer text share; a quarter of the window by default. Each word
        is tagged where it has the most context.
    on_bad_image : {"missing", "raise"}
        What to do about broken images.
    visual_source : {"generated", "real", "none"}, optional
        What the text reads; the model's own default if left out.
    show_progress : bool
        Show a progress bar.

    Returns
    -------
    list of dict, or list of list of dict
        For each text its entities in order: "label", "score" (probability that exactly these words are an entity of
        this type), "word", "start" and "end", where `text[start:end] == word`. If words were given, offsets are those
        in `" ".join(words)`. A list of entities for a single text, a list of such lists otherwise.

    Raises
    ------
    ValueError
        If arguments do not fit together.

    Examples
    --------
    >>> predict(model, processor, "Kawhi wins in Toronto")  # doctest: +SKIP
    [{'label': 'PER', 'score': 0.98, 'word': 'Kawhi', 'start': 0, 'end': 5}, ...]
    """
    if not hasattr(processor, "word_reader"):
        raise ValueError(
            f"Expected a model and its BgaMnerProcessor, got a {type(processor).__name__} as the second. Make one of a "
            "tokenizer: BgaMnerProcessor(image_processor, tokenizer, label2id=model.config.label2id)."
        )
    items = as_list(text)  # an iterator can be read once
    if items == [] and not is_split_into_words:
        return []
    texts, single = split_texts(text if items is None else items, is_split_into_words, processor.word_reader)
    if images is not None:
        pairs = zip(texts, image_of_each_text(images, len(texts)), strict=True)
        texts = [replace(item, image=image) for item, image in pairs]
    found = find_entities(
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
    names = ("label", "score", "word", "start", "end")
    described = [[{name: getattr(entity, name) for name in names} for entity in entities] for entities in found]
    return described[0] if single else described


__all__ = ["predict"]
