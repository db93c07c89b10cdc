"""The image and the page of a tiny random model."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from bga_mner import BadImageError, BgaMnerForTokenClassification, BgaMnerProcessor, write_conll
from bga_mner.examples.synthetic.corpus import generate_corpus
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


@pytest.fixture
def model_dir(make_model, tmp_path):
    tokenizer = build_tokenizer([["Kawhi", "wins", "again", "<script>"]])
    model = make_model(text_options={"vocab_size": len(tokenizer), "max_position_embeddings": 64})
    model.save_pretrained(tmp_path / "model")
    processor = BgaMnerProcessor(
        ViTImageProcessorPil(size={"height": 16, "width": 16}), tokenizer, label2id=model.config.label2id
    )
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_writes_an_image_and_a_page_that_loads_nothing(script, model_dir, tmp_path, capsys):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "image.png")
    text = "Kawhi wins again <script>"
    flags = ["--model_dir", str(model_dir), "--text", text, "--image", str(tmp_path / "image.png")]
    script.main([*flags, "--output_dir", str(tmp_path / "out")])
    with Image.open(tmp_path / "out" / "alignment.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 100
    page = (tmp_path / "out" / "alignment.html").read_text(encoding="utf-8")
    sources = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            sources.extend(value for name, value in attributes if name in ("src", "href"))

    Reader().feed(page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert all(url.startswith(("data:", "#")) for url in re.findall(r"url\(\s*['\"]?([^'\")]*)", page))
    assert "<script>" not in page.split("<body", 1)[1].replace("&lt;script&gt;", "")
    assert "Kawhi" in page
    assert "alignment.html" in capsys.readouterr().out


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "1.png")
    return tmp_path / "1.png"


@pytest.fixture
def run(script, model_dir, tmp_path):
    """Return a function that runs the script, with a model that takes every word for a person, and reads its page."""
    model = BgaMnerForTokenClassification.from_pretrained(model_dir)
    with torch.no_grad():
        model.classifier.bias[model.config.label2id["B-PER"]] += 50
    model.save_pretrained(model_dir)

    def run(*arguments):
        output = tmp_path / "new" / "folder"
        png, page = script.main([f"--model_dir={model_dir}", f"--output_dir={output}", *map(str, arguments)])
        assert (png, page) == (output / "alignment.png", output / "alignment.html")
        with Image.open(png) as drawing:
            assert drawing.format == "PNG"
        return page.read_text(encoding="utf-8")

    return run


def test_a_sentence_with_its_image(run, image, tmp_path, capsys):
    page = run("--text", "Kawhi wins, 😂 <b>", "--image", image)
    assert page.count("<section") == 1
    assert '<h2 id="pair0" dir="ltr">Kawhi wins , 😂 &lt; b &gt;</h2>' in page
    assert "<bdi>Kawhi</bdi> <b>PER</b>" in page
    printed = capsys.readouterr().out
    assert "1 pairs, 7 entities" in printed
    for name in ("alignment.png", "alignment.html"):
        assert str(tmp_path / "new" / "folder" / name) in printed


def test_a_conll_file_without_unusable_images(run, image, tmp_path, capsys):
    (tmp_path / "2.png").write_bytes(b"<html>")
    for name in (4, 5):
        Image.new("RGB", (20, 20), "blue").save(tmp_path / f"{name}.png")
    words = [["Kawhi"], ["broken"], ["missing"], ["wins"], ["again"]]
    write_conll(tmp_path / "a.txt", words, [["O"]] * 5, ["1", "2", "3", "4", "5"])
    arguments = ["--conll_file", tmp_path / "a.txt", "--image_dir", tmp_path]
    page = run(*arguments, "--limit", 2)
    assert [f">{word}</h2>" in page for (word,) in words] == [True, False, False, True, False]
    assert "Passed over without a usable image: 2 (2, 3)." in capsys.readouterr().out
    assert run(*arguments).count("<section") == 3
    for name in (1, 4, 5):
        (tmp_path / f"{name}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="at least one sentence with a usable image"):
        run(*arguments)


@pytest.mark.slow
# the tiny tokenizer spells the corpus out, character by character
@pytest.mark.filterwarnings("ignore:.*were cut")
def test_the_generated_corpus(run):
    page = run("--generated", "--seed", 3, "--limit", 5)
    sentences = re.findall("<h2[^>]*>(.*?)</h2>", page)
    names = generate_corpus(
        seed=3, train_labelled=0, train_unlabelled=0, test_sentences=0, validation_sentences=0
    ).unlabelled_names
    kinds = [{kind for name, kind in names.items() if f" {name} " in f" {sentence} "} for sentence in sentences]
    assert kinds == [{"LOC"}, {"MISC"}, {"ORG"}, {"PER"}, {"LOC"}]
    assert sentences != re.findall("<h2[^>]*>(.*?)</h2>", run("--generated", "--seed", 4, "--limit", 5))


def test_what_is_missing_is_said(script, run, image, tmp_path):
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:60])
    for arguments, message in (
        ((), "Expected something to draw"),
        (("--text", "Kawhi"), "Expected an image with --text"),
        (("--text", "  ", "--image", image), "Expected a sentence as --text"),
        (("--conll_file", tmp_path / "a.txt"), "Expected images with --conll_file"),
        (("--conll_file", tmp_path / "a.txt", "--image_dir", tmp_path), "Expected a CoNLL file"),
    ):
        with pytest.raises(ValueError, match=message):
            run(*arguments)
    for name in ("broken.png", "nothing.png"):
        with pytest.raises(BadImageError, match=name):
            run("--text", "Kawhi", "--image", tmp_path / name)
    with pytest.raises(ValueError, match="a saved model as --model_dir"):
        script.main([f"--model_dir={tmp_path}", "--text=Kawhi", f"--image={image}"])
    for arguments in (("--text", "Kawhi", "--generated"), ("--generated", "--limit", 0)):
        with pytest.raises(SystemExit):
            run(*arguments)
    assert not (tmp_path / "new").exists()
