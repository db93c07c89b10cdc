"""A pytest plugin for test_beside_torchvision.py: lets torchvision be imported beside a CPU build of torch.

PyPI's torchvision is built for CUDA. Beside a CPU build its operators can't be loaded, and importing it fails, because
it asks for two of them by name. Given these names it can be imported; no convolutional encoder calls what they stand
for.
"""

from __future__ import annotations

import torch


OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
if torch.version.cuda is None:
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
