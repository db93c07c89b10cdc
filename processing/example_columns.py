"""Which columns of a dataset an example is made of, and which look as if they were meant for it."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..configuration.messages import shown


# Names that annotations have elsewhere; under these the processor doesn't read them.
_WORD_LABELS = re.compile(
    r"labels|tags|word_labels|label_ids|(.*_)?(ner|bio|iob)(_?(tags?|labels?|ids?))*", re.IGNORECASE
)
_TAG = re.compile(r"O|[BIESLUMW]-.+")
_SPANS = ("entities", "spans", "named_entities", "annotations")
_IMAGES = ("images", "img", "image_path", "image_file", "picture", "pictures", "photo")


def check_example_columns(batch: Mapping[str, Sequence[Any]], reads_images: bool) -> None:
    """Refuse annotations under names that aren't read, which would be lost; of images, say so.

    Parameters
    ----------
    batch : mapping of str to sequence
        Columns, as `BgaMnerProcessor.encode_examples` takes them.
    reads_images : bool
        Whether images are read at all.

    Raises
    ------
    ValueError
        If there are no ``ner_tags`` and no ``label``, but a column that seems to hold them under another name or as
        spans.
    """

    def given(name: str) -> bool:
        return batch.get(name) is not None and any(item is not None for item in batch[name])

    if not given("ner_tags"):
        if any(_is_span(item) for row in batch.get("label") or () if isinstance(row, list | tuple) for item in row):
            raise ValueError(_lost("label", batch["label"], spans=True))
        if not given("label"):
            tags = (name for name in batch if _WORD_LABELS.fullmatch(name) or _holds_tags(name, batch[name]))
            for name in (*_SPANS, *tags):
                if given(name):
                    spans = name in _SPANS or any(map(_is_span, (item for row in batch[name] for item in _items(row))))
                    raise ValueError(_lost(name, batch[name], spans))
    if reads_images and batch.get("image") is None and batch.get("vision_states") is None:
        unread = [name for name in _IMAGES if given(name)]
        if unread:
            warnings.warn(
                f"Images are read of a column 'image', and there is none, but {shown(unread[0])}: the texts have no "
                f"images. If that column holds them: dataset.rename_column({shown(unread[0])}, 'image').",
                stacklevel=3,
            )


def _holds_tags(name: str, column: Sequence[Any]) -> bool:
    """Tell a column of tags of words by its first sentence, whatever it is called."""
    row = _items(next((row for row in column if row is not None), None))
    return name not in ("tokens", "text") and all(isinstance(item, str) and _TAG.fullmatch(item) for item in row or [0])


def _items(row: Any) -> Sequence[Any]:
    return row if isinstance(row, list | tuple) else ()


def _is_span(item: Any) -> bool:
    """Tell a span, such as ``[0, 3, "PER"]`` or ``{"start": 0, ...}``, from a label of a word or of a text."""
    return isinstance(item, list | tuple | Mapping)


def _lost(name: str, column: Sequence[Any], spans: bool) -> str:
    first = next(item for item in column if item is not None)
    if spans:
        fix = (
            "Make words and tags of spans first, with bga_mner.tags_from_spans(text, spans) or, of a file, "
            "bga_mner.read_annotations(path)"
        )
    else:
        fix = f"Rename it: dataset.rename_column({name!r}, 'ner_tags') for tags of words, or 'label' for one of a text"
    return (
        f"Expected tags of words in a column 'ner_tags', or a label of each text in 'label', got neither, but a column "
        f"{name!r} with {shown(first)}, which would be lost. {fix}. If it is no label, remove it: "
        f"dataset.remove_columns({name!r})."
    )


__all__ = ["check_example_columns"]
