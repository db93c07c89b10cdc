"""What is done to an exported ONNX graph: matrix products that can be saved are, and the best tag path is added.

All of it is exact up to rounding. The graphs hold one operator a line, so a pattern is looked for by who reads what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np


# Rows whose length in bytes is a multiple of a memory page fall into the same few sets of the processor's cache, and a
# matrix product over them is a tenth slower; so many more columns of zeros are faster.
_PAGE = 4096
_FILLING = 16
# Activations of which 0 is 0: columns of zeros stay such.
_KEEP_ZERO = ("Gelu", "Relu", "Tanh")
UNKNOWN_TAG = -100


class _Readers:
    """Who makes and who reads each value of a graph; constants by name."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def only_reader(self, node: Any, kinds: tuple[str, ...]) -> Any:
        """Return the node that alone reads a node's output, if it is of one of these kinds."""
        readers = self.readers[node.output[0]]
        if len(readers) != 1 or node.output[0] in self.outputs or readers[0].op_type not in kinds:
            return None
        return readers[0]

    def linears(self) -> Iterator[tuple[Any, Any]]:
        """List the linear layers: a product with a constant matrix, and the sum with a constant that follows."""
        for node in self.graph.node:
            if node.op_type == "MatMul" and self._is_constant(node.input[1], 2):
                add = self.only_reader(node, ("Add",))
                if add is not None and self._is_constant(self.bias_name(add, node), 1):
                    yield node, add

    @staticmethod
    def bias_name(add: Any, product: Any) -> str:
        """Return which input of a sum isn't the product."""
        return add.input[1] if add.input[0] == product.output[0] else add.input[0]

    def _is_constant(self, name: str, dimensions: int) -> bool:
        return name in self.constants and len(self.constants[name].dims) == dimensions


def merge_linears(model: Any) -> int:
    """Make one linear layer of two where that saves products: ``(x A + a) B + b = x (A B) + (a B + b)``.

    Generated features are projected to a layer's width and then to its keys and values, with nothing between.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place; its weights must be in memory.

    Returns
    -------
    int
        How many layers are gone.
    """
    from onnx import numpy_helper

    values = _Readers(model.graph)
    linears = list(values.linears())
    by_product = {id(product): add for product, add in linears}
    gone = []
    for product, add in linears:
        following = values.readers[add.output[0]]
        if not following or add.output[0] in values.outputs or not all(id(node) in by_product for node in following):
            continue
        if any(node.input[0] != add.output[0] for node in following):
            continue
        depth, width = values.constants[product.input[1]].dims
        columns = sum(values.constants[node.input[1]].dims[1] for node in following)
        if depth * columns >= depth * width + width * columns:
            continue
        first = numpy_helper.to_array(values.constants[product.input[1]]).astype(np.float64)
        first_bias = numpy_helper.to_array(values.constants[values.bias_name(add, product)]).astype(np.float64)
        for node in following:
            second_add = by_product[id(node)]
            second = numpy_helper.to_array(values.constants[node.input[1]])
            second_bias = numpy_helper.to_array(values.constants[values.bias_name(second_add, node)])
            # the old constants may have other readers
            weight, bias = f"{node.output[0]}_weight", f"{second_add.output[0]}_bias"
            model.graph.initializer.append(numpy_helper.from_array((first @ second).astype(second.dtype), weight))
            merged_bias = (first_bias @ second + second_bias).astype(second.dtype)
            model.graph.initializer.append(numpy_helper.from_array(merged_bias, bias))
            second_add.input[:] = [node.output[0], bias]
            node.input[:] = [product.input[0], weight]
        gone += [product, add]
    for node in gone:
        model.graph.node.remove(node)
    _drop_unread_constants(model)
    return len(gone) // 2


def widen_inner_layers(model: Any) -> int:
    """Add columns of zeros between two linear layers whose rows would else be a multiple of a memory page.

    What the columns hold is 0 before and after the activation, and meets rows of zeros in the second layer.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place; its weights must be in memory.

    Returns
    -------
    int
        How many pairs of layers were widened.
    """
    from onnx import TensorProto, numpy_helper

    values = _Readers(model.graph)
    widened: set[str] = set()
    count = 0
    for product, add in values.linears():
        activation = values.only_reader(add, _KEEP_ZERO)
        following = activation and values.only_reader(activation, ("MatMul",))
        if not following or following.input[1] not in values.constants:
            continue
        places = [(product, 1), (add, list(add.input).index(values.bias_name(add, product))), (following, 1)]
        tensors = [values.constants[node.input[place]] for node, place in places]
        if tensors[0].data_type != TensorProto.FLOAT or 4 * tensors[0].dims[1] % _PAGE:
            continue
        count += 1
        fillings: list[Any] = [[(0, 0), (0, _FILLING)], [(0, _FILLING)], [(0, _FILLING), (0, 0)]]
        for (node, place), tensor, filling in zip(places, tensors, fillings, strict=True):
            # under a new name, since the old one may have other readers
            name = f"{node.output[0]}_wide"
            model.graph.initializer.append(
                numpy_helper.from_array(np.pad(numpy_helper.to_array(tensor), filling), name)
            )
            node.input[place] = name
        widened |= {product.output[0], add.output[0], activation.output[0]}
    # shapes that were noted before
    kept = [info for info in model.graph.value_info if info.name not in widened]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    _drop_unread_constants(model)
    return count


