import pytest
import torch

from bga_mner import DataCollatorForMner, mark_target
from bga_mner.processing.text.target_marking import marked_words


TEXT = "Kawhi Leonard wins in Seattle!"
WORDS = ["Kawhi", "Leonard", "wins", "in", "Seattle", "!"]


def test_marks_are_words_of_their_own():
    assert mark_target(TEXT, 22, 29) == "Kawhi Leonard wins in { Seattle } !"
    assert mark_target(TEXT, 0, len(TEXT)) == "{ Kawhi Leonard wins in Seattle! }"
    assert mark_target("#NBA", 1, 4) == "# { NBA }"
    assert mark_target(WORDS, 4, 5) == ["Kawhi", "Leonard", "wins", "in", "{", "Seattle", "}", "!"]


def test_braces_of_the_text_are_no_marks():
    assert mark_target("{a} b {c", 4, 5) == "(a) { b } (c"
    marked = mark_target(["{", "a}", "b"], 1, 3)
    assert marked == ["(", "{", "a)", "b", "}"]
    assert marked_words(marked) == range(2, 4)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (3, 2), (-1, 2), (0, 31)])
def test_places_outside_are_refused(start, end):
    with pytest.raises(ValueError, match="inside the text, which has 30 characters"):
        mark_target(TEXT, start, end)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [("a b", 1, 2), ("a \u00a0\n b", 1, 4), ("a\u3000b", 1, 2), (["a", " ", "b"], 1, 2), (["a", "", "b"], 1, 2)],
)
def test_targets_of_white_space_are_refused(bert_processor, text, start, end):
    with pytest.raises(ValueError, match="more than white space"):
        mark_target(text, start, end)
    column = {"text": [text]} if isinstance(text, str) else {"tokens": [text]}
    for call in (
        lambda: bert_processor([text], targets=[(start, end)]),
        lambda: bert_processor.encode_examples(column | {"target": [[start, end]]}),
    ):
        with pytest.raises(ValueError, match="more than white space"):
            call()


def test_white_space_at_the_ends_of_a_target_stays_outside():
    assert mark_target(TEXT, 5, 14) == mark_target(TEXT, 6, 13) == "Kawhi { Leonard } wins in Seattle!"
    assert mark_target(["a", " ", "b", ""], 1, 4) == ["a", " ", "{", "b", "}", ""]


@pytest.mark.parametrize("places", [(0.5, 2), (0, 2.0), ("0", 2), (None, 2)])
def test_places_are_whole_numbers(bert_processor, places):
    for call in (lambda: mark_target(TEXT, *places), lambda: bert_processor(TEXT, targets=[places])):
        with pytest.raises(ValueError, match="whole numbers as the offsets of a target"):
            call()


def test_every_tokenizer_sees_target_and_marks(processor):
    """Words and text give the same tokens, which the mask parts into the target's and the others'."""
    plain = processor([WORDS], return_tensors="pt")["input_ids"][0]
    batch = processor([WORDS, WORDS[:2]], targets=[(0, 2), None], return_tensors="pt", return_word_ids=True)
    ids, mask, owners = batch["input_ids"][0], batch["target_mask"], batch["word_ids"]
    assert mask.dtype == torch.bool
    assert [owner in (1, 2) for owner in owners[0]] == mask[0].tolist()
    assert not mask[1].any()
    target = [token for word in processor.encode_words([WORDS[:2]])[0] for token in word]
    assert ids[mask[0]].tolist() == target
    # the marks stand there, and nothing else was added
    attended = batch["attention_mask"][0].bool()
    marks = processor.encode_words([["{", "}"]])[0]
    assert attended.sum() == len(plain) + sum(map(len, marks))
    place = int(mask[0].long().argmax())
    assert ids[place - len(marks[0]) : place].tolist() == marks[0]
    other = processor([WORDS], targets=[(1, 2)], return_tensors="pt")["input_ids"][0]
    assert other.tolist() != ids[attended].tolist()
    text = processor(TEXT, targets=[(0, 13)], return_tensors="pt")
    assert text["input_ids"][0].tolist() == ids[attended].tolist()
    # a stock pipeline's tokens; some tokenizers see a blank before the first word only where there is one
    running = " ".join(mark_target(WORDS, 0, 2))
    assert ids[attended].tolist() in (processor.tokenizer(text)["input_ids"] for text in (running, f" {running}"))


def test_examples_and_batches(bert_processor, photo):
    columns = {
        "tokens": [WORDS, WORDS[:3], WORDS[:2]],
        "target": [[0, 2], None, [1, 2]],
        "label": [2, None, 0],
        "image": [photo, None, None],
    }
    encoded = bert_processor.encode_examples(columns)
    assert "word_start_mask" not in encoded  # which a classifier doesn't take
    rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    batch = DataCollatorForMner(bert_processor)(rows)
    expected = bert_processor(columns["tokens"], columns["image"], targets=columns["target"], return_tensors="pt")
    assert batch.keys() == {*expected, "labels"}
    for name, values in expected.items():
        assert torch.equal(batch[name], values), name
    assert batch["labels"].tolist() == [2, -100, 0]
    assert batch["labels"].dtype == torch.int64


def test_labels_of_every_kind(bert_processor):
    def batch(*labels):
        rows = [{"input_ids": [2, 3], "label": label} for label in labels]
        return DataCollatorForMner(bert_processor)(rows).get("labels")

    values = batch(0.5, None, 2)
    assert values.dtype == torch.float32
    assert values.tolist()[::2] == [0.5, 2.0]
    assert values[1].isnan()
    several = batch([0, 1, 1], None)
    assert several.dtype == torch.float32
    assert several[0].tolist() == [0, 1, 1]
    assert several[1].isnan().all()
    assert batch(None, None).tolist() == [-100, -100]
    with pytest.raises(ValueError, match=r"of one shape in all examples, got \[\(\), \(2,\)\]"):
        batch(1, [0, 1])
    with pytest.raises(ValueError, match="is a number, got 'positive'"):
        batch(None, "positive")
    with pytest.raises(ValueError, match="got both"):
        DataCollatorForMner(bert_processor)([{"input_ids": [2, 3], "label": 1, "labels": [0, 0]}])


def test_a_target_that_is_cut_off_is_reported(bert_processor):
    with pytest.warns(UserWarning, match="were cut") as caught:
        bert_processor([["in"] * 30, ["in"] * 30], targets=[(28, 30), (0, 1)], max_length=20)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert "1 of 2 texts were cut before the end of their target" in messages[1]


def test_what_does_not_fit_is_refused(bert_processor):
    with pytest.raises(ValueError, match="got 2 for 1 texts"):
        bert_processor(TEXT, targets=[(0, 1), None])
    with pytest.raises(ValueError, match="either `word_labels` or `targets`"):
        bert_processor([WORDS], word_labels=[["O"] * 6], targets=[(0, 1)])
