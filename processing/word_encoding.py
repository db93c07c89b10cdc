"""Turn words into token ids, word by word, so that no word is ever lost; for every kind of fast tokenizer."""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..configuration.messages import shown
from .word_reader import WordReader
from .word_splitting import split_words


# Tokenizers without a known limit carry a huge number as `model_max_length`.
_NO_LIMIT = 1_000_000
DEFAULT_MAX_LENGTH = 512


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse tokenizers that cannot tell which word a token belongs to, and what a broken file makes of one.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Must be a fast one.

    Raises
    ------
    ValueError
        If it is None or a slow tokenizer, if its limit is no number, or it doesn't know its own unknown token.
    """
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


def default_max_length(tokenizer: Any) -> int:
    """Give the longest input in tokens that the tokenizer's model takes, special tokens included.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Any tokenizer.

    Returns
    -------
    int
        ``tokenizer.model_max_length``, or 512 where that is not set.
    """
    limit = int(tokenizer.model_max_length)
    return limit if 0 < limit < _NO_LIMIT else DEFAULT_MAX_LENGTH


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Give the special tokens around a single text.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        A fast tokenizer.

    Returns
    -------
    tuple of (list of int, list of int)
        Token ids before and behind the text, for instance [CLS] and [SEP].
    """
    ids: list[int] = []
    # A tiny vocabulary may know none of the first probes.
    for probe in ("a", "e", "0", ".", str(tokenizer.unk_token or "a")):
        encoding = tokenizer(
            [[probe]], is_split_into_words=True, padding=False, truncation=False, return_attention_mask=False
        )
        ids = encoding["input_ids"][0]
        inside = [place for place, word in enumerate(encoding.word_ids(0)) if word is not None]
        if inside:
            return list(ids[: inside[0]]), list(ids[inside[-1] + 1 :])
    # Nothing but special tokens for every probe: the first one stands in front, as in every common template.
    return list(ids[:1]), list(ids[1:])


def encode_words(
    tokenizer: Any, sentences: Sequence[Sequence[str]], reader: WordReader | None = None
) -> list[list[list[int]]]:
    """Encode each word of each sentence, without special tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        A fast tokenizer. Byte-level ones that were made without ``add_prefix_space`` see a space before each word,
        as in running text.
    sentences : sequence of sequences of str
        Words.
    reader : WordReader, optional
        Splits words into the pieces that are encoded; by default they are encoded whole.

    Returns
    -------
    list of list of list of int
        Token ids of each word of each sentence; at least one a word. A word of which the tokenizer makes nothing
        (a lone joiner, control characters, white space) gets the unknown token.

    Raises
    ------
    ValueError
        If such a word occurs and the tokenizer has no token to put there.
    """
    encoded: list[list[list[int]]] = [[] for _ in sentences]
    filled = [index for index, words in enumerate(sentences) if len(words)]
    if filled:
        prefix = word_prefix(tokenizer)
        substitute = substitute_token(tokenizer)
        reader = reader or WordReader("words")
        read = [reader.pieces(sentences[index]) for index in filled]
        batch = tokenizer(
            [[readable(piece, prefix) for piece in pieces] for pieces, _ in read],
            is_split_into_words=True,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        for row, (index, (pieces, owners)) in enumerate(zip(filled, read, strict=True)):
            tokens = group_by_word(pieces, batch["input_ids"][row], batch.word_ids(row), substitute)
            encoded[index] = join_pieces(tokens, owners, len(sentences[index]))
    return encoded


def join_pieces(tokens: Sequence[list[int]], owners: Sequence[int], count: int) -> list[list[int]]:
    """Join the tokens of pieces to those of the `count` words that they are of.

    Examples
    --------
    >>> join_pieces([[5], [7, 8], [9]], [0, 0, 1], 2)
    [[5, 7, 8], [9]]
    """
    words: list[list[int]] = [[] for _ in range(count)]
    for piece, owner in zip(tokens, owners, strict=True):
        words[owner] += piece
    return words


def placeholders(tokenizer: Any) -> tuple[str, ...]:
    """Return the tokens that were added to a tokenizer's vocabulary and that splitting would part, such as "[USER]".

    Those of any tokenizer are left out: what a text's author writes is never taken for the mask and its like.
    """
    reserved = {str(getattr(tokenizer, name)) for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    return _parted(frozenset(map(str, tokenizer.added_tokens_decoder.values())) - reserved)


@lru_cache(maxsize=8)
def _parted(tokens: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(token for token in tokens if not any(map(str.isspace, token)) and len(split_words(token)) > 1))


def group_by_word(
    words: Sequence[str], ids: Sequence[int], owners: Sequence[int | None], substitute: int | None
) -> list[list[int]]:
    """Sort the tokens of a sentence by the words that they belong to.

    Parameters
    ----------
    words : sequence of str
        Words.
    ids : sequence of int
        Token ids.
    owners : sequence of (int or None)
        Number of the word of each token.
    substitute : int or None
        Token of a word of which the tokenizer made nothing.

    Returns
    -------
    list of list of int
        Token ids of each word; at least one a word.

    Raises
    ------
    ValueError
        If there is such a word and no substitute.

    Examples
    --------
    >>> group_by_word(["Go", "", "NBA"], [5, 8, 9], [0, 2, 2], 1)
    [[5], [1], [8, 9]]
    """
    pieces: list[list[int]] = [[] for _ in words]
    for token, word in zip(ids, owners, strict=True):
        if word is not None:
            pieces[word].append(token)
    for text, tokens in zip(words, pieces, strict=True):
        if not tokens:
            if substitute is None:
                raise ValueError(
                    f"Expected a tokenizer with an unknown token, since the word {shown(text)} has no token, got one "
                    "without. Set tokenizer.unk_token."
                )
            tokens.append(substitute)
    return pieces


def substitute_token(tokenizer: Any) -> int | None:
    """Return the id that stands for words of which a tokenizer makes nothing; None if it has no such token."""
    ids = (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id)
    return next((int(token) for token in ids if token is not None), None)


def readable(word: str, prefix: str) -> str:
    """Prepare a word for the tokenizer; lone surrogates are not valid Unicode and would raise there."""
    if prefix and word and not word.startswith(" "):
        word = prefix + word
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        word = word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return word


def word_prefix(tokenizer: Any) -> str:
    """Return what split words need in front to be encoded as inside a text: a space for some tokenizers."""
    return " " if _wants_prefix_space(tokenizer) else ""


def _wants_prefix_space(tokenizer: Any) -> bool:
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    if pre_tokenizer is None:
        return False
    pending: list[Any] = [json.loads(pre_tokenizer.__getstate__())]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        elif isinstance(part, dict):
            if part.get("type") == "ByteLevel" and not part.get("add_prefix_space", True):
                return True
            pending.extend(part.values())
    return False


__all__ = [
    "check_tokenizer",
    "default_max_length",
    "encode_words",
    "group_by_word",
    "join_pieces",
    "placeholders",
    "readable",
    "special_tokens",
    "substitute_token",
    "word_prefix",
]
