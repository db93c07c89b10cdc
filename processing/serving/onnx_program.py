"""Trace a module that reads token ids into a program of ONNX, for texts of any number and length."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...configuration.errors import listed
from ..inference.evaluation_mode import evaluating


def check_onnx_packages() -> None:
    """Refuse to go on without the packages of the extra "onnx"."""
    missing = []
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ValueError(
            f"Expected the packages of the extra 'onnx', but {listed(missing)} can't be imported. "
            'Install them: pip install "bga-mner[onnx]".'
        )


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the exporter and the quantiser from telling of what isn't installed, and of what was left as it was."""
    level = logging.root.manager.disable
    logging.disable(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def trace(module: nn.Module, inputs: Sequence[str], output: str, longest: int, opset: int) -> Any:
    """Trace a module whose `inputs` are int64 (batch, length), with at most `longest` tokens, to torch's ONNX program.

    It is run in evaluation mode, where its weights are.
    """
    device = next(module.parameters()).device
    # sizes that differ, and aren't 1, which the exporter would take for a constant
    mask = torch.ones(2, 5, dtype=torch.int64, device=device)
    mask[1, 3:] = 0
    # a tensor each: one that is passed twice would be one input
    examples = {name: torch.zeros_like(mask) for name in inputs} | {"attention_mask": mask}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=longest)
    with evaluating(module), quietly():
        return torch.onnx.export(
            module,
            kwargs=examples,
            dynamo=True,
            dynamic_shapes={name: {0: batch, 1: length} for name in inputs},
            input_names=list(inputs),
            output_names=[output],
            opset_version=opset,
            verbose=False,
        )


__all__ = ["check_onnx_packages", "quietly", "trace"]
