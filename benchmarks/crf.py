"""How much faster the CRF is than `pytorch-crf`, how long it takes as sizes grow, and that it computes the right thing.

Both hold equal scores and get the same float32 emissions, tags and masks; ours has no constraints here, as pytorch-crf
has none. They are timed in turn, a few calls of one and then of the other: mean loss with its gradients to emissions,
transitions, starts and ends, and decoding, once with full masks and once with ragged ones (lengths from a quarter up).
A speedup is the median over repeats of pytorch-crf's time over ours::

    python benchmarks/crf.py --threads 1 --json
    python benchmarks/crf.py --threads 1 --scaling --json

On one thread, times are processor seconds of this process, so that other work of the machine counts for neither; on
more threads they are seconds on the clock. Before anything is timed, losses and gradients are compared with a plain
loop in log space, in float64, at ordinary scores and at transitions of -10000 with emissions of 180 and -180, and paths
with those of pytorch-crf by their scores; if they differ, nothing is timed, and the script fails.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bga_mner.examples.command_line import Parser, natural, positive, run_main

import torch
from rich.console import Console
from torch import Tensor, nn
from torchcrf import CRF

from bga_mner.benchmarks.timing import compute_clock, exponent, median_ratio, time_in_turn
from bga_mner.examples.reporting import add_common_options, print_json, print_table
from bga_mner.modeling_bga.crf.crf import ConditionalRandomField


TOLERANCE = 1e-5  # nats for losses and scores of paths, and for each element of the mean loss's gradients
SHAPES = "8x64x9,32x128x9,32x128x41"
LARGE_TRANSITION, LARGE_EMISSION = -1.0e4, 180.0
CALLS = 5  # of one in a row, timed together
# One size grows at a time, the others stay at these.
BASE = {"batch": 8, "length": 64, "tags": 9}
GROWTH = {"batch": [1, 2, 4, 8, 16, 32, 64], "length": [16, 32, 64, 128, 256, 512], "tags": [3, 9, 27, 81]}
STEEPEST = {"length": 1.2, "tags": 2.2}  # exponents beyond which the script fails: linear and quadratic, and some noise


class Batch(NamedTuple):
    """Emissions (B, L, T), tags (B, L) that follow the BIO scheme, and a mask (B, L)."""

    emissions: Tensor
    tags: Tensor
    mask: Tensor


def make_batch(batch: int, length: int, tags: int, ragged: bool = False) -> Batch:
    """Sample emissions, tags `O`, `B-1`, `I-1`, `B-2`, `I-2`, ..., and a mask; the first sentence is full."""
    sampled = torch.randint(0, tags, (batch, length))
    for step in range(length):
        # An inside tag, of an even number, goes on from its left neighbour, or becomes the begin tag of its type.
        inside = (sampled[:, step] > 0) & (sampled[:, step] % 2 == 0)
        before = sampled[:, step - 1] if step else torch.zeros_like(sampled[:, 0])
        goes_on = (before == sampled[:, step]) | (before == sampled[:, step] - 1)
        sampled[:, step] -= (inside & ~goes_on).long()
    lengths = torch.full((batch,), length)
    if ragged:
        lengths[1:] = torch.randint(max(1, length // 4), length + 1, (batch - 1,))
    return Batch(torch.randn(batch, length, tags), sampled, torch.arange(length) < lengths.unsqueeze(1))


def make_pair(tags: int) -> tuple[ConditionalRandomField, CRF]:
    """Build ours, without constraints, and pytorch-crf's with the same scores."""
    ours, theirs = ConditionalRandomField(tags), CRF(tags, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def reference_loss(crf: nn.Module, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihoods (B,) by a loop over sentences and steps, in log space and float64; no constraints."""
    transitions, starts = crf.transitions.double(), crf.start_transitions.double()
    losses = []
    for row, kept in enumerate(mask):
        scores, labels = emissions[row, kept].double(), tags[row, kept]
        state = starts + scores[0]
        for step in scores[1:]:
            state = torch.logsumexp(state.unsqueeze(1) + transitions, 0) + step
        losses.append(torch.logsumexp(state + crf.end_transitions.double(), 0) - path_score(crf, scores, labels))
    return torch.stack(losses)


def path_score(crf: nn.Module, emissions: Tensor, tags: Tensor) -> Tensor:
    """Score in float64 of the labelling (n,) of one sentence of n kept positions (n, T)."""
    ends = crf.start_transitions.double()[tags[0]] + crf.end_transitions.double()[tags[-1]]
    moves = crf.transitions.double()[tags[:-1], tags[1:]]
    return ends + moves.sum() + emissions.double().gather(1, tags.unsqueeze(1)).sum()


def loss_and_gradients(crf: nn.Module, losses: Callable[..., Tensor], batch: Batch) -> dict[str, Tensor]:
    """Losses (B,), and the gradients of their mean to emissions, transitions, starts and ends."""
    emissions = batch.emissions.clone().requires_grad_()
    values = losses(emissions, batch.tags, batch.mask)
    wanted = {"emissions": emissions, **dict(crf.named_parameters())}
    gradients = torch.autograd.grad(values.mean(), list(wanted.values()))
    return {"loss": values.detach(), **dict(zip(wanted, gradients, strict=True))}


def check_losses(crf: nn.Module, batch: Batch, case: str) -> None:
    """Compare losses and gradients of `crf`, in float64, with `reference_loss`; raise if they differ."""
    found = loss_and_gradients(crf, crf, batch)
    expected = loss_and_gradients(crf, lambda *inputs: reference_loss(crf, *inputs), batch)
    for name, values in found.items():
        difference = (values.double() - expected[name]).abs().max().item()
        if not difference <= TOLERANCE:  # NaN is not
            what = name if name == "loss" else f"gradient to {name}"
            raise RuntimeError(
                f"Expected the {what} ({case}) to within {TOLERANCE} of the float64 loop in log space, got a "
                f"difference of {difference:.3g}. Nothing was timed; mend the CRF first."
            )


def check_paths(crf: nn.Module, other: CRF, batch: Batch, case: str) -> None:
    """Compare the scores of the paths of `crf`, in float64, with those of pytorch-crf; raise if they differ."""
    paths = crf.decode(batch.emissions, batch.mask)
    for row, path in enumerate(other.decode(batch.emissions, batch.mask)):
        kept, emissions = batch.mask[row], batch.emissions[row, batch.mask[row]]
        scores = [path_score(crf, emissions, tags).item() for tags in (paths[row, kept], torch.tensor(path))]
        if not abs(scores[0] - scores[1]) <= TOLERANCE:
            raise RuntimeError(
                f"Expected a path of the score {scores[1]:.6f} in sentence {row} ({case}), as from pytorch-crf, got "
                f"{scores[0]:.6f}. Nothing was timed; mend the CRF first."
            )


@torch.no_grad()
def _enlarge(crf: nn.Module, other: CRF, batch: Batch) -> Batch:
    """Make transitions and emissions large, but for the first tag, which may go anywhere, so that a path is left."""
    large = torch.rand(crf.transitions.shape) < 1 / 3
    large[0] = False
    crf.transitions[large] = LARGE_TRANSITION
    other.transitions[large] = LARGE_TRANSITION
    return batch._replace(emissions=torch.where(batch.emissions < 0, -LARGE_EMISSION, LARGE_EMISSION).double())


def check(crf: nn.Module, batch: int, length: int, tags: int) -> None:
    """Check `crf` at ordinary and at large scores, with full and with ragged masks; it becomes float64."""
    crf, other = crf.double(), CRF(tags, batch_first=True).double()
    other.load_state_dict(crf.state_dict())
    sampled = [make_batch(batch, length, tags, ragged) for ragged in (False, True)]
    sampled = [one._replace(emissions=one.emissions.double()) for one in sampled]
    for scores in ("ordinary", "large"):
        if scores == "large":
            sampled = [_enlarge(crf, other, one) for one in sampled]
        for mask, one in zip(("full", "ragged"), sampled, strict=True):
            case = f"{batch}x{length}x{tags}, {scores} scores, {mask} mask"
            check_losses(crf, one, case)
            check_paths(crf, other, one, case)


def _time(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    return time_in_turn(functions, repeats, calls=CALLS, clock=compute_clock)


def _our_calls(crf: ConditionalRandomField, batch: Batch) -> dict[str, Callable[[], Any]]:
    emissions = batch.emissions.clone().requires_grad_()
    wanted = [emissions, *crf.parameters()]
    return {
        "nll_backward": lambda: torch.autograd.grad(crf(emissions, batch.tags, batch.mask).mean(), wanted),
        "decode": lambda: crf.decode(batch.emissions, batch.mask),
        "log_marginals": lambda: crf.log_marginals(batch.emissions, batch.mask),
    }


def _their_calls(crf: CRF, batch: Batch) -> dict[str, Callable[[], Any]]:
    emissions = batch.emissions.clone().requires_grad_()
    wanted = [emissions, *crf.parameters()]

    @torch.no_grad()
    def decode() -> list[list[int]]:
        return crf.decode(batch.emissions, batch.mask)

    def loss() -> Tensor:
        return -crf(emissions, batch.tags, mask=batch.mask, reduction="mean")

    return {"nll_backward": lambda: torch.autograd.grad(loss(), wanted), "decode": decode}


def compare(batch: int, length: int, tags: int, repeats: int) -> dict[str, float]:
    """Time ours and pytorch-crf's in turn; return speedups, and milliseconds of ours (medians)."""
    found: dict[str, float] = {"batch": batch, "length": length, "tags": tags}
    ours, theirs = make_pair(tags)
    for prefix, ragged in (("", False), ("ragged_", True)):
        sampled = make_batch(batch, length, tags, ragged)
        mine, others = _our_calls(ours, sampled), _their_calls(theirs, sampled)
        for name, other in others.items():
            seconds = _time({"other": other, "mine": mine[name]}, repeats)
            found[f"{prefix}{name}_speedup"] = median_ratio(seconds["other"], seconds["mine"])
            found[f"{prefix}{name}_ms"] = 1e3 * statistics.median(seconds["mine"])
        seconds = _time({name: mine[name] for name in ("nll_backward", "log_marginals")}, repeats)
        ratio = median_ratio(seconds["log_marginals"], seconds["nll_backward"])
        found[f"{prefix}log_marginals_ms"] = 1e3 * statistics.median(seconds["log_marginals"])
        found[f"{prefix}log_marginals_to_nll_backward"] = ratio
    return found


def grow(repeats: int, growth: dict[str, list[int]]) -> dict[str, Any]:
    """Time ours at growing sizes, all in turn; return medians (ms) and exponents of all sizes and of the last two."""
    found: dict[str, Any] = {}
    for axis, sizes in growth.items():
        shapes = [BASE | {axis: size} for size in sizes]
        per_size = [_our_calls(ConditionalRandomField(shape["tags"]), make_batch(**shape)) for shape in shapes]
        found[axis] = {"sizes": sizes, "ms": {}, "exponents": {}, "last_exponents": {}}
        for name in per_size[0]:
            seconds = _time({str(i): calls[name] for i, calls in enumerate(per_size)}, repeats)
            medians = [1e3 * statistics.median(of_size) for of_size in seconds.values()]
            found[axis]["ms"][name] = medians
            found[axis]["exponents"][name] = exponent(sizes, medians)
            found[axis]["last_exponents"][name] = exponent(sizes[-2:], medians[-2:])
    return found


def check_growth(found: dict[str, Any]) -> None:
    """Raise if time grows faster than linearly in length or quadratically in tags, by what `grow` found."""
    for axis, steepest in STEEPEST.items():
        for name, slope in found[axis]["exponents"].items() if axis in found else ():
            if slope > steepest:
                raise RuntimeError(
                    f"Expected the time of {name} to grow as {axis} to the power of {steepest} at most, got "
                    f"{slope:.2f}. "
                    "Run it again on a quieter machine; if it stays, the CRF has become slow at large sizes."
                )


def _print_comparison(found: list[dict[str, float]], console: Console, threads: int) -> None:
    rows = []
    for one in found:
        cells = ["x".join(str(one[size]) for size in BASE)]
        for what, digits in (("speedup", 1), ("ms", 2)):
            for name in ("nll_backward", "decode"):
                values = one[f"{name}_{what}"], one[f"ragged_{name}_{what}"]
                cells.append(" / ".join(f"{value:.{digits}f}" for value in values))
        cells.append(f"{one['log_marginals_ms']:.2f} ({one['log_marginals_to_nll_backward']:.2f} x loss)")
        rows.append(cells)
    title = f"Times faster than pytorch-crf, full / ragged masks; loss with gradients; {threads} thread(s)"
    columns = ("batch x length x tags", "loss", "decoding", "loss, ms", "decoding, ms", "marginals, ms")
    print_table(title, columns, rows, console)


def _print_growth(found: dict[str, Any], console: Console) -> None:
    for axis, of_axis in found.items():
        fixed = ", ".join(f"{name} {size}" for name, size in BASE.items() if name != axis)
        columns = (axis, *map(str, of_axis["sizes"]), "exponent", "of the last two")
        rows = []
        for name, times in of_axis["ms"].items():
            slopes = of_axis["exponents"][name], of_axis["last_exponents"][name]
            rows.append((name, *(f"{number:.2f}" for number in (*times, *slopes))))
        print_table(f"Milliseconds as {axis} grows; {fixed}", columns, rows, console)


def _shapes(text: str) -> list[tuple[int, ...]]:
    shapes = [tuple(map(int, re.findall(r"\d+", shape))) for shape in text.split(",")]
    if not re.fullmatch(r"\d+x\d+x\d+(,\d+x\d+x\d+)*", text) or any(not all(x) or x[2] % 2 == 0 for x in shapes):
        raise argparse.ArgumentTypeError(
            f"expected shapes like 8x64x9, of sentences, positions and an odd number of tags (O, and B and I of each "
            f"type), with commas between, got {text}"
        )
    return shapes


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--shapes", type=_shapes, default=SHAPES, help="comma-separated list of batch x length x tags")
    parser.add_argument(
        "--repeats", type=positive, default=21, help=f"repetitions of {CALLS} calls each; medians are reported"
    )
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--scaling", action="store_true", help="time only ours, at growing sizes")
    add_common_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[dict[str, float]] | dict[str, Any]:
    """Check, then run the benchmark, and print what was found; return what `compare` or `grow` returns."""
    options = _parse(argv)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    console, found, name = Console(width=120), None, "crf_scaling" if options.scaling else "crf"
    try:
        for shape in [tuple(BASE.values())] if options.scaling else options.shapes:
            check(ConditionalRandomField(shape[2]), *shape)
        console.print(f"Losses, gradients and paths are right, also at large scores (to {TOLERANCE}).")
        if options.scaling:
            found = grow(options.repeats, GROWTH)
            _print_growth(found, console)
            check_growth(found)
        else:
            found = [compare(*shape, options.repeats) for shape in options.shapes]
            _print_comparison(found, console, torch.get_num_threads())
    except RuntimeError as error:
        sys.exit(str(error))
    print_json(options, {name: found})
    return found


if __name__ == "__main__":
    run_main(main)
