"""The page of examples/space, asked over the loopback interface and driven in a browser: `make space-test`."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from bga_mner import BgaMnerProcessor, predict
from bga_mner.benchmarks.browser import find_chromium
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


pytest.importorskip("gradio", reason="gradio is not installed: `make space-test` installs it and runs these tests")
# gradio and what it serves with warn about each other
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "space"
TEXT = "Kawhi Leonard wins the fan vote in Seattle again"


@pytest.fixture(scope="module")
def app():
    return import_module("bga_mner.examples.space.app")


@pytest.fixture
def save(make_model, tmp_path):
    """Return a function that saves a tiny model which finds entities, and its processor."""

    def save(with_images=True, **options):
        tokenizer = build_tokenizer([TEXT.split()])
        model = make_model(text_options={"vocab_size": len(tokenizer)}, **options)
        with torch.no_grad():
            model.classifier.weight.mul_(50)
        # as a folder that holds its own code says of itself; the page must not ask to run that
        model.config.custom_pipelines = {
            "multimodal-ner": {"impl": "pipeline_bga_mner.BgaMnerPipeline", "pt": ["AutoModelForTokenClassification"]}
        }
        image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16}) if with_images else None
        processor = BgaMnerProcessor(image_processor, tokenizer, label2id=model.config.label2id)
        model.save_pretrained(tmp_path / "model")
        processor.save_pretrained(tmp_path / "model")
        expected = predict(model, processor, TEXT)
        assert expected
        return tmp_path / "model", expected

    return save


@pytest.fixture
def serve(app, monkeypatch):
    """Return a function that serves a model's page; it is taken down afterwards."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pages = []

    def serve(folder):
        pages.append(app.main(["--model", str(folder)], wait=False))
        return pages[-1].local_url

    yield serve
    for page in pages:
        page.close()


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def ask(url, text, image=None, read_image=False):
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False)
    given = None if image is None else handle_file(str(image))
    return client.predict(text, given, read_image, api_name="/find_entities")


def value(component):
    """Return the value of what came back, whether or not its looks came with it."""
    return component["value"] if isinstance(component, dict) and "value" in component else component


def visible(component):
    return not isinstance(component, dict) or component.get("visible", True)


def test_answers_over_the_network(save, serve, image):
    folder, expected = save()
    url = serve(folder)
    highlighted, table, alignment, note = ask(url, TEXT)
    spans = [(span["token"], span["class_or_confidence"]) for span in value(highlighted)]
    assert "".join(token for token, _ in spans) == TEXT
    assert [(token, label) for token, label in spans if label] == [
        (entity["word"], f"{entity['label']} {entity['score']:.2f}") for entity in expected
    ]
    assert value(table)["data"] == [
        [entity["word"], entity["label"], pytest.approx(entity["score"], abs=1e-3), entity["start"], entity["end"]]
        for entity in expected
    ]
    assert not visible(alignment)
    assert "Give an image" in value(note)

    _, with_image, alignment, note = ask(url, TEXT, image)
    assert value(with_image)["data"] == value(table)["data"]
    with Image.open(value(alignment)["path"] if isinstance(value(alignment), dict) else value(alignment)) as figure:
        assert min(figure.size) > 100
    assert not value(note)
    with pytest.raises(Exception, match="Type at least one word"):
        ask(url, "  ")


def test_says_why_there_is_no_alignment(save, serve, image):
    folder, _ = save(with_images=False)
    _, _, alignment, note = ask(serve(folder), TEXT, image)
    assert not visible(alignment)
    assert "no vision parts" in value(note)


def test_models_that_cannot_be_aligned(app, save, image):
    from transformers import pipeline

    folder, _ = save(use_text_to_image=False)
    annotate = pipeline("multimodal-ner", model=str(folder), pipeline_class=app.BgaMnerPipeline, device="cpu")
    with Image.open(image) as opened:
        figure, note = app.draw(annotate, TEXT, opened)
    assert figure is None
    assert "text -> image generator" in note


@pytest.mark.parametrize(("options", "offered"), [({}, True), ({"text_only": True}, False)])
def test_reading_the_image_is_offered_where_it_can_be_read(app, save, options, offered):
    from transformers import pipeline

    folder, _ = save(with_images=offered, **options)
    annotate = pipeline("multimodal-ner", model=str(folder), pipeline_class=app.BgaMnerPipeline, device="cpu")
    page = app.build_page(annotate, "model")
    (read,) = [block for block in page.blocks.values() if isinstance(block, app.gr.Checkbox)]
    assert read.visible is offered


def test_a_model_is_needed(app, monkeypatch, capsys):
    monkeypatch.delenv("MODEL_ID", raising=False)
    with pytest.raises(SystemExit):
        app.parse([])
    assert "give --model" in capsys.readouterr().err
    monkeypatch.setenv("MODEL_ID", "org/name")
    assert app.parse([]).model == "org/name"


def test_front_matter_is_that_of_a_space():
    import yaml

    _, front, _ = (FOLDER / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["sdk"] == "gradio"
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(values["sdk_version"]))
    assert (FOLDER / values["app_file"]).is_file()


def test_in_a_browser(save, serve, image, tmp_path):
    if find_chromium() is None:
        pytest.skip("there is no chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make space-test`")
    folder, expected = save()
    url = serve(folder)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=find_chromium(),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_page(viewport={"width": 1100, "height": 1300})
        outside = []
        page.on("request", lambda request: outside.append(request.url) if not request.url.startswith(url) else None)
        page.goto(url)
        page.get_by_label("Text", exact=True).fill(TEXT)
        page.locator("input[type=file]").first.set_input_files(str(image))
        page.locator("#image img").first.wait_for()
        page.get_by_role("button", name="Find entities").click()
        page.get_by_text(f"{expected[0]['label']} {expected[0]['score']:.2f}").first.wait_for()
        page.locator("#alignment img").first.wait_for()
        page.screenshot(path=tmp_path / "space.png", full_page=True)
        browser.close()
    print(f"Screenshot: {tmp_path / 'space.png'}")
    with Image.open(tmp_path / "space.png") as shot:
        assert shot.size[0] == 1100
    assert not [address for address in outside if not address.startswith(("data:", "blob:"))]
