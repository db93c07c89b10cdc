"""Export the text branch to ONNX, with all that is needed to tag texts on ONNX Runtime, without torch."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...configuration.errors import listed
from ...configuration.hub.code_bundle import one_file
from ...modeling_bga.crf.span_probabilities import CrfScores
from ...modeling_bga.encoders.encoder import longest_text
from ...modeling_bga.token_classifier import BgaMnerForTokenClassification
from ..inference.text_tagging import longest_input
from ..inference.text_windows import tokens_at_once
from ..padding import column_padding
from ..processing_bga_mner import BgaMnerProcessor
from ..text.word_encoding import special_tokens, substitute_token, word_prefix
from .onnx_graph import add_best_path
from .onnx_predictor import MODEL_FILE, TAGGER_FILE, TOKENIZER_FILE
from .onnx_program import check_onnx_packages, quietly, trace


if TYPE_CHECKING:
    from onnx import ModelProto


# The first with the operator Attention, which is faster than the products and transpositions that it stands for.
_OPSET = 23


class _TextBranch(nn.Module):
    """Token ids to emissions."""

    def __init__(self, model: BgaMnerForTokenClassification) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Int64 (batch, length) -> emissions (batch, length, tags)."""
        states = self.model.bga_mner(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        return self.model.classifier(states)


class _OnnxAttention(TorchFunctionMode):
    """Take torch's attention for the operator of ONNX, whichever module calls it.

    torch's own exporter of it transposes back and forth, and leaves masks that ONNX Runtime can't broadcast.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **others: Any,
    ) -> torch.Tensor:
        if attn_mask is not None:
            # (batch, 1, 1, keys) -> (batch, 1, queries, keys)
            attn_mask = attn_mask.expand(-1, -1, query.shape[2], -1)
        # (batch, heads, length, head width) -> (batch, length, width)
        rows = [states.transpose(1, 2).flatten(2) for states in (query, key, value)]
        heads = query.shape[1]
        attended = torch.onnx.ops.attention(
            *rows, attn_mask, is_causal=is_causal, kv_num_heads=heads, q_num_heads=heads, scale=scale
        )[0]
        return attended.unflatten(-1, (heads, -1)).transpose(1, 2)


def export_onnx(
    model: BgaMnerForTokenClassification,
    processor: BgaMnerProcessor,
    folder: str | os.PathLike[str],
    *,
    int8: bool = False,
) -> Path:
    """Export a model's text branch, and write all that tags texts without torch.

    The graph reads "input_ids", "attention_mask" and, with some text encoders, "token_type_ids", all int64 (batch,
    length) of any batch and length, padded on either side; and gives "emissions", float32 (batch, length, tags), and
    "predictions", int64 (batch, length): the most probable tag path (Viterbi), -100 at padding. Texts read generated
    visual features, as at inference without images.

    Beside the graph lie `tokenizer.json`, `tagger.json` (tags, the CRF's scores, limits) and the code of
    [`OnnxPredictor`], which needs onnxruntime, tokenizers and numpy only.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        The model, whole or text only, or with peft's adapters on it. It stays as it is; one in another precision than
        float32 is exported as a copy of the same weights in float32.
    processor : BgaMnerProcessor
        Its processor.
    folder : str or path
        Made if it isn't there; files of the same names are replaced.
    int8 : bool, default False
        Quantise the weights of matrix products to 8 bits, and what they are multiplied with as it comes.

    Returns
    -------
    pathlib.Path
        The graph's file.

    Raises
    ------
    ValueError
        If the packages of the extra "onnx" are missing, a model is no tagger or reads real images, or its weights
        aren't all on one device, or are quantised.
    """
    model = cast("BgaMnerForTokenClassification", getattr(model, "_orig_mod", model))  # of what torch.compile wraps
    check_onnx_packages()
    _check_model(model)
    if any(weight.is_floating_point() and weight.dtype != torch.float32 for weight in model.parameters()):
        model = deepcopy(model).float()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    token_types = "token_type_ids" in processor.tokenizer.model_input_names
    scores = model.crf.numpy_scores()
    _write_graph(model, folder / MODEL_FILE, token_types, int8, scores)
    _write_tagger(model, processor, folder, scores)
    return folder / MODEL_FILE


def _check_model(model: BgaMnerForTokenClassification) -> None:
    if not hasattr(model, "crf"):
        raise ValueError(
            f"Expected a BgaMnerForTokenClassification, whose tags and CRF are exported, got {type(model).__name__}. "
            "Give a tagger."
        )
    devices = {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}
    if len(devices) > 1 or "meta" in devices:
        raise ValueError(
            f"Expected a model whose weights are all on one device, got {listed(sorted(devices))}. Load it without "
            "device_map, and with its weights."
        )
    quantised = {type(part).__name__ for part in model.modules() if "quantized" in type(part).__module__}
    quantised |= {type(weight).__name__ for weight in model.parameters() if is_traceable_wrapper_subclass(weight)}
    if quantised or getattr(model, "is_quantized", False):
        raise ValueError(
            f"Expected a model whose weights aren't quantised, got {', '.join(sorted(quantised)) or 'quantised ones'}. "
            "Give the exact model; with int8=True the graph is quantised."
        )
    if model.config.visual_source == "real":
        raise ValueError(
            'Expected a model whose texts read generated features or none, got visual_source="real", which needs '
            'images. Set model.config.visual_source = "generated".'
        )


def _write_graph(
    model: BgaMnerForTokenClassification, path: Path, token_types: bool, int8: bool, scores: CrfScores
) -> None:
    import onnx

    with TemporaryDirectory(dir=path.parent) as scratch:
        exported, folded = Path(scratch, "exported.onnx"), Path(scratch, "folded.onnx")
        _trace(model, exported, token_types)
        _fold_constants(exported, folded)
        proto = onnx.load(folded)
        if int8:
            proto = _quantise(proto, Path(scratch))
    add_best_path(proto, *scores)
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)  # it would be appended to
    onnx.save(proto, path, save_as_external_data=True, location=data.name)
    data.chmod(path.stat().st_mode)  # it is made for its owner alone


def _trace(model: BgaMnerForTokenClassification, path: Path, token_types: bool) -> None:
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])]
    with _OnnxAttention():
        program = trace(_TextBranch(model), names, "emissions", longest_text(model.config.text_config), _OPSET)
    program.save(str(path), external_data=True)


def _fold_constants(source: Path, target: Path) -> None:
    """Compute what doesn't depend on the input, such as what the modality queries read of each other."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{target.name}.data")
    # the quantiser looks for products, not for what is made of them and the sums that follow
    onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=["MatMulAddFusion"]
    )


def _quantise(exact: ModelProto, scratch: Path) -> ModelProto:
    """Quantise the matrix products of all layers, with one scale a column; the tag scores stay exact."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, target = scratch / "exact.onnx", scratch / "int8.onnx"
    onnx.save(exact, source, save_as_external_data=True, location=f"{source.name}.data")
    (scores,) = [node for node in exact.graph.node if "emissions" in node.output]
    with quietly():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=[node.name for node in exact.graph.node if set(node.output) & set(scores.input)],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
    return onnx.load(target)


def _write_tagger(
    model: BgaMnerForTokenClassification, processor: BgaMnerProcessor, folder: Path, scores: CrfScores
) -> None:
    """Write the tokenizer, the settings and the code of the predictor."""
    tokenizer = processor.tokenizer
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(folder / TOKENIZER_FILE))
    before, after = special_tokens(tokenizer)
    settings = {
        "id2label": {str(number): str(label) for number, label in model.config.id2label.items()},
        "max_length": longest_input(tokenizer, model.config.text_config),
        "takes_token_type_ids": "token_type_ids" in tokenizer.model_input_names,
        "padding_token": column_padding(tokenizer)["input_ids"],
        "batch_tokens": tokens_at_once(model.config.text_config.hidden_size),
        "special_tokens": {"before": before, "behind": after},
        "substitute_token": substitute_token(tokenizer),
        "word_prefix": word_prefix(tokenizer),
        "words": processor.word_reader._asdict(),
        # nats; of [previous, next], of the first and of the last tag, with what BIO forbids
        "crf": {name: values.tolist() for name, values in scores._asdict().items()},
    }
    (folder / TAGGER_FILE).write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    code = one_file(Path(__file__).with_name("onnx_predictor.py"))
    (folder / "onnx_predictor.py").write_text(code, encoding="utf-8", newline="\n")


__all__ = ["export_onnx"]
