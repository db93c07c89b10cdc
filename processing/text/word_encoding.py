"""Turn words into token ids, word by word, so that no word is ever lost; for every kind of fast tokenizer."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from .encoded_words import EncodedWords
from .word_reader import WordReader
from .word_splitting import split_words


# Tokenizers without a known limit carry a huge number as `model_max_length`.
_NO_LIMIT = 1_000_000
DEFAULT_MAX_LENGTH = 512
_PLAINLY = {"is_split_into_words": True, "padding": False, "truncation": False, "return_attention_mask": False}


def default_max_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give the most tokens, special ones included, that the tokenizer's model takes; 512 where that is not set."""
    limit = int(tokenizer.model_max_length)
    return limit if 0 < limit < _NO_LIMIT else DEFAULT_MAX_LENGTH


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Give the ids of the special tokens before and after a text, such as [CLS] and [SEP]."""
    ids: list[int] = []
    # a tiny vocabulary may know none of the first probes
    for probe in ("a", "e", "0", ".", str(tokenizer.unk_token or "a")):
        encoding = tokenizer([[probe]], **_PLAINLY)
        ids = encoding["input_ids"][0]
        inside = [position for position, word in enumerate(encoding.word_ids(0)) if word is not None]
        if inside:
            return list(ids[: inside[0]]), list(ids[inside[-1] + 1 :])
    # nothing but special tokens: the first one stands in front, as in every common template
    return list(ids[:1]), list(ids[1:])


def encode_words(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], reader: WordReader
) -> EncodedWords:
    """Encode the words of sentences, without special tokens; each has at least one token, the unknown one."""

    def encode(pieces: list[list[str]]) -> list[tuple[list[int], list[int | None]]]:
        encodings = tokenizer(pieces, add_special_tokens=False, verbose=False, **_PLAINLY).encodings
        return [(encoding.ids, encoding.word_ids) for encoding in encodings]

    return reader.encode(sentences, encode, word_prefix(tokenizer), substitute_token(tokenizer))


def placeholders(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return tokens that were added to a vocabulary and that splitting would part; none of the special ones."""
    reserved = {str(getattr(tokenizer, name)) for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    return _parted(frozenset(map(str, tokenizer.added_tokens_decoder.values())) - reserved)


@lru_cache(maxsize=8)
def _parted(tokens: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(token for token in tokens if not any(map(str.isspace, token)) and len(split_words(token)) > 1))


def substitute_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id for words of which a tokenizer makes nothing, if it has one."""
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
    "default_max_length",
    "encode_words",
    "placeholders",
    "special_tokens",
    "substitute_token",
    "word_prefix",
]
