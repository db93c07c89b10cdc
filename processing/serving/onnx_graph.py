"""The best tag path (Viterbi) as a function of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from onnx import ModelProto


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


__all__ = ["add_best_path"]
