"""What error messages show of a value."""

import pytest

from bga_mner.configuration.messages import shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("B-PER", "'B-PER'"),
        ("two\nlines", r"'two\nlines'"),
        (None, "None"),
        ([1, 2], "[1, 2]"),
        ("a" * 1000, "'" + "a" * 199 + "... (1000 characters)"),
        (b"a" * 1000, "b'" + "a" * 198 + "... (1000 bytes)"),
        (["a"] * 1000, "['a'" + ", 'a'" * 39 + ",... (1000 items)"),
    ],
)
def test_a_value_is_recognised_and_cut(value, text):
    assert shown(value) == text


def test_the_limit_holds_where_each_character_is_escaped():
    assert len(shown("\x00" * 10_000_000, limit=40)) < 80
