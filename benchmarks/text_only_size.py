"""Size of a model saved whole, and of its text branch alone (`save_pretrained(folder, text_only=True)`).

BERT-base and CLIP ViT-B/32, the configuration's defaults, with random weights: both are really written, to a temporary
folder, for which 2 GB are needed::

    python benchmarks/text_only_size.py
    python benchmarks/text_only_size.py --num_bga_layers 12

Beside it stands plain `BertForTokenClassification` with the same number of tags.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from bga_mner.examples.command_line import Parser, positive, run_main

from transformers import AutoModelForTokenClassification, PreTrainedModel

from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification
from bga_mner.examples.reporting import print_json


TAGS = dict(enumerate(["O", *(f"{part}-{kind}" for kind in ("PER", "LOC", "ORG", "MISC") for part in "BI")]))


def weights_size(model: PreTrainedModel, **options: bool) -> int:
    """Save a model; return the bytes of its weights on disk."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, **options)
        return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def measure(config: BgaMnerConfig) -> dict[str, float]:
    """Return bytes of the whole model, of the text branch alone and of a plain tagger, and the ratios to the whole."""
    plain = AutoModelForTokenClassification.from_config(config.text_config, attn_implementation="sdpa")
    sizes: dict[str, float] = {"plain_tagger": weights_size(plain)}
    model = BgaMnerForTokenClassification(config)
    sizes |= {"whole": weights_size(model), "text_only": weights_size(model, text_only=True)}
    return sizes | {"text_only_ratio": sizes["text_only"] / sizes["whole"]}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the benchmark; return what `measure` does."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--num_bga_layers", type=positive, help="number of aligned layers (default: the configuration's)"
    )
    parser.add_argument("--json", action="store_true", help="print a final line of JSON")
    options = parser.parse_args(arguments)
    sizes = measure(BgaMnerConfig(num_bga_layers=options.num_bga_layers, id2label=TAGS))
    for name in ("whole", "text_only", "plain_tagger"):
        print(f"{name:<13} {sizes[name] / 1e6:8.1f} MB  {sizes[name] / sizes['whole']:.3f} of the whole")
    print_json(options, sizes)
    return sizes


if __name__ == "__main__":
    run_main(main)
