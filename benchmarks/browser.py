"""Measure a student in a browser: whether it answers as in PyTorch, what 8 bits cost, and milliseconds a text.

`--page` is a folder that `examples/browser/build.mjs` made, and `--data_file` a CoNLL file, such as the validation set.
Chromium loads the page from this machine, and reads the first `--texts` of them one by one::

    python benchmarks/browser.py --student outputs/student --page outputs/page --data_file valid.txt --json

For exact weights (`fp32`) and 8-bit ones (`q8`): the largest difference of a probability to PyTorch's, the share of
tokens with the same tag, F1 by entity where tags are known, the median of milliseconds a text, and megabytes of
weights. F1 is beside that of the stock pipeline, on the same texts.
"""

import functools
import shutil
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, positive, run_main

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from bga_mner import read_conll
from bga_mner.examples.reporting import add_common_options, print_json, print_table, start
from bga_mner.processing.distillation.student_report import Located, entities_at, score_entities, student_entities
from bga_mner.processing.text.text_input import SplitText
from bga_mner.processing.text.word_reader import WordReader


DTYPES = {"fp32": "model.onnx", "q8": "model_quantized.onnx"}
# Probabilities of tokens (tokens, tags) and entities of each text, with milliseconds; the first text warms up.
ASK = """async ([dtype, texts]) => {
  const { load } = await import("./model.js");
  const tagger = await load(dtype, () => {});
  await tagger.tag(texts[0]);
  const answers = [];
  for (const text of texts) {
    const begin = performance.now();
    const { entities } = await tagger.tag(text);
    const milliseconds = performance.now() - begin;
    answers.push({ entities, milliseconds, rows: await tagger.probabilities(text) });
  }
  return answers;
}"""


def find_chromium() -> str | None:
    """Return the path of a Chromium on this machine, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium without a window; give playwright's browser."""
    path = find_chromium()
    if path is None:
        raise ValueError("Expected Chromium, got none. Install it (Debian: apt-get install chromium).")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def in_utf16(text: str, offset: int) -> int:
    """Turn an offset in UTF-16, which JavaScript counts, into one in characters."""
    return len(text.encode("utf-16-le")[: 2 * offset].decode("utf-16-le", "ignore"))


def expected_rows(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """Compute the probabilities of a text's tokens (tokens, tags) in PyTorch, special tokens left out."""
    inputs = tokenizer(text, truncation=True, return_tensors="pt", return_special_tokens_mask=True)
    special = inputs.pop("special_tokens_mask")[0].bool()
    with torch.no_grad():
        return model(**inputs).logits[0, ~special].softmax(dim=-1)


def compare(answers: Sequence[Any], texts: Sequence[str], gold: Sequence[Any], model: Any, tokenizer: Any) -> Any:
    """Compare answers of the browser with PyTorch's, and score its entities."""
    difference, same, tokens = 0.0, 0, 0
    for text, answer in zip(texts, answers, strict=True):
        expected = expected_rows(model, tokenizer, text)
        rows = torch.tensor(answer["rows"]).reshape(-1, expected.shape[1])
        if rows.shape != expected.shape:
            raise ValueError(
                f"Expected {len(expected)} tokens of {text!r} in the browser, got {len(rows)}: the tokenizers differ."
            )
        difference = max(difference, float((rows - expected).abs().max()) if len(rows) else 0.0)
        same += int((rows.argmax(dim=-1) == expected.argmax(dim=-1)).sum())
        tokens += len(rows)
    found = [
        [Located(one["type"], in_utf16(text, one["start"]), in_utf16(text, one["end"])) for one in answer["entities"]]
        for text, answer in zip(texts, answers, strict=True)
    ]
    figures = {
        "difference": difference,
        "same_tags": same / max(tokens, 1),
        "milliseconds": statistics.median(answer["milliseconds"] for answer in answers),
    }
    known = any(row is not None for row in gold)
    return figures | ({"f1": score_entities(texts, found, gold)["f1"]} if known else {})


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Run the benchmark, and print a table; return the figures by dtype."""
    parser = Parser(__doc__)
    parser.add_argument("--student", type=Path, required=True, help="folder of which the page was made")
    parser.add_argument("--page", type=Path, required=True, help="folder that build.mjs made")
    parser.add_argument("--data_file", type=Path, required=True, help="CoNLL file whose texts are read")
    parser.add_argument("--texts", type=positive, default=100, help="how many of them")
    add_common_options(parser)
    options = parser.parse_args(argv)
    start(options)
    rows = read_conll(options.data_file)
    rows = rows.select(range(min(options.texts, len(rows))))
    split = [SplitText.from_words(words, WordReader("words")) for words in rows["tokens"]]
    texts = [text.content for text in split]
    gold = [
        None if tags is None or None in tags else entities_at(tags, text.offsets)
        for text, tags in zip(split, rows["ner_tags"], strict=True)
    ]
    model = AutoModelForTokenClassification.from_pretrained(options.student)
    tokenizer = AutoTokenizer.from_pretrained(options.student)
    found: dict[str, dict[str, float]] = {}
    with served(options.page) as address, chromium() as browser:
        version = browser.version
        for dtype, file in DTYPES.items():
            page = browser.new_page()
            page.goto(address)
            answers = page.evaluate(ASK, [dtype, texts])
            found[dtype] = compare(answers, texts, gold, model, tokenizer)
            found[dtype]["megabytes"] = (options.page / "model" / "onnx" / file).stat().st_size / 1e6
            page.close()
    stock, _ = student_entities(model, tokenizer, texts)
    if any(row is not None for row in gold):
        found["pytorch"] = {"f1": score_entities(texts, stock, gold)["f1"]}
    columns = ("difference", "same_tags", "f1", "milliseconds", "megabytes")
    table = [(name, *(f"{of[key]:.4g}" if key in of else "" for key in columns)) for name, of in found.items()]
    print_table(f"{len(texts)} texts in Chromium {version}", ("weights", *columns), table)
    print_json(options, {"browser": found})
    return found


if __name__ == "__main__":
    run_main(main)
