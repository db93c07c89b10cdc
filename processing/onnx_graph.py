"""What is done to an exported ONNX graph: matrix products that can be saved are, and the best tag path is added.

All of it is exact up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


# Rows whose length in bytes is a multiple of a memory page fall into the same few sets of the processor's cache, and a
# matrix product over them is a tenth slower; so many more columns of zeros are faster.
_PAGE = 4096
_FILLING = 16
# Activations of which 0 is 0: columns of zeros stay such.
_KEEP_ZERO = ("Gelu", "Relu", "Tanh")

# Viterbi as the CRF of the model decodes: scores are added up in float64 over the attended positions, whatever stands
# between them. `into` holds [next, previous], so that the last axis is what is maximised over.
_BEST_PATH = """
<domain: "bga_mner", opset_import: ["" : 23]>
BestPath (emissions, attention_mask, into, starts, ends) => (predictions) {
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  # time first: (batch, length, tags) -> (length, batch, tags)
  emissions_in_time = Transpose <perm = [1, 0, 2]> (emissions)
  steps = Cast <to = 11> (emissions_in_time)
  attended = Cast <to = 9> (attention_mask)
  attended_in_time = Transpose <perm = [1, 0]> (attended)
  attended_steps = Unsqueeze (attended_in_time, two)
  batch = Shape <start = 0, end = 1> (emissions)
  tags = Shape <start = 2, end = 3> (emissions)
  batch_and_tags = Concat <axis = 0> (batch, tags)
  zeros = ConstantOfShape <value = double[1] {0.0}> (batch_and_tags)
  batch_and_one = Concat <axis = 0> (batch, one)
  none_seen = ConstantOfShape <value = bool[1] {0}> (batch_and_one)
  first_tag = Constant <value_int = 0> ()
  next_tag = Constant <value_int = 1> ()
  tag_count = Squeeze (tags)
  same_tag = Range (first_tag, tag_count, next_tag)
  best, any_seen, origins = Scan <num_scan_inputs = 2, body = forward (
    double[b, t] before, bool[b, 1] seen, double[b, t] emission, bool[b, 1] kept
  ) => (double[b, t] after, bool[b, 1] seen_after, int64[b, t] origin) {
    # (batch, previous) -> (batch, 1, previous) + (next, previous) -> (batch, next, previous)
    all_before = Unsqueeze (before, one)
    sums = Add (all_before, into)
    reached = ReduceMax <keepdims = 0> (sums, two)
    argument = ArgMax <axis = 2, keepdims = 0> (sums)
    arrived = Where (seen, reached, starts)
    scored = Add (arrived, emission)
    # what isn't attended passes on what came, by way of the same tag
    after = Where (kept, scored, before)
    origin = Where (kept, argument, same_tag)
    seen_after = Or (seen, kept)
  }> (zeros, none_seen, steps, attended_steps)
  finished = Add (best, ends)
  last = ArgMax <axis = 1, keepdims = 1> (finished)
  first, path = Scan <num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1], body = backward (
    int64[b, 1] tag, int64[b, t] tag_origins
  ) => (int64[b, 1] tag_before, int64[b, 1] tag_here) {
    tag_before = GatherElements <axis = 1> (tag_origins, tag)
    tag_here = Identity (tag)
  }> (last, origins)
  # (length, batch, 1) -> (length, batch) -> (batch, length)
  path_in_time = Squeeze (path, two)
  path_by_text = Transpose <perm = [1, 0]> (path_in_time)
  unknown = Constant <value_int = -100> ()
  predictions = Where (attended, path_by_text, unknown)
}
"""


def add_best_path(model: ModelProto, transitions: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Add the output "predictions": the best tag path, int64 (batch, length), -100 at padding.

    The graph has the input "attention_mask" (batch, length) and the output "emissions" (batch, length, tags).
    `transitions` are scores of [previous, next].
    """
    from onnx import TensorProto, helper, numpy_helper, parser

    scores = {"crf_into": transitions.T, "crf_starts": starts, "crf_ends": ends}
    for name, values in scores.items():
        array = np.ascontiguousarray(values, dtype=np.float64)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    node = helper.make_node("BestPath", ["emissions", "attention_mask", *scores], ["predictions"], domain="bga_mner")
    model.graph.node.append(node)
    model.graph.output.append(helper.make_tensor_value_info("predictions", TensorProto.INT64, ["batch", "length"]))
    model.functions.append(parser.parse_function(_BEST_PATH))
    model.opset_import.append(helper.make_opsetid("bga_mner", 1))


