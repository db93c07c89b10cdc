"""The four files of code that a saved model carries: joined from the package's modules, and nothing else in them."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
    ViTImageProcessorPil,
)
from transformers.dynamic_module_utils import get_imports, get_relative_import_files
from transformers.pipelines import PIPELINE_REGISTRY

import bga_mner
from bga_mner import BgaMnerConfig, BgaMnerProcessor
from bga_mner.configuration.hub.code_bundle import ENTRY_MODULES, bundle, bundle_package, main, sizes
from bga_mner.configuration.hub.entry_points import AUTO_MAP, CODE_FILES, CUSTOM_PIPELINES
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


ROOT = Path(bga_mner.__file__).parent
MOST_BYTES = {
    "configuration_bga_mner.py": 54_000,
    "modeling_bga_mner.py": 181_000,
    "processing_bga_mner.py": 82_000,
    "pipeline_bga_mner.py": 36_000,
}


def lay(root, modules):
    for name, text in modules.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def joined(root, modules, *entries):
    lay(root, modules)
    return bundle(root, {f"{Path(entry).stem}.py": [root / entry] for entry in entries})


def test_entry_points_are_the_classes_that_the_package_registers():
    auto_classes = {
        "AutoConfig": AutoConfig.for_model("bga_mner"),
        "AutoModel": AutoModel._model_mapping[BgaMnerConfig],
        "AutoModelForSequenceClassification": AutoModelForSequenceClassification._model_mapping[BgaMnerConfig],
        "AutoModelForTokenClassification": AutoModelForTokenClassification._model_mapping[BgaMnerConfig],
        "AutoProcessor": BgaMnerProcessor,
    }
    assert AUTO_MAP.keys() == auto_classes.keys()
    pipeline = PIPELINE_REGISTRY.supported_tasks["multimodal-ner"]
    loaded = {name: found if isinstance(found, type) else type(found) for name, found in auto_classes.items()}
    references = {**AUTO_MAP, "pipeline": CUSTOM_PIPELINES["multimodal-ner"]["impl"]}
    for name, found in {**loaded, "pipeline": pipeline["impl"]}.items():
        file, class_name = references[name].split(".")
        assert class_name == found.__name__
        assert f"\nclass {class_name}(" in bundle_package()[f"{file}.py"]
    entered = {name.removesuffix(".py").replace("/", ".") for paths in ENTRY_MODULES for name in paths}
    modules = {found.__module__.removeprefix("bga_mner.") for found in (*loaded.values(), pipeline["impl"])}
    assert entered == modules


def test_each_module_stands_in_one_file_whose_imports_are_at_the_top():
    files = bundle_package()
    assert tuple(files) == CODE_FILES
    carried = [name for text in files.values() for name in sizes(text) if name]
    assert len(carried) == len(set(carried))
    assert not {"configuration/hub/code_bundle.py", "configuration/hub/model_card.py"} & set(carried)
    for number, text in enumerate(files.values()):
        tree = ast.parse(text)
        siblings = {node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.level}
        assert siblings <= {name.removesuffix(".py") for name in CODE_FILES[:number]}
        assert not re.search(r"^\s*from \.\.|^\s*from \. |^\s*import \.", text, re.MULTILINE)


def test_transformers_finds_every_file_from_any_and_asks_for_few_packages(tmp_path):
    for name, text in bundle_package().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in CODE_FILES:
        found = {os.path.basename(path) for path in get_relative_import_files(tmp_path / name)}
        assert found | {name} == set(CODE_FILES)
    needed = {package for path in tmp_path.glob("*.py") for package in get_imports(path)} - sys.stdlib_module_names
    # huggingface_hub comes with transformers
    assert needed == {"PIL", "huggingface_hub", "numpy", "torch", "transformers"}


def test_the_code_does_not_grow():
    assert bundle_package().keys() == MOST_BYTES.keys()
    assert not {name for name, text in bundle_package().items() if len(text.encode()) > MOST_BYTES[name]}


def test_sizes_are_printed(capsys):
    main()
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith("modeling_bga/crf/crf.py") for line in lines)
    total = sum(len(text.encode()) for text in bundle_package().values())
    assert float(lines[-1].split()[0]) == pytest.approx(total / 1000, abs=0.1)


LOWER = '''"""What is below.

More of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from numpy import array as rows
from transformers.utils import logging


logger = logging.get_logger(__name__)

# how many
COUNT = 3  # of them
"""A constant."""


def lower(values: Mapping) -> Upper:
    """Keep   this."""
    return rows(values)


