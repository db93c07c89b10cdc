"""Tiny tokenizers of every kind, trained in memory, and a tiny image processor."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizerFast,
    CLIPImageProcessorPil,
    DebertaV2TokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

from bga_mner.processing.processing_bga_mner import BgaMnerProcessor
from bga_mner.processing.tags.tag_lists import labels_from_tags


LABELS = labels_from_tags([["B-LOC", "B-MISC", "B-ORG", "B-PER"]])
LABEL2ID = {label: number for number, label in enumerate(LABELS)}
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CORPUS = [
    "# NBA : Kawhi Leonard wins the fan vote for Block of the Year ! # NBAAwards",
    "Justin Bieber , Rich the Kid and Diplo have a banger on the way :",
    "Eric Nam announces concert dates for Atlanta and NYC !",
    "People lining up outside KeyArena . Still about 30 from tipoff here in Seattle .",
    "If you ' re not at the SHS band concert you ' re missing out",
    "48 years ago today we won our very first @ Bundesliga_EN title !",
] * 3
SPECIALS = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}


def train_wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=160, special_tokens=specials))
    return BertTokenizerFast(vocab=tokenizer.get_vocab(), model_max_length=64)


def train_byte_level(add_prefix_space):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return RobertaTokenizerFast(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        add_prefix_space=add_prefix_space,
        model_max_length=64,
    )


def train_unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], unk_token="<unk>"
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    vocab = [tuple(entry) for entry in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return XLMRobertaTokenizerFast(vocab=vocab, model_max_length=64)


def train_deberta():
    """Train a unigram tokenizer as DeBERTa-v2 and DeBERTa-v3 have it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], unk_token="[UNK]"
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    vocab = [tuple(entry) for entry in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return DebertaV2TokenizerFast(vocab=vocab, unk_id=3, model_max_length=64)


def train_modernbert():
    """Train a byte-level tokenizer as ModernBERT has it: no class of its own, no space in front, and normalised."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = {name: f"[{name[:-6].upper()}]" for name in SPECIALS}  # [PAD], [UNK], [CLS], [SEP], [MASK]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(specials.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **specials,
    )


def train_left_padded():
    """Train a generic tokenizer that pads on the left and has no token types and no limit."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=160, special_tokens=list(SPECIALS.values()))
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        **SPECIALS,
    )


KINDS = {
    "wordpiece": train_wordpiece,
    "byte-level": lambda: train_byte_level(add_prefix_space=True),
    "byte-level-no-prefix": lambda: train_byte_level(add_prefix_space=False),
    "unigram": train_unigram,
    "deberta": train_deberta,
    "modernbert": train_modernbert,
    "left-padded": train_left_padded,
}


@pytest.fixture(scope="session")
def tokenizers():
    return {kind: train() for kind, train in KINDS.items()}


@pytest.fixture(params=list(KINDS))
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


@pytest.fixture
def image_processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


@pytest.fixture
def processor(tokenizer, image_processor):
    return BgaMnerProcessor(image_processor, tokenizer, LABEL2ID)


@pytest.fixture
def bert_processor(tokenizers, image_processor):
    return BgaMnerProcessor(image_processor, tokenizers["wordpiece"], LABEL2ID)


@pytest.fixture
def label2id():
    return dict(LABEL2ID)


@pytest.fixture
def photo():
    """Draw an image with a different colour in each corner: 40 wide, 20 high."""
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:10, :20] = (255, 0, 0)
    pixels[:10, 20:] = (0, 255, 0)
    pixels[10:, :20] = (0, 0, 255)
    pixels[10:, 20:] = (255, 255, 255)
    return Image.fromarray(pixels)


@pytest.fixture
def twitter2017():
    folder = SHARED / "twitter2017"
    if not folder.is_dir():
        pytest.skip("the Twitter-2017 text is not part of the repository, and not beside it here")
    return folder


@pytest.fixture
def photos():
    folder = SHARED / "photos"
    if not folder.is_dir():
        pytest.skip("the folder of photographs is not part of the repository, and not beside it here")
    return sorted(folder.glob("*/*.jp*g"))
