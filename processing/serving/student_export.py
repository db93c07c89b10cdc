"""Export a student to ONNX, in the files that Transformers.js reads in a browser."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .onnx_program import check_onnx_packages, quietly, trace


# What ONNX Runtime's build for browsers knows, and that of older servers.
_OPSET = 18
EXACT_FILE, QUANTISED_FILE = "model.onnx", "model_quantized.onnx"


class _Scores(nn.Module):
    """Token ids to logits: (batch, length) to (batch, length, tags), or (batch, labels)."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits


def export_student(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | os.PathLike[str]
) -> dict[str, Path]:
    """Write `onnx/model.onnx`, and `onnx/model_quantized.onnx` with 8-bit weights, into a student's folder.

    The graphs read "input_ids", "attention_mask" and, where the tokenizer makes them, "token_type_ids", int64 (batch,
    length) of any batch and length, and give "logits". Transformers.js loads the first as `dtype: "fp32"`, and the
    second as `dtype: "q8"`. Eight bits hold the embeddings too, which are most of a small encoder.

    Parameters
    ----------
    student : transformers.PreTrainedModel
        A stock model for token or sequence classification. One in another precision is exported as a copy in float32.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    folder : str or path
        Where [`save_student`] saved both.

    Returns
    -------
    dict of str to pathlib.Path
        The files, by `dtype`.

    Raises
    ------
    ValueError
        If the packages of the extra "onnx" are missing.
    """
    check_onnx_packages()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if any(weight.is_floating_point() and weight.dtype != torch.float32 for weight in student.parameters()):
        student = deepcopy(student).float()
    target = Path(folder, "onnx")
    target.mkdir(parents=True, exist_ok=True)
    exact, quantised = target / EXACT_FILE, target / QUANTISED_FILE
    longest = tokenizer.model_max_length  # as build_student sets it
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names]
    program = trace(_Scores(student), names, "logits", longest, _OPSET)
    program.save(str(exact), external_data=False)
    with quietly():
        quantize_dynamic(
            exact,
            quantised,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True},
        )
    return {"fp32": exact, "q8": quantised}


__all__ = ["EXACT_FILE", "QUANTISED_FILE", "export_student"]
