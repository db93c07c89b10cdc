"""The `multimodal-ner` pipeline: texts, with or without images, to entities."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline, PreTrainedModel
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from ..configuration.errors import brief, shown
from .images.image_loading import BadImageError, as_image_list, fetch_image, is_url
from .inference.text_tagging import find_entities, reads_images
from .processing_bga_mner import BgaMnerProcessor
from .sequences import as_list
from .text.text_input import SplitText, check_texts, describe_entities


# Inputs are sorted by length within so many batches; all of them at once would hold up streams and fill the memory.
_BATCHES_READ_AHEAD = 16
_DEFAULT_BATCH_SIZE = 16


class BgaMnerPipeline(Pipeline):
    """Find the entities of texts: `pipeline("multimodal-ner", model="folder")`.

    It finds what `predict` finds. Answers come in the order of the inputs, and don't depend on what else is in a batch.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        The tagger.
    processor : BgaMnerProcessor
        The model's own.
    allow_urls : bool, default False
        Fetch images from `http://` and `https://` addresses. Whoever names the address makes this machine send a
        request, so leave it off where inputs come from strangers. It can't be given in a call.
    **options
        Whatever `Pipeline` takes, such as `device` and `batch_size`, and the options of a call.

    Raises
    ------
    ValueError
        If there is no processor.

    Examples
    --------
    >>> from transformers import pipeline  # doctest: +SKIP
    >>> pipe = pipeline("multimodal-ner", model="folder")  # doctest: +SKIP
    >>> pipe("Kawhi wins in Toronto")  # doctest: +SKIP
    [{'entity_group': 'PER', 'score': 0.98, 'word': 'Kawhi', 'start': 0, 'end': 5}, ...]
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(
        self,
        model: PreTrainedModel,
        processor: BgaMnerProcessor | None = None,
        allow_urls: bool = False,
        **options: Any,
    ):
        if processor is None:
            raise ValueError(
                "Expected a processor, got none. Give processor=BgaMnerProcessor(...), or as model a folder that holds "
                "both."
            )
        self.allow_urls = allow_urls
        super().__init__(model=model, processor=processor, **options)
        self.check_model_type(["BgaMnerForTokenClassification"])
        if processor.label2id not in (None, model.config.label2id):
            warnings.warn(
                f"The processor's labels, {shown(processor.label2id)}, are not the model's, "
                f"{shown(model.config.label2id)}. The model's are given out, but whoever trains with this processor "
                "teaches others. Set processor.label2id = model.config.label2id.",
                stacklevel=2,
            )

    def _sanitize_parameters(
        self,
        is_split_into_words: bool | None = None,
        visual_source: str | None = None,
        max_length: int | None = None,
        stride: int | None = None,
        on_bad_image: str | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            raise ValueError(
                "Expected is_split_into_words, visual_source, max_length, stride, on_bad_image or batch_size as an "
                f"option of the pipeline, got {shown(next(iter(unknown)))}. Leave it out: entities are always whole."
            )

        def given(**values: Any) -> dict[str, Any]:
            return {name: value for name, value in values.items() if value is not None}

        return (
            given(is_split_into_words=is_split_into_words, visual_source=visual_source),
            given(max_length=max_length, stride=stride, on_bad_image=on_bad_image, visual_source=visual_source),
            {},
        )

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        """Find the entities of a text or many.

        Parameters
        ----------
        inputs : str, list of str, dict, a list of these, or an iterable of these
            A text; or a list of its words, inside a list of texts, as an item of a generator, or with
            `is_split_into_words`; or a dict with `text` or `words`, and optionally `image`: a PIL image, path,
            bytes, dict of `datasets.Image`, URL (see `allow_urls`) or None, or a list, of which the first that can be
            read is taken. A flat list of strings holds texts, as for `predict`. A list may also be a column of a
            dataset, pandas or pyarrow, or an array. Of iterables such as generators and torch datasets, 16 batches are
            read ahead to sort them by length; with `batch_size=1` none is read before the last one is answered.
        batch_size : int, optional
            Texts (or windows of long ones) at a time. By default the pipeline's, or else 16, and 1 for iterables
            without a length, which may be waiting for an answer.
        num_workers : int, optional
            Processes that read the inputs of a torch dataset and split them into words; none by default.
        is_split_into_words, visual_source, max_length, stride, on_bad_image : optional
            As for `predict`. Images that can't be used are counted in `processor.bad_images`.

        Returns
        -------
        list of dict, list of list of dict, or iterator of list of dict
            The entities of a text in order, each a dict:

            - `entity_group`: its type.
            - `score`: probability, under the CRF, that exactly these words are an entity of this type. (The stock
              `token-classification` pipeline's is the mean of its words' tag probabilities, as a rule a higher one.)
            - `word`, `start`, `end`: `text[start:end] == word`. If words were given, the text is
              `" ".join(words)`.
            - `start_word`, `end_word`, if words were given: `words[start_word:end_word]` are its words.

            A list of these for one text, a list of such lists for a list, an iterator of such lists otherwise.

        Raises
        ------
        ValueError
            If an input is nothing of the above, or options don't fit together.
        """
        sized = isinstance(inputs, Sized)
        column = as_list(inputs) if sized and not isinstance(inputs, Dataset) else None
        if hasattr(inputs, "columns"):  # of these an iterator gives names of columns
            raise ValueError(
                f"Expected texts, got {type(inputs).__name__}. Give one of its columns, such as table['text']."
            )
        if column is not None:
            inputs = column
            split = options.get("is_split_into_words", self._preprocess_params.get("is_split_into_words"))
            if split and all(isinstance(word, str) for word in inputs):
                inputs = {"words": inputs}
            elif not inputs:
                return []
        elif isinstance(inputs, Iterable) and not isinstance(inputs, str | bytes | Mapping | Dataset):
            inputs = (item for item in inputs)  # which is what Pipeline knows
        if batch_size is None:
            batch_size = self._batch_size or (_DEFAULT_BATCH_SIZE if sized else 1)
        if batch_size < 1:
            raise ValueError(f"Expected batch_size of at least 1, got {batch_size}. Raise it.")
        return super().__call__(inputs, batch_size=batch_size, **options)

    def preprocess(
        self, input_: Any, is_split_into_words: bool | None = None, visual_source: str | None = None
    ) -> SplitText:
        """Split an input into words, and check it."""
        content, image = input_, None
        if isinstance(input_, Mapping):
            content, is_split_into_words = _read_mapping(input_)
            image = input_.get("image")
        if not reads_images(self.model, visual_source):
            image = None
        elif not self.allow_urls and (urls := [url for url in as_image_list(image) if is_url(url)]):
            raise ValueError(
                f"Expected an image as PIL image, path or bytes, got the URL {shown(urls[0])}. Download it and give "
                "its path, or make the pipeline with allow_urls=True."
            )
        reader = self.processor.word_reader
        if isinstance(content, str) and not is_split_into_words:
            return SplitText.from_text(content, reader, image)
        if not isinstance(content, str) and as_list(content) is None:
            raise ValueError(
                f"Expected a text, a list of words, or a dict with 'text' or 'words', got {type(content).__name__}. "
                "Give one of these."
            )
        (words,), _, _ = check_texts([content], is_split_into_words, batched=True)
        return SplitText.from_words(words, reader, image)

    def _forward(
        self,
        input_tensors: list[SplitText],
        batch_size: int = _DEFAULT_BATCH_SIZE,
        on_bad_image: str = "missing",
        **options: Any,
    ) -> list[list[dict[str, Any]]]:
        texts = [self._fetch_images(text, on_bad_image) for text in input_tensors]
        options |= {"batch_size": batch_size, "on_bad_image": on_bad_image}
        found = find_entities(texts, self.model, self.processor, **options)
        # described here: on the way to `postprocess` transformers makes plain tuples of named ones
        return [describe_entities(text, entities) for text, entities in zip(texts, found, strict=True)]

    def postprocess(self, model_outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a text's entities."""
        return model_outputs

    def run_single(
        self,
        inputs: Any,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Find the entities of one text."""
        (found,) = self.forward([self.preprocess(inputs, **preprocess_params)], **forward_params)
        return self.postprocess(found, **postprocess_params)

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> PipelineIterator:
        """Find the entities of many texts, as they are asked for."""
        if isinstance(inputs, Sized):
            dataset: Any = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            # each worker would read the whole stream
            dataset, num_workers = PipelineIterator(inputs, self.preprocess, preprocess_params), min(num_workers, 1)
        texts = DataLoader(dataset, batch_size=None, num_workers=num_workers)

        def find(part: list[SplitText]) -> list[list[dict[str, Any]]]:
            return self.forward(part, batch_size=batch_size, **forward_params)

        part_size = 1 if batch_size == 1 else _BATCHES_READ_AHEAD * batch_size
        return PipelineIterator(_InParts(texts, find, part_size), self.postprocess, postprocess_params)

    def save_pretrained(self, save_directory: str | os.PathLike, **options: Any) -> None:
        """Save the model and its processor in a folder; options such as `push_to_hub` go to both."""
        self.model.save_pretrained(save_directory, **options)
        self.processor.save_pretrained(save_directory, **options)

    def _fetch_images(self, text: SplitText, on_bad_image: str) -> SplitText:
        """Put what addresses lead to in their place."""
        images = as_image_list(text.image)
        if not any(map(is_url, images)):
            return text
        return replace(text, image=[self._fetch(url, on_bad_image) if is_url(url) else url for url in images])

    def _fetch(self, url: str, on_bad_image: str) -> bytes | None:
        try:
            return fetch_image(url)
        except BadImageError as error:
            if on_bad_image == "raise":
                raise
            self.processor.bad_images[error.kind] += 1
            warnings.warn(f"An image cannot be used and is treated as missing: {brief(error)}", stacklevel=2)
            return None


class _InParts:
    """What is found in texts, part by part as it is asked for; as long as the texts, if they have a length."""

    def __init__(self, texts: DataLoader, find: Callable[[list[SplitText]], list[Any]], part_size: int):
        self.texts, self.find, self.part_size = texts, find, part_size

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        texts = iter(self.texts)
        while part := list(islice(texts, self.part_size)):
            yield from self.find(part)


def _read_mapping(input_: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return text or words of an input, and whether they are words."""
    keys = set(input_)
    if not keys <= {"text", "words", "image"} or len(keys & {"text", "words"}) != 1:
        raise ValueError(
            "Expected a dict with either 'text' or 'words', and optionally 'image', got the keys "
            f"{shown(sorted(map(str, keys)))}. Rename yours, and leave others out."
        )
    if "text" in keys:
        return input_["text"], False
    return input_["words"], True


__all__ = ["BgaMnerPipeline"]
