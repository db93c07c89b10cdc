"""The `multimodal-ner` pipeline, and the stock token-classification pipeline, on tiny random models."""

from __future__ import annotations

import io
import logging
import queue
import random
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import datasets
import pytest
import torch
from PIL import Image
from transformers import AutoModelForTokenClassification, CLIPImageProcessorPil, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from bga_mner import BgaMnerPipeline, BgaMnerProcessor, predict, spans_from_tags, split_words
from bga_mner.processing.images import image_download as images


TEXTS = [
    "Kawhi Leonard wins the fan vote! #NBA @Bundesliga_EN",
    "",
    "  don't  go to\nSeattle… 👩\u200d👩\u200d👧😂 ",
    "https://t.co/abc Atlanta, and NYC",
    "People lining up outside KeyArena. Still about 30 from tipoff here in Seattle.",
]
IMAGE = Image.new("RGB", (20, 30), "red")


@pytest.fixture
def build(make_model, tokenizers, label2id):
    """Return a function that makes a model which finds entities, and its processor."""

    def make(tokenizer="wordpiece", **options):
        tokenizer = tokenizers[tokenizer]
        model = make_model(
            # room for each of TEXTS as a whole, and less than the tokenizer allows
            text_options={
                "vocab_size": len(tokenizer),
                "pad_token_id": tokenizer.pad_token_id,
                "max_position_embeddings": 60,
            },
            id2label={number: label for label, number in label2id.items()},
            gate_initial_bias=2.0,
            **options,
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
        image_processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
        return model, BgaMnerProcessor(image_processor, tokenizer, label2id)

    return make


@pytest.fixture
def parts(build):
    return build()


@pytest.fixture
def pipe(parts):
    model, processor = parts
    return pipeline("multimodal-ner", model=model, processor=processor, device="cpu")


def as_pipeline(entities):
    """Name what `predict` gives as the pipeline does."""
    return [
        {"entity_group": entity["label"]} | {key: entity[key] for key in ("score", "word", "start", "end")}
        for entity in entities
    ]


def close(found):
    """Leave a little room for scores: sums in float32 depend on shapes, and on where tensors lie in memory."""
    if isinstance(found, dict):
        return {**found, "score": pytest.approx(found["score"], abs=1e-5)}
    return [close(item) for item in found]


def plain(found):
    """Leave out scores, which batches round otherwise."""
    return [[{key: value for key, value in entity.items() if key != "score"} for entity in one] for one in found]


def scores(found):
    return [entity["score"] for one in found for entity in one]


def test_finds_what_predict_finds(pipe, parts):
    assert isinstance(pipe, BgaMnerPipeline)
    found = pipe(TEXTS)
    assert found == close([as_pipeline(entities) for entities in predict(*parts, TEXTS)])
    assert sum(map(len, found)) > 5
    for text, entities in zip(TEXTS, found, strict=True):
        for entity in entities:
            assert list(entity) == ["entity_group", "score", "word", "start", "end"]
            assert text[entity["start"] : entity["end"]] == entity["word"]
    assert pipe(TEXTS[0]) == close(as_pipeline(predict(*parts, TEXTS[0])))
    assert pipe({"text": TEXTS[0]}) == close(pipe(TEXTS[0]))
    assert pipe([]) == []


def test_scores_are_the_probabilities_of_exactly_these_entities(pipe, parts):
    model, processor = parts
    words = [word for word, _, _ in split_words(TEXTS[0])]
    batch = processor([words], return_tensors="pt", return_word_start_mask=True)
    starts = batch.pop("word_start_mask")[0]
    with torch.no_grad():
        output = model(**batch)
    tags = [model.config.id2label[int(tag)] for tag in output.predictions[0, starts]]
    places = starts.nonzero().flatten().tolist()
    # behind the last piece of its last word
    spans = [
        (0, label, places[first], [*places, len(starts) - 1][behind]) for label, first, behind in spans_from_tags(tags)
    ]
    expected = model.span_probabilities(output.emissions, batch["attention_mask"], spans, starts[None]).tolist()
    assert expected
    assert scores([pipe(TEXTS[0])]) == pytest.approx(expected, rel=1e-5)
    # the slow way: all paths that the CRF can take in which the tags of these words are known, and of none other
    ids, mask = model.config.label2id, batch["attention_mask"].bool()
    for (_, label, first, behind), score in zip(spans, expected, strict=True):
        known = torch.full_like(batch["input_ids"], -100)
        known[0, [place for place in places if first <= place < behind]] = ids[f"I-{label}"]
        known[0, first] = ids[f"B-{label}"]
        goes_on = known.clone()
        after = [place for place in places if place >= behind][:1]
        goes_on[0, after] = ids[f"I-{label}"]
        emissions = output.emissions.double()
        whole = (-model.crf(emissions, known, mask)).exp().item()
        longer = (-model.crf(emissions, goes_on, mask)).exp().item() if after else 0.0
        # words that begin with "I-" add a little, behind a piece of the word before that has another tag than it
        assert whole - longer <= score + 1e-9
        assert score <= 1


@pytest.mark.parametrize("batch_size", [2, 7, 64])
def test_batches_change_nothing(build, batch_size):
    model, processor = build("left-padded")
    pipe = pipeline("multimodal-ner", model=model, processor=processor, device="cpu")
    rng = random.Random(0)
    words = " ".join(TEXTS).split()
    texts = [" ".join(rng.choices(words, k=rng.randrange(30))) for _ in range(40)]
    alone, together = [pipe(text) for text in texts], pipe(texts, batch_size=batch_size)
    assert together == close(alone)


def test_similar_lengths_share_batches(pipe, parts):
    shapes = []
    parts[0].register_forward_pre_hook(
        lambda _, __, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    pipe(["win " * length for length in (1, 20, 2, 19)], batch_size=2)
    assert [shape[0] for shape in shapes] == [2, 2]
    assert shapes[0][1] > 10 > shapes[1][1]


def test_long_texts_are_read_in_windows(pipe, parts):
    text = " ".join(TEXTS * 6)  # the encoder has 60 positions, the tokenizer allows 64
    found = pipe(text)
    assert found == close(as_pipeline(predict(*parts, text)))
    assert max(entity["end"] for entity in found) > len(text) / 2
    shorter = pipe(text, max_length=20, stride=3)
    assert shorter == close(as_pipeline(predict(*parts, text, max_length=20, stride=3))) != close(found)


def test_words_have_offsets_and_numbers(pipe):
    words = ["Kawhi", "Leonard", "", "wins", "in", "Seattle", "#", "NBA"]
    found = pipe(words, is_split_into_words=True)
    assert found
    for entity in found:
        assert " ".join(words)[entity["start"] : entity["end"]] == entity["word"]
        assert " ".join(words[entity["start_word"] : entity["end_word"]]) == entity["word"]
    found = close(found)
    assert pipe({"words": words}) == found
    for form in (words, tuple(words), {"words": words}):
        assert pipe([form]) == [found]
    assert list(pipe(item for item in [words])) == [found]
    # a flat list holds texts, as for predict
    assert pipe(words) == close([pipe(word) for word in words])
    assert pipe([words, words], is_split_into_words=True) == [found, found]
    assert pipe([], is_split_into_words=True) == []


def test_streams_and_datasets(pipe):
    expected = plain(pipe(TEXTS))
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    lazy = pipe(KeyDataset(rows, "text"))
    assert len(lazy) == len(TEXTS)
    assert plain(lazy) == expected
    for make in (lambda: (text for text in TEXTS), lambda: iter(TEXTS), lambda: rows, rows.to_iterable_dataset):
        assert plain(pipe(make())) == plain(pipe(make(), batch_size=2)) == expected
    assert plain(pipe(rows["text"])) == plain(pipe(tuple(TEXTS))) == expected
    assert isinstance(pipe(rows["text"]), list)
    assert list(pipe(text for text in [])) == []


def test_a_stream_may_wait_for_its_answers(pipe):
    answers: queue.Queue = queue.Queue()

    def questions():
        yield TEXTS[0]
        for text in TEXTS[1:]:
            answers.get(timeout=10)
            yield text

    found = []
    for entities in pipe(questions()):
        found.append(entities)
        answers.put(entities)
    assert found == close([pipe(text) for text in TEXTS])


class CountedTexts(torch.utils.data.Dataset):
    """Empty texts, and how many of them have been read."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return 1500

    def __getitem__(self, number):
        self.read += 1
        return ""


@pytest.mark.parametrize(
    ("options", "read"),
    [({}, 1024), ({"visual_source": "real"}, 256), ({"batch_size": 3}, 48), ({"batch_size": 1}, 1)],
    ids=str,
)
def test_some_batches_of_a_dataset_are_read_ahead(pipe, options, read):
    texts = CountedTexts()
    assert next(iter(pipe(texts, **options))) == []
    assert texts.read == read


def test_a_subclass_finishes_what_is_found(parts):
    class Counted(BgaMnerPipeline):
        def postprocess(self, model_outputs):
            return len(model_outputs)

    count = Counted(model=parts[0], processor=parts[1])
    expected = [len(entities) for entities in BgaMnerPipeline(model=parts[0], processor=parts[1])(TEXTS)]
    rows = KeyDataset(datasets.Dataset.from_dict({"text": TEXTS}), "text")
    assert any(expected)
    assert count(TEXTS) == list(count(rows)) == list(count(iter(TEXTS))) == [count(text) for text in TEXTS] == expected


def test_workers_read_datasets(pipe):
    rows = KeyDataset(datasets.Dataset.from_dict({"text": TEXTS}), "text")
    assert plain(pipe(rows, num_workers=1)) == plain(pipe(TEXTS))


def test_images_are_used_on_request_only(pipe, parts, tmp_path):
    IMAGE.save(tmp_path / "red.png")
    IMAGE.save(buffer := io.BytesIO(), "PNG")
    text = TEXTS[4]
    without = close(pipe(text))
    seen = close(as_pipeline(predict(*parts, text, images=IMAGE, visual_source="real")))
    assert pipe(text) != seen
    for image in (IMAGE, tmp_path / "red.png", str(tmp_path / "red.png"), buffer.getvalue()):
        row = {"text": text, "image": image}
        assert pipe(row, visual_source="real") == seen
        assert pipe([row, text], visual_source="real", batch_size=1) == [seen, without]
        assert pipe(row) == without
    # not even opened
    for image in ("nowhere.png", "https://example.invalid/a.png", 3):
        assert pipe({"text": text, "image": image}) == without
    always = pipeline("multimodal-ner", model=parts[0], processor=parts[1], device="cpu", visual_source="real")
    assert always({"text": text, "image": IMAGE}) == seen
    assert always({"text": text, "image": IMAGE}, visual_source="generated") == without


def test_images_are_read_sixteen_at_a_time(pipe, parts):
    sizes = []
    parts[0].register_forward_pre_hook(lambda _, __, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True)
    rows = [{"text": "win", "image": IMAGE}] * 20
    pipe(rows, visual_source="real")
    assert sizes == [16, 4]
    pipe(rows)
    assert sizes == [16, 4, 20]


def test_models_that_read_images_by_default(build):
    model, processor = build(visual_source="real")
    pipe = pipeline("multimodal-ner", model=model, processor=processor, device="cpu")
    row = {"text": TEXTS[4], "image": IMAGE}
    seen = close(as_pipeline(predict(model, processor, TEXTS[4], images=IMAGE)))
    assert pipe(row) == seen != pipe(TEXTS[4])


def test_broken_images_are_counted(pipe, parts):
    rows = [{"text": TEXTS[4], "image": b""}, {"text": TEXTS[0], "image": None}]
    with pytest.warns(UserWarning, match="1 of 1 images cannot be used"):
        found = pipe(rows, visual_source="real")
    assert found == close(pipe([TEXTS[4], TEXTS[0]]))
    assert parts[1].bad_images == {"empty": 1}
    with pytest.raises(ValueError, match="an empty file"):
        pipe(rows, visual_source="real", on_bad_image="raise")


@pytest.fixture
def server():
    """Serve one image on the loopback interface."""
    IMAGE.save(buffer := io.BytesIO(), "PNG")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/red.png" else 404)
            self.end_headers()
            self.wfile.write(buffer.getvalue() if self.path == "/red.png" else b"")

        def log_message(self, *_):
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_urls_are_fetched_by_pipelines_made_for_it_only(pipe, parts, server, monkeypatch):
    row = {"text": TEXTS[4], "image": f"{server}/red.png"}
    with pytest.raises(ValueError, match="allow_urls=True"):
        pipe(row, visual_source="real")
    with pytest.raises(ValueError, match="option of the pipeline, got 'allow_urls'"):
        pipe(row, visual_source="real", allow_urls=True)
    model, processor = parts
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    open_pipe = pipeline(
        "multimodal-ner", model=model, processor=processor, device="cpu", allow_urls=True, visual_source="real"
    )
    assert open_pipe(row) == close(pipe({**row, "image": IMAGE}, visual_source="real"))
    for bad, match in ((f"{server}/gone.png", "404"), ("http://127.0.0.1:1/a.png", "refused")):
        with pytest.warns(UserWarning, match=match):
            assert open_pipe({**row, "image": bad}) == close(pipe(row))
    assert processor.bad_images == {"unreadable": 2}
    with pytest.raises(ValueError, match="404"):
        open_pipe({**row, "image": f"{server}/gone.png"}, on_bad_image="raise")
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        open_pipe(row, on_bad_image="raise")
    with pytest.raises(ValueError, match="begins with http"):
        open_pipe({**row, "image": "ftp://127.0.0.1/a.png"})


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (3, {}, "a dict with 'text' or 'words', got int"),
        (b"Kawhi", {}, "got bytes"),
        ([None], {}, "got NoneType"),
        ({"photo": IMAGE, "text": "a"}, {}, "the keys \\['photo', 'text'\\]"),
        ({"text": "a", "words": ["a"]}, {}, "either 'text' or 'words'"),
        ({"image": IMAGE}, {}, "either 'text' or 'words'"),
        ({"words": "Kawhi"}, {}, "got str"),
        ({"text": ["Kawhi"]}, {}, "got list"),
        ([["Kawhi", 3]], {}, "Expected words as strings, got int"),
        ("Kawhi", {"is_split_into_words": True}, "got str"),
        ("Kawhi", {"batch_size": 0}, "batch_size of at least 1"),
        ("Kawhi", {"max_length": 2}, "above the 2 special tokens"),
        ("Kawhi", {"visual_source": "reel"}, "visual_source 'generated', 'real' or 'none', got 'reel'"),
    ],
)
def test_wrong_inputs_are_refused(pipe, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(inputs, **options)


def test_a_batch_size_of_the_pipeline_s_own_is_checked_too(parts):
    pipe = BgaMnerPipeline(model=parts[0], processor=parts[1], batch_size=0)
    with pytest.raises(ValueError, match="batch_size of at least 1"):
        pipe(TEXTS)


def test_a_processor_is_needed(parts):
    with pytest.raises(ValueError, match="Expected a processor"):
        BgaMnerPipeline(model=parts[0])


def test_saved_and_loaded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    loaded = pipeline("multimodal-ner", model=str(tmp_path / "saved"), batch_size=2)
    assert plain(loaded(TEXTS)) == plain(pipe(TEXTS))
    assert loaded._batch_size == 2


def test_the_model_is_left_in_its_mode(pipe, parts):
    expected = close(pipe(TEXTS))
    parts[0].train()
    assert pipe(TEXTS) == expected
    assert all(module.training for module in parts[0].modules())


STRATEGIES = ["none", "simple", "first", "average", "max"]


def stock_reference(strategy, marginals, words, id2label):
    """Give the entities of a stock strategy, from marginals (L, T) of the tokens and the tokens' (word, start, end)."""
    if strategy in ("none", "simple"):
        groups = [[row] for row in range(len(words))]
    else:
        groups = []
        for row, (word, _, _) in enumerate(words):
            if row and words[row - 1][0] == word:
                groups[-1].append(row)
            else:
                groups.append([row])
    units = []
    for rows in groups:
        scores = marginals[rows]
        if strategy == "average":
            scores = scores.mean(dim=0, keepdim=True)
        row = int(scores.max(dim=1).values.argmax()) if strategy == "max" else 0
        tag = int(scores[row].argmax())
        units.append((id2label[tag], float(scores[row, tag]), words[rows[0]][1], words[rows[-1]][2]))
    if strategy == "none":
        return [(label, score, start, end) for label, score, start, end in units if label != "O"]
    merged = []
    for label, score, start, end in units:
        kind = label[2:] if label != "O" else "O"
        if merged and merged[-1][0] == kind and not label.startswith("B-"):
            merged[-1][1].append(score)
            merged[-1][3] = end
        else:
            merged.append([kind, [score], start, end])
    return [(kind, sum(s) / len(s), start, end) for kind, s, start, end in merged if kind != "O"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_stock_pipeline(parts, caplog, monkeypatch, strategy, batch_size):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model, processor = parts
    tokenizer = processor.tokenizer
    stock = pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy, device="cpu"
    )
    assert "not supported" not in caplog.text
    texts = [TEXTS[0], TEXTS[4], "Eric Nam announces concert dates for Atlanta and NYC!"]
    found = stock(texts, batch_size=batch_size)
    assert sum(map(len, found)) > 5
    for text, entities in zip(texts, found, strict=True):
        encoding = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        offsets = encoding.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            output = model(**encoding)
            marginals = model.crf.log_marginals(output.emissions, encoding["attention_mask"].bool()).exp()[0]
        places = [place for place, word in enumerate(encoding.word_ids()) if word is not None]
        # to the stock pipeline the unknown token always begins a word; here it stands for whole words alone
        words = [(encoding.word_ids()[place], *offsets[place]) for place in places]
        expected = stock_reference(strategy, marginals[places], words, model.config.id2label)
        name = "entity" if strategy == "none" else "entity_group"
        assert [(entity[name], entity["start"], entity["end"]) for entity in entities] == [
            (label, start, end) for label, _, start, end in expected
        ]
        assert [entity["score"] for entity in entities] == pytest.approx(
            [score for _, score, _, _ in expected], abs=1e-5
        )
        assert all(0 <= entity["score"] <= 1 for entity in entities)
        ends = [0, *(entity["end"] for entity in entities)]
        assert all(start <= entity["start"] < entity["end"] for start, entity in zip(ends, entities, strict=False))


def test_stock_pipeline_from_a_folder(parts, tmp_path):
    model, processor = parts
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    stock = pipeline("ner", model=str(tmp_path), aggregation_strategy="simple", device="cpu")
    direct = pipeline(
        "ner",
        model=AutoModelForTokenClassification.from_pretrained(tmp_path),
        tokenizer=processor.tokenizer,
        aggregation_strategy="simple",
        device="cpu",
    )
    assert stock(TEXTS[0])
    assert stock(TEXTS[0]) == close(direct(TEXTS[0]))