__all__ = ["COUNT", "lower"]
'''
UPPER = '''"""What is above."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from transformers.utils import logging

from ..one.deep.lower import COUNT, lower


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.get_logger(__name__)


class Upper:
    def card(self) -> Dataset:
        try:
            from ..one.card import write  # not carried
        except ImportError:
            return None
        return write(lower(COUNT))


__all__ = ["Upper"]
'''
OPTIONAL = '''"""What is beside."""

from ..one.deep.lower import COUNT

try:
    from ..one.card import write
except ImportError:  # where it isn't carried

    def write(count):
        """Write nothing."""


more = write(COUNT)
'''
PACKAGE = {"one/deep/lower.py": LOWER, "one/card.py": "import datasets\n", "two/upper.py": UPPER}


def test_modules_are_joined_as_they_stand(tmp_path):
    (text,) = joined(tmp_path, PACKAGE, "two/upper.py").values()
    head, body = text.split("\n\n\n", maxsplit=1)
    assert head == (
        '"""What is above."""\n\n# Made of modules of the package bga_mner: change them there.\n\n'
        "from __future__ import annotations\n\nimport json\nimport os\n"
        "from collections.abc import Iterable, Mapping\nfrom typing import TYPE_CHECKING\n\n"
        "from numpy import array as rows\nfrom transformers.utils import logging"
    )
    lower, upper = body.split("# ---- two/upper.py: What is above.\n\n\n")
    expected = LOWER[LOWER.index("logger =") : LOWER.index("\n\n__all__")].strip()
    assert lower.strip() == f"# ---- one/deep/lower.py: What is below.\n\n\n{expected}"
    expected = UPPER[UPPER.index("class Upper") : UPPER.index("\n\n__all__")].strip()
    assert upper.strip() == expected.replace("from ..one.card import", "from bga_mner.one.card import")


def test_what_is_imported_if_it_is_there_is_not_carried_but_what_stands_for_it_is(tmp_path):
    (text,) = joined(tmp_path, {**PACKAGE, "two/optional.py": OPTIONAL}, "two/optional.py").values()
    body = text.split("# ---- two/optional.py: What is beside.\n\n\n")[1]
    assert body == 'def write(count):\n    """Write nothing."""\n\n\nmore = write(COUNT)\n'


def test_a_module_goes_to_the_first_file_that_needs_it(tmp_path):
    files = joined(tmp_path, PACKAGE, "one/deep/lower.py", "two/upper.py")
    assert [list(sizes(text)) for text in files.values()] == [["", "one/deep/lower.py"], ["", "two/upper.py"]]
    assert "\n\nfrom .lower import COUNT, lower\n" in files["upper.py"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from ..one.deep.lower import COUNT as MOST", "line 1, got .*don't rename it"),
        ("from ..one.deep.lower import *", "don't rename it"),
        ("from . import other", "Name the module's own file"),
        ("from ..one import deep", "Name the module's own file"),
        ("def f():\n    from ..one.deep.lower import COUNT", "line 2, got .*Move it there"),
        ("if TYPE_CHECKING:\n    x = 1", "Move the rest out"),
        ("from ..one.deep.lower import lower\nCOUNT = 4", "got COUNT of 'one/deep/lower.py' and of 'two/upper.py'"),
        ("from ..one.deep.lower import lower\nimport yaml as rows", "got rows of 'numpy array' and of 'yaml'"),
        ("from ..one.deep.lower import lower\ndef rows(): pass", "got rows of 'numpy array' and of 'two/upper.py'"),
        (
            "try:\n    from ..one.card import write\nexcept ImportError:\n    pass",
            "Expected a handler that defines what is imported in two/upper.py, line 1",
        ),
        ("input = 1", "got input of 'Python' and of 'two/upper.py'"),
        ("from .again import x", "without circles, got 'two/upper.py -> two/again.py -> two/upper.py'"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path, line, message):
    again = "from .upper import y\n\nx = 1\n"
    with pytest.raises(ValueError, match=message):
        joined(tmp_path, {**PACKAGE, "two/upper.py": f"{line}\n", "two/again.py": again}, "two/upper.py")


def test_parts_of_one_package_may_be_imported_side_by_side(tmp_path):
    modules = {"a.py": "import os.path\n\nx = 1\n", "b.py": "import os\nimport os as o\n\nfrom .a import x\n\ny = 2\n"}
    (text,) = joined(tmp_path, modules, "b.py").values()
    assert "\nimport os\nimport os as o\nimport os.path\n" in text


def test_a_name_of_another_file_may_not_be_defined_again(tmp_path):
    modules = {"a.py": "x = 1\n", "b.py": "from .a import x\n\nx = 2\n"}
    with pytest.raises(ValueError, match=r"all modules of b\.py, got x of 'a' and of 'b\.py'"):
        joined(tmp_path, modules, "a.py", "b.py")


TRAIN = """
import json, os
import torch
from datasets import load_from_disk
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoProcessor, Trainer
from transformers import TrainingArguments
import sys

