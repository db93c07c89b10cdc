import functools
import json
import random
import warnings
from copy import deepcopy

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, DebertaV2TokenizerFast, Siglip2ImageProcessorPil, XLMRobertaTokenizerFast
from transformers.tokenization_python import PythonBackend

from bga_mner.processing.data.conll import read_conll
from bga_mner.processing.images.image_loading import BadImageError
from bga_mner.processing.processing_bga_mner import BgaMnerProcessor
from bga_mner.processing.text.word_encoding import special_tokens


WORDS = ["#", "NBA", ":", "Kawhi", "Leonard", "wins", "in", "Seattle"]
TAGS = ["O", "B-ORG", "O", "B-PER", "I-PER", "O", "O", "B-LOC"]
ODD = [
    "\u200d",
    "\ufe0f",
    "",
    " ",
    "\x00",
    "\u00a0",
    "\ud83d",
    "😂",
    "👩\u200d👩\u200d👧",
    "1\ufe0f\u20e3",
    "[SEP]",
    "x" * 200,
]


def random_words(rng, longest=9):
    return [rng.choice(WORDS + ODD) for _ in range(rng.randrange(longest))]


def running_text(tokenizer):
    """Join the words; where the tokenizer doesn't bring the first word's blank by itself, put one in front."""
    brings_a_blank = type(tokenizer) in (XLMRobertaTokenizerFast, DebertaV2TokenizerFast)
    return " ".join(WORDS) if brings_a_blank else " " + " ".join(WORDS)


# ---------------------------------------------------------------------------------------------------------------- text


def test_every_word_has_tokens(processor):
    pieces = processor.encode_words([ODD, [], WORDS])
    assert [len(words) for words in pieces] == [len(ODD), 0, len(WORDS)]
    assert all(tokens for words in pieces for tokens in words)
    batch = processor([ODD], return_word_ids=True, return_word_start_mask=True, max_length=500)
    owners = batch["word_ids"][0]
    assert sorted({owner for owner in owners if owner is not None}) == list(range(len(ODD)))
    assert sum(batch["word_start_mask"][0]) == len(ODD)
    starts = [owner for owner, start in zip(owners, batch["word_start_mask"][0], strict=True) if start]
    assert starts == list(range(len(ODD)))


@pytest.mark.parametrize("text", ["", " \n\t", [[]], [""]])
def test_empty_texts_are_special_tokens_only(processor, text):
    before, behind = special_tokens(processor.tokenizer)
    assert before
    assert behind
    assert processor(text)["input_ids"] == [before + behind]
    encoded = processor(text, return_tensors="pt")
    assert encoded["input_ids"].shape == (1, 2)


def test_tokens_are_those_of_the_tokenizer(processor):
    tokenizer = processor.tokenizer
    expected = tokenizer(running_text(tokenizer))["input_ids"]
    assert processor([WORDS])["input_ids"][0] == expected
    assert processor(" ".join(WORDS))["input_ids"][0] == expected
    assert tokenizer.decode(processor([WORDS])["input_ids"][0]) == processor.decode(expected)
    assert processor.batch_decode([expected]) == [processor.decode(expected)]


def test_tokens_and_labels_belong_to_the_words_whose_characters_they_are(processor, label2id):
    text = running_text(processor.tokenizer)
    places, offset = [], len(text) - len(text.lstrip())
    for word in WORDS:
        places.append((offset, offset + len(word)))
        offset += len(word) + 1
    offsets = processor.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    batch = processor([WORDS], word_labels=[TAGS], return_word_ids=True, return_word_start_mask=True)
    labels = iter(batch["labels"][0])
    for (start, end), owner, first in zip(offsets, batch["word_ids"][0], batch["word_start_mask"][0], strict=True):
        expected = "O"
        if owner is not None:
            # a token may begin with the blank before its word, or be nothing else
            assert places[owner][0] - 1 <= start <= end <= places[owner][1]
            expected = TAGS[owner] if first else TAGS[owner].replace("B-", "I-")
        assert next(labels) == label2id[expected]


