"""Tiny random models and batches that every test can build in milliseconds, a Hub, and a Python without the package."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from hypothesis import HealthCheck, settings
from loopback_hub import LoopbackHub
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import logging

from bga_mner.configuration.configuration_bga_mner import BgaMnerConfig
from bga_mner.modeling_bga.token_classifier import BgaMnerForTokenClassification


LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
VOCABULARY = 60

_TEXT_SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20}
TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _TEXT_SIZES,
    "roberta": _TEXT_SIZES,
    "xlm-roberta": _TEXT_SIZES,
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 20},
    "electra": _TEXT_SIZES | {"embedding_size": 8},
    "mpnet": _TEXT_SIZES,
    # as DeBERTa-v3 is
    "deberta-v2": _TEXT_SIZES
    | {
        "relative_attention": True,
        "position_buckets": 4,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    # local layers see two tokens on either side
    "modernbert": _TEXT_SIZES
    | {"local_attention": 4, "global_attn_every_n_layers": 2}
    | dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 2),
}
TEXT_CONFIGS = {
    name: config
    | {
        "model_type": name,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 40,
        "pad_token_id": 1 if "roberta" in name or name == "mpnet" else 0,
    }
    for name, config in TEXT_CONFIGS.items()
}

# Deeper and wider than the text encoders, so that nothing relies on equal sizes.
_VISION_SIZES = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 28}
VISION_CONFIGS: dict[str, dict[str, Any]] = {
    name: {"model_type": name, **_VISION_SIZES, "image_size": 16, "patch_size": 8}
    for name in ("clip_vision_model", "vit", "dinov2", "dinov2_with_registers", "dinov3_vit", "siglip_vision_model")
}
for _name in ("dinov2", "dinov2_with_registers"):
    del VISION_CONFIGS[_name]["intermediate_size"]
    VISION_CONFIGS[_name]["mlp_ratio"] = 2
VISION_CONFIGS["dinov2_with_registers"]["num_register_tokens"] = 2
VISION_CONFIGS["dinov3_vit"]["num_register_tokens"] = 2
VISION_CONFIGS["siglip2_vision_model"] = {
    **_VISION_SIZES,
    "model_type": "siglip2_vision_model",
    "patch_size": 8,
    "num_patches": 4,
}

# Images of 16 pixels give two by two cells, EfficientNet four by four.
_SMALL_MAPS = {"hidden_sizes": [6, 8], "depths": [1, 1]}
BACKBONE_CONFIGS: dict[str, dict[str, Any]] = {
    "resnet": {**_SMALL_MAPS, "embedding_size": 6, "layer_type": "basic"},
    "regnet": {**_SMALL_MAPS, "embedding_size": 6, "groups_width": 2, "layer_type": "x"},
    "convnext": {**_SMALL_MAPS, "num_stages": 2},
    "convnextv2": {**_SMALL_MAPS, "num_stages": 2},
    "efficientnet": {
        # an eighth of all widths
        **{"width_coefficient": 0.125, "depth_coefficient": 1.0, "depth_divisor": 2, "hidden_dim": 160},
        **{"kernel_sizes": [3], "in_channels": [32], "out_channels": [48], "strides": [2], "num_block_repeats": [1]},
        **{"expand_ratios": [2], "depthwise_padding": [], "squeeze_expansion_ratio": 0.5},
    },
}
for _name, _config in BACKBONE_CONFIGS.items():
    VISION_CONFIGS[_name] = {
        "model_type": "conv_stages",
        **_VISION_SIZES,
        "image_size": 16,
        "backbone_config": {"model_type": _name, **_config},
    }


# The tests run in several processes, and tiny tensors gain nothing from threads that fight for the same cores.
torch.set_num_threads(1)


# The same examples in each run, and no failure because a machine is busy.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Keep what was imported out of collections of garbage: each Trainer asks for one, which took half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_deepspeed() -> Iterator[None]:
    """Forget what a refused `--deepspeed` leaves behind: transformers would load later models by it."""
    yield
    unset_hf_deepspeed_config()


@pytest.fixture(autouse=True)
def _quiet_for_one_test_alone() -> Iterator[None]:
    """Undo what a script or a fuzz target switches off: the messages of transformers, and all progress bars."""
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()
    datasets.enable_progress_bars()


@pytest.fixture
def make_config() -> Callable[..., BgaMnerConfig]:
    """Return a function that makes a tiny configuration: text family, vision family, further options.

    All losses are on and nothing but the samplers' noise is random, unless asked for.
    """

    def make(text: str = "bert", vision: str = "vit", **options: Any) -> BgaMnerConfig:
        defaults: dict[str, Any] = {"id2label": dict(enumerate(LABELS)), "num_bga_layers": 2}
        defaults |= {"context_hiding_probability": 0.0, "loss_stages": "all", "align_last_states": False}
        defaults |= {"reconstruction_weight": 1.0, "cycle_weight": 1.0, "gate_initial_bias": -4.0}
        text_config = TEXT_CONFIGS[text] | options.pop("text_options", {})
        vision_config = VISION_CONFIGS[vision] | options.pop("vision_options", {})
        return BgaMnerConfig(text_config=text_config, vision_config=vision_config, **(defaults | options))

    return make


@pytest.fixture
def make_model(make_config: Callable[..., BgaMnerConfig]) -> Callable[..., BgaMnerForTokenClassification]:
    """Return a function that makes a tiny model in evaluation mode; arguments as for `make_config`.

    It has seen enough images to measure no more of them: a batch changes nothing for the next.
    """

    def make(*families: str, **options: Any) -> BgaMnerForTokenClassification:
        model = BgaMnerForTokenClassification(make_config(*families, **options)).eval()
        if model.bga_mner.pooled_target is not None:
            model.bga_mner.pooled_target.images_seen.fill_(10**6)
        return model

    return make


@pytest.fixture
def make_batch() -> Callable[..., dict[str, torch.Tensor]]:
    """Return a function that makes a batch of texts of the given lengths, padded on the right, and images."""

    def make(
        lengths: tuple[int, ...] = (9, 6, 4), pad_token_id: int = 0, images: bool = True, seed: int = 1
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
        if images:
            batch["pixel_values"] = torch.randn(len(lengths), 3, 16, 16, generator=generator)
            batch["image_mask"] = torch.ones(len(lengths), dtype=torch.bool)
        return batch

    return make


@pytest.fixture
def loopback_hub() -> Iterator[Any]:
    """Run a small Hub on this machine; see tests/loopback_hub.py."""
    hub = LoopbackHub()
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
