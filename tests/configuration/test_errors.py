"""What error messages show of a value."""

import pytest

from bga_mner.configuration.argument_errors import reworded
from bga_mner.configuration.errors import brief, listed, mismatch, shown


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


@pytest.mark.parametrize(
    ("values", "limit", "text"),
    [
        (["id", "text"], 200, "'id', 'text'"),
        ({"id": 1}, 200, "'id'"),
        ([], 200, "none"),
        (range(1000), 10, "0, 1, 2, 3, ... (1000 in all)"),
        (["a" * 1000, "b"], 20, "'aaaaaaaaa... (1000 characters), ... (2 in all)"),
    ],
)
def test_several_values_are_cut_together(values, limit, text):
    assert listed(values, limit) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (OSError("no such\n  file."), "no such file"),
        ("two\nlines.", "two lines"),
        (ValueError(), "ValueError"),
        (ValueError("a" * 1000), "a" * 400 + "..."),
    ],
)
def test_what_another_error_says_is_one_short_line(given, text):
    assert brief(given) == text


@pytest.mark.parametrize("show", [shown, listed, brief])
@pytest.mark.parametrize(
    "value", ["x" * 10_000_000, list(range(1_000_000)), {"k" * 1000: "v"}, ["\n" * 100_000] * 3, b"\xff" * 1_000_000]
)
def test_what_is_shown_is_short_whatever_it_is(show, value):
    assert len(show(value)) < 450


def test_other_libraries_errors_are_reworded_and_ours_pass():
    message = r"^Expected a file, got KeyError: 'x'\. Save it again\.$"
    with pytest.raises(ValueError, match=message) as caught, reworded("a file", "Save it again."):
        raise KeyError("x")
    assert isinstance(caught.value.__cause__, KeyError)
    for error in (ValueError("Expected a name, got 3."), OSError("no disk")):
        with pytest.raises(type(error), match=str(error)), reworded("a file", "Save it again."):
            raise error
    with pytest.raises(ValueError, match="got OSError: no disk"), reworded("a", "B.", lambda error: True):
        raise OSError("no disk")
    with pytest.raises(ValueError, match="got TypeError: xxx") as long, reworded("a", "B."):
        raise TypeError("x" * 10_000)
    assert len(str(long.value)) < 300
    assert len(str(mismatch("a", "x" * 10_000))) < 300