def test_byte_level_tokenizers_with_and_without_prefix_space_agree(tokenizers):
    with_space = BgaMnerProcessor(None, tokenizers["byte-level"])
    without = BgaMnerProcessor(None, tokenizers["byte-level-no-prefix"])
    assert with_space.encode_words([WORDS, ODD]) == without.encode_words([WORDS, ODD])


def test_string_list_of_strings_and_words_agree(processor):
    text = " ".join(WORDS)
    for form in (text, [text], [WORDS], (tuple(WORDS),)):
        assert processor(form)["input_ids"] == processor([WORDS])["input_ids"]
    assert processor(WORDS, is_split_into_words=True)["input_ids"] == processor([WORDS])["input_ids"]


def test_one_is_as_many_at_any_padding(processor):
    rng = random.Random(0)
    sentences = [random_words(rng) for _ in range(30)]
    labels = [[rng.choice(["O", "B-PER", "B-LOC", None]) for _ in words] for words in sentences]
    options = {"return_tensors": "pt", "return_word_start_mask": True, "max_length": 2000}
    together = processor(sentences, word_labels=labels, pad_to_multiple_of=8, **options)
    assert together["input_ids"].shape[1] % 8 == 0
    for row, (words, tags) in enumerate(zip(sentences, labels, strict=True)):
        alone = processor([words], word_labels=[tags], **options)
        mask = together["attention_mask"][row].bool()
        for name, values in alone.items():
            assert torch.equal(together[name][row][mask], values[0]), name
        assert (together["labels"][row][~mask] == -100).all()
        assert (together["input_ids"][row][~mask] == processor.tokenizer.pad_token_id).all()
        assert not together["word_start_mask"][row][~mask].any()
        left = processor.tokenizer.padding_side == "left"
        assert mask[-1 if left else 0]


def test_padding_modes(bert_processor):
    texts = ["Kawhi", "Kawhi wins in Seattle"]
    assert len({len(row) for row in bert_processor(texts)["input_ids"]}) == 2
    assert len({len(row) for row in bert_processor(texts, padding=True)["input_ids"]}) == 1
    assert bert_processor(texts, padding="max_length", return_tensors="np")["input_ids"].shape == (2, 64)
    assert bert_processor(texts, padding="max_length", max_length=30, return_tensors="np")["input_ids"].shape == (2, 30)
    # zero is a number as well, and not the default
    uncut = bert_processor(texts, padding="max_length", max_length=0, truncation=False, return_tensors="np")
    assert uncut["input_ids"].shape == bert_processor(texts, return_tensors="np")["input_ids"].shape
    with pytest.raises(ValueError, match="Expected padding"):
        bert_processor(texts, padding=False, return_tensors="pt")
    with pytest.raises(ValueError, match="got 'sideways'"):
        bert_processor(texts, padding="sideways")


def test_word_ids_are_padded(processor):
    batch = processor([WORDS, []], return_tensors="pt", return_word_ids=True)
    assert [len(row) for row in batch["word_ids"]] == [batch["input_ids"].shape[1]] * 2
    assert set(batch["word_ids"][1]) == {None}


def test_long_texts_are_cut_with_a_warning(bert_processor):
    words, tags = WORDS * 20, TAGS * 20
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than 62 tokens .* \d+ words and \d+ entities"):
        batch = bert_processor([words, WORDS], word_labels=[tags, TAGS], return_word_ids=True)
    assert len(batch["input_ids"][0]) == 64
    kept = max(owner for owner in batch["word_ids"][0] if owner is not None) + 1
    with pytest.warns(UserWarning, match=f" {len(words) - kept} words are lost"):
        bert_processor([words])
    with pytest.raises(ValueError, match="in text 1"):
        bert_processor([WORDS, words], on_long_text="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(bert_processor([words], truncation=False)["input_ids"][0]) > 64


def test_lost_entities_are_counted(bert_processor):
    words, tags = ["win"] * 6, ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "O"]
    with pytest.warns(UserWarning, match="4 words and 2 entities"):
        bert_processor([words], word_labels=[tags], max_length=4)


