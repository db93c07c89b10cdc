"""Turn words into token ids, word by word, so that no word is ever lost; for every kind of fast tokenizer."""

import json
import math
from collections.abc import Sequence
from typing import Any


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
        raise ValueError(f"Expected a number as model_max_length of the tokenizer, got {limit!r}. Set it.")
    unknown = tokenizer.unk_token
    if unknown is not None and tokenizer.backend_tokenizer.token_to_id(str(unknown)) is None:
        raise ValueError(
            f"Expected the unknown token {str(unknown)[:100]!r} in the tokenizer's vocabulary, but it isn't there. Set "
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


def encode_words(tokenizer: Any, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Encode each word of each sentence, without special tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        A fast tokenizer. Byte-level ones that were made without ``add_prefix_space`` see a space before each word,
        as in running text.
    sentences : sequence of sequences of str
        Words.

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
        batch = tokenizer(
            [[readable(word, prefix) for word in sentences[index]] for index in filled],
            is_split_into_words=True,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        for row, index in enumerate(filled):
            encoded[index] = group_by_word(sentences[index], batch["input_ids"][row], batch.word_ids(row), substitute)
    return encoded


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
                    f"Expected a tokenizer with an unknown token, since the word {text!r} has no token, got one "
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
    "readable",
    "special_tokens",
    "substitute_token",
    "word_prefix",
]
