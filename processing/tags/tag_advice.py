"""What somebody gave in the place of a BIO tag, and what makes BIO of it. Pure Python."""

import re
from collections.abc import Mapping
from typing import Any

from ...configuration.errors import shown


_FIX_IDS = (
    "Ids need their names: those of a datasets.ClassLabel are dataset.features['ner_tags'].feature.names, and "
    "bga_mner.name_tags(dataset) puts them in the place of the ids."
)


def why_not_bio(tag: Any) -> str:
    """Say what a tag is, if it is not BIO, and what makes BIO of it."""
    if isinstance(tag, str):
        prefix, dash, kind = tag.partition("-")
        if dash and kind and prefix in tuple("ESLUMW"):
            return (
                f"Expected BIO tags, got {shown(tag)}, which belongs to the BIOES scheme or one like it. Convert all "
                "sentences first: tags = bga_mner.to_bio(tags)."
            )
        fix = "Check how the tags were made."
        if tag == "o" or (dash and kind and prefix in tuple("bieslumw")):
            fix = "Convert all sentences first, which writes prefixes in capitals: tags = bga_mner.to_bio(tags)."
        elif tag.lstrip("-").isdecimal():
            fix = _FIX_IDS
        elif re.match("LABEL_[0-9]+$", tag):
            fix = "That is what transformers calls a label without a name: give the model its labels with id2label."
        elif re.match("[BIESLUMW]$", tag):
            fix = f"After the prefix comes the type. Where all entities are of one, call it as you like, '{tag}-ENT'."
        elif re.match("[BIESLUMW][^A-Za-z-].|.+-[BIESLUMW]$", tag):
            fix = "Write the prefix first, then '-', then the type."
        elif tag and not dash:
            fix = (
                "If these are entity types without a prefix, name the scheme: to_bio(tags, scheme='IO'), "
                "read_conll(path, scheme='IO'), or --tag_scheme IO."
            )
        return f"Expected a BIO tag such as 'O', 'B-PER' or 'I-PER', got {shown(tag)}. {fix}"
    what = f"the {type(tag).__name__} {shown(tag)}"
    if isinstance(tag, list | tuple | Mapping):
        return f"Expected one BIO tag such as 'B-PER' per word, got {what}. Check how deeply the lists are nested."
    fix = _FIX_IDS if hasattr(tag, "__index__") else "A word without a known tag has None."
    return f"Expected a BIO tag such as 'O', 'B-PER' or 'I-PER', got {what}. {fix}"


__all__ = ["why_not_bio"]