def test_limit_is_512_where_the_tokenizer_has_none(tokenizers):
    processor = BgaMnerProcessor(None, tokenizers["left-padded"])
    with pytest.warns(UserWarning, match="longer than 510"):
        assert len(processor([["win"] * 600])["input_ids"][0]) == 512


def test_a_word_longer_than_everything_keeps_its_beginning(bert_processor):
    with pytest.warns(UserWarning, match="0 words are lost"):
        batch = bert_processor([["bundesliga"]], max_length=4, return_word_start_mask=True)
    assert batch["word_start_mask"] == [[False, True, False, False]]
    with pytest.raises(ValueError, match="above the 2 special tokens"):
        bert_processor(["a"], max_length=2)


# -------------------------------------------------------------------------------------------------------------- labels


def test_labels_follow_their_words(processor, label2id):
    rng = random.Random(1)
    for _ in range(30):
        words = random_words(rng)
        tags = [rng.choice(["O", "B-PER", "B-LOC", None]) for _ in words]
        batch = processor([words], word_labels=[tags], return_word_ids=True, max_length=2000)
        special = label2id["O"] if any(tag is not None for tag in tags) else -100
        seen = set()
        for owner, label in zip(batch["word_ids"][0], batch["labels"][0], strict=True):
            if owner is None:
                assert label == special
                continue
            tag = tags[owner]
            if tag is None:
                assert label == -100
            elif owner in seen and tag != "O":
                assert label == label2id["I-" + tag[2:]]
            else:
                assert label == label2id[tag]
            seen.add(owner)
        assert seen == set(range(len(words)))


def test_every_form_of_label_gives_the_same(bert_processor, label2id):
    ids = [label2id[tag] for tag in TAGS]
    expected = bert_processor([WORDS], word_labels=[TAGS])["labels"]
    for labels in ([ids], [tuple(ids)], [np.array(ids)], [torch.tensor(ids)]):
        assert bert_processor([WORDS], word_labels=labels)["labels"] == expected
    for labels in (TAGS, [TAGS]):
        assert bert_processor(WORDS, is_split_into_words=True, word_labels=labels)["labels"] == expected
    partly = [None, *ids[1:]]
    minus = [-100, *ids[1:]]
    assert (
        bert_processor([WORDS], word_labels=[partly])["labels"]
        == bert_processor([WORDS], word_labels=[minus])["labels"]
    )


def test_text_without_labels_is_unknown_everywhere(bert_processor):
    batch = bert_processor([WORDS, ["wins"]], word_labels=[None, ["O"]], return_tensors="pt")
    assert (batch["labels"][0] == -100).all()
    assert batch["labels"][1, :3].tolist() == [0, 0, 0]
    without = BgaMnerProcessor(None, bert_processor.tokenizer)
    assert set(without([WORDS], word_labels=[None])["labels"][0]) == {-100}


def test_broken_bio_is_mended_with_a_warning(bert_processor):
    with pytest.warns(UserWarning, match="2 tags in 1 of 2 texts"):
        batch = bert_processor([["win", "in"], ["in"]], word_labels=[["I-PER", "I-LOC"], ["O"]])
    assert batch["labels"] == bert_processor([["win", "in"], ["in"]], word_labels=[["B-PER", "B-LOC"], ["O"]])["labels"]


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("Kawhi wins", [["O", "O"]], "texts as lists of words"),
        (None, [["O"]], "Expected `text` beside"),
        ([["a"], ["b"]], [["O"]], "got 1 for 2 texts"),
        ([["a"], ["b", "c"]], [["O"], ["O"]], "1 labels for the 2 words of text 1"),
        ([["a"]], [["B-DOG"]], r"got 'B-DOG' in text 0"),
        ([["a"]], [[99]], "ids 0 to 8, got 99"),
        ([["a"]], [[1.5]], "got 1.5"),
        ([["a"]], [[{}]], "got {}"),
        ([["a"]], ["O"], "one label per word, or None, got str"),
        ([["a"]], [3], "got int 3"),
    ],
)
def test_wrong_labels_are_refused(bert_processor, text, labels, message):
    with pytest.raises(ValueError, match=message):
        bert_processor(text, word_labels=labels, images=None if text else [None])


