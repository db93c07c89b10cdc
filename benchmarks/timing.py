"""Functions timed in turn, and their ratios; for the scripts beside."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def compute_clock() -> float:
    """Read the processor time of a single thread, which other processes don't prolong; of more, the wall clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def time_in_turn(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    calls: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Time functions in turn, so that whatever slows the machine down slows all; return seconds, one value per round.

    Each is the mean of that many `calls` in a row by the `clock`. No `warm_up`, a round that isn't counted, is needed
    where the functions have just run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(-int(warm_up), repeats):
        for name, function in functions.items():
            begin = clock()
            for _ in range(calls):
                function()
            if number >= 0:
                seconds[name].append((clock() - begin) / calls)
    return seconds


def ratios(times: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return each time over that of the same round."""
    return [one / other for one, other in zip(times, base, strict=True)]


def median_ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """Return the median of `ratios`."""
    return statistics.median(ratios(times, base))


def milliseconds(times: Sequence[float]) -> str:
    """Show the median of seconds."""
    return f"{1000 * statistics.median(times):.0f}"


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the straight line through the logarithms, by least squares: values grow as sizes to this power."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in values]).slope
