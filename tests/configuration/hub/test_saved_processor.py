"""The processor and pipeline of a saved model, in a Python without the package."""

import json

import pytest
from PIL import Image
from transformers import ViTImageProcessorPil

from bga_mner import BgaMnerProcessor
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


RUN = """
import json, sys, warnings
from transformers import AutoProcessor, pipeline
from transformers import AutoModelForTokenClassification

processor = AutoProcessor.from_pretrained("local", trust_remote_code=True)
image = {"bytes": b"", "path": None}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    batch = processor([["Kawhi", "wins"], ["x"]], images=[image, "photo.png"], word_labels=[["B-PER", "O"], None])
found = {"ids": batch["input_ids"], "labels": batch["labels"], "pixels": float(batch["pixel_values"].sum())}
found["warning"] = str(caught[-1].message)


def error(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        return [type(error).__name__, str(error)]


found["columns"] = error(processor.encode_examples, {"tokens": [["Kawhi"]]})
found["tag"] = error(processor, [["Kawhi"]], word_labels=[["S-PER"]])
found["image"] = error(processor, ["a"], images=[3])
found["text"] = error(processor, [3])
model = AutoModelForTokenClassification.from_pretrained("local", trust_remote_code=True)
pipe = pipeline("multimodal-ner", model="local", trust_remote_code=True, allow_urls=True)
found["entities"] = pipe(["Kawhi wins", "\\u6771\\u4eac"])
url = {"text": "Kawhi", "image": "http://127.0.0.1:1/a.png"}
found["url"] = error(pipe, url, visual_source="real")
processor.save_pretrained("again")
found["package"] = [name for name in sys.modules if name.startswith("bga_mner")]
print("\\n" + json.dumps(found))
"""


@pytest.mark.slow
def test_a_saved_processor_needs_no_package(make_model, bare_python, run_python, tmp_path):
    tokenizer = build_tokenizer([["Kawhi", "wins"]])
    model = make_model(text_options={"vocab_size": len(tokenizer)})
    image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    processor = BgaMnerProcessor(image_processor, tokenizer, label2id=model.config.label2id)
    model.save_pretrained(tmp_path / "local")
    processor.save_pretrained(tmp_path / "local")
    Image.new("RGB", (20, 30), "red").save(tmp_path / "photo.png")
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    found = json.loads(run_python(RUN, bare_python, environment).splitlines()[-1])
    photo = Image.new("RGB", (20, 30), "red")
    with pytest.warns(UserWarning, match="1 of 2 images"):
        batch = processor([["Kawhi", "wins"], ["x"]], images=[b"", photo], word_labels=[["B-PER", "O"], None])
    assert (found["ids"], found["labels"]) == (batch["input_ids"], batch["labels"])
    assert found["pixels"] == float(batch["pixel_values"].sum())
    assert "1 of 2 images cannot be used" in found["warning"]
    assert found["columns"][0] == "ImportError"
    assert "pip install bga-mner" in found["columns"][1]
    assert found["tag"][0] == "ValueError"
    assert "Expected a BIO tag such as 'O', 'B-PER' or 'I-PER', got 'S-PER'" in found["tag"][1]
    assert found["image"][0] == "TypeError"
    assert found["text"][0] == "ValueError"
    assert len(found["entities"]) == 2
    assert found["url"][0] == "ImportError"
    assert "pip install bga-mner" in found["url"][1]
    assert not found["package"]
    assert (tmp_path / "again" / "processing_bga_mner.py").is_file()
