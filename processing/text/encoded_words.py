"""Token ids of the words of many texts, in flat arrays: nothing here runs token by token. NumPy alone."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ...configuration.errors import shown


# From the pieces of texts to the token ids of each, and the number of each token's piece.
EncodePieces = Callable[[list[list[str]]], Iterable[tuple[Sequence[int], Sequence[int | None]]]]


class EncodedWords(NamedTuple):
    """Texts of W words and N tokens in all, without special tokens; int64 each."""

    ids: np.ndarray  # (N,)
    word_starts: np.ndarray  # (W + 1,): where each word begins among the tokens, and the end of the last one
    text_starts: np.ndarray  # (texts + 1,): where each text begins among the words, and the end of the last one

    def nested(self) -> list[list[list[int]]]:
        """Return the token ids of each word of each text."""
        ids = self.ids.tolist()
        words = [ids[start:end] for start, end in pairwise(self.word_starts.tolist())]
        return [words[start:end] for start, end in pairwise(self.text_starts.tolist())]


def encode_pieces(
    read: Sequence[tuple[Sequence[str], Sequence[int]]],
    word_counts: Sequence[int],
    encode: EncodePieces,
    substitute: int | None,
) -> EncodedWords:
    """Encode texts, each given as its pieces and the word that each piece is of; `substitute` is for lost pieces."""
    counts = np.array([len(pieces) for pieces, _ in read], dtype=np.int64)
    text_starts = _starts(np.array(word_counts, dtype=np.int64))
    filled = [list(pieces) for pieces, _ in read if pieces]
    tokens: list[int] = []
    pieces_of_tokens: list[int | None] = []
    lengths = []
    for ids, numbers in encode(filled) if filled else ():
        if None in numbers:  # tokens of no piece
            ids = [token for token, number in zip(ids, numbers, strict=True) if number is not None]
            numbers = [number for number in numbers if number is not None]
        tokens += ids
        pieces_of_tokens += numbers
        lengths.append(len(ids))
    first_pieces = _starts(counts)
    bases = np.repeat(first_pieces[:-1][counts > 0], lengths)
    # tokens are in the order of their pieces: (pieces + 1,)
    ends = np.searchsorted(np.array(pieces_of_tokens, dtype=np.int64) + bases, np.arange(first_pieces[-1] + 1))
    flat, starts = _with_substitutes(np.array(tokens, dtype=np.int64), ends, read, substitute)
    words_of_pieces = np.fromiter((word for _, owners in read for word in owners), np.int64, int(first_pieces[-1]))
    words_of_pieces += np.repeat(text_starts[:-1], counts)
    # the first piece of each word, and the end of the last: every word has one
    first_of_words = np.searchsorted(words_of_pieces, np.arange(text_starts[-1] + 1))
    return EncodedWords(flat, starts[first_of_words], text_starts)


def _with_substitutes(
    ids: np.ndarray, starts: np.ndarray, read: Sequence[tuple[Sequence[str], Sequence[int]]], substitute: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Give a token to each piece of which the tokenizer made none."""
    lost = np.diff(starts) == 0
    if not lost.any():
        return ids, starts
    if substitute is None:
        piece = [piece for pieces, _ in read for piece in pieces][int(lost.argmax())]
        raise ValueError(
            f"Expected a tokenizer with an unknown token for the word {shown(piece)}, got one without. Set "
            "tokenizer.unk_token."
        )
    return np.insert(ids, starts[:-1][lost], substitute), starts + _starts(lost.astype(np.int64))


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


__all__ = ["EncodePieces", "EncodedWords", "encode_pieces"]
