"""Weights that accelerate keeps elsewhere (on the CPU or the disk), for what isn't a module's `forward`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn


def fetched(module: nn.Module) -> AbstractContextManager[None]:
    """Have a module's own weights where they are computed with.

    accelerate's hooks fetch weights for `forward` alone, and leave them on the device "meta" otherwise.
    """
    hook = module.__dict__.get("_hf_hook")
    return nullcontext() if hook is None else _between(hook, module)


@contextmanager
def _between(hook: Any, module: nn.Module) -> Iterator[None]:
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)


__all__ = ["fetched"]
