"""A tagger that was trained on the words of a file finds the same entities in running text, in every script."""

# ruff: noqa: RUF001 - letters of full width are what is tested

import copy
import json
import random

import datasets
import pytest
import torch
from seqeval.metrics import f1_score
from slow_cases import mostly_slow
from transformers import Trainer, TrainingArguments, pipeline

from bga_mner import (
    BgaMnerConfig,
    BgaMnerForTokenClassification,
    BgaMnerPipeline,
    BgaMnerProcessor,
    DataCollatorForMner,
    OnnxPredictor,
    build_compute_metrics,
    export_onnx,
    predict,
    spans_from_tags,
    split_words,
)
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.processing.annotation.annotator import AnnotatorOptions, TextAnnotator
from bga_mner.processing.annotation.chunks import InputRow, TextChunk
from bga_mner.processing.evaluation.robustness import predict_tags
from bga_mner.processing.text.given_words import tags_of_given_words, ungroup_tags
from bga_mner.processing.text.text_input import SplitText
from bga_mner.processing.text.word_reader import WordReader, group_tags


LABEL2ID = {label: number for number, label in enumerate(["O", "B-LOC", "I-LOC", "B-PER", "I-PER"])}
# Places, people, what stands before an entity and what stands behind, in segmented words.
CORPORA = {
    "chinese": (
        *(["北京", "上海", "NBA", "纽约", "广州市"], ["王 小明", "李娜", "张伟"]),
        *(["我 在", "他们 去 了"], ["。", "的 5 个 人", "第 15 年 !"]),
    ),
    "japanese": (
        *(["東京", "大阪", "LINE 株式会社", "京都府"], ["田中", "山本 さん"]),
        *(["私 は", "iPhone15 を", "3月 に"], ["に 行く", "で 買っ た 。"]),
    ),
    "thai": (["กรุงเทพ", "เชียงใหม่", "น้ำ ปิง"], ["สมชาย", "ทักษิณ", "กำนัน"], ["ผม ไป", "เรา อยู่ ที่"], ["วันนี้", "กับ 2 คน"]),
}  # fmt: skip


def corpus(script, form, count, seed):
    """Generate sentences: words, tags, and the running text, which is the words without spaces."""
    places, people, befores, behinds = CORPORA[script]
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label, names = rng.choice([("LOC", places), ("PER", people)])
        parts = [(None, rng.choice(befores)), (label, rng.choice(names)), (None, rng.choice(behinds))]
        words, tags = [], []
        for kind, part in parts:
            split = list("".join(part.split())) if form == "characters" else part.split()
            words += split
            tags += ["O"] * len(split) if kind is None else [f"B-{kind}", *[f"I-{kind}"] * (len(split) - 1)]
        rows.append({"tokens": words, "ner_tags": tags})
    return datasets.Dataset.from_list(rows)


def spans(words, tags):
    """Read spans of characters of the running text off tags, in a slow loop."""
    found, place = [], 0
    for word, tag in zip(words, tags, strict=True):
        if tag[0] == "B":
            found.append([tag[2:], place, place + len(word)])
        elif tag[0] == "I":
            found[-1][2] = place + len(word)
        place += len(word)
    return [tuple(span) for span in found]


def tagger(tokenizer, labels=None):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = BgaMnerConfig(
        text_config={"model_type": "bert", "vocab_size": len(tokenizer), "max_position_embeddings": 64, **sizes},
        vision_config={"model_type": "vit", "image_size": 16, "patch_size": 8, **sizes},
        id2label=dict(enumerate(labels or LABEL2ID)),
        text_only=True,
    )
    return BgaMnerForTokenClassification(config)


def train(model, processor, rows, folder, steps=80):
    encoded = rows.with_transform(processor.encode_examples)
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=16, learning_rate=1e-2, remove_unused_columns=False,
        report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no", seed=0,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, DataCollatorForMner(processor), encoded, encoded,
        compute_metrics=build_compute_metrics(model.config.id2label),
    )  # fmt: skip
    trainer.train()
    return trainer


# each script, and each form of words
QUICK = [("chinese", "words"), ("japanese", "characters"), ("thai", "words")]


@pytest.fixture(
    scope="module",
    params=mostly_slow(((script, form) for script in CORPORA for form in ("characters", "words")), *QUICK),
    ids="-".join,
)
def trained(request, tmp_path_factory):
    """Train a tagger on a corpus, and save it with its processor."""
    script, form = request.param
    folder = tmp_path_factory.mktemp("trained")
    rows = corpus(script, form, 200, seed=0)
    # what running text is split into, as a tokenizer of a checkpoint would know it
    tokenizer = build_tokenizer(([word for word, _, _ in split_words("".join(words))] for words in rows["tokens"]), 64)
    model = tagger(tokenizer)
    processor = BgaMnerProcessor(None, tokenizer, LABEL2ID)
    trainer = train(model, processor, rows, folder)
    model.eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, folder, corpus(script, form, 40, seed=1), trainer


