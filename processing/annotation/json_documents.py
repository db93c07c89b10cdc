"""JSON documents for a bulk annotation, item by item in bounded memory: arrays, and objects of several lines each."""

import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from typing import IO

from ...configuration.errors import brief, shown


_CHARACTERS_AT_ONCE = 1 << 16
# So near to the end of what is read, a number, a word or an escape may be cut off.
_NEAR = 16
_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def is_document(head: bytes) -> bool:
    r"""Tell whether a file that begins so holds an array, or objects of several lines each, and no object per line.

    >>> [is_document(head) for head in (b' [{"text": "a"}]', b'{"text": "a"}', b'{\n"text": "a"}')]
    [True, False, True]
    """
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip(" \t\n\r")
    first_line = text.partition("\n")[0]
    try:
        # a line that is cut off or broken otherwise is one bad row, and no document
        return text.startswith("[") or (text.startswith("{") and _decode(text)[1] > len(first_line))
    except json.JSONDecodeError as error:
        return error.pos > len(first_line)
    except RecursionError:
        return False


def read_items(file: IO[bytes], path: str, most: int) -> Iterator[bytes]:
    """Read the items of an array, or objects one after another, as they stand there, of at most so many characters.

    A ValueError says why the document can't be read on: where the next item begins isn't known then.
    """
    # bytes that aren't UTF-8 are those of one item, not of the file
    reader = _Reader(TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=""), most)
    number = 0
    try:
        in_array = reader.next_character() == "["
        reader.position += in_array
        while (character := reader.next_character()) != ("]" if in_array else ""):
            if number and in_array:
                if character != ",":
                    raise ValueError(f"a comma is missing before {shown(character)}" if character else "it ends there")
                reader.position += 1
                reader.next_character()
            yield reader.take().encode("utf-8", "surrogateescape")
            number += 1
        reader.position += in_array
        if character := reader.next_character():
            raise ValueError(f"{shown(character)} stands after the array's end")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected an array of JSON objects in {shown(path)}, got one that can't be read on after {number} of "
            f"them: {brief(error, 200)}. What is annotated is kept. Mend the file, or write one object per line."
        ) from error


class _Reader:
    """Text of a file, of which one item at a time is held."""

    def __init__(self, file: TextIOWrapper, most: int) -> None:
        self.file, self.most = file, most
        self.text, self.position = "", 0

    def next_character(self) -> str:
        """Go to the next character that is no white space, and return it; at the end none."""
        while True:
            found = _SPACE.match(self.text, self.position)
            self.position = found.end() if found else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._read(_CHARACTERS_AT_ONCE):
                return ""

    def take(self) -> str:
        """Return the text of the value that begins here, and go past it."""
        size = _CHARACTERS_AT_ONCE
        while True:
            try:
                end = _decode(self.text, self.position)[1]
                whole = end < len(self.text)
            except json.JSONDecodeError as error:
                open_string = error.msg.startswith("Unterminated string")
                if not open_string and error.pos < len(self.text) - _NEAR:
                    raise
                end, whole = -1, False
            if whole or not self._read(size):
                break
            if len(self.text) > self.most:
                raise ValueError(f"an item has more than {self.most:,} characters, or no end")
            size *= 2
        # at the end of the file what is wrong is said once more
        end = end if whole else _decode(self.text, self.position)[1]
        item, self.position = self.text[self.position : end], end
        return item

    def _read(self, size: int) -> bool:
        """Read on, and drop what was taken; tell whether there was anything."""
        more = self.file.read(size)
        self.text, self.position = self.text[self.position :] + more, 0
        return bool(more)


__all__ = ["is_document", "read_items"]
