"""What is read out of a model for a drawing, and the drawing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from torch import nn
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

from bga_mner import BadImageError, predict
from bga_mner.processing.evaluation import alignment_figure as alignment_image
from bga_mner.processing.evaluation.alignment_figure import draw_alignment
from bga_mner.processing.evaluation.alignment_view import Alignment, EntityMatch, _seen_part, align, runs_right_to_left
from bga_mner.processing.processing_bga_mner import BgaMnerProcessor


CORPUS_WORDS = ["Eric", "Nam", "announces", "concert", "dates", "for", "Atlanta", "and", "NYC"]
WORDS = ["Kawhi", "wins", "in", "Seattle"]
SQUARE = {"height": 16, "width": 16}
PANEL = alignment_image.PANEL / 72 * alignment_image.DOTS_PER_INCH


@pytest.fixture
def make_pair(make_model, tokenizer):
    """Return a function that makes a model, which takes each word for an entity of its own, and its processor."""

    def make(**options):
        # room for every tokenizer
        text = {"vocab_size": max(500, len(tokenizer)), "max_position_embeddings": 60}
        model = make_model(text_options=text, **options)
        with torch.no_grad():
            model.classifier.bias[model.config.label2id["B-PER"]] += 50
        return model, BgaMnerProcessor(ViTImageProcessorPil(size=SQUARE), tokenizer, model.config.label2id)

    return make


@pytest.fixture
def make_alignment():
    """Return a function that makes an alignment of two stages and 2 x 2 patches, with everything kept."""

    def make(words=("Kawhi", "wins"), entities=1):
        words = list(words)
        similarity = np.array([[0.5, -0.25], [0.0, 1.0]])
        return Alignment(
            words,
            ["[CLS]", *words, "[SEP]"],
            [None, *range(len(words)), None],
            np.ones((2, len(words) + 2), dtype=bool),
            np.ones((2, 2, 2), dtype=bool),
            [EntityMatch(words[0], "PER", similarity, [1])] * entities,
        )

    return make


@pytest.fixture
def drawn(tmp_path):
    """Return a function that draws alignments, each with a white image, and reads the PNG."""

    def draw(*alignments, size=(64, 64)):
        draw_alignment([(alignment, Image.new("RGB", size, "white")) for alignment in alignments], tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            assert image.format == "PNG"
            return image.convert("RGB")

    return draw


def every_third_dropped(states, keep, class_token_mask=None, match=None):
    """Stand in for a sampler, and drop other positions in the second stage than in the first."""
    wanted = torch.arange(states.shape[1]) % 3 != 2 - int(keep.min() == 0)
    return keep * wanted.to(keep.dtype)


def test_masks_are_those_of_the_model_and_tokens_are_readable(make_pair, photo):
    model, processor = make_pair()
    for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
        for sampler in branch.samplers:
            sampler.forward = every_third_dropped
    alignment = align(model, processor, WORDS, photo)
    batch = processor([WORDS], images=[photo], return_tensors="pt", return_word_ids=True)
    assert alignment.word_ids == batch.pop("word_ids")[0]
    output = model(**batch)
    assert len(alignment.tokens) == batch["input_ids"].shape[1]
    assert alignment.text_keep.tolist() == [(mask[0] > 0).tolist() for mask in output.text_keep_masks]
    assert 0 < alignment.text_keep.mean() < 1
    assert 0 < alignment.patch_keep.mean() < 1
    # without the class token, row by row
    patches = [(mask[0, 1:] > 0).tolist() for mask in output.vision_keep_masks]
    assert alignment.patch_keep.reshape(2, -1).tolist() == patches
    shown = ["".join(alignment.tokens[position] for position in group) for group in alignment.token_groups()]
    # a piece may be nothing but XLM-R's underline, which stands for a blank
    assert [text.strip("▁").lower() for text in shown[1:-1]] == [word.lower() for word in WORDS]
    assert alignment.words == WORDS


def test_the_mode_is_left_as_it_was(make_pair, photo):
    model, processor = make_pair()
    model.train()
    model.bga_mner.vision_encoder.eval()
    align(model, processor, WORDS, photo)
    assert model.training
    assert model.classifier.training
    assert not model.bga_mner.vision_encoder.training


class KnownGenerator(nn.Module):
    """Generates what it was told from the one token that it was told, and zeros from all else."""

    def __init__(self, token, features):
        super().__init__()
        self.token, self.features = token, features

    def prepare(self, length, mask=None):
        return length

    def forward(self, states, bias, length):
        alone = (bias == 0).sum() == 1 and bias[0, self.token] == 0
        return (self.features if alone else torch.zeros_like(self.features)).expand(len(states), length, -1)


@pytest.mark.parametrize("vision", ["vit", "siglip_vision_model"])
def test_an_entity_matches_the_patch_whose_features_it_generates(make_model, bert_processor, photo, vision):
    model = make_model("bert", vision, text_options={"vocab_size": 200})
    processor = BgaMnerProcessor(ViTImageProcessorPil(size=SQUARE), bert_processor.tokenizer, model.config.label2id)
    words = ["#", "!", "#"]  # a token each
    output = model(**processor([words], images=[photo], return_tensors="pt"))
    # of the third of 2 x 2 patches
    real = F.layer_norm(output.vision_last_hidden_state[0], (24,))[2 + model.config.has_vision_class_token]
    model.bga_mner.text_branch.generator = KnownGenerator(2, real.detach())
    with torch.no_grad():
        model.classifier.bias[model.config.label2id["B-LOC"]] += 50
    matches = align(model, processor, words, photo).matches
    assert [(match.phrase, match.label, match.tokens) for match in matches] == [
        ("#", "LOC", [1]),
        ("!", "LOC", [2]),
        ("#", "LOC", [3]),
    ]
    assert matches[1].similarity.shape == (2, 2)
    assert matches[1].similarity[1, 0] == pytest.approx(1, abs=1e-5)
    assert np.sort(matches[1].similarity.ravel())[-2] < 0.999
    # the others generate zeros, as does the rest of their sentence
    assert not matches[0].similarity.any()


def test_an_entity_of_several_words_and_tokens_is_one(make_pair, photo):
    model, processor = make_pair()
    inner = model.config.label2id["I-PER"]
    with torch.no_grad():
        model.crf.transitions[model.config.label2id["B-PER"], inner] += 200
        model.crf.transitions[inner, inner] += 200
    alignment = align(model, processor, WORDS, photo)
    (match,) = alignment.matches
    assert (match.phrase, match.label) == (" ".join(WORDS), "PER")
    assert match.tokens == list(range(1, len(alignment.tokens) - 1))


def test_entities_are_those_of_predict(make_pair, photo):
    model, processor = make_pair()
    with torch.no_grad():
        model.classifier.bias[model.config.label2id["B-PER"]] -= 50
        model.classifier.weight[:] *= 200
    for seed in range(6):
        words = [CORPUS_WORDS[(seed * 7 + position) % len(CORPUS_WORDS)] for position in range(6)]
        found = [(entity["word"], entity["label"]) for entity in predict(model, processor, [words])[0]]
        assert [(match.phrase, match.label) for match in align(model, processor, words, photo).matches] == found
        assert found


@pytest.mark.parametrize(
    "image_processor",
    [
        CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size=SQUARE),
        CLIPImageProcessorPil(size={"height": 20, "width": 32}, crop_size=SQUARE),
        CLIPImageProcessorPil(size={"shortest_edge": 12}, crop_size=SQUARE),
        ViTImageProcessorPil(size=SQUARE),
    ],
    ids=["shortest edge", "both sides", "a crop larger than the image", "no crop"],
)
@pytest.mark.parametrize("size", [(240, 120), (110, 170), (1200, 40)])
def test_the_part_that_is_seen_is_what_the_image_processor_leaves(image_processor, size, bert_processor):
    # a value for each cell: red grows to the right, green downwards
    x, y = np.meshgrid(np.linspace(30, 225, size[0]), np.linspace(30, 225, size[1]))
    image = Image.fromarray(np.stack([x, y, np.full_like(x, 128)], axis=-1).astype(np.uint8))
    left, top, right, bottom = _seen_part(image_processor, image)
    shown = BgaMnerProcessor(image_processor, bert_processor.tokenizer).encode_images([image])[0]
    shown = shown * np.reshape(image_processor.image_std, (3, 1, 1)) + np.reshape(image_processor.image_mean, (3, 1, 1))
    red, green, blue = shown * 255
    inside = blue > 100  # elsewhere is black that was added
    positions = (np.arange(16) + 0.5) / 16
    expected_red = np.broadcast_to(30 + 195 * (left + positions * (right - left)), (16, 16))
    expected_green = np.broadcast_to(30 + 195 * (top + positions * (bottom - top))[:, None], (16, 16))
    # within a pixel or so of what the model reads
    assert abs(red - expected_red)[inside].max() < 195 / 16
    assert abs(green - expected_green)[inside].max() < 195 / 16
    assert inside.mean() > 0.4


def test_a_text_that_is_longer_than_the_model_reads_is_cut(make_pair, photo):
    model, processor = make_pair()
    with pytest.warns(UserWarning, match="were cut"):
        alignment = align(model, processor, ["Kawhi"] * 80, photo)
    assert len(alignment.tokens) == alignment.text_keep.shape[1] == 60
    assert len(alignment.words) == 80


def test_what_cannot_be_aligned_is_refused(make_pair, photo):
    model, processor = make_pair()
    for words in ([], "Kawhi wins"):
        with pytest.raises(ValueError, match="Expected the words of a sentence"):
            align(model, processor, words, photo)
    with pytest.raises(BadImageError):
        align(model, processor, WORDS, b"no image")
    for options in ({"use_text_to_image": False}, {"visual_target": "layer"}, {"normalize_targets": False}):
        model, processor = make_pair(**options)
        with pytest.raises(ValueError, match="Expected a model"):
            align(model, processor, WORDS, photo)


def test_direction_of_writing():
    assert runs_right_to_left("123 שלום Kawhi")
    assert runs_right_to_left("عربي")
    assert not runs_right_to_left("# Kawhi שלום")
    assert not runs_right_to_left("")


def difference(one, other):
    """Return the size of the smallest rectangle outside of which two images are the same."""
    assert one.size == other.size
    box = ImageChops.difference(one, other).getbbox()
    assert box is not None
    return box[2] - box[0], box[3] - box[1]


def test_a_dropped_patch_is_veiled_even_on_white(drawn, make_alignment):
    one, other = make_alignment(entities=0), make_alignment(entities=0)
    # as many, so that the titles are the same
    one.patch_keep[1, 1, 1] = other.patch_keep[1, 0, 1] = False
    width, height = difference(drawn(one), drawn(other))
    assert width == pytest.approx(PANEL / 2, abs=4)
    assert height == pytest.approx(PANEL, abs=4)


def test_a_cropped_image_has_its_patches_where_the_model_sees_them(drawn, make_alignment):
    one, other = make_alignment(entities=0), make_alignment(entities=0)
    one.seen = other.seen = (0.25, 0.0, 0.75, 1.0)
    one.patch_keep[1, 0, 0] = other.patch_keep[1, 1, 0] = False
    width, height = difference(drawn(one, size=(128, 64)), drawn(other, size=(128, 64)))
    assert width == pytest.approx(PANEL / 4, abs=4)
    assert height == pytest.approx(PANEL / 2, abs=4)


def test_a_dropped_token_is_struck_out_in_its_stage(drawn, make_alignment):
    one, other = make_alignment(["to", "to"]), make_alignment(["to", "to"])
    one.text_keep[0, 2] = False
    other.text_keep[0, 3] = False
    width, height = difference(drawn(one), drawn(other))
    assert 20 < width < 140  # from the second "to" to "[SEP]"
    assert 10 < height < 40


def test_similarities_are_coloured(drawn, make_alignment):
    one, other = make_alignment(), make_alignment()
    # another value in one patch, neither the highest nor the lowest, which the title names
    other.matches = [one.matches[0]._replace(similarity=np.array([[0.5, -0.25], [0.9, 1.0]]))]
    width, height = difference(drawn(one), drawn(other))
    assert width == pytest.approx(PANEL / 2, abs=4)
    assert height == pytest.approx(PANEL / 2, abs=4)


def test_many_entities_and_long_sentences_make_the_page_longer_and_not_wider(drawn, make_alignment):
    few, many = drawn(make_alignment(entities=2)), drawn(make_alignment(entities=20))
    assert many.width == few.width
    assert many.height > few.height + 1000
    long = drawn(make_alignment(["Kawhi"] * 120, entities=2))
    assert long.width == few.width
    assert long.height > few.height + 200
    # a word wider than a line, of tokens that are
    huge = drawn(replace(make_alignment(["x" * 900]), tokens=["[CLS]", "x" * 900, "[SEP]"]))
    # nothing runs over the edge
    assert (np.asarray(huge)[:, -8:] == 255).all()


def test_any_text_can_be_drawn(drawn, make_alignment):
    # warnings of missing glyphs are errors here, and two dollar signs would be a formula
    words = ["$", "$x^$", "😂", "❤️", "👩‍👩‍👧", "中文", "हिन्दी", "\ud800", "\x00", "a\nb", "\u202eevil", "", "\\frac"]
    assert drawn(make_alignment(words)).width == drawn(make_alignment(["שלום", *words])).width


def test_a_page_that_is_longer_than_a_png_can_be_is_drawn_smaller(drawn, make_alignment, monkeypatch):
    monkeypatch.setattr(alignment_image, "LONGEST_PNG", 900)
    assert drawn(*[make_alignment()] * 4).height == pytest.approx(900, abs=2)


def test_there_must_be_something_to_draw(tmp_path):
    with pytest.raises(ValueError, match="at least one alignment"):
        draw_alignment([], tmp_path / "a.png")
