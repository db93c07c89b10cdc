r"""Which vision encoder teaches most? Transformers and convolutional ones on the same pairs, beside no images at all.

Each encoder learns to tell drawings of four visual concepts apart (a stand-in for what pretraining brings), is frozen,
and then aligned as in benchmarks/alignment.py: half of the names only occur in pairs whose tags are hidden, and the
test sentences have no images::

    python examples/compare_encoders.py --seeds 0,1 --threads 1 --quiet --json

The new transformer layers on a convolutional encoder are left as they are, untrained; with `--train_new_layers` they
are trained with the rest, and what is to be generated moves while it is learned. `--quick` takes fewer pairs and
steps. All other options of benchmarks/alignment.py hold too, such as `--images FOLDER` for photographs. What is no
name of `--encoders` is taken for a folder or a checkpoint, whose encoder is used as it is: ``--encoders
facebook/dinov2-small,microsoft/resnet-18``.

At full scale, with encoders of the Hub, tweets and a GPU, it is one command per encoder, and the scores of all stand in
`outputs/*/eval_results.json`::

    for name in openai/clip-vit-base-patch32 facebook/dinov2-base microsoft/resnet-50 google/efficientnet-b0 \
        facebook/convnext-tiny-224; do
      python examples/run_mner.py --train_file train.txt --validation_file valid.txt --image_dir images \
        --text_model bert-base-cased --vision_model $name --freeze_vision_encoder true \
        --entity_replacement_probability 0.5 --output_dir outputs/${name##*/}
    done
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, run_main

import numpy as np
import torch
from rich.console import Console
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from bga_mner import ConvStagesConfig
from bga_mner.configuration.configuration_conv_stages import last_feature_map
from bga_mner.configuration.encoder_families import BACKBONE_FAMILIES, VISION_FAMILIES
from bga_mner.examples.reporting import mean_and_worst, print_json, print_table, start
from bga_mner.examples.synthetic.drawings import ENTITY_TYPES
from bga_mner.examples.synthetic.experiment import TEXT_ONLY, Experiment, Variant, add_options, read_options
from bga_mner.examples.synthetic.recipe import ConceptClassifier, teach_concepts
from bga_mner.modeling_bga.encoders.conv_stages import ConvStages


# All end in two transformer layers of width 32. The convolutional ones are deep enough for a cell of their last map to
# see (nearly) the whole image, as those of real ones do: what a cell doesn't see of the object, it can't be made of.
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
PATCHES = {"image_size": 64, "patch_size": 8}
MAPS = {"hidden_sizes": [16, 24, 32], "depths": [1, 1, 1]}
ENCODERS: dict[str, dict[str, Any]] = {
    "clip": {"model_type": "clip_vision_model", **LAYERS, **PATCHES},
    "vit": {"model_type": "vit", **LAYERS, **PATCHES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "dinov2": {"model_type": "dinov2", **LAYERS, **PATCHES, "mlp_ratio": 2},
    "resnet": {"model_type": "resnet", **MAPS, "embedding_size": 16, "layer_type": "basic"},
    "convnext": {"model_type": "convnext", **MAPS, "num_stages": 3},
    # a quarter of EfficientNet's widths
    "efficientnet": {
        **{"model_type": "efficientnet", "width_coefficient": 0.25, "depth_coefficient": 1.0, "depth_divisor": 4},
        **{"in_channels": [32, 32, 64, 96], "out_channels": [32, 64, 96, 128], "kernel_sizes": [3, 5, 5, 5]},
        **{"strides": [1, 2, 2, 2], "num_block_repeats": [1, 1, 1, 2], "expand_ratios": [1, 2, 2, 2]},
        # the default, 0.99, keeps the statistics of the last batch alone
        **{"depthwise_padding": [], "hidden_dim": 320, "batch_norm_momentum": 0.1},
    },
}
SCORES = ("f1", "type_accuracy", "seconds_a_step")
QUICK = ["--steps", "250", "--vision_steps", "300", "--drawings", "4000", "--pairs", "1600", "--test_sentences", "200"]


class AnyConceptClassifier(ConceptClassifier):
    """The same for encoders of any kind: on the mean of what follows their class token, or of a map's cells."""

    def patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the states of images' patches or cells (batch, patches, width)."""
        kind = self.encoder.config.model_type
        if kind in BACKBONE_FAMILIES:
            # (batch, width, rows, columns) -> (batch, rows * columns, width)
            return last_feature_map(self.encoder, pixel_values).flatten(2).transpose(1, 2)
        first = int(VISION_FAMILIES[kind].has_class_token)
        return self.encoder(pixel_values=pixel_values).last_hidden_state[:, first:]