def _drop_unread_constants(model: Any) -> None:
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def add_best_path(model: Any, transitions: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Append Viterbi to a graph that gives emissions: a new output "predictions", as the CRF of the model decodes.

    Scores are added up in float64 over the kept positions, whatever stands between them.

    Parameters
    ----------
    model : onnx.ModelProto
        With the input "attention_mask", int64 (batch, length), and the output "emissions", float32 (batch, length,
        tags); changed in place. "predictions" is int64 (batch, length), `UNKNOWN_TAG` at padding.
    transitions : numpy.ndarray of shape (tags, tags)
        Scores of ``[previous, next]``.
    starts, ends : numpy.ndarray of shape (tags,)
        Scores of the first and of the last tag.
    """
    from onnx import TensorProto, helper, numpy_helper

    node, graph, tags = helper.make_node, model.graph, len(starts)

    def constant(name: str, value: Any, dtype: Any) -> None:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), f"crf_{name}"))

    # (next, previous), so that the last axis is what is maximised over
    constant("into", transitions.T, np.float64)
    constant("starts", starts, np.float64)
    constant("ends", ends, np.float64)
    constant("zeros", np.zeros(tags), np.float64)
    constant("same", np.arange(tags), np.int64)
    constant("unknown", UNKNOWN_TAG, np.int64)
    constant("axis_1", [1], np.int64)
    constant("axis_2", [2], np.int64)
    constant("false", [[False]], np.bool_)

    def value(name: str, dtype: int, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, dtype, shape)

    forward = helper.make_graph(
        [
            # (batch, previous) -> (batch, 1, previous) + (next, previous) -> (batch, next, previous)
            node("Unsqueeze", ["before", "crf_axis_1"], ["asked"]),
            node("Add", ["asked", "crf_into"], ["sums"]),
            node("ReduceMax", ["sums", "crf_axis_2"], ["reached"], keepdims=0),
            node("ArgMax", ["sums"], ["argument"], axis=2, keepdims=0),
            node("Where", ["seen", "reached", "crf_starts"], ["arrived"]),
            node("Add", ["arrived", "emission"], ["scored"]),
            # what isn't kept passes on what came, by way of the same tag
            node("Where", ["kept", "scored", "before"], ["after"]),
            node("Where", ["kept", "argument", "crf_same"], ["previous"]),
            node("Or", ["seen", "kept"], ["seen_after"]),
        ],
        "forward",
        [
            value("before", TensorProto.DOUBLE, "batch", tags),
            value("seen", TensorProto.BOOL, "batch", 1),
            value("emission", TensorProto.DOUBLE, "batch", tags),
            value("kept", TensorProto.BOOL, "batch", 1),
        ],
        [
            value("after", TensorProto.DOUBLE, "batch", tags),
            value("seen_after", TensorProto.BOOL, "batch", 1),
            value("previous", TensorProto.INT64, "batch", tags),
        ],
    )
    backward = helper.make_graph(
        [
            node("GatherElements", ["origins", "tag"], ["tag_before"], axis=1),
            node("Identity", ["tag"], ["tag_here"]),
        ],
        "backward",
        [value("tag", TensorProto.INT64, "batch", 1), value("origins", TensorProto.INT64, "batch", tags)],
        [value("tag_before", TensorProto.INT64, "batch", 1), value("tag_here", TensorProto.INT64, "batch", 1)],
    )
    graph.node.extend(
        [
            # time first: (batch, length, tags) -> (length, batch, tags)
            node("Transpose", ["emissions"], ["crf_emissions_in_time"], perm=[1, 0, 2]),
            node("Cast", ["crf_emissions_in_time"], ["crf_emissions"], to=TensorProto.DOUBLE),
            node("Cast", ["attention_mask"], ["crf_attended"], to=TensorProto.BOOL),
            node("Transpose", ["crf_attended"], ["crf_attended_in_time"], perm=[1, 0]),
            node("Unsqueeze", ["crf_attended_in_time", "crf_axis_2"], ["crf_kept"]),
            node("Shape", ["emissions"], ["crf_batch"], start=0, end=1),
            # (batch, 1) and (batch, tags)
            node("Concat", ["crf_batch", "crf_axis_1"], ["crf_column"], axis=0),
            node("Expand", ["crf_false", "crf_column"], ["crf_none_seen"]),
            node("Expand", ["crf_zeros", "crf_column"], ["crf_before"]),
            node(
                "Scan",
                ["crf_before", "crf_none_seen", "crf_emissions", "crf_kept"],
                ["crf_best", "crf_any_seen", "crf_origins"],
                num_scan_inputs=2,
                body=forward,
            ),
            node("Add", ["crf_best", "crf_ends"], ["crf_finished"]),
            node("ArgMax", ["crf_finished"], ["crf_last"], axis=1, keepdims=1),
            node(
                "Scan",
                ["crf_last", "crf_origins"],
                ["crf_first", "crf_path"],
                num_scan_inputs=1,
                scan_input_directions=[1],
                scan_output_directions=[1],
                body=backward,
            ),
            # (length, batch, 1) -> (length, batch) -> (batch, length)
            node("Squeeze", ["crf_path", "crf_axis_2"], ["crf_tags_in_time"]),
            node("Transpose", ["crf_tags_in_time"], ["crf_tags"], perm=[1, 0]),
            node("Where", ["crf_attended", "crf_tags", "crf_unknown"], ["predictions"]),
        ]
    )
    graph.output.append(value("predictions", TensorProto.INT64, "batch", "length"))


__all__ = ["UNKNOWN_TAG", "add_best_path", "merge_linears", "widen_inner_layers"]
