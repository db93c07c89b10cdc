import bz2
import gzip
import hashlib
import lzma
import random

import datasets
import pytest
from PIL import Image

from bga_mner.processing.data.conll import read_conll
from bga_mner.processing.data.conll_writing import write_conll


GOOD = "IMGID:1\n#\tO\nNBA\tB-ORG\n\nIMGID:2\nKawhi\tB-PER\nLeonard\tI-PER\n\n"


def read(tmp_path, content, **options):
    path = tmp_path / "tweets.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_conll(path, return_report=True, show_progress=False, **options)


def rows(dataset):
    return [(row["id"], row["tokens"], row["ner_tags"]) for row in dataset]


EXPECTED = [("1", ["#", "NBA"], ["O", "B-ORG"]), ("2", ["Kawhi", "Leonard"], ["B-PER", "I-PER"])]


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.rstrip("\n"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        "\ufeff" + GOOD,
        GOOD.replace("\t", " "),
        GOOD.replace("\n\n", "\n\n \n\n"),
        GOOD.replace("\n\n", "\n"),
        "\n\n" + GOOD,
        GOOD.replace("IMGID:", "IMGID: "),
        "-DOCSTART-\tO\n\n" + GOOD,
        "-DOCSTART- -X- O O\n" + GOOD,
    ],
)
def test_variants_of_the_format_read_the_same(tmp_path, content):
    dataset, report = read(tmp_path, content)
    assert rows(dataset) == EXPECTED
    assert dataset["image"][:] == [None, None]
    assert (report.sentences, report.tokens, report.entities) == (2, 4, {"ORG": 1, "PER": 1})
    assert report.dropped_lines == content.count("-DOCSTART-")
    assert report.sha256 == hashlib.sha256((tmp_path / "tweets.txt").read_bytes()).hexdigest()


def test_types_of_the_columns(tmp_path):
    dataset, _ = read(tmp_path, GOOD)
    assert dataset.features == datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.Value("string")),
            "image": datasets.Image(decode=False),
        }
    )
    assert "2 tweets" in dataset.info.description
    assert isinstance(read_conll(tmp_path / "tweets.txt"), datasets.Dataset)


def test_unknown_tags_and_missing_ids(tmp_path):
    dataset, report = read(tmp_path, "NBA\nwins\tO\n\nIMGID:\nx\t\n\nIMGID:7\n\nIMGID:8\n")
    assert rows(dataset) == [
        ("line-1", ["NBA", "wins"], [None, "O"]),
        ("line-4", ["x"], [None]),
        ("7", [], []),
        ("8", [], []),
    ]
    assert (report.unknown_tags, report.without_id, report.empty_sentences) == (2, 2, 2)


def test_white_space_words_become_placeholders(tmp_path):
    dataset, report = read(tmp_path, "IMGID:1\na\tO\n\tB-PER\n\u00a0\tI-PER\nb\tO\n")
    assert rows(dataset) == [("1", ["a", "\ufffd", "\ufffd", "b"], ["O", "B-PER", "I-PER", "O"])]
    assert report.placeholder_words == 2
    assert report.examples["white space as a word"] == ["line 3", "line 4"]


def test_odd_line_breaks_are_part_of_words(tmp_path):
    words = ["a\u2028b", "c\x85", "\x0bd", "e f", "\u200d"]
    dataset, _ = read(tmp_path, "IMGID:1\n" + "".join(f"{word}\tO\n" for word in words))
    assert dataset[0]["tokens"] == words


def test_undecodable_bytes_are_counted(tmp_path):
    dataset, report = read(tmp_path, b"IMGID:1\ncaf\xe9\tO\n\xef\xbf\xbd\tO\n")
    assert dataset[0]["tokens"] == ["caf\ufffd", "\ufffd"]
    assert report.replaced_characters == 1
    dataset, report = read(tmp_path, "IMGID:1\ncafé\tO\n".encode("latin-1"), encoding="latin-1")
    assert dataset[0]["tokens"] == ["café"]
    assert report.replaced_characters == 0
    dataset, _ = read(tmp_path, GOOD.encode("utf-16"), encoding="utf-16")
    assert rows(dataset) == EXPECTED


def test_broken_bio_is_mended_and_counted(tmp_path):
    dataset, report = read(tmp_path, "IMGID:1\na\tI-PER\nb\tI-PER\nc\tI-LOC\n")
    assert dataset[0]["ner_tags"] == ["B-PER", "I-PER", "B-LOC"]
    assert report.repaired_tags == 2
    assert report.entities == {"LOC": 1, "PER": 1}


