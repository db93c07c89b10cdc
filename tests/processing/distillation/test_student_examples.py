"""Each token of a student answers for the word in which it begins, whatever its tokenizer makes of words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from bga_mner import DataCollatorForStudent, encode_for_student


ID2LABEL = {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}
WORDS = [
    "Kawhi",
    "Leonard",
    "wins",
    "the",
    "fan",
    "vote",
    "!",
    "#",
    "NBAAwards",
    "still",
    "about",
    "30",
    "in",
    "Seattle",
]


def taught(texts, running=False):
    """Return columns as `add_teacher_probabilities` makes them: the first tags of words tell them apart."""
    columns = {"text": [], "word_offsets": [], "teacher_probabilities": [], "gold": []}
    generator = np.random.default_rng(0)
    for words in texts:
        text, offsets = "", []
        for word in words:
            text += " " if text and not (running and not word[0].isalnum()) else ""
            offsets.append([len(text), len(text) + len(word)])
            text += word
        columns["text"].append(text)
        columns["word_offsets"].append(offsets)
        columns["teacher_probabilities"].append(generator.dirichlet(np.ones(5), len(words)).tolist())
        columns["gold"].append([-100] * len(words))
    return columns


def inner(row):
    o, b_loc, i_loc, b_per, i_per = row
    return [o, 0, b_loc + i_loc, 0, b_per + i_per]


@pytest.mark.parametrize("running", [False, True])
def test_tokens_answer_for_their_words(tokenizer, running):
    columns = taught([WORDS, WORDS[5:7], WORDS[-1:]], running)
    encoded = encode_for_student(columns, tokenizer, ID2LABEL)
    assert len(encoded["input_ids"]) == 3
    again = tokenizer(columns["text"], return_offsets_mapping=True)
    assert encoded["input_ids"] == again["input_ids"]
    for row, labels in enumerate(encoded["labels"]):
        text, seen = columns["text"][row], []
        for (start, end), target in zip(again["offset_mapping"][row], labels, strict=True):
            if start == end:  # special
                assert (target == -100).all()
                continue
            # nothing but a space belongs to what follows
            start += len(text[start:end]) - len(text[start:end].lstrip())
            [word] = [i for i, (first, last) in enumerate(columns["word_offsets"][row]) if first <= start < last]
            teacher = columns["teacher_probabilities"][row][word]
            np.testing.assert_allclose(target, inner(teacher) if word in seen else teacher, atol=1e-6)
            seen.append(word)
        # a tokenizer that parts at spaces skips no word
        assert sorted(set(seen)) == list(range(len(columns["word_offsets"][row])))


def test_a_long_text_becomes_several_rows_that_hold_each_word(tokenizer):
    columns = taught([WORDS * 4, WORDS[:2]])
    encoded = encode_for_student(columns, tokenizer, ID2LABEL, max_length=16)
    assert max(map(len, encoded["input_ids"])) <= 16
    assert len(encoded["input_ids"]) > 3
    # first tokens carry "B-" probabilities; joined, they are the teacher's, in order
    joined = np.concatenate(encoded["labels"])
    firsts = joined[(joined[:, 0] >= 0) & (joined[:, [1, 3]].sum(axis=1) > 0)]
    np.testing.assert_allclose(firsts, np.concatenate(columns["teacher_probabilities"]), atol=1e-6)


def test_a_text_that_is_cut_inside_a_word_goes_on_inside_it(tokenizers):
    columns = taught([["NBAAwardsNBAAwards"]])
    encoded = encode_for_student(columns, tokenizers["wordpiece"], ID2LABEL, max_length=5)
    assert len(encoded["labels"]) > 1
    begins = [labels[labels[:, 0] >= 0][0, [1, 3]].sum() > 0 for labels in encoded["labels"]]
    assert begins == [True, *[False] * (len(begins) - 1)]


def test_spaces_that_are_tokens_are_of_the_next_word(tokenizers):
    columns = {
        "text": ["Kawhi   wins  "],
        "word_offsets": [[[0, 5], [8, 12]]],
        "teacher_probabilities": [[[0.1, 0.2, 0.3, 0.3, 0.1], [0.5, 0.1, 0.1, 0.2, 0.1]]],
        "gold": [[-100, -100]],
    }
    tokenizer = tokenizers["modernbert"]
    [labels] = encode_for_student(columns, tokenizer, ID2LABEL)["labels"]
    offsets = tokenizer(columns["text"][0], return_offsets_mapping=True)["offset_mapping"]
    # before "wins" two spaces that are tokens of their own, and behind it two that belong to no word
    spaces = [
        place for place, (start, end) in enumerate(offsets) if start < end and not columns["text"][0][start:end].strip()
    ]
    before = [place for place in spaces if offsets[place][1] <= 8]
    assert before
    np.testing.assert_allclose(labels[before[0]], columns["teacher_probabilities"][0][1], atol=1e-6)
    for place in set(spaces) - set(before):
        assert (labels[place] == -100).all()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_known_labels_are_mixed_in(tokenizers, weight):
    columns = taught([["Kawhi", "wins", "the"]])
    columns["gold"] = [[3, 0, -100]]
    [labels] = encode_for_student(columns, tokenizers["wordpiece"], ID2LABEL, gold_weight=weight)["labels"]
    teacher = np.array(columns["teacher_probabilities"][0])
    known = labels[labels[:, 0] >= 0]
    np.testing.assert_allclose(known[0], (1 - weight) * teacher[0] + weight * np.eye(5)[3], atol=1e-6)
    np.testing.assert_allclose(known.sum(axis=1), 1, atol=1e-5)


def test_texts_with_one_label(tokenizers):
    columns = {"text": ["a b", "c"], "teacher_probabilities": [[0.2, 0.8], [0.5, 0.5]], "gold": [-100, 1]}
    encoded = encode_for_student(columns, tokenizers["wordpiece"], {0: "no", 1: "yes"}, gold_weight=0.5)
    np.testing.assert_allclose(encoded["labels"], [[0.2, 0.8], [0.25, 0.75]])
    batch = DataCollatorForStudent(tokenizers["wordpiece"])(rows_of(encoded))
    torch.testing.assert_close(batch["labels"], torch.tensor([[0.2, 0.8], [0.25, 0.75]]))


def rows_of(encoded):
    return [dict(zip(encoded, values, strict=True)) for values in zip(*encoded.values(), strict=True)]


def test_batches_are_padded_on_the_tokenizers_side(tokenizer):
    rows = rows_of(encode_for_student(taught([WORDS, WORDS[:2]]), tokenizer, ID2LABEL))
    batch = DataCollatorForStudent(tokenizer, pad_to_multiple_of=8)(rows)
    plain = pad_without_fast_tokenizer_warning(
        tokenizer,
        [{name: row[name] for name in tokenizer.model_input_names} for row in rows],
        pad_to_multiple_of=8,
        return_tensors="pt",
    )
    for name in plain:
        assert torch.equal(batch[name], plain[name])
    assert batch["labels"].shape == (*batch["input_ids"].shape, 5)
    assert batch["labels"].shape[1] % 8 == 0
    for row, labels in zip(rows, batch["labels"], strict=True):
        attended = batch["attention_mask"][rows.index(row)].bool()
        torch.testing.assert_close(labels[attended], torch.from_numpy(row["labels"]))
        assert (labels[~attended] == -100).all()


def test_what_is_wrong_is_said(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    with pytest.raises(ValueError, match=r"add_teacher_probabilities makes, but .*'gold'.* are missing"):
        encode_for_student({"text": ["a"]}, tokenizer, ID2LABEL)
    with pytest.raises(ValueError, match="gold_weight between 0 and 1, got 2"):
        encode_for_student(taught([WORDS]), tokenizer, ID2LABEL, gold_weight=2)
    for length in (2, 65):
        with pytest.raises(ValueError, match=f"max_length of at most 64, and more than special tokens, got {length}"):
            encode_for_student(taught([WORDS]), tokenizer, ID2LABEL, max_length=length)