def found_spans(entities):
    return [(entity.get("label", entity.get("entity_group")), entity["start"], entity["end"]) for entity in entities]


def test_running_text_has_the_entities_of_words_on_every_way(trained):
    model, processor, folder, rows, trainer = trained
    texts = ["".join(words) for words in rows["tokens"]]
    expected = [spans(*pair) for pair in zip(rows["tokens"], rows["ner_tags"], strict=True)]
    assert f1_score(rows["ner_tags"], predict_tags(model, processor, rows, show_progress=False)) == 1.0
    assert trainer.evaluate(rows.with_transform(processor.encode_examples))["eval_f1"] == 1.0
    loaded = BgaMnerProcessor.from_pretrained(folder)
    assert loaded.unspaced_scripts == "characters"
    of_text = predict(model, loaded, texts)
    assert [found_spans(entities) for entities in of_text] == expected
    for text, entities in zip(texts, of_text, strict=True):
        assert all(text[entity["start"] : entity["end"]] == entity["word"] for entity in entities)
        assert not any(" " in entity["word"] for entity in entities)
    ours = pipeline("multimodal-ner", model=str(folder), trust_remote_code=False, pipeline_class=BgaMnerPipeline)
    assert [found_spans(entities) for entities in ours(texts)] == expected
    # given words: the same words, placed among single spaces
    for words, tags, entities in zip(
        rows["tokens"], rows["ner_tags"], ours([{"words": w} for w in rows["tokens"]]), strict=True
    ):
        numbers = [(entity["start_word"], entity["end_word"]) for entity in entities]
        assert ["".join(words[first:behind]) for first, behind in numbers] == [
            "".join(words)[start:end] for _, start, end in spans(words, tags)
        ]
        assert all(" ".join(words)[entity["start"] : entity["end"]] == entity["word"] for entity in entities)


def test_bulk_annotation_finds_the_same(trained):
    model, processor, folder, rows, _ = trained
    texts = ["".join(words) for words in rows["tokens"]]
    expected = [found_spans(row) for part in (texts, rows["tokens"]) for row in predict(model, processor, part)]
    annotate = TextAnnotator(AnnotatorOptions(str(folder)))
    table = annotate(TextChunk(0, [InputRow(None, text) for text in (*texts, *rows["tokens"])])).table
    assert [
        [(entity["type"], entity["start"], entity["end"]) for entity in row] for row in table["entities"].to_pylist()
    ] == expected


@pytest.mark.slow
@pytest.mark.parametrize("trained", [("japanese", "words")], indirect=True)
def test_the_predictor_without_torch_finds_the_same(trained, tmp_path):
    model, processor, _, rows, _ = trained
    export_onnx(model, processor, tmp_path)
    predictor = OnnxPredictor(tmp_path, threads=1)
    for part in (["".join(words) for words in rows["tokens"]], rows["tokens"], [list("LINE株式会社 に15回")]):
        expected = [found_spans(row) for row in predict(model, processor, part)]
        assert [found_spans(row) for row in predictor(part)] == expected
    # as it was written before there was a choice
    settings = json.loads((tmp_path / "tagger.json").read_text())
    del settings["words"]
    (tmp_path / "tagger.json").write_text(json.dumps(settings))
    processor = BgaMnerProcessor(None, processor.tokenizer, LABEL2ID, unspaced_scripts="words")
    expected = [found_spans(row) for row in predict(model, processor, rows["tokens"])]
    assert [found_spans(row) for row in OnnxPredictor(tmp_path, threads=1)(rows["tokens"])] == expected


@pytest.mark.parametrize("strategy", ["simple", "first"])
def test_the_stock_pipeline_finds_the_same_where_its_tokenizer_parts_characters(tmp_path, strategy):
    rows = corpus("chinese", "words", 200, seed=0)
    tokenizer = build_tokenizer(([word for word, _, _ in split_words("".join(words))] for words in rows["tokens"]), 64)
    model, processor = tagger(tokenizer), BgaMnerProcessor(None, tokenizer, LABEL2ID)
    train(model, processor, rows, tmp_path)
    texts = ["".join(words) for words in corpus("chinese", "words", 20, seed=1)["tokens"]]
    stock = pipeline("token-classification", model=model.eval(), tokenizer=tokenizer, aggregation_strategy=strategy)
    found = [[(entity["entity_group"], entity["start"], entity["end"]) for entity in row] for row in stock(texts)]
    assert found == [found_spans(entities) for entities in predict(model, processor, texts)]