def test_images_are_found_and_checked(tmp_path, photo):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    photo.save(folder / "1.jpg")
    photo.save(folder / "2.jpeg")
    photo.save(folder / "3.png")
    photo.save(folder / "4.JPG", "JPEG")
    photo.save(folder / "5.jpg")
    photo.save(folder / "sub" / "6.jpg")
    (folder / "7.jpg").write_bytes(b"")
    (folder / "8.jpg").write_bytes((folder / "1.jpg").read_bytes()[:400])
    (folder / "9.jpg").write_text("<html>404</html>")
    ids = ["1", "2", "3", "4", "5.jpg", "sub/6", "7", "8", "9", "10", "1"]
    content = "".join(f"IMGID:{name}\na\tO\n\n" for name in ids) + "b\tO\n"
    dataset, report = read(tmp_path, content, image_dir=folder)
    found = [row["image"] is not None for row in dataset]
    assert found == [True] * 6 + [False] * 4 + [True, False]
    assert dataset[0]["image"] == {"bytes": None, "path": str(folder / "1.jpg")}
    assert (report.images_found, report.images_missing) == (7, 2)
    assert report.images_broken == {"empty": 1, "not an image": 1, "truncated": 1}
    assert report.examples["image missing"] == ["10", "line-34"]
    for part in ("7 found", "2 missing", "3 broken (1 empty, 1 not an image, 1 truncated)", report.sha256, "line-34"):
        assert part in str(report)
    unchecked, report = read(tmp_path, content, image_dir=folder, check_images=False)
    assert sum(row["image"] is not None for row in unchecked) == 10
    assert "(not opened)" in str(report)
    assert isinstance(unchecked.cast_column("image", datasets.Image())[0]["image"], Image.Image)


def test_links_in_the_folder_are_followed(tmp_path, photo):
    # the folder is the user's, and often one of links; what a data file says leads nowhere else
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images").mkdir()
    photo.save(tmp_path / "elsewhere" / "photo.png")
    (tmp_path / "images" / "1.png").symlink_to(tmp_path / "elsewhere" / "photo.png")
    (tmp_path / "tweets.txt").write_text("IMGID:1\na\tO\n")
    (row,) = read_conll(tmp_path / "tweets.txt", tmp_path / "images")
    assert row["image"]["path"] == str(tmp_path / "images" / "1.png")


