"""Vision towers of open_clip; run by tests/package/test_beside_torchvision.py, where open_clip is installed."""

from __future__ import annotations

import json
import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, BertConfig, BertModel

from bga_mner import BgaMnerForTokenClassification, load_image_processor, write_conll
from bga_mner.examples import run_mner
from bga_mner.examples.synthetic.corpus import generate_corpus
from bga_mner.examples.synthetic.tokenizer import build_tokenizer
from bga_mner.modeling_bga.encoders.open_clip import load_open_clip_encoder, open_clip_config


if find_spec("open_clip") is None or find_spec("torchvision") is None:
    pytest.skip("open_clip or torchvision is not installed", allow_module_level=True)

import open_clip


ROOT = Path(__file__).resolve().parents[3]
VISION = {"image_size": 32, "layers": 3, "width": 48, "head_width": 12, "patch_size": 8, "mlp_ratio": 3.0}
TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
TINY = {"embed_dim": 20, "vision_cfg": VISION, "text_cfg": TEXT}
MODELS = {
    "tiny-gelu": TINY,
    "tiny-quickgelu": TINY | {"quick_gelu": True},
    "tiny-larger": TINY | {"vision_cfg": VISION | {"image_size": 48}},
    "tiny-deeper": TINY | {"vision_cfg": VISION | {"layers": 4}},
    "tiny-scaled": TINY | {"vision_cfg": VISION | {"ls_init_value": 0.1}},
    "tiny-mean": TINY | {"vision_cfg": VISION | {"pool_type": "avg"}},
    "tiny-wide": TINY | {"vision_cfg": VISION | {"image_size": [32, 64]}},
    "tiny-normed": TINY | {"vision_cfg": VISION | {"norm_kwargs": {"eps": 1e-3}}},
}


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, config in MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def make_model(name):
    """Build an open_clip model with random weights, none of which is zero: that would hide mistakes."""
    model = open_clip.create_model(name, pretrained=None).eval()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def make_text(vocab_size=60):
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
    return BertModel(BertConfig(vocab_size=vocab_size, max_position_embeddings=64, **sizes))


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a random model's weights, and returns the model and the file's name."""

    def save(name, suffix=".safetensors", only=""):
        model = make_model(name)
        file = tmp_path / f"{name}{suffix}"
        weights = {key: tensor.contiguous() for key, tensor in model.state_dict().items() if key.startswith(only)}
        save_file(weights, file) if suffix == ".safetensors" else torch.save({"state_dict": weights}, file)
        return model, f"open_clip:{name}/{file}"

    return save


def differences(model, encoder):
    """Return the largest differences of what both make of images: of all states, and of the pooled output."""
    visual, side = model.visual, encoder.config.image_size
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        found = visual.forward_intermediates(images, output_fmt="NLC", output_extra_tokens=True)
        layers = zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
        theirs = [visual._embeds(images), *(torch.cat(parts, dim=1) for parts in layers)]
        projection, visual.proj = visual.proj, None
        pooled = visual(images)
        visual.proj = projection
        output = encoder(images, output_hidden_states=True)
    states = [float((a - b).abs().max()) for a, b in zip(output.hidden_states, theirs, strict=True)]
    return max(states), float((output.pooler_output - pooled).abs().max())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", ["tiny-gelu", "tiny-quickgelu"])
def test_states_and_pooled_output_are_open_clips(saved, name, suffix):
    model, checkpoint = saved(name, suffix)
    encoder = load_open_clip_encoder(checkpoint)
    assert encoder.config.num_attention_heads == 4
    assert encoder.config.intermediate_size == 144
    assert max(differences(model, encoder)) < 1e-4
    # the two activations are near each other, but not that near
    other = open_clip_config(checkpoint)
    other.hidden_act = "gelu" if name == "tiny-quickgelu" else "quick_gelu"
    assert min(differences(model, load_open_clip_encoder(checkpoint, other))) > 1e-3


def test_a_model_of_full_size(saved):
    model, checkpoint = saved("ViT-B-32", only="visual.")
    assert max(differences(model, load_open_clip_encoder(checkpoint))) < 1e-4


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Return a function that publishes a saved model's weights as a tag of it, on a server of this machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where open_clip keeps what it downloads
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def publish(checkpoint, tag="laion_tiny", **options):
        model, _, file = checkpoint.removeprefix("open_clip:").partition("/")
        url = f"http://127.0.0.1:{server.server_port}/{Path(file).name}"
        entry = open_clip.pretrained._pcfg(url=url, **options)
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, model, {tag: entry})
        return f"open_clip:{model}/{tag}"

    publish.asked = asked
    yield publish
    server.shutdown()
    server.server_close()


def test_the_weights_of_a_tag_are_downloaded_by_open_clip(saved, serve):
    model, checkpoint = saved("tiny-gelu")
    name = serve(checkpoint)
    assert max(differences(model, load_open_clip_encoder(name))) < 1e-4
    assert serve.asked == ["/tiny-gelu.safetensors"]
    # tags may be spelled so, and open_clip keeps the file
    load_open_clip_encoder(name.replace("laion_tiny", "laion-tiny"))
    assert serve.asked == ["/tiny-gelu.safetensors"]


def test_weights_know_their_activation_better_than_the_models_name(saved, serve):
    model, checkpoint = saved("tiny-quickgelu")
    file = checkpoint.partition("/")[2]
    name = serve(f"open_clip:tiny-gelu/{file}", quick_gelu=True)
    assert max(differences(model, load_open_clip_encoder(name))) < 1e-4
    assert open_clip_config("open_clip:ViT-B-32/openai").hidden_act == "quick_gelu"
    assert open_clip_config("open_clip:ViT-B-32/laion2b_s34b_b79k").hidden_act == "gelu"


@pytest.mark.parametrize("size", [(32, 32), (100, 61), (37, 90)])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_prepared_as_open_clip_does(saved, serve, tmp_path, size, mode, interpolation):
    colours = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    ways = {"resize_mode": mode, "interpolation": interpolation}
    name = serve(saved("tiny-gelu")[1], **colours, **ways)
    transform = open_clip.image_transform(32, is_train=False, **colours, **ways)
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image_processor = load_image_processor(name)
    ours = image_processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(ours, transform(image), atol=1e-5)
    image_processor.save_pretrained(tmp_path / "processor")
    again = AutoImageProcessor.from_pretrained(tmp_path / "processor")(image, return_tensors="pt")["pixel_values"][0]
    # beside torchvision another class is chosen, which rounds otherwise
    assert (again - ours).abs().mean() < 0.02


def test_a_file_gets_clips_colours(saved):
    image_processor = load_image_processor(saved("tiny-gelu")[1])
    assert tuple(image_processor.image_mean) == open_clip.OPENAI_DATASET_MEAN
    assert tuple(image_processor.image_std) == open_clip.OPENAI_DATASET_STD
    changed = load_image_processor(saved("tiny-gelu")[1], image_mean=[0.5] * 3)
    assert (tuple(changed.image_mean), changed.crop_size) == ((0.5,) * 3, image_processor.crop_size)


def test_what_is_saved_needs_no_open_clip(saved, tmp_path, run_python):
    model, checkpoint = saved("tiny-quickgelu")
    ours = BgaMnerForTokenClassification.from_text_vision_pretrained(make_text(), checkpoint, labels=["O", "B-PER"])
    encoder = ours.bga_mner.vision_encoder
    assert max(differences(model, encoder)) < 1e-4
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = ours(input_ids=torch.tensor([[3, 4, 5]]), pixel_values=images).vision_last_hidden_state
        assert torch.allclose(expected, encoder(images).last_hidden_state, atol=1e-5)
    ours.save_pretrained(tmp_path / "model")
    save_file({"images": images, "expected": expected}, tmp_path / "seen.safetensors")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["vision_config"]["hidden_act"] == "quick_gelu"
    assert "open_clip" not in json.dumps(config)
    code = """
