"""Make values of the bytes that a fuzzer gives, the same ones of the same bytes; and tell refusals from failures."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar


Item = TypeVar("Item")

# What texts of strangers hold: nothing, white space of all kinds, joiners, controls, halves of surrogate pairs, emoji,
# right to left, marks, what looks like an address, what our own formats treat as special.
PIECES = (
    *("", " ", "\t", "\n", "\r\n", "\u00a0", "\u2028", "\u0085", "\u200b", "\u200d", "\ufeff", "\ufffd", "\0"),
    *("\x1b[31m", "\ud800", "\udc80", "\udfff", "\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "#\ufe0f\u20e3"),
    *("\U0001f44d\U0001f3fd", "\u05e9\u05dc\u05d5\u05dd", "\u202e", "\u0627\u0644", "e\u0301", "\u0301", "\u1e9e"),
    *("\u0130", "\u65e5\u672c", "\u0e33", "Kawhi", "Seattle", "#NBA", "@b", "a@b.co", "http://", "https://t.co/a,"),
    *("www.", ":D", "5th", "10,000", "1/2", "don't", "{", "}", "[CLS]", "[UNK]", "<s>", "##a", "IMGID:", "-DOCSTART-"),
    *("B-PER", '"', ",", "\\", "..", "/", "%00", "O"),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 1e4, -1e4, 1e30, -1e30, 88.8, float("inf"), float("-inf"), float("nan"))

_SAYS_WHAT_WAS_EXPECTED = re.compile(
    r"[Ee]xpected|must|can't|cannot|is not a multiple|has to be|at most|[Ss]hould have|Could not"
)


class ByteReader:
    """Reads numbers, texts and choices off bytes; zeros where they end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def __bool__(self) -> bool:
        return self.place < len(self.data)

    def bytes(self, count: int) -> bytes:
        """Return the next bytes, fewer where they end."""
        self.place += count
        return self.data[self.place - count : self.place]

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.bytes(len(self.data))

    def integer(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included."""
        width = max(1, ((high - low).bit_length() + 7) // 8)
        return low + int.from_bytes(self.bytes(width), "little") % (high - low + 1)

    def chance(self) -> bool:
        """Return True or False."""
        return self.integer(0, 1) == 1

    def pick(self, options: Sequence[Item]) -> Item:
        """Return one of the options."""
        return options[self.integer(0, len(options) - 1)]

    def number(self) -> float:
        """Return any float, often an odd one."""
        kind = self.integer(0, 3)
        if kind == 0:
            return self.pick(FLOATS)
        if kind == 1:
            return struct.unpack("<f", self.bytes(4).ljust(4, b"\0"))[0]
        return self.integer(-4000, 4000) / 1000

    def text(self, pieces: int = 12) -> str:
        """Return a text of up to so many pieces, which may be repeated, lone surrogates included."""
        made = []
        for _ in range(self.integer(0, pieces)):
            kind = self.integer(0, 15)
            if kind < 9:
                piece = self.pick(PIECES)
            elif kind < 13:
                piece = self.bytes(self.integer(0, 8)).decode("utf-8", "surrogateescape")
            else:
                count = self.integer(0, 4)
                piece = self.bytes(4 * count).decode("utf-32-le", "replace")
            made.append(piece * (self.integer(2, 40) if kind == 0 else 1))
            if self.chance():
                made.append(" ")
        return "".join(made)

    def value(self, depth: int = 2) -> Any:
        """Return whatever JSON may hold."""
        kind = self.integer(0, 9 if depth else 6)
        if kind <= 1:
            return self.text(3)
        if kind == 2:
            return self.integer(-3, 60)
        if kind == 3:
            return self.pick((2**31, -(2**63), 10**9, 2**64, 10**30))
        if kind == 4:
            return self.number()
        if kind <= 6:
            return self.pick((None, True, False))
        if kind <= 8:
            return [self.value(depth - 1) for _ in range(self.integer(0, 4))]
        return {self.text(2): self.value(depth - 1) for _ in range(self.integer(0, 3))}


@contextmanager
def refusals(*kinds: type[Exception]) -> Iterator[None]:
    """Let a refusal pass: a ValueError that says what was expected, or an error of a kind that is documented.

    Warnings are not shown; that they are errors in tests is for our own data, not for a stranger's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except kinds:
            pass
        except ValueError as error:
            if len(str(error)) >= 1000:
                raise AssertionError(f"A message of {len(str(error))} characters: {str(error)[:1000]}") from error
            # of text that can't be encoded the codec says it well enough
            if not isinstance(error, UnicodeError) and not _SAYS_WHAT_WAS_EXPECTED.search(str(error)):
                raise AssertionError(f"A refusal that doesn't say what was expected: {error}") from error


__all__ = ["FLOATS", "PIECES", "ByteReader", "refusals"]
