"""The tokenizer that is built from the words of a corpus."""

import pytest
from transformers import AutoTokenizer

from bga_mner.examples.synthetic.corpus import generate_corpus
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def corpus():
    return generate_corpus(image_size=16)


def test_every_corpus_word_is_one_token(corpus):
    tokenizer = build_tokenizer(corpus.sentences())
    tokens = corpus.sentences()
    encoded = tokenizer(tokens, is_split_into_words=True)
    for i, words in enumerate(tokens):
        assert encoded[i].tokens == ["[CLS]", *words, "[SEP]"]
    assert not any(tokenizer.unk_token_id in ids for ids in encoded["input_ids"])
    text = " ".join(tokens[0])
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tokenizer_falls_back_to_characters_and_keeps_case(corpus):
    tokenizer = build_tokenizer(corpus.sentences())
    assert tokenizer.tokenize("xQz~7") == ["x", "##Q", "##z", "~", "7"]
    assert tokenizer.tokenize("Dad dad")[0] == "Dad"
    assert build_tokenizer([["Hello", "Zvarno"]]).tokenize("Hello Zvarno!") == ["Hello", "Zvarno", "!"]
    assert tokenizer.unk_token_id not in tokenizer("Any printable ASCII, e.g. user@example.com!")["input_ids"]
    special = tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    assert special == [0, 1, 2, 3, 4]
    assert (tokenizer.pad_token, tokenizer.mask_token) == ("[PAD]", "[MASK]")
    assert tokenizer("Dad [MASK] !").tokens() == ["[CLS]", "Dad", "[MASK]", "!", "[SEP]"]


def test_tokenizer_does_not_depend_on_order_and_takes_awkward_words():
    sentences = [["Don't", "[PAD]", "a\tb"], ["café", "東京", "", "[MASK]"]]
    tokenizer = build_tokenizer(sentences)
    assert tokenizer.get_vocab() == build_tokenizer(sentences[::-1]).get_vocab()
    assert tokenizer.tokenize("Don't café") == ["Don", "'", "t", "café"]


def test_tokenizer_is_restored_from_a_folder(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer = build_tokenizer(corpus.sentences(), model_max_length=64)
    tokenizer.save_pretrained(tmp_path)
    restored = AutoTokenizer.from_pretrained(tmp_path)
    assert restored.is_fast
    assert restored.model_max_length == 64
    assert restored.get_vocab() == tokenizer.get_vocab()
    words = corpus.sentences()[0]
    assert (
        restored(words, is_split_into_words=True)["input_ids"]
        == tokenizer(words, is_split_into_words=True)["input_ids"]
    )
    assert restored("Dad Xyz!", "ok")["input_ids"] == tokenizer("Dad Xyz!", "ok")["input_ids"]
    assert restored.all_special_tokens == tokenizer.all_special_tokens
