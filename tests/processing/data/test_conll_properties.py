"""Whatever is in a file of tweets: what is written comes back, and no image lies outside its folder."""

from contextlib import suppress

import pytest
from byte_reader import PIECES
from hypothesis import given, settings
from hypothesis import strategies as st
from small_parts import LABELS

from bga_mner import read_conll, repair_bio, write_conll
from bga_mner.processing.data.tweets import check_id
from bga_mner.processing.images.image_folder import ImageFolder


PIECE = st.one_of(st.sampled_from(PIECES), st.text(max_size=4))
WORD = st.lists(PIECE, min_size=1, max_size=3).map("".join)
TWEET = st.lists(st.tuples(WORD, st.sampled_from([*LABELS, None])), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tweets")
    (folder / "images").mkdir()
    (folder / "secret.jpg").write_bytes(b"x")
    return folder


@given(st.lists(st.tuples(WORD, TWEET), min_size=1, max_size=4))
def test_what_can_be_written_is_read_back(folder, tweets):
    file = folder / "written.txt"
    names, words = [name for name, _ in tweets], [[word for word, _ in tweet] for _, tweet in tweets]
    tags = [[tag for _, tag in tweet] for _, tweet in tweets]
    file.unlink(missing_ok=True)
    try:
        write_conll(file, words, tags, names)
    except ValueError:
        assert not file.exists()
        return
    rows = read_conll(file).to_dict()
    assert rows["id"] == names
    assert rows["tokens"] == words
    assert rows["ner_tags"] == [repair_bio(row)[0] for row in tags]


PART = st.sampled_from(["..", "..", "secret", "images", ".", "", " ", "C:", "~", "%2e%2e", "\0"])


@settings(max_examples=300)
@given(st.lists(PART, min_size=1, max_size=4), st.sampled_from(["/", "/", "\\", ""]))
def test_no_id_leads_out_of_the_folder(folder, parts, between):
    name = between.join(parts)
    with suppress(ValueError):
        check_id(name, 1, "tweets.txt")
        assert ImageFolder(folder / "images").find(name) == ([], [])  # there is no image in it
