"""Cached states of a frozen vision encoder train as its images do, and are computed once."""

import os

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, IterableDataset, List, Value
from PIL import Image as Pillow
from transformers import Trainer, TrainingArguments, ViTImageProcessorPil

from bga_mner import BgaMnerProcessor, DataCollatorForMner, cache_vision_states
from bga_mner.configuration.encoder_families import BACKBONE_FAMILIES
from bga_mner.processing.images.vision_cache import write_vision_states
from bga_mner.processing.images.vision_states import read_vision_states


SIDE = 16
# those of timm are tested where it is installed
CONVOLUTIONAL = [name for name in BACKBONE_FAMILIES if not name.startswith("timm")]
# one of the files is broken on purpose
pytestmark = pytest.mark.filterwarnings("ignore:1 of [1-4] images cannot be used")


@pytest.fixture
def processor(tokenizers, label2id):
    image_processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return BgaMnerProcessor(image_processor, tokenizers["wordpiece"], label2id)


@pytest.fixture
def dataset(tmp_path):
    """Return six sentences: two without an image, one with a file that is none."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [None, str(tmp_path / "broken.png"), None]
    for colour in ("red", "green", "blue"):
        paths.append(str(tmp_path / f"{colour}.png"))
        Pillow.new("RGB", (30, 20), colour).save(paths[-1])
    rows = {
        "tokens": [["Eric", "Nam", "in", "Seattle"][: 2 + number % 3] for number in range(6)],
        "ner_tags": [["B-PER", "I-PER", "O", "B-LOC"][: 2 + number % 3] for number in range(6)],
        "image": paths,
    }
    return Dataset.from_dict(rows).cast_column("image", Image(decode=False))


@pytest.fixture
def make_frozen(make_model, processor):
    def make(**options):
        text = {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 80}
        names = {number: label for label, number in processor.label2id.items()}
        torch.manual_seed(1)
        model = make_model("bert", options.pop("vision", "vit"), text_options=text, id2label=names, **options)
        model.freeze_vision_encoder()
        return model.train()

    return make


def batches(dataset, processor):
    collate = DataCollatorForMner(processor)
    return collate(list(dataset.with_transform(processor.encode_examples)))


@pytest.mark.parametrize(
    ("vision", "options"),
    [
        *((name, {}) for name in ("vit", "clip_vision_model", "siglip_vision_model", "dinov2", *CONVOLUTIONAL)),
        # the new layers run on cached feature maps, so they may read generated text
        ("resnet", {"hybrid_attention": "both"}),
    ],
)
def test_losses_and_gradients_are_those_of_the_images(dataset, processor, make_frozen, vision, options):
    options = options | {"entity_replacement_probability": 0.5, "replaced_entities_read": "real", "keep_budget": 0.1}
    model = make_frozen(vision=vision, **options)
    trained = [name for name, weight in model.bga_mner.vision_encoder.named_parameters() if weight.requires_grad]
    assert bool(trained) == (vision in CONVOLUTIONAL)
    cached = cache_vision_states(dataset, model, processor)
    assert cached.column_names == ["tokens", "ner_tags", "vision_states"]
    results = []
    for rows, column in ((dataset, "pixel_values"), (cached, "vision_states")):
        batch = batches(rows, processor)
        assert column in batch
        assert batch["image_mask"].tolist() == [False, False, False, True, True, True]
        model.zero_grad()
        torch.manual_seed(3)
        output = model(**batch)
        output.loss.backward()
        losses = torch.stack([output.loss, output.crf_loss, output.reconstruction_loss, output.cycle_loss])
        results.append((losses.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (losses, gradients), (cached_losses, cached_gradients) = results
    torch.testing.assert_close(cached_losses, losses, rtol=0, atol=1e-5)
    assert gradients.keys() == cached_gradients.keys()
    # the last layer learns from what reads its output, if anything does
    assert len(gradients.keys() & {f"bga_mner.vision_encoder.{name}" for name in trained}) >= len(trained) // 2
    for name, gradient in gradients.items():
        torch.testing.assert_close(cached_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_real_images_are_read_from_the_cache_too(dataset, processor, make_frozen):
    model = make_frozen().eval()
    both = [batches(rows, processor) for rows in (dataset, cache_vision_states(dataset, model, processor))]
    with torch.no_grad():
        whole, cached = (model(**batch, visual_source="real").emissions for batch in both)
        generated = model(**both[0]).emissions
    torch.testing.assert_close(cached, whole)
    assert not torch.allclose(generated[3:], whole[3:])


@pytest.mark.parametrize("vision", ["vit", "efficientnet"])
def test_trainer_takes_the_same_steps(dataset, processor, make_frozen, tmp_path, vision):
    weights = []
    for cache in (False, True):
        model = make_frozen(vision=vision)
        rows = cache_vision_states(dataset, model, processor) if cache else dataset
        arguments = TrainingArguments(
            str(tmp_path), max_steps=5, per_device_train_batch_size=3, learning_rate=1e-2, seed=0, report_to=[],
            save_strategy="no", remove_unused_columns=False, disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        rows = rows.with_transform(processor.encode_examples)
        Trainer(model, arguments, train_dataset=rows, data_collator=DataCollatorForMner(processor)).train()
        weights.append(model.state_dict())
    for name, weight in weights[0].items():
        # Adam divides by the gradient's size: what only rounding moves may move by a step either way
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-5, msg=name)


def runs_of(model):
    """Count the images that the vision encoder reads."""
    counted = []
    model.bga_mner.vision_encoder.embeddings.register_forward_hook(lambda *call: counted.append(len(call[2])))
    return counted


def test_a_second_run_finds_what_the_first_computed_and_nothing_else(dataset, processor, make_frozen, tmp_path):
    folder = tmp_path / "cache"
    model = make_frozen()
    counted = runs_of(model)
    first = cache_vision_states(dataset, model, processor, cache_dir=folder)
    assert sum(counted) == 3
    again = cache_vision_states(dataset, model, processor, cache_dir=folder)
    assert sum(counted) == 3
    assert again["vision_states"][:] == first["vision_states"][:]

    def key():
        before = sum(counted)
        found = cache_vision_states(dataset, model, processor, cache_dir=folder)
        assert sum(counted) == before + 3
        return found

    processor.image_processor.image_mean = [0.1, 0.1, 0.1]
    other = key()["vision_states"][:]
    assert other[:3] == [None] * 3 != other[3:]
    assert other != first["vision_states"][:]
    with torch.no_grad():
        next(model.bga_mner.vision_encoder.parameters()).view(-1)[0] += 1
    assert key()["vision_states"][:] != other
    # the dataset itself belongs to the key
    cache_vision_states(dataset.select(range(5)), model, processor, cache_dir=folder)
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("kind", ["not decoded", "decoded", "path"])
def test_an_image_that_was_mended_or_replaced_is_encoded_anew(dataset, processor, make_frozen, tmp_path, kind):
    files = [tmp_path / name for name in ("broken.png", "red.png", "late.png")]
    if kind == "decoded":  # datasets itself raises on what it can't decode
        Pillow.new("RGB", (5, 5), "pink").save(files[0])
    paths = [row and row["path"] for row in dataset["image"]]
    feature = Value("string") if kind == "path" else Image(decode=kind == "decoded")
    dataset = dataset.remove_columns("image").add_column("image", paths).cast_column("image", feature)
    model, folder = make_frozen(), tmp_path / "cache"
    counted = runs_of(model)

    def states(rows=dataset):
        counted.clear()
        return cache_vision_states(rows, model, processor, cache_dir=folder)["vision_states"][:]

    first, some = states(), dataset.select([5, 4, 0])
    states(some)
    assert states() == first
    assert not counted
    Pillow.new("RGB", (7, 7), "white").save(files[0])
    mended = states()
    assert sum(counted) == 4
    assert mended[1] not in (None, first[1])
    assert mended[2:] == first[2:]
    # of the same size in bytes, at another time
    status = files[1].stat()
    Pillow.open(tmp_path / "green.png").save(files[1])
    assert files[1].stat().st_size == status.st_size
    os.utime(files[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert states()[3] == mended[4] != mended[3]
    # what changed is no image of these rows
    states(some)
    assert not counted


@pytest.mark.filterwarnings("ignore:Some texts have several images")
def test_of_several_images_a_text_the_first_is_cached_and_a_change_is_seen(processor, make_frozen, tmp_path):
    paths = [str(tmp_path / f"{colour}.png") for colour in ("red", "blue")]
    for path in paths:
        Pillow.new("RGB", (9, 9), os.path.basename(path)[:-4]).save(path)
    feature = Features({"image": List(Image(decode=False))})
    rows = Dataset.from_dict({"image": [paths, paths[1:], []]}, feature)
    single = Dataset.from_dict({"image": [*paths, None]}, Features({"image": Image(decode=False)}))
    model = make_frozen()

    def states(dataset):
        return cache_vision_states(dataset, model, processor, cache_dir=tmp_path / "cache")["vision_states"][:]

    first = states(rows)
    assert first == states(single)
    picked = states(rows.select([1, 0]))
    assert picked == [first[1], first[0]]
    Pillow.new("RGB", (7, 7), "white").save(paths[0])
    assert states(rows) == states(single) != first
    assert states(rows.select([1, 0])) != picked


def test_what_is_no_file_does_not_keep_images_from_being_cached(processor, make_frozen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Pillow.new("RGB", (9, 9), "red").save("a.png")
    content = (tmp_path / "a.png").read_bytes()
    rows = [{"bytes": content, "path": name} for name in ("a.png", None)] + [{"bytes": None, "path": "gone.png"}, None]
    # datasets' own feature drops the bytes where there is such a file
    model, kind = make_frozen(), {"bytes": Value("binary"), "path": Value("string")}
    counted = runs_of(model)

    def cache(images, feature):
        rows = Dataset.from_dict({"image": images}, Features({"image": feature}))
        return cache_vision_states(rows, model, processor, cache_dir=tmp_path / "cache")["vision_states"][:]

    with pytest.warns(UserWarning, match="1 of 3 images cannot be used"):
        found = cache(rows, kind)
    assert found[0] == found[1] != found[2]
    assert found[2:] == [None, None]
    # the dataset's own bytes are what is read, whatever becomes of the file
    Pillow.new("RGB", (9, 9), "blue").save("a.png")
    counted.clear()
    assert cache(rows, kind) == found
    assert not counted
    # a file that comes later
    os.replace("a.png", "gone.png")
    assert cache(rows, kind)[2] not in (None, found[0])
    assert cache([content, None], Value("binary")) == [found[0], None]
    assert cache([{"bytes": content}], {"bytes": Value("binary")}) == found[:1]
    with pytest.warns(UserWarning, match="1 of 1 images cannot be used"):
        assert cache(["a\0b"], Value("string")) == [None]


def test_feature_maps_are_found_again_whatever_the_new_layers(dataset, processor, make_frozen, tmp_path):
    model, folder = make_frozen(vision="resnet"), tmp_path / "cache"
    first = cache_vision_states(dataset, model, processor, cache_dir=folder)
    with torch.no_grad():
        model.bga_mner.vision_encoder.projection.weight.add_(1)
    assert (
        cache_vision_states(dataset, model, processor, cache_dir=folder)["vision_states"][:]
        == first["vision_states"][:]
    )
    assert len(list(folder.iterdir())) == 1
    # frozen as a whole, states of all layers are kept, as of any encoder
    model.freeze_vision_encoder(new_layers=True)
    whole = cache_vision_states(dataset, model, processor, cache_dir=folder)
    shapes = [read_vision_states(rows["vision_states"][3]).shape for rows in (first, whole)]
    config = model.config
    assert shapes == [(1, config.num_vision_tokens, 8), (config.num_stages + 1, config.num_vision_tokens, 24)]
    # the model knows each by its shape
    losses = [model.eval()(**batches(rows, processor)).loss for rows in (dataset, first, whole)]
    torch.testing.assert_close(losses[1:], losses[:1] * 2)


def test_runs_without_dropout_and_leaves_the_model_as_it_was(dataset, processor, make_frozen):
    model = make_frozen(vision_options={"hidden_dropout_prob": 0.5})
    same = [cache_vision_states(dataset.select([3, 3]), model, processor)["vision_states"][:] for _ in range(2)]
    assert len({data for column in same for data in column}) == 1
    model.bga_mner.vision_encoder.eval()
    modes = [module.training for module in model.modules()]
    cache_vision_states(dataset, model, processor)
    assert [module.training for module in model.modules()] == modes


def test_what_cannot_be_cached_is_refused(dataset, processor, make_frozen, make_model):
    model = make_frozen()
    with pytest.raises(ValueError, match="Streamed data is seen once per epoch"):
        cache_vision_states(IterableDataset.from_generator(lambda: iter(())), model, processor)
    with pytest.raises(ValueError, match="Expected a column 'image'"):
        cache_vision_states(dataset.remove_columns("image"), model, processor)
    with pytest.raises(ValueError, match=r"freeze_vision_encoder\(\)"):
        cache_vision_states(dataset, make_model("bert", "vit"), processor)
    with pytest.raises(ValueError, match="hybrid_attention='both'"):
        cache_vision_states(dataset.select([3]), make_frozen(hybrid_attention="both"), processor)
    with pytest.raises(ValueError, match="has no vision encoder"):
        cache_vision_states(dataset.select([3]), make_model("bert", "vit", text_only=True), processor)


def test_the_model_refuses_states_that_are_not_its_own(make_model, make_batch):
    model, batch = make_model(), make_batch()
    states = model.bga_mner.encode_images(batch["pixel_values"])
    assert states.shape == (len(batch["input_ids"]), model.config.num_stages + 1, model.config.num_vision_tokens, 24)
    with pytest.raises(ValueError, match="Expected pixel_values or vision_states, got both"):
        model(**batch, vision_states=states)
    del batch["pixel_values"]
    with pytest.raises(ValueError, match="Let this model's encode_images make them"):
        model(**batch, vision_states=states[:, 1:])
    with pytest.raises(ValueError, match="got vision_states"):
        make_model(hybrid_attention="both")(**batch, vision_states=states)
    with pytest.raises(ValueError, match=r"text_only=True .*, got vision_states"):
        make_model(text_only=True)(**batch, vision_states=states)


def test_bytes_that_are_no_states_are_refused():
    states = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    data = write_vision_states(states)
    assert (read_vision_states(data) == states).all()
    for broken in (b"", b"no array", data[:-1], write_vision_states(states[0]), None):
        with pytest.raises(ValueError, match="cache anew"):
            read_vision_states(broken)


def test_a_batch_holds_images_or_states_of_them(processor):
    row = {"input_ids": [2, 3]}
    rows = [row | {"pixel_values": np.zeros((3, 2, 2))}, row | {"vision_states": np.zeros((3, 2, 2))}]
    with pytest.raises(ValueError, match="Cache the vision states of the whole dataset"):
        DataCollatorForMner(processor)(rows)