from importlib.util import find_spec
assert find_spec("open_clip") is None
import torch
from safetensors.torch import load_file
from bga_mner import BgaMnerForTokenClassification
seen = load_file("seen.safetensors")
model = BgaMnerForTokenClassification.from_pretrained("model")
found = model(input_ids=torch.tensor([[3, 4, 5]]), pixel_values=seen["images"]).vision_last_hidden_state
print(float((found - seen["expected"]).abs().max()))
"""
    assert float(run_python(code)) < 1e-5


def test_run_mner_takes_the_name(saved, tmp_path):
    corpus = generate_corpus(names_per_type=2, train_labelled=8, train_unlabelled=0, test_sentences=4)
    tokenizer = build_tokenizer(corpus.sentences())
    tokenizer.save_pretrained(tmp_path / "text")
    make_text(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "text")
    write_conll(tmp_path / "train.txt", corpus.train["tokens"], corpus.train["ner_tags"], corpus.train["id"])
    (tmp_path / "images").mkdir()
    for row in corpus.train:
        (tmp_path / "images" / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
    model, checkpoint = saved("tiny-gelu")
    options = {"train_file": "train.txt", "image_dir": "images", "text_model": "text", "output_dir": "out"}
    arguments = [word for flag, name in options.items() for word in (f"--{flag}", str(tmp_path / name))]
    more = ["--vision_model", checkpoint, "--freeze_vision_encoder", "true", "--max_steps", "1", "--use_cpu", "true"]
    run_mner.main([*arguments, *more, "--num_bga_layers", "2", "--image_size", "24"])
    weights = load_file(tmp_path / "out" / "model.safetensors")
    positions = weights["bga_mner.vision_encoder.embeddings.position_embedding.weight"]
    assert torch.equal(positions, model.visual.positional_embedding)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["image_size"] == 24


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B32/openai", "got 'ViT-B32'. Did you mean ViT-B-32"),
        ("open_clip:hf-hub:org/model", "got 'hf-hub:org'"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79", "got 'laion2b_s34b_b79'. Did you mean laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32", "got 'nothing'. There are openai, "),
        ("open_clip:ViT-S-32/missing.safetensors", "or a file of weights, got 'missing.safetensors'. It has none."),
        ("open_clip:RN50/openai", "is a ModifiedResNet"),
        ("open_clip:ViT-B-16-SigLIP/webli", "is timm's vit_base_patch16_siglip_224"),
        ("open_clip:coca_ViT-B-32/laion2b_s13b_b90k", "pools by attention"),
        ("open_clip:ViT-L-14-CLIPA/datacomp1b", "has no norm before its layers"),
        (f"open_clip:tiny-scaled/{__file__}", "has ls_init_value=0.1"),
        (f"open_clip:tiny-mean/{__file__}", "has pool_type='avg'"),
        (f"open_clip:tiny-normed/{__file__}", "has norm_kwargs="),
        (f"open_clip:tiny-wide/{__file__}", "not square"),
        (f"open_clip:tiny-gelu/{__file__}", "Expected tensors alone"),
    ],
)
def test_says_what_cannot_be_used(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BgaMnerForTokenClassification.from_text_vision_pretrained(make_text(), name)


def test_every_other_vision_transformer_of_open_clip_is_taken():
    refused = []
    for name, tag in open_clip.list_pretrained():
        try:
            open_clip_config(f"open_clip:{name}/{tag}")
        except ValueError:
            refused.append(name)
    taken = {name for name, _ in open_clip.list_pretrained()} - set(refused)
    assert {"ViT-B-16", "ViT-L-14-336", "ViT-H-14-quickgelu", "ViT-bigG-14", "xlm-roberta-base-ViT-B-32"} <= taken
    assert not [name for name in taken if "timm_model_name" in open_clip.get_model_config(name)["vision_cfg"]]


class Gadget:
    def __reduce__(self):
        return print, ("run",)


def test_pickles_that_run_code_are_refused(saved, tmp_path, capsys):
    file = tmp_path / "gadget.pt"
    torch.save({"visual.proj": Gadget()}, file)
    with pytest.raises(ValueError, match="Expected tensors alone"):
        load_open_clip_encoder(f"open_clip:tiny-gelu/{file}")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("other", ["tiny-larger", "tiny-deeper"])
def test_weights_of_another_model_are_refused(saved, other):
    file = saved("tiny-gelu")[1].partition("/")[2]
    with pytest.raises(ValueError, match=r"to fit its model, but \d+ don't"):
        load_open_clip_encoder(f"open_clip:{other}/{file}")