# What files have as one word, and running text in several pieces; and what has to stay what it is.
ODD_WORDS = [
    *("<url>", "[USER]", "@USER", "@USER123", "__HANDLE__", "[MASK]", "[UNK]", "<s>", "&amp;", "#NBA", "<|user|>"),
    *("don't", "U.S.", "AT&T", "1996-08-22", "21,", ":O", "5th", "10,000", "$5", "e-mail", "COVID-19", "C++"),
    *("New York", "New\u00a0York", "New\u2009York", "New\u3000York", "a\u2028b", "a\tb", " a", "a ", "a\u0085b"),
    *("Tok\u200byo", "Tok\u00adyo", "Tok\u2060yo", "\u200eTokyo", "Tokyo\u200f", "\ufeffa", "क\u094d\u200dष"),
    *("می\u200cخواهم", "הלו"),
    *("café", "cafe\u0301", "Ａ", "ＮＢＡ", "＠ＮＢＡ", "５th", "ﬁn", "İstanbul", "ẞ"),
    *("한국어", "Hà Nội", "Ha\u0300", "金正恩"),
    *("😂", "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪🇫🇷", "1\ufe0f\u20e3", "⚾\ufe0f", "ok😂", "❤️!!"),
    *("iPhone15を買った", "LINE株式会社", "東京2020", "ﾊﾞｽ", "が", "か\u3099", "กรุงเทพ", "น้ำ"),
    *("ខ្មែរ", "မြန်မာ", "ລາວ", "བོད་ལྗོངས"),
]  # fmt: skip


@pytest.mark.parametrize("word", ODD_WORDS, ids=ascii)
def test_a_word_of_a_file_is_read_as_in_running_text(processor, word):
    words = ["wins", word, "Kawhi"]
    labels = [["O", "B-LOC", "O"]]
    text = " ".join(words)
    batch = processor([words], word_labels=labels, truncation=False, return_word_start_mask=True, return_word_ids=True)
    of_text = processor(text, truncation=False, return_word_start_mask=True)
    assert batch["input_ids"] == of_text["input_ids"]
    # the entity has the tokens of all pieces, and of nothing else
    pieces = [(start, end) for _, start, end in split_words(text) if len("wins ") <= start < len(f"wins {word}")]
    starts = [place for place, begins in enumerate(of_text["word_start_mask"][0]) if begins]
    first, behind = starts[1], starts[1 + len(pieces)]
    names = {number: label for label, number in processor.label2id.items()}
    tags = [names[label] for label in batch["labels"][0]]
    assert spans_from_tags(tags) == [("LOC", first, behind)]
    assert [owner for owner in batch["word_ids"][0] if owner is not None] == sorted(
        [0] * (starts[1] - starts[0]) + [1] * (behind - first) + [2] * (len(tags) - 1 - behind)
    )


def test_placeholders_that_were_added_to_the_tokenizer_stay_whole(tokenizer, image_processor):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["[USER]", "<url>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|hashtag|>"]})
    processor = BgaMnerProcessor(image_processor, tokenizer, LABEL2ID)
    words = ["[USER]", "<|hashtag|>", "wins", "<url>", "[MASK]", "東京"]
    assert [word for word, _, _ in processor.split_words("[USER]: x<url>y東京")] == [
        *("[USER]", ":", "x", "<url>", "y", "東", "京")
    ]
    ids = processor([words])["input_ids"]
    assert ids == processor(" ".join(words))["input_ids"]
    added = tokenizer.convert_tokens_to_ids(["[USER]", "<|hashtag|>", "<url>"])
    assert [token for token in ids[0] if token in added] == added
    # but what stands for the class, the mask and the like can't be written into a text
    specials = set(tokenizer.convert_tokens_to_ids([tokenizer.mask_token, tokenizer.cls_token]))
    assert not specials & set(processor([f"wins {tokenizer.mask_token} {tokenizer.cls_token} x"])["input_ids"][0][1:])


