import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import BertConfig

from bga_mner.processing.data.conll import read_conll
from bga_mner.processing.inference.prediction import predict
from bga_mner.processing.inference.text_tagging import longest_input
from bga_mner.processing.processing_bga_mner import BgaMnerProcessor
from bga_mner.processing.tags.tag_scheme import spans_from_tags
from bga_mner.processing.text import word_reader, word_splitting
from bga_mner.processing.text.word_splitting import split_words


class TokenTagger(nn.Module):
    """Tag each token by its id alone; stands in for a trained model."""

    def __init__(self, label2id, seed=0):
        super().__init__()
        self.config = SimpleNamespace(
            id2label={number: label for label, number in label2id.items()},
            label2id=label2id,
            text_config=BertConfig(),
            visual_source="real",
        )
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Embedding.from_pretrained(2 * torch.randn(1000, len(label2id), generator=generator))
        self.dropout = nn.Dropout(0.5)
        self.calls = []

    def forward(self, input_ids, attention_mask, token_type_ids=None, pixel_values=None, image_mask=None):
        assert not torch.is_grad_enabled()
        assert not self.training
        self.calls.append((tuple(input_ids.shape), pixel_values is not None))
        logits = self.dropout(self.table(input_ids)).log_softmax(-1)
        if pixel_values is not None:
            logits = logits + image_mask[:, None, None] * pixel_values.mean(dim=(1, 2, 3))[:, None, None]
        predictions = logits.argmax(-1).masked_fill(attention_mask == 0, -100)
        return SimpleNamespace(logits=logits, predictions=predictions)


class EdgeTagger(TokenTagger):
    """Find persons everywhere but beside the edges of what it reads."""

    def forward(self, input_ids, attention_mask, token_type_ids=None, pixel_values=None, image_mask=None):
        output = super().forward(input_ids, attention_mask)
        position = attention_mask.cumsum(-1)
        length = attention_mask.sum(-1, keepdim=True)
        inside = (position > 4) & (position <= length - 4)
        person = next(number for number, label in self.config.id2label.items() if label == "B-PER")
        output.predictions = torch.where(inside, person, 0)
        return output


@pytest.fixture
def model(label2id):
    return TokenTagger(label2id)


TEXTS = [
    "Kawhi Leonard wins the fan vote! #NBA @Bundesliga_EN",
    "",
    "  don't  go to\nSeattle… 👩\u200d👩\u200d👧😂 ",
    "\u200d",
    "https://t.co/abc Atlanta, and NYC",
    "x" * 300,
]


def test_places_fit_the_text(model, processor):
    found = predict(model, processor, TEXTS)
    assert len(found) == len(TEXTS)
    assert sum(map(len, found)) > 5
    for text, entities in zip(TEXTS, found, strict=True):
        ends = [0]
        for entity in entities:
            assert set(entity) == {"label", "score", "word", "start", "end"}
            assert text[entity["start"] : entity["end"]] == entity["word"]
            assert entity["start"] >= ends[-1]
            assert 0 < entity["score"] <= 1
            assert entity["label"] in ("PER", "LOC", "ORG", "MISC")
            ends.append(entity["end"])
    assert found[1] == []


def test_entities_are_those_of_the_words_first_tokens(model, processor):
    words = ["Kawhi", "", "Leonard", "\u200d", "wins", "Seattle", "#", "NBA"]
    pieces = processor.encode_words([words])[0]
    logits = model.table(torch.tensor([tokens[0] for tokens in pieces])).log_softmax(-1)
    tags = [model.config.id2label[int(number)] for number in logits.argmax(-1)]
    of_tags = logits.exp().tolist()
    ids = model.config.label2id
    found = predict(model, processor, words, is_split_into_words=True)
    assert [entity["label"] for entity in found] == [label for label, _, _ in spans_from_tags(tags)]
    for entity, (_, start, end) in zip(found, spans_from_tags(tags), strict=True):
        assert entity["word"] == " ".join(words[start:end])
        assert " ".join(words)[entity["start"] : entity["end"]] == entity["word"]
        # without a CRF tags are independent: this word begins, the others go on, and the next one doesn't
        begin, go_on = ids[f"B-{entity['label']}"], ids[f"I-{entity['label']}"]
        expected = of_tags[start][begin]
        before = 0 if start == 0 else of_tags[start - 1][begin] + of_tags[start - 1][go_on]
        expected += (1 - before) * of_tags[start][go_on]
        for number in range(start + 1, end):
            expected *= of_tags[number][go_on]
        expected *= 1 if end == len(words) else 1 - of_tags[end][go_on]
        assert entity["score"] == pytest.approx(expected, rel=1e-5)


