"""Turn words into token ids, word by word, so that no word is ever lost; for every kind of fast tokenizer."""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...configuration.errors import shown
from .word_reader import WordReader
from .word_splitting import split_words


# Tokenizers without a known limit carry a huge number as `model_max_length`.
_NO_LIMIT = 1_000_000
DEFAULT_MAX_LENGTH = 512


def check_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Refuse tokenizers that cannot tell which word a token belongs to, and what a broken file makes of one."""
    if tokenizer is None:
        raise ValueError("Expected a tokenizer, got None. Load one with transformers.AutoTokenizer.from_pretrained.")
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            "Expected a fast tokenizer, since only those tell which word a token belongs to, got the slow "
            f"{type(tokenizer).__name__}. Load a fast one with AutoTokenizer.from_pretrained, or with "
            "PreTrainedTokenizerFast(tokenizer_file='tokenizer.json')."
        )
    limit = tokenizer.model_max_length
    if not isinstance(limit, int) and not (isinstance(limit, float) and math.isfinite(limit)):
        raise ValueError(f"Expected a number as model_max_length of the tokenizer, got {shown(limit)}. Set it.")
    unknown = tokenizer.unk_token
    if unknown is not None and tokenizer.backend_tokenizer.token_to_id(str(unknown)) is None:
        raise ValueError(
            f"Expected the unknown token {shown(unknown)} in the tokenizer's vocabulary, but it isn't there. Set "
            "tokenizer.unk_token to one that is, or load the tokenizer again."
        )


def default_max_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give the most tokens, special ones included, that the tokenizer's model takes; 512 where that is not set."""
    limit = int(tokenizer.model_max_length)
    return limit if 0 < limit < _NO_LIMIT else DEFAULT_MAX_LENGTH


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Give the ids of the special tokens before and after a single text, for instance [CLS] and [SEP]."""
    ids: list[int] = []
    # A tiny vocabulary may know none of the first probes.
    for probe in ("a", "e", "0", ".", str(tokenizer.unk_token or "a")):
        encoding = tokenizer(
            [[probe]], is_split_into_words=True, padding=False, truncation=False, return_attention_mask=False
        )
        ids = encoding["input_ids"][0]
        inside = [position for position, word in enumerate(encoding.word_ids(0)) if word is not None]
        if inside:
            return list(ids[: inside[0]]), list(ids[inside[-1] + 1 :])
    # Nothing but special tokens for every probe: the first one stands in front, as in every common template.
    return list(ids[:1]), list(ids[1:])


def encode_words(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], reader: WordReader
) -> list[list[list[int]]]:
    """Encode each word of each sentence, without special tokens.

    Each word has at least one token: if the tokenizer makes nothing of it (a lone joiner, control characters, white
    space), the unknown one. Byte-level tokenizers that were made without `add_prefix_space` see a space before each
    word, as in running text.
    """

    def encode(pieces: list[list[str]]) -> list[tuple[list[int], list[int | None]]]:
        batch = tokenizer(
            pieces,
            is_split_into_words=True,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        return [(ids, batch.word_ids(row)) for row, ids in enumerate(batch["input_ids"])]

    return reader.encode(sentences, encode, word_prefix(tokenizer), substitute_token(tokenizer))


def placeholders(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the tokens that were added to a tokenizer's vocabulary and that splitting would part, such as "[USER]".

    Those of any tokenizer are left out: what a text's author writes is never taken for the mask and its like.
    """
    reserved = {str(getattr(tokenizer, name)) for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    return _parted(frozenset(map(str, tokenizer.added_tokens_decoder.values())) - reserved)


@lru_cache(maxsize=8)
def _parted(tokens: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(token for token in tokens if not any(map(str.isspace, token)) and len(split_words(token)) > 1))


def substitute_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id that stands for words of which a tokenizer makes nothing; None if it has no such token."""
    ids = (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id)
    return next((int(token) for token in ids if token is not None), None)


def word_prefix(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what split words need in front to be encoded as inside a text: a space for some tokenizers."""
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    return "" if pre_tokenizer is None else _prefix_before(pre_tokenizer.__getstate__())


@lru_cache(maxsize=8)
def _prefix_before(pre_tokenizer: bytes) -> str:
    pending: list[Any] = [json.loads(pre_tokenizer)]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        elif isinstance(part, dict):
            if part.get("type") == "ByteLevel" and not part.get("add_prefix_space", True):
                return " "
            pending.extend(part.values())
    return ""


__all__ = [
    "check_tokenizer",
    "default_max_length",
    "encode_words",
    "placeholders",
    "special_tokens",
    "substitute_token",
    "word_prefix",
]