def words_of(text, **options):
    return [word for word, _, _ in split_words(text, **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iPhone15を買った", "iPhone15 を 買 っ た"),
        ("LINE株式会社、「東京」。", "LINE 株 式 会 社 、 「 東 京 」 。"),
        ("５月3日に1.5倍", "５ 月 3 日 に 1.5 倍"),
        ("ＮＢＡの試合", "ＮＢＡ の 試 合"),
        ("見たhttps://t.co/aB3?x=1、次はa@b.coまで", "見 た https://t.co/aB3?x=1 、 次 は a@b.co ま で"),
        ("https://t.co/aB3を見た", "https://t.co/aB3 を 見 た"),
        ("笑:Dです", "笑 :D で す"),
        ("ﾊﾞｽとか\u3099", "ﾊﾞ ｽ と か\u3099"),
        ("葛\U000e0100城𠮷", "葛\U000e0100 城 𠮷"),
        ("人々ー〇ヶ月", "人 々 ー 〇 ヶ 月"),
        ("ㄅㄆ", "ㄅ ㄆ"),
        ("ผมไปกรุงเทพฯ 25 น้ำ", "ผ ม ไ ป ก รุ ง เ ท พ ฯ 25 น้ำ"),
        ("๒๕๖๗ปี", "๒๕๖๗ ปี"),
        ("ພາສາລາວ", "ພ າ ສ າ ລ າ ວ"),
        ("ខ្មែរ\u200bភាសា", "ខ្មែ រ ភា សា"),
        ("မြန်မာနိုင်ငံ", "မြ န် မာ နို င် ငံ"),
        ("བོད་ལྗོངས", "བོ ད ་ ལྗོ ང ས"),
        ("한국어 金正恩", "한국어 金 正 恩"),
        ("Hà Nội và Sài Gòn", "Hà Nội và Sài Gòn"),
        ("我爱👩\u200d👩\u200d👧NBA", "我 爱 👩\u200d👩\u200d👧 NBA"),
    ],
)
def test_only_letters_of_scripts_without_spaces_are_parted(text, expected):
    assert words_of(text) == expected.split(" ")
    assert all(text[start:end] == word for word, start, end in split_words(text))


def test_words_stay_whole_where_a_segmenter_makes_them(bert_processor, tmp_path):
    assert words_of("東京に 行く。", unspaced_scripts="words") == ["東京に", "行く", "。"]
    whole = BgaMnerProcessor(None, bert_processor.tokenizer, LABEL2ID, unspaced_scripts="words")
    whole.save_pretrained(tmp_path)
    loaded = BgaMnerProcessor.from_pretrained(tmp_path)
    assert loaded.unspaced_scripts == "words"
    assert [word for word, _, _ in loaded.split_words("東京に 行く")] == ["東京に", "行く"]
    assert BgaMnerProcessor.from_pretrained(tmp_path, unspaced_scripts="characters").unspaced_scripts == "characters"
    # as it was saved before there was a choice
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    del settings["unspaced_scripts"]
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    assert BgaMnerProcessor.from_pretrained(tmp_path).unspaced_scripts == "words"
    with pytest.raises(ValueError, match="Expected unspaced_scripts 'characters' or 'words', got 'syllables'"):
        BgaMnerProcessor(None, bert_processor.tokenizer, unspaced_scripts="syllables")
    with pytest.raises(ValueError, match="Expected unspaced_scripts"):
        split_words("a", unspaced_scripts=None)


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (list("iPhone15を買った"), "iPhone15 を 買 っ た"),
        (["iPhone", "15", "を", "買った"], "iPhone15 を 買った"),
        (["New", "York", "に", "行った"], "New York に 行った"),
        (["New", "York", "に", "行", "っ", "た"], "New York に 行 っ た"),
        # as split_words makes them, of a text with a space
        (["iPhone", "15", "を", "買", "っ", "た"], "iPhone 15 を 買 っ た"),
        (list("2012年NBA!"), "2012 年 NBA !"),
        (list("น้ำปิง 25"), "น้ำ ปิ ง 25"),
        (["น้ำ", " ", "ปิง"], "น้ำ ปิง"),
        (["น้ำ", "\ufffd", "ปิง"], "น้ำ ปิง"),  # white space in a CoNLL file
        (list("👩\u200d👧は"), "👩\u200d👧 は"),
        # a name of another script among words with spaces
        (["r", "u", "in", "東京", "A", "1", "bar"], "r u in 東京 A 1 bar"),
        (["Plan", "B", "1", "ツ"], "Plan B 1 ツ"),
        (["a", " ", "b"], "a   b"),
    ],
)
def test_words_that_running_text_does_not_part_are_read_as_one(words, read):
    text = SplitText.from_words(words, WordReader())
    assert " ".join(text.words) == read
    tags = ["B-LOC", *["I-LOC"] * (len(text.words) - 1)]
    (entity,) = text.entities([("LOC", 0, len(text.words))], [1.0])
    assert (entity.start_word, entity.end_word) == (0, len(words))
    assert entity.word == " ".join(words)
    assert tags_of_given_words(text, tags, len(words)) == ["B-LOC", *["I-LOC"] * (len(words) - 1)]


def test_entities_that_end_inside_what_is_read_as_one_are_learned_as_they_are():
    units = WordReader().group_words(list("NBA2は  京都"))
    tags = ["B-ORG", "I-ORG", "I-ORG", "O", "O", "O", "B-LOC", "I-LOC", "I-LOC"]
    parted, united = group_tags(tags, units)
    assert [(unit.start, unit.stop) for unit in parted] == [(0, 3), (3, 4), (4, 5), (7, 8), (8, 9)]
    assert united == ["B-ORG", "O", "O", "B-LOC", "I-LOC"]
    assert ungroup_tags(united, parted, len(tags)) == [*tags[:6], "O", "B-LOC", "I-LOC"]
