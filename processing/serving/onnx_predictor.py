"""Find the entities of texts on ONNX Runtime: no torch and no transformers, only onnxruntime, tokenizers and numpy.

`export_onnx` lays this file, and those that it imports, beside the graph. What it finds is what the `multimodal-ner`
pipeline finds::

    python FOLDER/onnx_predictor.py FOLDER "Kawhi Leonard wins in Toronto"
    python FOLDER/onnx_predictor.py FOLDER - < texts.txt

prints a line of JSON for each text (each line of the standard input, with "-"). In Python, with FOLDER on the path::

    from onnx_predictor import OnnxPredictor

    annotate = OnnxPredictor("FOLDER")
    annotate(["Kawhi Leonard wins in Toronto", "NBA"])
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...configuration.errors import brief, listed, shown
from ...modeling_bga.crf.span_probabilities import CrfScores, Span, span_log_probabilities
from ..inference.text_windows import TaggedWords, Window, WindowScores, pad_windows, tag_in_windows, texts_read_ahead
from ..sequences import as_list
from ..text.given_words import split_texts
from ..text.text_input import describe_entities
from ..text.word_reader import WordReader


MODEL_FILE, TAGGER_FILE, TOKENIZER_FILE = "model.onnx", "tagger.json", "tokenizer.json"
_BATCH_TOKENS = 512  # of models that were exported before it was written down
# What stands in the tagger's file.
_SETTINGS = ["id2label", "max_length", "takes_token_type_ids", "padding_token", "special_tokens", "substitute_token"]
_SETTINGS += ["word_prefix", "crf"]
_MEND = "Write one: python examples/export_onnx.py --model MODEL --output FOLDER."
# Without these two ONNX Runtime is faster on a CPU: each makes one slow operator of two fast ones.
_SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]


class OnnxPredictor:
    """Finds the entities of texts of any length: the best tag path (Viterbi), long texts in overlapping windows.

    Parameters
    ----------
    folder : str or path
        What `export_onnx` wrote.
    threads : int, optional
        Threads of ONNX Runtime; by default one for each core.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        The graph: "input_ids", "attention_mask" and perhaps "token_type_ids", int64 (batch, length), to "emissions" and
        "predictions".
    settings : dict
        What is in `tagger.json`.

    Raises
    ------
    ValueError
        If a file is missing or isn't what it should be.
    """

    def __init__(self, folder: str | os.PathLike[str], *, threads: int | None = None) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        folder = Path(folder)
        missing = [name for name in (MODEL_FILE, TAGGER_FILE, TOKENIZER_FILE) if not (folder / name).is_file()]
        if missing:
            what = "is no folder" if not folder.is_dir() else f"has no {listed(missing)}"
            raise ValueError(f"Expected a folder that export_onnx wrote, but {shown(str(folder))} {what}. {_MEND}")
        self.settings = _read_settings(folder / TAGGER_FILE)
        with _blamed_on(folder / TOKENIZER_FILE):
            self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        with _blamed_on(folder / MODEL_FILE):
            self.session = onnxruntime.InferenceSession(
                str(folder / MODEL_FILE),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_SLOW_FUSIONS,
            )
            self._check_graph()
        # what was written before there was a choice reads words whole
        read = self.settings.get("words", {"unspaced_scripts": "words"})
        self._reader = WordReader(read["unspaced_scripts"], tuple(read.get("whole", ())))
        self._scores = CrfScores(**{name: np.asarray(values) for name, values in self.settings["crf"].items()})
        self._labels = [self.settings["id2label"][str(number)] for number in range(len(self.settings["id2label"]))]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        is_split_into_words: bool | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        stride: int | None = None,
    ) -> list[Any]:
        """Find the entities of a text or many.

        Parameters
        ----------
        text : str, sequence of str or sequence of sequences of str
            A text, texts, or texts as lists of words.
        is_split_into_words, batch_size, max_length, stride : optional
            As for `predict`.

        Returns
        -------
        list of dict, or list of list of dict
            For each text its entities in order, as the pipeline gives them: "entity_group", "score", "word", "start"
            and "end", where `text[start:end] == word`; and "start_word" and "end_word" if words were given. A list of
            entities for a single text.

        Raises
        ------
        ValueError
            If the arguments are nothing of the above, or don't fit together.
        """
        items = as_list(text)
        if items == [] and not is_split_into_words:
            return []
        # an iterator can be read once
        texts, single = split_texts(text if items is None else items, is_split_into_words, self._reader)
        tagged = self._tag([item.words for item in texts], batch_size, max_length, stride)
        found = [
            describe_entities(item, item.entities(of_text.spans, of_text.scores))
            for item, of_text in zip(texts, tagged, strict=True)
        ]
        return found[0] if single else found

    def run(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the graph.

        Parameters
        ----------
        input_ids, attention_mask : numpy.ndarray of int64, shape (batch, length)
            Token ids, and 0 at padding on either side.

        Returns
        -------
        tuple of numpy.ndarray
            Emissions, float32 (batch, length, tags), and the best tag path, int64 (batch, length), -100 at padding.
        """
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.settings["takes_token_type_ids"]:
            feed["token_type_ids"] = np.zeros_like(input_ids)
        emissions, predictions = self.session.run(["emissions", "predictions"], feed)
        return emissions, predictions

    def _check_graph(self) -> None:
        """Refuse a graph that isn't fed and read as `run` does."""
        given = {part.name for part in self.session.get_inputs()}
        made = {part.name for part in self.session.get_outputs()}
        fed = {"input_ids", "attention_mask"} | ({"token_type_ids"} if self.settings["takes_token_type_ids"] else set())
        if given != fed or not made >= {"emissions", "predictions"}:
            raise ValueError(f"its inputs are {listed(sorted(given))}, its outputs {listed(sorted(made))}")

    def _tag(
        self, sentences: list[list[str]], batch_size: int | None, max_length: int | None, stride: int | None
    ) -> list[TaggedWords]:
        limit = self.settings["max_length"]
        max_length = limit if max_length is None else max_length
        if max_length > limit:
            raise ValueError(
                f"Expected max_length of at most {limit}, which tokenizer and text encoder take, got {max_length}. "
                "Lower it or leave it out: longer texts are read in windows."
            )
        prefix, substitute = self.settings["word_prefix"], self.settings["substitute_token"]
        special = self.settings["special_tokens"]
        return tag_in_windows(
            self._reader.encode(sentences, self._encode, prefix, substitute),
            (special["before"], special["behind"]),
            self._labels,
            self._score,
            self._span_probabilities,
            batch_size=batch_size,
            batch_tokens=self.settings.get("batch_tokens", _BATCH_TOKENS),
            max_length=max_length,
            stride=stride,
        )

    def _encode(self, pieces: list[list[str]]) -> list[tuple[list[int], list[int | None]]]:
        encodings = self.tokenizer.encode_batch(pieces, is_pretokenized=True, add_special_tokens=False)
        return [(encoding.ids, encoding.word_ids) for encoding in encodings]

    def _score(self, batch: list[Window]) -> WindowScores:
        input_ids, mask = pad_windows(batch, self.settings["padding_token"])
        return WindowScores(*self.run(input_ids, mask.astype(np.int64)), mask)

    def _span_probabilities(
        self, emissions: np.ndarray, mask: np.ndarray, read: np.ndarray, spans: list[Span]
    ) -> np.ndarray:
        return np.exp(span_log_probabilities(emissions, mask, read, spans, self._labels, self._scores))


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Turn whatever is raised into a ValueError that names a file and says how to mend it."""
    try:
        yield
    except Exception as error:  # what tokenizers and ONNX Runtime raise of a broken file has no narrower class
        raise ValueError(
            f"Expected a folder that export_onnx wrote, but {shown(str(path))} isn't what it should be: "
            f"{brief(error)}. {_MEND}"
        ) from error


def _read_settings(path: Path) -> dict[str, Any]:
    with _blamed_on(path):
        settings = json.loads(path.read_text(encoding="utf-8"))
        _check_keys(settings, _SETTINGS)
        _check_keys(settings["id2label"], map(str, range(len(settings["id2label"]))))
        _check_keys(settings["special_tokens"], ("before", "behind"))
        _check_keys(settings["crf"], CrfScores._fields)
    return settings


def _check_keys(part: Any, names: Iterable[str]) -> None:
    missing = [name for name in names if not isinstance(part, dict) or name not in part]
    if missing:
        raise ValueError(f"it has no {listed(missing)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 after an error, which is printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="what export_onnx wrote")
    parser.add_argument("text", nargs="+", help="texts; - reads lines from the standard input")
    parser.add_argument("--batch_size", type=int, help="texts at a time; by default as many as are fast")
    parser.add_argument("--threads", type=int, help="threads of ONNX Runtime; by default one for each core")
    options = parser.parse_args(arguments)
    try:
        if options.batch_size is not None and options.batch_size < 1:
            raise ValueError(f"Expected --batch_size of at least 1, got {options.batch_size}. Raise it.")
        annotate = OnnxPredictor(options.folder, threads=options.threads)
        lines = iter(sys.stdin if options.text == ["-"] else options.text)
        # answered before more are read
        while part := [line.rstrip("\r\n") for line in islice(lines, texts_read_ahead(options.batch_size))]:
            for text, entities in zip(part, annotate(part, batch_size=options.batch_size), strict=True):
                print(json.dumps({"text": text, "entities": entities}, ensure_ascii=False), flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


__all__ = ["MODEL_FILE", "TAGGER_FILE", "TOKENIZER_FILE", "OnnxPredictor", "main"]

if __name__ == "__main__":
    sys.exit(main())
