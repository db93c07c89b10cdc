"""From a push to the Hub to a prediction in a process without this package, and back, over a Hub on this machine."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil, pipeline

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor
from bga_mner.configuration.hub.remote_code import code_files
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


pytestmark = pytest.mark.slow


TEXTS = ["Kawhi wins in Toronto", "the fans of Toronto vote for Kawhi"]
WEIGHTS_AND_CARD = {".gitattributes", ".gitignore", "README.md", "config.json", "model.safetensors"}
PROCESSOR = {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}

PUSH = """
import torch
from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor

model = BgaMnerForTokenClassification.from_pretrained("local")
processor = BgaMnerProcessor.from_pretrained("local")
model.push_to_hub("org/bga-mner")
processor.push_to_hub("org/bga-mner")
model.push_to_hub("org/text-only", text_only=True, private=True)
# the other way, into folders that hold old code
model.save_pretrained("local", push_to_hub=True, repo_id="org/model")
processor.save_pretrained("local", push_to_hub=True, repo_id="org/processor")
model.config.save_pretrained("local", push_to_hub=True, repo_id="org/config")
"""

# Runs where the package is missing; `report` is the last line of what it prints.
SHARED = """
import json, os, sys
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoProcessor, AutoTokenizer, pipeline

assert not any(name.startswith("bga_mner") for name in sys.modules)
torch.set_num_threads(1)  # as in the tests, for numbers that are equal to the bit
torch.set_grad_enabled(False)
texts, trusted = json.loads(os.environ["TEXTS"]), {"trust_remote_code": True}


def predictions(repository):
    model = AutoModelForTokenClassification.from_pretrained(repository, **trusted)
    processor = AutoProcessor.from_pretrained(repository, **trusted)
    found = {"logits": model(**processor(texts, return_tensors="pt")).logits.tolist()}
    found["tokens"] = AutoTokenizer.from_pretrained(repository, trust_remote_code=False)(texts)["input_ids"]
    found["stock"] = [
        [(entity["entity_group"], entity["start"], entity["end"], float(entity["score"])) for entity in entities]
        for entities in pipeline(
            "token-classification", model=repository, aggregation_strategy="simple", **trusted
        )(texts)
    ]
    tagger = pipeline("multimodal-ner", model=repository, **trusted)
    found["multimodal"] = tagger(texts)
    image = Image.new("RGB", (20, 30), "red")
    pair = processor(texts[:1], images=[image], return_tensors="pt")
    found["multimodal_pair"] = tagger({"text": texts[0], "image": image}, visual_source="real")
    base = AutoModel.from_pretrained(repository, **trusted)
    found["pair"] = model(**pair).vision_last_hidden_state.tolist()
    found["base"] = base(**pair).last_hidden_state.tolist()
    return found
"""

UNTRUSTED = (
    SHARED
    + """
refused = []
for auto_class in (AutoConfig, AutoModel, AutoModelForTokenClassification, AutoProcessor):
    for answer in ({}, {"trust_remote_code": False}):
        try:
            auto_class.from_pretrained("org/bga-mner", **answer)
        except ValueError as error:
            assert "custom code" in str(error) or "does not recognize" in str(error), error
            refused.append(auto_class.__name__)
AutoTokenizer.from_pretrained("org/bga-mner", trust_remote_code=False)
report = {"refused": refused, "run": [name for name in sys.modules if name.startswith("transformers_modules")]}
report["code"] = [name for _, _, names in os.walk(os.environ["HF_HOME"]) for name in names if name.endswith(".py")]
print("\\n" + json.dumps(report))
"""
)

TRUSTED = (
    SHARED
    + """
# alone, each reaches all code
AutoConfig.from_pretrained("org/bga-mner", **trusted).save_pretrained("config")
report = {"config": os.listdir("config"), "hub": predictions("org/bga-mner")}
model = AutoModelForTokenClassification.from_pretrained("org/bga-mner", **trusted)
processor = AutoProcessor.from_pretrained("org/bga-mner", **trusted)
model.save_pretrained("again")
processor.save_pretrained("again")
report["again"] = predictions("again")
pipeline("multimodal-ner", model="again", **trusted).save_pretrained("piped")
report["piped"] = os.listdir("piped")
model.push_to_hub("org/again")
processor.push_to_hub("org/again")
model.push_to_hub("org/again-text-only", text_only=True)
report["text_only"] = AutoModelForTokenClassification.from_pretrained("org/text-only", **trusted)(
    **processor(texts, return_tensors="pt")
).logits.tolist()
print("\\n" + json.dumps(report))
"""
)

OFFLINE = (
    SHARED
    + """
