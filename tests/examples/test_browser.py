"""The page of examples/browser, in Chromium, with libraries of npm: `make browser-test`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, pipeline

from bga_mner import export_student, write_conll
from bga_mner.benchmarks import browser as measured
from bga_mner.benchmarks.browser import ASK, chromium, compare, find_chromium, in_utf16, served


FOLDER = Path(__file__).resolve().parents[2] / "examples" / "browser"
LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
# no character three times in a row: two ways to part them are equally probable, and libraries differ in which they take
SENTENCES = [
    "Kawhi Leonard wins the fan vote in Toronto!",
    "RT @NBA: we're live 😍 from KeyArena, Seattle (again).",
    "Zoë & José's café   opened in São Paulo\tyesterday",
    "1,024 fans — 7.5km away; #NBAAwards http://t.co/abc",
    "🙌",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMES = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}

pytestmark = pytest.mark.skipif(
    not (FOLDER / "node_modules" / "@huggingface").is_dir() or shutil.which("node") is None,
    reason="the libraries of npm are not installed: `make browser-test` installs them where there is an npm",
)


@pytest.fixture(autouse=True)
def _needs_chromium():
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make browser-test`")
    if find_chromium() is None:
        pytest.skip("there is no chromium on this machine (Debian: apt-get install chromium)")


def train_tokenizer(kind):
    """Train a tokenizer of words, of bytes, or of SentencePiece's kind."""
    if kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    elif kind == "bytes":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
    else:
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
        )
    backend.train_from_iterator(SENTENCES[:4] * 3, trainer)
    ends = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **NAMES)


@pytest.fixture(scope="module")
def make_page(tmp_path_factory):
    """Return a function that saves a student with tags that differ from token to token, and builds its page."""

    def make(kind="wordpiece"):
        folder = tmp_path_factory.mktemp(kind)
        tokenizer = train_tokenizer(kind)
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config = BertConfig(
            vocab_size=len(tokenizer), max_position_embeddings=64, id2label=dict(enumerate(LABELS)), **sizes
        )
        model = BertForTokenClassification(config).eval()
        with torch.no_grad():
            model.classifier.weight.mul_(60)
        model.save_pretrained(folder / "student")
        tokenizer.save_pretrained(folder / "student")
        export_student(model, tokenizer, folder / "student")
        texts = json.dumps(["Zoë's fans in Toronto: 5", "Kawhi wins"])
        (folder / "student" / "onnx" / "examples.json").write_text(texts, encoding="utf-8")
        build(folder / "student", folder / "page")
        return folder, model, tokenizer

    return make


def build(student, page):
    subprocess.run(["node", FOLDER / "build.mjs", student, page], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wordpiece(make_page):
    return make_page()


def open_page(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready=true]", timeout=30_000)
    return page


@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "unigram"])
def test_answers_are_those_of_pytorch(make_page, kind):
    folder, model, tokenizer = make_page(kind)
    words = [word for sentence in SENTENCES for word in sentence.split()]
    texts = [*SENTENCES, *(" ".join(words[first : first + 9]) for first in range(len(words)))]
    with served(folder / "page") as address, chromium() as browser:
        page = open_page(browser, address)
        answers = page.evaluate(ASK, ["fp32", texts])
        quantised = page.evaluate(ASK, ["q8", texts])
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    for text, answer, expected in zip(texts, answers, tag(texts), strict=True):
        found = [(one["type"], in_utf16(text, one["start"]), in_utf16(text, one["end"])) for one in answer["entities"]]
        places = [(one["entity_group"], one["start"], one["end"]) for one in expected]
        if kind == "wordpiece":  # tokens of bytes may hold parts of a character
            assert found == places, text
        assert [kind for kind, *_ in found] == [kind for kind, *_ in places]
        scores = [float(one["score"]) for one in expected]
        assert [one["score"] for one in answer["entities"]] == pytest.approx(scores, abs=1e-3)
        assert all(one["word"] == text[slice(*place[1:])] for one, place in zip(answer["entities"], found, strict=True))
    exact = compare(answers, texts, [None] * len(texts), model, tokenizer)
    assert exact["difference"] < 1e-3
    assert exact["same_tags"] == 1
    assert compare(quantised, texts, [None] * len(texts), model, tokenizer)["same_tags"] > 0.9


def test_a_text_beyond_the_limit_is_cut_and_said_to_be(wordpiece):
    folder, *_ = wordpiece
    with served(folder / "page") as address, chromium() as browser:
        page = open_page(browser, address)
        page.fill("#text", "Kawhi wins . " * 60)
        page.wait_for_function("document.getElementById('note').textContent.includes('The model reads the first')")