torch.set_num_threads(1)
trusted = {"trust_remote_code": True}
model = AutoModelForTokenClassification.from_pretrained("local", **trusted)
processor = AutoProcessor.from_pretrained("local", **trusted)


def collate(rows):
    encoded = processor(
        [row["tokens"] for row in rows], word_labels=[row["ner_tags"] for row in rows], return_tensors="pt"
    )
    return dict(encoded)


arguments = TrainingArguments(
    "out", max_steps=3, per_device_train_batch_size=2, learning_rate=1e-3, report_to=[], remove_unused_columns=False,
    dataloader_num_workers=1, use_cpu=True, disable_tqdm=True, save_steps=3,
)
trainer = Trainer(model, arguments, train_dataset=load_from_disk("rows"), data_collator=collate)
losses = trainer.train().training_loss
trainer.save_model("trained")
processor.save_pretrained("trained")
again = AutoModelForTokenClassification.from_pretrained("trained", **trusted)
same = all(torch.equal(one, other) for one, other in zip(model.state_dict().values(), again.state_dict().values()))
try:
    type(model).from_text_vision_pretrained("a", "b")
except ImportError as error:
    refused = str(error)
try:
    model.crf.recorded(torch.zeros(1, 2, model.num_labels), torch.ones(1, 2))
except ImportError as error:
    not_recorded = str(error)
told = []
for options in ({"num_bga_layers": "two"}, {"keep_budget": 2.0}, {"num_bga_layers": 99}, {"label2id": {"O": 1}}):
    try:
        AutoConfig.from_pretrained("local", **options, **trusted)
    except ValueError as error:
        told.append(str(error))
config = AutoConfig.from_pretrained("local", num_bga_layer=1, **trusted)  # misspelt: passes, as with transformers
config.text_config.name_or_path = "folders/bert"
config.save_pretrained("config")
weights = open("trained/model.safetensors", "rb").read()
os.makedirs("broken")
for name in os.listdir("trained"):
    if name.endswith((".json", ".py")):
        open(f"broken/{name}", "w").write(open(f"trained/{name}").read())
open("broken/model.safetensors", "wb").write(weights[: len(weights) // 2])
try:
    AutoModelForTokenClassification.from_pretrained("broken", **trusted)
except Exception as error:
    broken = type(error).__name__
wrong = {"same": same, "loss": losses, "refused": refused, "told": told, "module": type(model).__module__}
wrong |= {"not_recorded": not_recorded, "broken": broken, "saved": open("config/config.json").read()}
wrong["package"] = [name for name in sys.modules if name.startswith("bga_mner")]
print("\\n" + json.dumps(wrong))
"""


@pytest.mark.slow
def test_saved_code_trains_and_saves_itself(make_model, bare_python, run_python, tmp_path):
    rows = [{"tokens": ["Kawhi", "wins"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["wins"], "ner_tags": ["O"]}] * 2
    tokenizer = build_tokenizer([row["tokens"] for row in rows])
    summary = {"scores": {"test": {"f1": 0.5, "precision": 0.5, "recall": 0.5}}}
    model = make_model(text_options={"vocab_size": len(tokenizer)}, training_summary=summary)
    image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    model.save_pretrained(tmp_path / "local")
    BgaMnerProcessor(image_processor, tokenizer, label2id=model.config.label2id).save_pretrained(tmp_path / "local")
    Dataset.from_list(rows).save_to_disk(tmp_path / "rows")
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    report = json.loads(run_python(TRAIN, bare_python, environment).splitlines()[-1])
    assert report["same"]
    assert 0 < report["loss"] < 100
    assert report["module"].startswith("transformers_modules.")
    assert not report["package"]
    assert "pip install bga-mner" in report["refused"]
    assert "pip install bga-mner" in report["not_recorded"]
    for part, told in zip(
        ("num_bga_layers as int | None", "keep_budget as a share", "num_bga_layers between 1 and", "without gaps"),
        report["told"],
        strict=True,
    ):
        assert told.startswith(f"Expected {part}") or f"that numbers the tags 0, 1, 2, ... {part}" in told
    assert report["broken"] == "SafetensorError"
    assert "folders/bert" not in report["saved"]
    for name in CODE_FILES:
        assert (tmp_path / "trained" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    # what the weights are no longer is said, and the package writes the card when it saves them again
    trained = AutoModelForTokenClassification.from_pretrained(tmp_path / "trained")
    assert trained.config.training_summary["outdated"]
    assert not (tmp_path / "trained" / "README.md").exists()
    trained.save_pretrained(tmp_path / "trained")
    assert "trained further after their scores were recorded" in (tmp_path / "trained" / "README.md").read_text()
    assert AutoProcessor.from_pretrained(tmp_path / "trained")