@pytest.mark.parametrize("label", ["O", 0])
def test_labels_need_a_mapping(tokenizers, label):
    processor = BgaMnerProcessor(None, tokenizers["wordpiece"])
    with pytest.raises(ValueError, match=r"processor.label2id = model.config.label2id"):
        processor([["a"]], word_labels=[[label]])


# ------------------------------------------------------------------------------------------------------------ images


def test_images_and_gaps(bert_processor, photo):
    batch = bert_processor(["a", "b", "c"], images=[None, photo, None], return_tensors="pt")
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["image_mask"].tolist() == [False, True, False]
    assert batch["image_mask"].dtype == torch.bool
    assert (batch["pixel_values"][[0, 2]] == 0).all()
    single = bert_processor("b", images=photo, return_tensors="pt")
    assert torch.equal(single["pixel_values"][0], batch["pixel_values"][1])
    expected = bert_processor.image_processor(photo, return_tensors="pt")["pixel_values"]
    assert torch.equal(single["pixel_values"], expected)


def test_no_image_at_all(bert_processor):
    batch = bert_processor(["a", "b"], images=[None, None], return_tensors="pt")
    assert "pixel_values" not in batch
    assert batch["image_mask"].tolist() == [False, False]
    assert not {"pixel_values", "image_mask"} & set(bert_processor(["a", "b"]))


def test_images_alone(bert_processor, photo):
    batch = bert_processor(images=[photo, None], return_tensors="pt")
    assert sorted(batch) == ["image_mask", "pixel_values"]
    assert bert_processor(images=photo)["pixel_values"].shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="got neither"):
        bert_processor()


def test_broken_images_are_counted(bert_processor, photo, tmp_path):
    images = [photo, b"", tmp_path / "none.jpg", b"<html>", b"", None]
    with pytest.warns(UserWarning, match=r"4 of 5 images .* 2 empty, 1 missing, 1 not an image") as caught:
        batch = bert_processor(["a"] * 6, images=images, return_tensors="pt")
    assert len(caught) == 1
    assert batch["image_mask"].tolist() == [True] + [False] * 5
    assert bert_processor.bad_images == {"empty": 2, "missing": 1, "not an image": 1}
    with pytest.warns(UserWarning, match="1 of 1 images"):
        assert "pixel_values" not in bert_processor("a", images=b"")
    assert bert_processor.bad_images["empty"] == 3
    with pytest.raises(BadImageError, match="Image 1: Expected") as error:
        bert_processor(["a", "b"], images=[photo, b""], on_bad_image="raise")
    assert error.value.kind == "empty"


def test_odd_shapes_are_encoded(bert_processor):
    for size in ((1, 1), (1, 5000), (5000, 1), (3, 3), (31, 33)):
        batch = bert_processor("a", images=Image.new("RGB", size, "red"))
        assert batch["pixel_values"].shape == (1, 3, 32, 32)


def test_wrong_images_are_refused(bert_processor, tokenizers, photo):
    with pytest.raises(ValueError, match="got 1 for 2 texts"):
        bert_processor(["a", "b"], images=photo)
    with pytest.raises(ValueError, match="got 2 for 1 texts"):
        bert_processor("a", images=[photo, photo])
    with pytest.raises(TypeError, match="got int"):
        bert_processor("a", images=[3])
    with pytest.raises(ValueError, match="Download the file"):
        bert_processor("a", images="https://x.org/a.jpg")
    with pytest.raises(ValueError, match="made for text alone"):
        BgaMnerProcessor(None, tokenizers["wordpiece"])("a", images=photo)
    sizes = [photo, photo.resize((50, 20))]
    with pytest.raises(ValueError, match="one shape"):
        bert_processor(["a", "b"], images=sizes, images_kwargs={"do_center_crop": False})


