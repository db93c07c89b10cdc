"""Which tags may follow each other in the BIO scheme."""

from torch import Tensor, tensor

from ..configuration.messages import shown


def bio_constraints(id2label: dict[int, str]) -> tuple[Tensor, Tensor]:
    """Which tags may follow each other, and which may come first, in the BIO scheme.

    ``I-X`` may come only after ``B-X`` or ``I-X`` of the same type. Labels of another form are free, and so is
    ``I-X`` where the label set has no ``B-X`` (the IO scheme), as it could never be reached.

    Parameters
    ----------
    id2label : dict of int to str
        Names of the tags ``0 ... T - 1``.

    Returns
    -------
    allowed_transitions, allowed_starts : Tensor of bool, shapes (T, T) and (T,)
        ``[previous, next]`` and first tags, on the CPU whatever the default device.

    Raises
    ------
    ValueError
        If the keys are not ``0 ... T - 1``.

    Examples
    --------
    >>> transitions, starts = bio_constraints({0: "O", 1: "B-PER", 2: "I-PER"})
    >>> transitions.int().tolist()
    [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    >>> starts.tolist()
    [True, True, False]
    """
    if set(id2label) != set(range(len(id2label))):
        expected = f"the integer keys 0 to {len(id2label) - 1}"
        raise misfit("id2label", expected, list(id2label), "Number the labels so.")
    names = [id2label[tag] for tag in range(len(id2label))]
    # The tags of which one must have gone before; None where anything may.
    needed = [{f"B-{x[2:]}", x} if x.startswith("I-") and f"B-{x[2:]}" in names else None for x in names]
    transitions = [[before is None or previous in before for before in needed] for previous in names]
    # An explicit device, as models are often built under a default device of "meta", whose tensors hold no values.
    return tensor(transitions, device="cpu"), tensor([x is None for x in needed], device="cpu")


def misfit(name: str, expected: str, got: object, mend: str) -> ValueError:
    """Build the error for an argument that does not fit."""
    if isinstance(got, Tensor):
        got = f"{got.dtype} of shape {tuple(got.shape)} on {got.device}"
    return ValueError(f"{name}: expected {expected}; got {got if isinstance(got, str) else shown(got)}. {mend}")


__all__ = ["bio_constraints", "misfit"]