print(json.dumps(predictions("org/bga-mner")))
"""
)


@pytest.fixture
def saved(make_model, tmp_path):
    """Save a model and a processor in `local`; return both."""
    tokenizer = build_tokenizer([text.split() for text in TEXTS])
    model = make_model(text_options={"vocab_size": len(tokenizer)})
    image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    processor = BgaMnerProcessor(image_processor, tokenizer, label2id=model.config.label2id)
    model.save_pretrained(tmp_path / "local")
    processor.save_pretrained(tmp_path / "local")
    return model, processor


def expected_predictions(model: BgaMnerForTokenClassification, processor: BgaMnerProcessor):
    """Return what SHARED's `predictions` should, from the package."""
    stock = pipeline("token-classification", model=model, tokenizer=processor.tokenizer, aggregation_strategy="simple")
    tagger = pipeline("multimodal-ner", model=model, processor=processor)
    image = Image.new("RGB", (20, 30), "red")
    pair = processor(TEXTS[:1], images=[image], return_tensors="pt")
    with torch.no_grad():
        return {
            "logits": model(**processor(TEXTS, return_tensors="pt")).logits.tolist(),
            "tokens": processor.tokenizer(TEXTS)["input_ids"],
            "stock": [
                [
                    [entity["entity_group"], entity["start"], entity["end"], float(entity["score"])]
                    for entity in entities
                ]
                for entities in stock(TEXTS)
            ],
            "multimodal": tagger(TEXTS),
            "multimodal_pair": tagger({"text": TEXTS[0], "image": image}, visual_source="real"),
            "pair": model(**pair).vision_last_hidden_state.tolist(),
            "base": model.bga_mner(**pair).last_hidden_state.tolist(),
        }


def test_a_repository_lives_without_the_package(saved, loopback_hub, bare_python, run_python, tmp_path):
    model, processor = saved
    code, expected = set(code_files()), expected_predictions(model, processor)
    run_python(PUSH, environment=loopback_hub.environment(tmp_path / "home"))
    assert set(loopback_hub.files("org/bga-mner")) == code | WEIGHTS_AND_CARD | PROCESSOR
    assert set(loopback_hub.files("org/model")) == code | WEIGHTS_AND_CARD
    assert set(loopback_hub.files("org/text-only")) == code | WEIGHTS_AND_CARD
    assert loopback_hub.repositories["org/text-only"].private
    assert set(loopback_hub.files("org/processor")) == code | PROCESSOR | {".gitattributes", ".gitignore"}
    assert set(loopback_hub.files("org/config")) == code | {"config.json", ".gitattributes", ".gitignore"}

    environment = loopback_hub.environment(tmp_path / "other") | {"TEXTS": json.dumps(TEXTS)}
    untrusted = json.loads(run_python(UNTRUSTED, bare_python, environment).splitlines()[-1])
    assert len(untrusted["refused"]) == 8
    assert not untrusted["run"]
    assert not untrusted["code"]  # not even fetched

    report = json.loads(run_python(TRUSTED, bare_python, environment).splitlines()[-1])
    assert set(report["config"]) == code | {"config.json", ".gitignore"}
    assert report["hub"] == expected
    assert report["again"] == expected
    assert set(report["piped"]) >= code | PROCESSOR | {".gitignore", "config.json", "model.safetensors"}
    assert report["text_only"] == expected["logits"]
    for name in ("org/again", "org/again-text-only"):
        files, origin = loopback_hub.files(name), "org/bga-mner" if name == "org/again" else "org/text-only"
        assert set(files) == set(loopback_hub.files(origin))
        for file in {*code, "model.safetensors"}:
            assert files[file] == loopback_hub.files(origin)[file], file
        ours, theirs = (json.loads(loopback_hub.files(place)["config.json"]) for place in (name, origin))
        assert ours == theirs

    loopback_hub.close()
    offline = run_python(OFFLINE, bare_python, environment | {"HF_HUB_OFFLINE": "1"})
    assert json.loads(offline.splitlines()[-1]) == expected
