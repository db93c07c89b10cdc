"""Export a trained model's text branch to ONNX, with a predictor that runs without torch.

Needs the extra `onnx` (`pip install -c constraints.txt -e ".[onnx]"` in a clone of the repository)::

    python examples/export_onnx.py --model outputs/mner --output outputs/onnx
    python examples/export_onnx.py --model outputs/mner --output outputs/int8 --int8
    python outputs/onnx/onnx_predictor.py outputs/onnx "Kawhi Leonard wins the fan vote in Toronto"

The folder holds all that the last line needs, besides onnxruntime, tokenizers and numpy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bga_mner.examples.command_line import Parser, check_output, run_main

from bga_mner import BgaMnerForTokenClassification, BgaMnerProcessor, export_onnx
from bga_mner.configuration.errors import brief, shown


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model", required=True, help="folder of a saved model and processor, or a name on the Hub")
    parser.add_argument("--output", type=Path, required=True, help="output folder; created if missing")
    parser.add_argument(
        "--int8", action="store_true", help="quantize to int8: smaller and faster, with slightly different scores"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> dict[str, int]:
    """Run the script with the arguments of the command line, or these; return the files and their sizes in bytes."""
    options = parse(arguments)
    check_output(options.output, "--output")
    try:
        model = BgaMnerForTokenClassification.from_pretrained(options.model)
        processor = BgaMnerProcessor.from_pretrained(options.model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a folder with a saved model and its processor, or a name on the Hub, got "
            f"{shown(options.model)}, which can't be loaded: {brief(error)}. Check --model."
        ) from error
    export_onnx(model, processor, options.output, int8=options.int8)
    sizes = {path.name: path.stat().st_size for path in sorted(options.output.iterdir()) if path.is_file()}
    for name, size in sizes.items():
        print(f"{size:>15,}  {name}")
    print(f'Try: python {options.output / "onnx_predictor.py"} {options.output} "Kawhi wins in Toronto"')
    return sizes


if __name__ == "__main__":
    run_main(main)
