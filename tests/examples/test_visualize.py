"""The picture and the page of a tiny random model."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from PIL import Image
from transformers import ViTImageProcessorPil

from bga_mner import BgaMnerProcessor
from bga_mner.processing.generated_corpus import build_tokenizer


SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "visualize.py"


@pytest.fixture
def script():
    spec = spec_from_file_location("visualize", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_writes_a_picture_and_a_page_that_loads_nothing(script, model_dir, tmp_path, capsys):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "picture.png")
    text = "Kawhi wins again <script>"
    flags = ["--model_dir", str(model_dir), "--text", text, "--image", str(tmp_path / "picture.png")]
    script.main([*flags, "--output_dir", str(tmp_path / "out")])
    with Image.open(tmp_path / "out" / "alignment.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100
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