def test_same_answer_alone_in_any_batch_in_any_order(model, processor):
    rng = random.Random(0)
    texts = TEXTS + [" ".join(rng.choice(" ".join(TEXTS[:5]).split()) for _ in range(40)) for _ in range(6)]
    alone = [predict(model, processor, text) for text in texts]
    for batch_size in (1, 3, 100):
        assert predict(model, processor, texts, batch_size=batch_size) == alone
    order = list(range(len(texts)))
    rng.shuffle(order)
    assert predict(model, processor, [texts[number] for number in order]) == [alone[number] for number in order]


def test_forms_of_text(model, bert_processor):
    words = ["Kawhi", "wins", "in", "Seattle"]
    one = predict(model, bert_processor, " ".join(words))
    assert predict(model, bert_processor, words, is_split_into_words=True) == one
    assert predict(model, bert_processor, [words]) == [one]
    assert predict(model, bert_processor, [" ".join(words)]) == [one]
    assert predict(model, bert_processor, []) == []
    assert predict(model, bert_processor, [[]]) == [[]]
    assert predict(model, bert_processor, [], is_split_into_words=True) == []


def test_similar_lengths_share_batches(model, bert_processor):
    texts = ["win " * length for length in (1, 20, 2, 19)]
    predict(model, bert_processor, texts, batch_size=2)
    assert [shape[0] for shape, _ in model.calls] == [2, 2]
    assert model.calls[0][0][1] > 10 > model.calls[1][0][1]


def without_score(entity):
    return {key: value for key, value in entity.items() if key != "score"}


def test_long_texts_lose_nothing(model, processor):
    rng = random.Random(1)
    words = [rng.choice(["Kawhi", "#", "wins", "Seattle", "\u200d"]) for _ in range(300)]
    model.config.text_config.max_position_embeddings = 10_000
    whole = predict(model, processor, [words], max_length=10_000)
    assert len(model.calls) == 1
    for max_length, stride in ((64, 40), (20, 0), (20, 17), (12, 3)):
        found = predict(model, processor, [words], max_length=max_length, stride=stride)
        assert [without_score(entity) for entity in found[0]] == [without_score(entity) for entity in whole[0]]
        # where windows share more than the longest entity and its neighbours; at an edge nothing says that it ends
        if max_length == 64:
            assert [one["score"] for one in found[0]] == pytest.approx([one["score"] for one in whole[0]], abs=1e-9)
        assert max(shape[1] for shape, _ in model.calls[1:]) <= 64


def test_each_word_is_read_where_it_has_most_context(label2id, bert_processor):
    words = ["in"] * 100
    assert all(len(tokens) == 1 for tokens in bert_processor.encode_words([words])[0])
    tagger = EdgeTagger(label2id)
    found = predict(tagger, bert_processor, [words], max_length=22, stride=8)[0]
    # Three words at each end of the text are beside an edge in every window; all others are not in some window.
    assert len(found) == 94
    # With hardly any overlap edges remain.
    assert len(predict(tagger, bert_processor, [words], max_length=22, stride=2)[0]) < 94


def test_modes_are_restored(model, bert_processor):
    model.train()
    model.table.eval()
    predict(model, bert_processor, "Kawhi")
    assert model.training
    assert model.dropout.training
    assert not model.table.training
    with pytest.raises(TypeError):
        predict(model, bert_processor, "Kawhi", images=[3])
    assert model.training
    model.eval()
    predict(model, bert_processor, "Kawhi")
    assert not model.training


def test_images_are_passed_on(model, bert_processor, photo):
    predict(model, bert_processor, ["a", "b"], images=[photo, None])
    predict(model, bert_processor, "a", images=photo)
    predict(model, bert_processor, ["a", "b"], images=[None, None])
    predict(model, bert_processor, ["in " * 100], images=[photo])
    assert [has_image for _, has_image in model.calls[:3]] == [True, True, False]
    assert all(has_image for _, has_image in model.calls[3:])
    with pytest.warns(UserWarning, match="1 of 1 images"):
        predict(model, bert_processor, "a", images=b"")
    with pytest.raises(ValueError, match="an empty file: 0 bytes"):
        predict(model, bert_processor, "a", images=b"", on_bad_image="raise")


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_broken_image_is_counted_once_however_long_its_text(model, bert_processor, photo, batch_size):
    with pytest.warns(UserWarning, match="1 of [12] images") as caught:
        predict(model, bert_processor, ["in " * 100, "in"], images=[b"", photo], max_length=20, batch_size=batch_size)
    assert len(caught) == 1
    assert bert_processor.bad_images == {"empty": 1}
    # the other text's image is still its own
    assert [has_image for _, has_image in model.calls].count(True) == 1


