"""Tiny random models and batches that every test can build in milliseconds, a Hub, and a Python without the package."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from bga_mner.configuration import BgaMnerConfig
from bga_mner.modeling_bga import BgaMnerForTokenClassification


LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
VOCABULARY = 60

TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20},
    "xlm-roberta": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 20},
    "electra": {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "embedding_size": 8,
    },
}
for _name, _config in TEXT_CONFIGS.items():
    _config |= {
        "model_type": _name,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 40,
        "pad_token_id": 1 if "roberta" in _name else 0,
    }

# Deeper and wider than the text encoders, so that nothing relies on equal sizes.
VISION_CONFIGS: dict[str, dict[str, Any]] = {
    name: {
        "model_type": name,
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": 16,
        "patch_size": 8,
        **({"mlp_ratio": 2} if name == "dinov2" else {"intermediate_size": 28}),
    }
    for name in ("clip_vision_model", "vit", "dinov2", "siglip_vision_model")
}


# The tests run in several processes, and tiny tensors gain nothing from threads that fight for the same cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_config() -> Callable[..., BgaMnerConfig]:
    """Return a function that makes a tiny configuration: text family, vision family, further options."""

    def make(text: str = "bert", vision: str = "vit", **options: Any) -> BgaMnerConfig:
        defaults = {"id2label": dict(enumerate(LABELS)), "num_bga_layers": 2}
        text_config = TEXT_CONFIGS[text] | options.pop("text_options", {})
        vision_config = VISION_CONFIGS[vision] | options.pop("vision_options", {})
        return BgaMnerConfig(text_config=text_config, vision_config=vision_config, **(defaults | options))

    return make


@pytest.fixture
def make_model(make_config: Callable[..., BgaMnerConfig]) -> Callable[..., BgaMnerForTokenClassification]:
    """Return a function that makes a tiny model in evaluation mode; arguments as for `make_config`."""

    def make(*families: str, **options: Any) -> BgaMnerForTokenClassification:
        return BgaMnerForTokenClassification(make_config(*families, **options)).eval()

    return make


@pytest.fixture
def make_batch() -> Callable[..., dict[str, torch.Tensor]]:
    """Return a function that makes a batch of texts of the given lengths, padded on the right, and pictures."""

    def make(
        lengths: tuple[int, ...] = (9, 6, 4), pad_token_id: int = 0, pictures: bool = True, seed: int = 1
    ) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shape = (len(lengths), max(lengths))
        attention_mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
        input_ids = torch.randint(5, VOCABULARY, shape, generator=generator).masked_fill(~attention_mask, pad_token_id)
        labels = torch.zeros(shape, dtype=torch.long)
        labels[:, 1], labels[:, 2] = 3, 4  # B-PER I-PER
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask.long(),
            "labels": labels.masked_fill(~attention_mask, -100),
        }
        if pictures:
            batch["pixel_values"] = torch.randn(len(lengths), 3, 16, 16, generator=generator)
            batch["picture_mask"] = torch.ones(len(lengths), dtype=torch.bool)
        return batch

    return make


@pytest.fixture
def loopback_hub() -> Iterator[Any]:
    """Run a small Hub on this machine; see tests/loopback_hub.py."""
    spec = spec_from_file_location("loopback_hub", Path(__file__).with_name("loopback_hub.py"))
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    hub = module.LoopbackHub()
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a virtual environment that has what this one has, without this package; return its interpreter."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    # the .pth files in a folder that is added by a .pth file aren't read: neither is that of an editable install
    installed = sysconfig.get_paths()["purelib"]
    (folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages" / "shared.pth").write_text(installed)
    python = str(folder / "bin" / "python")
    found = subprocess.run([python, "-c", "import bga_mner"], cwd=folder, env=clean_environment(), capture_output=True)
    assert b"No module named 'bga_mner'" in found.stderr, "tests of the Hub need an editable install of the package"
    return python


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would bring the package or someone's Hub into another one."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("HF_")}


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs code in a new process; arguments: code, interpreter, environment. Returns stdout."""

    def run(code: str, python: str = sys.executable, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [python, "-c", code],
            cwd=tmp_path,
            env=clean_environment() | {"TOKENIZERS_PARALLELISM": "false"} | (environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