def test_an_id_too_long_for_a_file_is_a_missing_image(tmp_path):
    (tmp_path / "tweets.txt").write_text(f"IMGID:{'x' * 5000}\na\tO\n")
    _, report = read_conll(tmp_path / "tweets.txt", tmp_path, return_report=True)
    assert report.images_missing == 1


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", "C:x", "a\0b"])
def test_ids_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"stays inside the folder of images in line 3"):
        read(tmp_path, f"a\tO\n\nIMGID:{name}\nb\tO\n", image_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got none in 0 bytes"),
        ("\n \n", "got none in 3 bytes"),
        ("-DOCSTART-\n\n", "got none"),
        ("IMGID:1\na\tO\nhello world out there\n", "line 3 .* 4 columns"),
        ("hello world out there\n", "line 1 .* 4 columns"),
        ("a\tNN\tB-NP\tO\nb\tO\n", "Expected 4 columns, as in line 1, in line 2 .* 2 columns"),
        ("IMGID:1\na\tNOUN\n", r"line 2 .* got 'NOUN'"),
        ("IMGID:1\na\tU-PER\nb\tM-PER\n", r"line 3 .* got prefixes that none has together: 'U-PER', 'M-PER'"),
        ("IMGID:1\na\t3\n", r"line 2 .*Ids need their names"),
        ('{"a": 1}\n', "line 1"),
        (GOOD.encode("utf-16"), "encoding='utf-16'"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


def test_wrong_paths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        read_conll(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="a folder of images"):
        read(tmp_path, GOOD, image_dir=tmp_path / "none")
    with pytest.raises(ValueError, match="an encoding that Python knows"):
        read(tmp_path, GOOD, encoding="klingon")


def test_what_is_written_is_read_back(tmp_path):
    rng = random.Random(0)
    alphabet = [
        "NBA",
        "#",
        "a b",
        "\u200d",
        "😂",
        "\ufeffx",
        "\u2028x",
        "IMGID:3",
        "x ",
        " y",
        "O",
        "-",
        '"',
        "caf\xe9",
    ]
    for trial in range(50):
        tokens = [[rng.choice(alphabet) for _ in range(rng.randrange(6))] for _ in range(rng.randrange(1, 6))]
        tags = [[rng.choice(["O", "B-PER", "B-LOC", None]) for _ in words] for words in tokens]
        ids = [f"{trial}_{number}" for number in range(len(tokens))]
        write_conll(tmp_path / "out.txt", tokens, tags, ids)
        assert rows(read_conll(tmp_path / "out.txt")) == list(zip(ids, tokens, tags, strict=True))
        if all(tokens):
            write_conll(tmp_path / "out.txt", tokens, tags)
            assert [row[1:] for row in rows(read_conll(tmp_path / "out.txt"))] == list(zip(tokens, tags, strict=True))
    write_conll(tmp_path / "out.txt", [["a", "b"]], [None], ["1"])
    assert rows(read_conll(tmp_path / "out.txt")) == [("1", ["a", "b"], [None, None])]


@pytest.mark.parametrize(
    ("tokens", "tags", "ids", "message"),
    [
        ([["a"]], [["O"], ["O"]], None, "got 1 sentences, 2 tag lists"),
        ([["a"]], [["O", "O"]], None, "got 2 for 1 words in sentence 0"),
        ([["a"]], [["O"]], ["1", "2"], "2 ids"),
        ([["a\tb"]], [["O"]], None, "got 'a"),
        ([["a\n"]], [["O"]], None, "got 'a"),
        ([[" "]], [["O"]], None, "got ' '"),
        ([["-DOCSTART-"]], [["O"]], None, "got '-DOCSTART-'"),
        ([["a"]], [["X"]], None, "got 'X'"),
        ([[]], [[]], None, "has no id"),
        ([["a"]], [["O"]], [" 1"], "got ' 1'"),
        ([["a"]], [["O"]], ["1\t2"], "without white space"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, tokens, tags, ids, message):
    with pytest.raises(ValueError, match=message):
        write_conll(tmp_path / "out.txt", tokens, tags, ids)
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize(("name", "tweets", "entities"), [("train", 3373, 6049), ("valid", 723, 1324)])
def test_real_tweets(twitter2017, tmp_path, name, tweets, entities):
    dataset, report = read_conll(twitter2017 / f"{name}.txt", return_report=True)
    assert (len(dataset), report.sentences, sum(report.entities.values())) == (tweets, tweets, entities)
    assert sorted(report.entities) == ["LOC", "MISC", "ORG", "PER"]
    assert (report.repaired_tags, report.placeholder_words, report.dropped_lines, report.without_id) == (0, 0, 0, 0)
    write_conll(tmp_path / "out.txt", dataset["tokens"], dataset["ner_tags"], dataset["id"])
    assert (tmp_path / "out.txt").read_bytes() == (twitter2017 / f"{name}.txt").read_bytes()


@pytest.mark.parametrize(
    ("content", "tags"),
    [
        ("Ann\tB-PER\t\nwins\tO\t\n", ["B-PER", "O"]),
        ("Ann\tNNP\tS-PER\t\r\nwins\tVB\tO\t\r\n", ["B-PER", "O"]),
        ("Ann\tNNP\t\nwins\tVB\t\n", [None, None]),
        ("Ann\t\nwins\t\n", [None, None]),
        ("Ann\tO\tB-PER\nwins\tO\t\n", ["B-PER", None]),
    ],
)
def test_tabs_at_the_ends_of_all_lines_hide_no_tags(content, tags, tmp_path):
    (tmp_path / "a.txt").write_bytes(content.encode())
    (row,) = read_conll(tmp_path / "a.txt")
    assert (row["tokens"], row["ner_tags"]) == (["Ann", "wins"], tags)


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        (b"Ann,B-PER\nwins,O\n", "a tab or a space between word and tag"),
        (b"Ann|S-PER\n\nwins|O\n", "a tab or a space between word and tag"),
        (gzip.compress(b"Ann B-PER\n", mtime=0), "Unpack it"),
        (bz2.compress(b"Ann B-PER\n"), "Unpack it"),
        (lzma.compress(b"Ann B-PER\n"), "Unpack it"),
    ],
)
def test_what_would_be_words_without_tags_is_said(content, fix, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=fix):
        read_conll(tmp_path / "a.txt")
