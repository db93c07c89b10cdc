"""Mark most cases of an exhaustive test as slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the cases for `pytest.mark.parametrize`; all but the `quick` ones are marked as slow."""
    cases = list(cases)
    if missing := [case for case in quick if case not in cases]:
        raise ValueError(f"Expected quick cases among {cases}, got {missing}.")
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