@pytest.mark.parametrize(
    "options", [{"on_bad_image": "skip"}, {"on_long_text": "skip"}, {"return_tensors": "tf"}, {"padding_mode": 1}]
)
def test_wrong_options_are_refused(bert_processor, photo, options):
    with pytest.raises((ValueError, TypeError)):
        bert_processor("a", images=photo, **options)


# ------------------------------------------------------------------------------------------------- construction, saving


def test_round_trip(processor, photo, tmp_path):
    with pytest.warns(UserWarning, match="cannot be used"):
        processor("a", images=b"")
    processor.save_pretrained(tmp_path)
    again = BgaMnerProcessor.from_pretrained(tmp_path)
    assert again.label2id == processor.label2id
    assert not again.bad_images
    options = {"images": [photo, None], "word_labels": [TAGS, None], "return_tensors": "pt"}
    one, two = processor([WORDS, ODD[:4]], **options), again([WORDS, ODD[:4]], **options)
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert again.model_input_names == processor.model_input_names
    assert "bad_images" not in processor.to_dict()
    assert type(again.tokenizer) is type(processor.tokenizer)


def test_round_trip_for_text_alone(tokenizers, tmp_path):
    processor = BgaMnerProcessor(tokenizer=tokenizers["wordpiece"])
    processor.save_pretrained(tmp_path)
    again = BgaMnerProcessor.from_pretrained(tmp_path)
    assert again.image_processor is None
    assert again.label2id is None
    assert again(["Kawhi"])["input_ids"] == processor(["Kawhi"])["input_ids"]
    assert again.model_input_names == again.tokenizer.model_input_names
    assert "BgaMnerProcessor" in repr(again)
    assert AutoTokenizer.from_pretrained(tmp_path).is_fast


def test_naflex_images_become_squares(tokenizers, label2id, photo, tmp_path):
    naflex = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16, image_mean=[0.1, 0.2, 0.3])
    processor = BgaMnerProcessor(naflex, tokenizers["wordpiece"], label2id)
    batch = processor(["Kawhi"], images=[photo], return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 32, 32)
    assert tuple(processor.image_processor.image_mean) == (0.1, 0.2, 0.3)
    # with an image that is a square of that size, these are the numbers that NaFlex's patches hold
    square = photo.resize((32, 32))
    pixels = processor(["Kawhi"], images=[square], return_tensors="pt")["pixel_values"]
    patches = naflex(square, return_tensors="pt")["pixel_values"][0].view(4, 4, 8, 8, 3)
    assert torch.allclose(patches.permute(4, 0, 2, 1, 3).reshape(3, 32, 32), pixels[0], atol=1e-5)
    processor.save_pretrained(tmp_path)
    loaded = BgaMnerProcessor.from_pretrained(tmp_path)
    assert torch.equal(loaded(["Kawhi"], images=[photo], return_tensors="pt")["pixel_values"], batch["pixel_values"])


def test_what_tokenizers_says_of_its_parts_is_explained(bert_processor, tmp_path):
    bert_processor.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sep_token": "a , b"}))
    with pytest.raises(ValueError, match=r"Expected a processor .* Missing SpecialToken.* Correct the file"):
        BgaMnerProcessor.from_pretrained(tmp_path)


def test_wrong_parts_are_refused(image_processor, tokenizers):
    with pytest.raises(ValueError, match="Expected a tokenizer, got None"):
        BgaMnerProcessor(image_processor)
    with pytest.raises(ValueError, match="Expected a fast tokenizer"):
        BgaMnerProcessor(None, PythonBackend.__new__(PythonBackend))
    with pytest.raises(TypeError):
        BgaMnerProcessor(tokenizers["wordpiece"], tokenizers["wordpiece"])
    with pytest.raises(ValueError, match="'I-PER' beside"):
        BgaMnerProcessor(None, tokenizers["wordpiece"], {"O": 0, "B-PER": 1})