class _Graph:
    """Linear layers of a graph (a product with a constant matrix, a sum with a constant), and who reads each value."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in self.graph.initializer}
        self.outputs = {value.name for value in self.graph.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        found = ((node, self.only_reader(node, ("Add",))) for node in self.graph.node if self._multiplies(node))
        self.linears = [(product, add) for product, add in found if add is not None and self._adds(add, product)]

    def only_reader(self, node: NodeProto, kinds: tuple[str, ...]) -> NodeProto | None:
        """Return the node that alone reads a node's output, if it is of one of these kinds."""
        readers = self.readers.get(node.output[0], [])
        alone = len(readers) == 1 and node.output[0] not in self.outputs
        return readers[0] if alone and readers[0].op_type in kinds else None

    def array(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name])

    def replace_constant(self, node: NodeProto, position: int, array: np.ndarray) -> None:
        """Let a node read another constant; the old one may have other readers."""
        from onnx import numpy_helper

        name = f"{node.output[0]}_{position}"
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        node.input[position] = name

    def finish(self, gone: list[NodeProto], stale: set[str]) -> None:
        """Drop nodes, shapes that were noted of values, and constants that nothing reads."""
        for node in gone:
            self.graph.node.remove(node)
        read = {name for node in self.graph.node for name in node.input}
        for items, kept in (
            (self.graph.value_info, [info for info in self.graph.value_info if info.name not in stale]),
            (self.graph.initializer, [tensor for tensor in self.graph.initializer if tensor.name in read]),
        ):
            del items[:]
            items.extend(kept)

    def _multiplies(self, node: NodeProto) -> bool:
        return node.op_type == "MatMul" and self._is_constant(node.input[1], 2)

    def _adds(self, add: NodeProto, product: NodeProto) -> bool:
        return self._is_constant(add.input[_bias_position(add, product)], 1)

    def _is_constant(self, name: str, dimensions: int) -> bool:
        return name in self.constants and len(self.constants[name].dims) == dimensions


def _bias_position(add: NodeProto, product: NodeProto) -> int:
    """Return which input of a sum isn't the product."""
    return 1 if add.input[0] == product.output[0] else 0


def merge_linears(model: ModelProto) -> int:
    """Make one linear layer of two where that saves products: ``(x A + a) B + b = x (A B) + (a B + b)``.

    Generated features are projected to a layer's width and then to its keys and values, with nothing between. The model
    is changed in place; returns how many layers are gone.
    """
    graph = _Graph(model)
    adds = {id(product): add for product, add in graph.linears}
    gone: list[NodeProto] = []
    for product, add in graph.linears:
        middle = add.output[0]
        following = graph.readers.get(middle, [])
        if not following or middle in graph.outputs:
            continue
        if any(id(node) not in adds or node.input[0] != middle for node in following):
            continue
        depth, width = graph.constants[product.input[1]].dims
        columns = sum(graph.constants[node.input[1]].dims[1] for node in following)
        if depth * columns >= depth * width + width * columns:
            continue
        weight = graph.array(product.input[1]).astype(np.float64)
        bias = graph.array(add.input[_bias_position(add, product)]).astype(np.float64)
        for node in following:
            second, second_add = graph.array(node.input[1]), adds[id(node)]
            position = _bias_position(second_add, node)
            second_bias = graph.array(second_add.input[position])
            graph.replace_constant(second_add, position, (bias @ second + second_bias).astype(second.dtype))
            graph.replace_constant(node, 1, (weight @ second).astype(second.dtype))
            node.input[0] = product.input[0]
        gone += [product, add]
    graph.finish(gone, set())
    return len(gone) // 2


def widen_inner_layers(model: ModelProto) -> int:
    """Add columns of zeros between two linear layers whose rows would else be a multiple of a memory page.

    What the columns hold is 0 before and after the activation, and meets rows of zeros in the second layer. The model
    is changed in place; returns how many pairs of layers were widened.
    """
    graph = _Graph(model)
    widened: list[NodeProto] = []
    for product, add in graph.linears:
        activation = graph.only_reader(add, _KEEP_ZERO)
        following = activation and graph.only_reader(activation, ("MatMul",))
        if not activation or not following or following.input[1] not in graph.constants:
            continue
        weight = graph.array(product.input[1])
        if weight.dtype != np.float32 or weight.shape[1] * weight.itemsize % _PAGE:
            continue
        position, more = _bias_position(add, product), (0, _FILLING)
        graph.replace_constant(add, position, np.pad(graph.array(add.input[position]), more))
        graph.replace_constant(following, 1, np.pad(graph.array(following.input[1]), (more, (0, 0))))
        graph.replace_constant(product, 1, np.pad(weight, ((0, 0), more)))
        widened += [product, add, activation]
    graph.finish([], {node.output[0] for node in widened})
    return len(widened) // 3


__all__ = ["add_best_path", "merge_linears", "widen_inner_layers"]
