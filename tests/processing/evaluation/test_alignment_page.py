"""The page as a browser reads it: what is in it, and that nothing is outside of it."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageChops

from bga_mner.processing.evaluation import alignment_page as module
from bga_mner.processing.evaluation.alignment_page import alignment_html
from bga_mner.processing.evaluation.alignment_view import Alignment, EntityMatch


VOID = {"meta", "input", "img", "br", "link"}
EVIL = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Collects elements, and complains about those that aren't closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} is there twice"
        element = {"tag": tag, "attributes": dict(attrs), "text": "", "inside": list(self.open)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, inside=None, kind=None):
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and (inside is None or any(outer is inside for outer in element["inside"]))
            and (kind is None or kind in (element["attributes"].get("class") or "").split())
        ]


def read(alignment, photo):
    page = Page(alignment_html([(alignment, photo)]))
    return page, page.all("section")[0]


@pytest.fixture
def alignment():
    """Align three words, of which the last has two tokens; stages of 2 x 3 patches."""
    return Alignment(
        words=["Go", EVIL, "😂שלום"],
        tokens=["[CLS]", "Go", EVIL, "😂", "שלום", "[SEP]"],
        word_ids=[None, 0, 1, 2, 2, None],
        text_keep=np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]], dtype=bool),
        patch_keep=np.array([[[1, 1, 1], [1, 1, 1]], [[1, 0, 1], [1, 1, 0]]], dtype=bool),
        matches=[
            EntityMatch("Go", "PER", np.array([[0.1, 0.2, 0.3], [-1.0, 1.0, 0.0]]), [1]),
            EntityMatch(EVIL, '"><b>', np.array([[0.5, 0.2, 0.3], [-0.7, 0.1, 0.0]]), [2]),
        ],
    )


def test_a_button_a_layer_and_a_view_for_each_stage_and_entity(alignment, photo):
    page = Page(alignment_html([(alignment, photo), (alignment, photo)]))
    sections = page.all("section")
    assert len(sections) == 2
    for section in sections:
        buttons, layers = page.all("input", section), page.all("svg", section)
        assert len(buttons) == len(layers) == len(page.all("div", section, "view")) == 4
        assert ["checked" in button["attributes"] for button in buttons] == [True, False, False, False]
        assert len({button["attributes"]["name"] for button in buttons}) == 1
        labels = page.all("label", section)
        assert [label["attributes"]["for"] for label in labels] == [button["attributes"]["id"] for button in buttons]
        assert [label["text"] for label in labels] == ["stage 1", "stage 2", "Go PER", f'{EVIL} "><b>']
        # the rules count them among their siblings
        (frame,) = page.all("div", section, "frame")
        assert all(layer["inside"][-1] is frame for layer in layers)
        assert all(button["inside"][-1] is section for button in buttons)
    ids = [element["attributes"]["id"] for element in page.elements if "id" in element["attributes"]]
    assert len(ids) == len(set(ids))
    assert len({button["attributes"]["name"] for button in page.all("input")}) == 2
    (style,) = page.all("style")
    for number in range(1, 5):
        chosen = f".pair > input:nth-of-type({number}):checked ~ .body"
        assert f"{chosen} .frame > svg:nth-of-type({number}), " in style["text"]
        assert f"{chosen} .views > .view:nth-of-type({number})" in style["text"]
    assert style["text"].endswith(":nth-of-type(4) { display: block; }\n")
    assert style["text"].count("{") == style["text"].count("}")


def test_patches_say_what_they_are(alignment, photo):
    page, section = read(alignment, photo)
    first, second, match, _ = page.all("svg", section)
    for layer in (first, second, match):
        assert layer["attributes"]["viewbox"] == "0 0 3 2"
        corners = [(rect["attributes"]["x"], rect["attributes"]["y"]) for rect in page.all("rect", layer)]
        assert corners == [(str(x), str(y)) for y in range(2) for x in range(3)]
    assert not page.all("rect", first, "dropped-patch")
    dropped = [rect["text"] for rect in page.all("rect", second, "dropped-patch")]
    assert dropped == ["row 1, column 2: dropped", "row 2, column 3: dropped"]
    assert page.all("rect", second)[0]["text"] == "row 1, column 1: kept"
    said = [rect["text"].rpartition(" ")[2] for rect in page.all("rect", match)]
    assert said == ["0.10", "0.20", "0.30", "-1.00", "1.00", "0.00"]
    assert [rect["text"] for rect in page.all("rect", match, "best")] == ["row 2, column 2: similarity 1.00"]
    fills = [re.search(r"rgb\([^)]*\)", rect["attributes"]["style"])[0] for rect in page.all("rect", match)]
    assert fills[3:] == ["rgb(59, 76, 192)", "rgb(180, 4, 38)", "rgb(221, 221, 221)"]
    # the same for those who can't point
    assert [cell["text"] for cell in page.all("td", page.all("tbody")[0])] == said
    views = page.all("div", section, "view")
    assert "Stage 2 keeps 4 of 6 patches and 4 of 6 tokens." in views[1]["text"]
    assert "from -1.00 to 1.00, the highest in row 2, column 2" in views[2]["text"]


def test_tokens_are_kept_dropped_or_of_an_entity(alignment, photo):
    page, section = read(alignment, photo)
    views = page.all("div", section, "view")
    for view in views:
        tokens = page.all("span", view, "token") + page.all("s", view, "token")
        assert sorted(token["text"] for token in tokens) == sorted(alignment.tokens)
        # words with their tokens together
        assert [word["text"] for word in page.all("span", view, "word")][3] == "😂שלום"
    assert [token["text"] for token in page.all("s", views[1])] == ["Go", "שלום"]
    assert all(token["attributes"]["title"] == "dropped" for token in page.all("s", views[1]))
    assert not page.all("s", views[0])
    assert [token["text"] for token in page.all("span", views[0], "own")] == ["Go", EVIL]
    assert [token["text"] for token in page.all("span", views[3], "own")] == [EVIL]


def test_texts_are_escaped_and_run_in_their_direction(alignment, photo):
    text = alignment_html([(alignment, photo)])
    assert "<script" not in text
    page = Page(text)
    (heading,) = page.all("h2")
    assert heading["text"] == f"Go {EVIL} 😂שלום"
    assert heading["attributes"]["dir"] == "ltr"
    directions = [word["attributes"]["dir"] for word in page.all("span", kind="word")[:5]]
    assert directions == ["ltr", "ltr", "ltr", "rtl", "ltr"]
    alignment.words = ["שלום", "\ud800\0"]
    text = alignment_html([(alignment, photo)])
    assert Page(text).all("h2")[0]["attributes"]["dir"] == "rtl"
    assert {tokens["attributes"]["dir"] for tokens in Page(text).all("div", kind="tokens")} == {"rtl"}
    assert "\0" not in text
    text.encode("utf-8")  # as it is to be written


def test_nothing_is_loaded_and_nothing_runs(alignment, photo):
    alignment.words += ["url(a)", "javascript:alert(1)"]
    page, _ = read(alignment, photo)
    policies = [meta["attributes"] for meta in page.all("meta") if "http-equiv" in meta["attributes"]]
    assert [policy["http-equiv"] for policy in policies] == ["Content-Security-Policy"]
    assert policies[0]["content"].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")
    loading = {"script", "link", "iframe", "object", "embed", "form", "base", "image", "use", "a"}
    assert loading.isdisjoint(element["tag"] for element in page.elements)
    for element in page.elements:
        for name, value in element["attributes"].items():
            assert not name.startswith("on")
            assert name not in ("href", "srcset", "action", "xlink:href", "background")
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            else:
                assert "://" not in (value or "")
    (style,) = page.all("style")
    assert re.findall(r"url\([^)]*\)|@import|https?:", style["text"]) == ["url(#veil)"]
    assert page.all("pattern")[0]["attributes"]["id"] == "veil"


def embedded(page):
    (image,) = page.all("img")
    return Image.open(BytesIO(base64.b64decode(image["attributes"]["src"].partition(",")[2])))


def test_the_image_is_inside_as_it_is(alignment, photo):
    shown = embedded(read(alignment, photo)[0])
    assert (shown.mode, shown.size) == ("RGB", photo.size)
    assert ImageChops.difference(shown, photo).getbbox() is None


def test_a_large_image_is_scaled_down(alignment, photo, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_SIDE", 10)
    assert embedded(read(alignment, photo)[0]).size == (10, 5)
    assert photo.size == (40, 20)


def test_patches_lie_on_what_the_model_sees(alignment, photo):
    page, section = read(alignment, photo)
    layer = page.all("svg", section)[0]["attributes"]
    assert layer["style"] == "left: 0.000%; top: 0.000%; width: 100.000%; height: 100.000%"
    assert layer["preserveaspectratio"] == "none"
    assert "class" not in layer
    assert "dotted frame" not in page.all("header")[0]["text"]
    alignment.seen = (0.25, 0.0, 0.75, 1.0)
    page, section = read(alignment, photo)
    layer = page.all("svg", section)[0]["attributes"]
    assert layer["style"] == "left: 25.000%; top: 0.000%; width: 50.000%; height: 100.000%"
    assert layer["class"] == "part"
    assert "dotted frame" in page.all("header")[0]["text"]


def test_a_sentence_without_entities(alignment, photo):
    alignment.matches = []
    page, section = read(alignment, photo)
    assert len(page.all("input")) == 2
    assert "finds no entity" in section["text"]


def test_there_must_be_something_to_show():
    with pytest.raises(ValueError, match="at least one alignment"):
        alignment_html([])