def test_images_are_not_opened_for_models_that_do_not_read_them(model, bert_processor):
    expected = predict(model, bert_processor, "Kawhi")
    for source in ("generated", "none", None):
        model.config.visual_source = source
        assert predict(model, bert_processor, "Kawhi", images="nowhere.png") == expected
    assert not any(has_image for _, has_image in model.calls)
    assert not bert_processor.bad_images


def test_texts_are_no_longer_than_the_encoder_reads(model, bert_processor):
    model.config.text_config.max_position_embeddings = 12
    predict(model, bert_processor, ["in " * 30])
    assert max(shape[1] for shape, _ in model.calls) == 12


def test_outputs_without_a_path_and_in_half_precision(label2id, bert_processor):
    class Plain(TokenTagger):
        def forward(self, **inputs):
            return SimpleNamespace(logits=super().forward(**inputs).logits.bfloat16())

    expected = predict(TokenTagger(label2id), bert_processor, TEXTS[0])
    found = predict(Plain(label2id), bert_processor, TEXTS[0])
    assert [entity["word"] for entity in found] == [entity["word"] for entity in expected]


def test_progress_bar_is_shown_on_request_only(model, bert_processor, capsys):
    predict(model, bert_processor, "Kawhi")
    assert "Finding entities" not in capsys.readouterr().err
    predict(model, bert_processor, "Kawhi", show_progress=True)
    assert "Finding entities" in capsys.readouterr().err


@pytest.mark.parametrize(("limit", "positions"), [(64, 512), (512, 40), (10**30, 40)])
def test_the_longest_input_is_what_tokenizer_and_encoder_both_take(bert_processor, limit, positions, monkeypatch):
    monkeypatch.setattr(bert_processor.tokenizer, "model_max_length", limit)  # others use it, too
    longest = longest_input(bert_processor.tokenizer, BertConfig(max_position_embeddings=positions))
    assert longest == min(limit, positions)


def test_nothing_is_run_with_a_window_that_the_encoder_does_not_take(model, bert_processor):
    with pytest.raises(ValueError, match="at most 512"):
        predict(model, bert_processor, ["Kawhi", "in " * 600], max_length=600)
    assert not model.calls


@pytest.mark.parametrize("text", ["Kawhi wins in Seattle", ["Kawhi wins", "in Seattle"]])
def test_running_text_is_split_once(model, bert_processor, text, monkeypatch):
    split = []

    def count(content, *options):
        split.append(content)
        return split_words(content, *options)

    for module in (word_reader, word_splitting):
        monkeypatch.setattr(module, "split_words", count)
    predict(model, bert_processor, text)
    assert split == ([text] if isinstance(text, str) else text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"max_length": 2}, "above the 2 special tokens"),
        ({"max_length": 0}, "above the 2 special tokens, got 0"),
        # however short the text
        ({"max_length": 513}, "max_length of at most 512, which the text encoder takes, got 513. Lower it"),
        ({"max_length": 10, "stride": 8}, "0 to 7 tokens"),
        ({"stride": -1}, "stride of 0"),
        ({"images": [None, None]}, "got 2 for 1 texts"),
    ],
)
def test_wrong_arguments_are_refused(model, bert_processor, options, message):
    with pytest.raises(ValueError, match=message):
        predict(model, bert_processor, "Kawhi", **options)


def test_images_need_an_image_processor(model, tokenizers, photo):
    with pytest.raises(ValueError, match="text alone"):
        predict(model, BgaMnerProcessor(None, tokenizers["wordpiece"]), "a", images=photo)


def test_real_tweets_survive_windows(model, bert_processor, twitter2017):
    tokens = read_conll(twitter2017 / "valid.txt")["tokens"][:100]
    cut, whole = (predict(model, bert_processor, tokens, max_length=length) for length in (16, 500))
    scores = [[entity.pop("score") for entities in found for entity in entities] for found in (cut, whole)]
    assert cut == whole
    # a window of 16 tokens may end beside an entity, and then doesn't know how it goes on: test_text_windows.py
    assert all(0 < score <= 1 for found in scores for score in found)


def test_a_tokenizer_of_another_model_is_refused(processor):
    model = TokenTagger(processor.label2id)
    model.config.text_config.vocab_size = 7
    with pytest.raises(ValueError, match="vocabulary, 0 to 6, but the tokenizer makes"):
        predict(model, processor, "Kawhi wins in Toronto")


def test_a_model_comes_with_its_processor(model, bert_processor):
    for second in (bert_processor.tokenizer, model, None):
        with pytest.raises(ValueError, match=f"its BgaMnerProcessor, got a {type(second).__name__} "):
            predict(model, second, "Kawhi wins")
