"""Score the entities of texts that are read in windows. NumPy alone: the tagger on ONNX Runtime takes a copy along."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..modeling_bga.span_probabilities import Span
from .tag_scheme import spans_from_tags
from .text_windows import TaggedText, Window


def check_finite(scores: np.ndarray) -> None:
    """Refuse tag scores of a broken model: a best path would be found all the same.

    Parameters
    ----------
    scores : numpy.ndarray of shape (positions, tags)
        Of positions that are read. Minus infinity is what a tagger without a CRF gives a tag that can't be, so it is
        refused only where no tag can be.

    Raises
    ------
    ValueError
        If there is NaN or infinity among them.
    """
    # the maximum over tags is NaN where any of them is
    if not np.isfinite(scores.max(axis=-1)).all():
        raise ValueError(
            "Expected tag scores that are finite numbers, but the model gives NaN or infinity. Its weights are broken, "
            "or too large for half precision: take another checkpoint, or load it with dtype='float32'."
        )


# From emissions (B, L, T), which positions are attended and which begin words (B, L), and spans to probabilities (S,).
SpanProbabilities = Callable[[np.ndarray, np.ndarray, np.ndarray, list[Span]], np.ndarray]


class _Read(NamedTuple):
    """A window as the model has read it: emissions (L, T), and where its words begin."""

    window: Window
    emissions: np.ndarray
    first_tokens: list[int]


class EntityScorer:
    """Fills in the `scores` of texts: how probable it is that exactly these words are an entity of this type.

    In a text that is read in several windows, an entity has its probability in the window where it has most context.
    Where none holds it whole, it is that of the part that the window holds.

    Parameters
    ----------
    texts : sequence of TaggedText
        All texts.
    span_probabilities : callable
        From emissions (B, L, T), which positions are attended and which begin words, both bool (B, L), and spans to
        their probabilities.
    """

    def __init__(self, texts: Sequence[TaggedText], span_probabilities: SpanProbabilities) -> None:
        self.texts, self.span_probabilities = texts, span_probabilities
        self._parts: defaultdict[int, list[_Read]] = defaultdict(list)

    def add(self, batch: Sequence[Window], emissions: np.ndarray, mask: np.ndarray) -> None:
        """Score what is complete, and keep the emissions of the rest; `collect_tags` goes before.

        Parameters
        ----------
        batch : sequence of Window
            Windows.
        emissions : numpy.ndarray of shape (windows, length, tags)
            Their tag scores.
        mask : numpy.ndarray of bool, shape (windows, length)
            False at padding, on either side.

        Raises
        ------
        ValueError
            If a score is no number.
        """
        check_finite(emissions[mask])
        read, spans, wanted = np.zeros_like(mask), [], []
        for row, window in enumerate(batch):
            text, offset = self.texts[window.text], int(mask[row].argmax())
            first_tokens = [offset + token for token in window.first_tokens]
            read[row, first_tokens] = True
            if (window.start, window.end) != (0, len(text.words)):
                kept = emissions[row, offset : offset + len(window.ids)].copy()
                self._parts[window.text].append(_Read(window, kept, window.first_tokens))
                continue
            for label, first, behind in spans_from_tags(text.tags):
                spans.append(Span(row, label, first_tokens[first], first_tokens[behind - 1] + 1))
                wanted.append(text)
        for text, score in zip(wanted, self.span_probabilities(emissions, mask, read, spans), strict=True):
            text.scores.append(float(score))

    def finish(self) -> None:
        """Score the texts that are read in several windows, once all of them are tagged."""
        for number, parts in self._parts.items():
            text = self.texts[number]
            text.scores = [self._score(parts, len(text.words), *span) for span in spans_from_tags(text.tags)]
        self._parts.clear()

    def _score(self, parts: list[_Read], words: int, label: str, first: int, behind: int) -> float:
        def context(part: _Read) -> float:
            # The ends of the text are no loss of context; what isn't in the window is less than none.
            before = float("inf") if part.window.start == 0 else first - part.window.start
            after = float("inf") if part.window.end == words else part.window.end - behind
            return min(before, after)

        window, emissions, first_tokens = max(parts, key=context)
        first, behind = max(first, window.start) - window.start, min(behind, window.end) - window.start
        read = np.zeros((1, len(emissions)), dtype=bool)
        read[0, first_tokens] = True
        span = Span(0, label, first_tokens[first], first_tokens[behind - 1] + 1)
        return float(self.span_probabilities(emissions[None], np.ones_like(read), read, [span])[0])


__all__ = ["EntityScorer", "SpanProbabilities", "check_finite"]