def test_what_a_broken_file_makes_of_a_tokenizer_is_refused(tokenizers):
    for limit in ([512], "512", float("nan"), float("inf")):
        broken = deepcopy(tokenizers["wordpiece"])
        broken.model_max_length = limit
        with pytest.raises(ValueError, match="Expected a number as model_max_length"):
            BgaMnerProcessor(None, broken)
    broken = deepcopy(tokenizers["wordpiece"])
    broken._special_tokens_map["unk_token"] = "[ELSE]"  # as tokenizer_config.json may name it
    with pytest.raises(ValueError, match="Expected the unknown token '\\[ELSE\\]' in the tokenizer's vocabulary"):
        BgaMnerProcessor(None, broken)


# ------------------------------------------------------------------------------------------------------------ data sets


def make_dataset(images):
    return datasets.Dataset.from_dict(
        {
            "id": [str(number) for number in range(3)],
            "tokens": [WORDS, ["wins"], []],
            "ner_tags": [TAGS, None, []],
            "image": images,
        },
        features=datasets.Features(
            {
                "id": datasets.Value("string"),
                "tokens": datasets.List(datasets.Value("string")),
                "ner_tags": datasets.List(datasets.Value("string")),
                "image": datasets.Image(decode=False),
            }
        ),
    )


def test_examples_are_encoded_when_read(processor, photo, tmp_path):
    path = tmp_path / "photo.png"
    photo.save(path)
    dataset = make_dataset([str(path), None, None]).with_transform(processor.encode_examples)
    assert isinstance(dataset[0]["pixel_values"], np.ndarray)
    assert dataset[0]["pixel_values"].dtype == np.float32
    assert dataset[1]["pixel_values"] is None
    expected = processor([WORDS], word_labels=[TAGS], return_word_start_mask=True)
    for name in ("input_ids", "attention_mask", "labels", "word_start_mask"):
        assert dataset[0][name] == expected[name][0]
    assert set(dataset[1]["labels"]) == {-100}
    assert ("token_type_ids" in dataset[0]) == ("token_type_ids" in processor.tokenizer.model_input_names)
    assert "word_ids" not in dataset[0]
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of 1 images"):
        assert dataset[0]["pixel_values"] is None


def test_examples_take_options_and_plain_text(bert_processor):
    encode = functools.partial(bert_processor.encode_examples, max_length=5)
    with pytest.warns(UserWarning, match="longer than 3 tokens"):
        assert len(encode({"tokens": [WORDS]})["input_ids"][0]) == 5
    encoded = bert_processor.encode_examples({"text": ["Kawhi wins"], "image": [None]})
    assert "labels" not in encoded
    assert encoded["input_ids"] == bert_processor(["Kawhi wins"])["input_ids"]
    assert encoded["pixel_values"] == [None]
    with pytest.raises(ValueError, match="a column 'tokens'"):
        bert_processor.encode_examples({"words": [WORDS]})
    with pytest.raises(ValueError, match="got str as text 0"):
        bert_processor.encode_examples({"tokens": ["Kawhi wins"]})
    with pytest.raises(ValueError, match="since 'ner_tags' is there"):
        bert_processor.encode_examples({"text": ["Kawhi wins"], "ner_tags": [["O", "O"]]})


def test_real_tweets_are_encoded_whole(processor, twitter2017):
    data = read_conll(twitter2017 / "valid.txt")
    encoded = processor.encode_examples({"tokens": data["tokens"], "ner_tags": data["ner_tags"]}, max_length=2000)
    names = {number: label for label, number in processor.label2id.items()}
    for row, tags in enumerate(data["ner_tags"]):
        starts = encoded["word_start_mask"][row]
        labels = [label for label, start in zip(encoded["labels"][row], starts, strict=True) if start]
        assert [names[label] for label in labels] == tags
