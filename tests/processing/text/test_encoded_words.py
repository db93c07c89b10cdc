import random

import numpy as np
import pytest

from bga_mner.processing.text.encoded_words import encode_pieces


def slowly(texts, encode, substitute):
    """Token ids of each word of texts of words of pieces, one after the other."""
    return [
        [[token for piece in word for token in (encode(piece) or [substitute])] for word in words] for words in texts
    ]


@pytest.mark.parametrize("substitute", [7, None])
def test_words_get_the_tokens_of_their_pieces(substitute):
    """Whatever the tokenizer makes of a piece: several tokens, one, none, or tokens that belong to no piece."""
    rng = random.Random(0)
    for _ in range(300):
        least = 0 if substitute is not None else 1
        made = {piece: [rng.randrange(100) for _ in range(rng.randrange(least, 4))] for piece in "abcdef"}
        texts = [
            [rng.choices("abcdef", k=rng.randrange(1, 4)) for _ in range(rng.randrange(4))]
            for _ in range(rng.randrange(5))
        ]

        def encode(texts, made=made):
            for pieces in texts:
                tokens = [(token, number) for number, piece in enumerate(pieces) for token in made[piece]]
                if rng.random() < 0.3:
                    tokens.insert(rng.randrange(len(tokens) + 1), (1000, None))
                yield [token for token, _ in tokens], [number for _, number in tokens]

        read = [
            ([piece for word in words for piece in word], [n for n, word in enumerate(words) for _ in word])
            for words in texts
        ]
        found = encode_pieces(read, [len(words) for words in texts], encode, substitute)
        assert found.nested() == slowly(texts, made.get, substitute)
        assert {column.dtype for column in found} == {np.dtype(np.int64)}


def test_a_piece_without_a_token_needs_a_substitute():
    with pytest.raises(ValueError, match="unknown token for the word 'b'"):
        encode_pieces([(["a", "b"], [0, 1])], [2], lambda texts: [([5], [0])], None)
