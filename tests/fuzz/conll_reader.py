"""Fuzzing target: any bytes as a CoNLL file, beside a folder of images that it must not leave."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

import datasets
from byte_reader import ByteReader, refusals
from PIL import Image

from bga_mner import read_conll, spans_from_tags, write_conll


ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8", "latin-1", "utf-16", "cp1252", "utf-7", "none-such")
MAX_LENGTH = 600


@cache
def _folder() -> Path:
    """Make a folder with a file that nobody may read, and one of images in it."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz_conll_"))
    datasets.disable_progress_bars()
    (folder / "images" / "sub").mkdir(parents=True)
    for name in ("secret.jpg", "images/1.jpg", "images/sub/2.png"):
        Image.new("RGB", (2, 2)).save(folder / name)
    (folder / "images" / "3.jpg").write_bytes(b"broken")
    return folder


def one_input(data: bytes) -> None:
    """Read; words and tags have to fit together, images to lie in the folder, what is written to be read again."""
    reader = ByteReader(data)
    folder = _folder()
    file = folder / "tweets.txt"
    encoding = reader.pick(ENCODINGS)
    image_dir = folder / "images" if reader.chance() else None
    check, write = reader.chance(), reader.integer(0, 3) == 0
    columns = {"word_column": reader.pick((0, 0, 1)), "tag_column": reader.pick((-1, -1, 2))}
    scheme = reader.pick((None, None, "IO", "BIOES"))
    file.write_bytes(reader.rest())
    with refusals():
        rows, report = read_conll(
            *(file, image_dir),
            **columns,
            scheme=scheme,
            check_images=check,
            encoding=encoding,
            return_report=True,
            show_progress=False,
        )
        tweets = rows.to_dict()
        assert report.sentences == len(rows)
        assert report.tokens == sum(map(len, tweets["tokens"]))
        found = sum(image is not None for image in tweets["image"])
        assert report.images_found == found
        if image_dir is not None:
            assert report.images_missing + sum(report.images_broken.values()) + found == len(rows)
        for words, tags, image in zip(tweets["tokens"], tweets["ner_tags"], tweets["image"], strict=True):
            assert len(words) == len(tags)
            assert all(word.strip() for word in words)
            assert all(tags[start].startswith("B-") or None in tags[:start] for _, start, _ in spans_from_tags(tags))
            if image is not None:
                path = os.path.normpath(image["path"])
                assert path.startswith(str(image_dir) + os.sep)
        if not write:  # which takes most of the time
            return
        copy = folder / "copy.txt"
        write_conll(copy, tweets["tokens"], tweets["ner_tags"], tweets["id"])
        again = read_conll(copy).to_dict()
        assert [again[name] for name in ("id", "tokens", "ner_tags")] == [
            tweets[name] for name in ("id", "tokens", "ner_tags")
        ]


def seeds() -> list[bytes]:
    """Return small files, whole and broken, that name images here and elsewhere."""
    names = ("1", "sub/2", "3", "4", "../secret", "/etc/passwd", "..\\secret", "C:x", "a\0b", "1.jpg", "./1", "x" * 300)
    tweets = [f"IMGID:{name}\nKawhi\tB-PER\nwins\tO\nSeattle\tI-LOC\n\n".encode() for name in names]
    odd = [
        "-DOCSTART- X\n\n",
        "a O\n\t\nb\tB-X",
        "\ufeffIMGID:\nw",
        "a\tb\tc\n",
        "\u00a0\tO\r\n",
        "x\tS-PER",
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP I-ORG\n. . O O\n",
        "a b-PER\nb o\n",
        "x\tB-X\ny\tM-X\nz\tU-X\n",
        "# id 7 domain=en\na _ _ B-X\n",
        "\u2028\tI-X\r",
    ]
    texts = [
        *tweets,
        *(line.encode() for line in odd),
        "a\tO\n".encode("utf-16"),
        b"\xff\xfe\x00",
        b"\xf0\x9f\tO\n",
        b"",
    ]
    return [bytes([0, 1, 1, write, 0, 0, 0]) + text for text in texts for write in (0, 1)]