def pretrain(
    config: dict[str, Any],
    concepts: int,
    image_processor: Any,
    train_images: tuple[list[Any], list[int]],
    test_images: tuple[list[Any], list[int]],
    arguments: Any,
    **_: Any,
) -> tuple[PreTrainedModel, float]:
    """Teach an encoder the visual concepts; return it, new layers on a convolutional one, and its held-out accuracy."""
    encoder_config = AutoConfig.for_model(**config)
    stages = None
    if encoder_config.model_type in BACKBONE_FAMILIES:
        stages = ConvStages(ConvStagesConfig(backbone_config=encoder_config, image_size=64, **LAYERS))
        encoder, width = stages.backbone, stages.config.feature_channels or 0
        for module in encoder.modules():
            # transformers starts EfficientNet's near 0, which is good for nothing but to be overwritten by a checkpoint
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
    else:
        encoder, width = AutoModel.from_config(encoder_config), encoder_config.hidden_size

    classifier = AnyConceptClassifier(encoder, width, concepts)
    accuracy = teach_concepts(classifier, image_processor, train_images, test_images, arguments)
    return (encoder if stages is None else stages).eval(), accuracy


def train_new_layers(model: Any) -> None:
    """Train the new layers on a convolutional encoder, and of any other nothing."""
    if isinstance(model.bga_mner.vision_encoder, ConvStages):
        model.bga_mner.vision_encoder.requires_grad_(True)
        model.freeze_vision_encoder()


def compare(
    options: argparse.Namespace, names: list[str], prepare: Callable[[Any], None] | None, console: Console
) -> dict[str, dict[str, Any]]:
    """Train and score every encoder for every seed, and once per seed without images; return what was found by name."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            for name in names:
                options.vision_model = None if name in ENCODERS else name
                make = partial(pretrain, ENCODERS.get(name, {}), len(ENTITY_TYPES))
                experiment = Experiment(options, seed, Path(folder), make, prepare)
                # what is learned without images doesn't depend on what would encode them
                variants = {name: Variant()} | ({"text only": TEXT_ONLY} if name == names[0] else {})
                for row, variant in variants.items():
                    begin = time.process_time()
                    model = experiment.train(variant).model
                    values, _ = experiment.scores(model, variant)
                    values["seconds_a_step"] = (time.process_time() - begin) / options.steps
                    kept = found.setdefault(row, {"kind": "", "parameters": 0, **{key: [] for key in SCORES}})
                    if row == name:
                        _describe(kept, model, experiment.vision_accuracy)
                    for key in SCORES:
                        kept[key].append(values[key])
                    console.print(f"Seed {seed}, {row}: " + ", ".join(f"{key} {values[key]:.3f}" for key in SCORES))
    return found


def _describe(row: dict[str, Any], model: Any, accuracy: float | None) -> None:
    encoder = model.bga_mner.vision_encoder
    convolutional = isinstance(encoder, ConvStages)
    row["kind"] = "convolutional" if convolutional else "transformer"
    row["parameters"] = sum(parameter.numel() for parameter in encoder.parameters())
    if accuracy is not None:
        row.setdefault("accuracy", []).append(accuracy)


def show(console: Console, found: dict[str, dict[str, Any]]) -> None:
    """Print one row per encoder: mean (worst) over seeds."""
    rows = []
    for name, row in found.items():
        accuracy = f"{np.mean(row['accuracy']):.3f}" if "accuracy" in row else ""
        scores = [mean_and_worst(row[key]) for key in ("f1", "type_accuracy")]
        parameters = f"{row['parameters']:,}" if row["kind"] else ""
        rows.append((name, row["kind"], parameters, accuracy, *scores, f"{np.mean(row['seconds_a_step']):.3f}"))
    columns = ("encoder", "kind", "parameters", "concepts told apart", "F1", "type accuracy", "CPU s a step")
    print_table("Never-labelled names, sentences without images; mean (worst) over seeds", columns, rows, console)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Run the comparison, and print a table; return rows by encoder, and for "text only"."""
    parser = Parser(__doc__)
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="comma-separated list (default: %(default)s)")
    parser.add_argument(
        "--train_new_layers", action="store_true", help="train the new layers on convolutional encoders"
    )
    parser.add_argument("--quick", action="store_true", help=f"short run: {' '.join(QUICK)}")
    add_options(parser)
    words = list(sys.argv[1:] if argv is None else argv)
    options = read_options(parser, words)
    if options.quick:
        options = read_options(parser, [*QUICK, *words])
    start(options)
    console = Console(width=120)
    found = compare(
        options, options.encoders.split(","), train_new_layers if options.train_new_layers else None, console
    )
    show(console, found)
    print_json(options, {"encoders": found})
    return found


if __name__ == "__main__":
    run_main(main)