def test_the_page_by_keyboard_offline_and_narrow(wordpiece, tmp_path):
    folder, *_ = wordpiece
    asked = []
    with chromium() as browser:
        with served(folder / "page") as address:
            page = browser.new_page(viewport={"width": 340, "height": 800}, color_scheme="dark")
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address)
            page.wait_for_selector("body[data-ready=true]", timeout=30_000)
        # the server is gone
        page.reload()
        page.wait_for_selector("body[data-ready=true]", timeout=30_000)
        assert all(url.startswith((address, "blob:", "data:")) for url in asked)
        assert page.input_value("#text") == "Zoë's fans in Toronto: 5"
        assert page.locator("#examples button").all_inner_texts() == ["Zoë's fans in Toronto: 5", "Kawhi wins"]
        assert page.evaluate("document.activeElement.id") == "text"
        page.keyboard.press("Escape")
        assert page.input_value("#text") == ""
        page.wait_for_function("document.getElementById('result').textContent === ''")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.input_value("#text") == "Kawhi wins"
        # a type may stand behind its first letter
        page.wait_for_function("document.getElementById('result').textContent.startsWith('K')")
        assert page.evaluate("document.documentElement.scrollWidth") <= 340
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
        page.screenshot(path=tmp_path / "page.png")


def test_a_model_that_is_not_there_is_said_to_be(wordpiece, tmp_path):
    folder, *_ = wordpiece
    shutil.copytree(folder / "page", tmp_path / "page")
    (tmp_path / "page" / "model" / "onnx" / "model_quantized.onnx").unlink()
    with served(tmp_path / "page") as address, chromium() as browser:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#error:not([hidden])", timeout=30_000)
        assert "The model could not be loaded" in page.inner_text("#error")
        assert page.is_disabled("#text")


def test_the_measurement_ends_in_a_line_of_json(wordpiece, tmp_path, capsys):
    folder, *_ = wordpiece
    tags = [["B-PER", *["O"] * (len(sentence.split()) - 1)] for sentence in SENTENCES]
    write_conll(tmp_path / "valid.txt", [sentence.split() for sentence in SENTENCES], tags, list("abcde"))
    options = ["--student", folder / "student", "--page", folder / "page", "--data_file", tmp_path / "valid.txt"]
    measured.main([*map(str, options), "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["browser"]
    assert found["fp32"]["difference"] < 1e-3
    assert found["fp32"]["f1"] == found["pytorch"]["f1"]
    assert found["q8"]["megabytes"] < found["fp32"]["megabytes"]


def test_the_commands_of_its_page_run(wordpiece, tmp_path):
    folder, *_ = wordpiece
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    install, build_it, serve = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)[0].splitlines()
    assert install in (FOLDER.parents[1] / "Makefile").read_text(encoding="utf-8").replace(" --no-audit --no-fund", "")
    words = [
        {"outputs/student": folder / "student", "outputs/page": tmp_path}.get(word, word) for word in build_it.split()
    ]
    subprocess.run(words, cwd=FOLDER.parents[1], check=True, capture_output=True)
    assert (tmp_path / "README.md").read_text().startswith("---\ntitle: ")
    assert "sdk: static" in (tmp_path / "README.md").read_text()
    assert serve.split()[1:4] == ["-m", "http.server", "--directory"]
    guide = (FOLDER.parents[1] / "docs" / "how_to" / "publish_a_student.md").read_text(encoding="utf-8")
    assert f"{install}\n{build_it}\n{serve}\n" in guide


def test_a_classifier_has_no_page(wordpiece, tmp_path):
    folder, *_ = wordpiece
    shutil.copytree(folder / "student", tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification"]
    (tmp_path / "student" / "config.json").write_text(json.dumps(config))
    words = ["node", FOLDER / "build.mjs", tmp_path / "student", tmp_path / "page"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "got BertForSequenceClassification" in done.stderr


def test_a_model_is_not_written_over(wordpiece, tmp_path):
    folder, *_ = wordpiece
    shutil.copytree(folder / "student", tmp_path / "student")
    words = ["node", FOLDER / "build.mjs", tmp_path / "student", tmp_path / "student"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "which holds a model" in done.stderr
    assert not (tmp_path / "student" / "index.html").exists()


@pytest.mark.parametrize(("missing", "message"), [("onnx", "onnx/model.onnx"), ("", "got fewer")])
def test_what_the_build_lacks_is_named(wordpiece, tmp_path, missing, message):
    folder, *_ = wordpiece
    shutil.copytree(folder / "student", tmp_path / "student")
    shutil.rmtree(tmp_path / "student" / "onnx")
    words = ["node", FOLDER / "build.mjs", *([tmp_path / "student", tmp_path / "page"] if missing else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
