"""The `multimodal-ner` pipeline: texts, with or without images, to entities."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset
from transformers import Pipeline, PreTrainedModel
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from ..configuration.errors import mismatch, shown
from .images.image_loading import as_image_list, is_url
from .inference.text_tagging import find_entities, reads_images
from .inference.text_windows import texts_read_ahead
from .processing_bga_mner import BgaMnerProcessor
from .sequences import as_list
from .text.text_input import SplitText, check_texts, describe_entities


_BY_TOKENS = 0  # in the place of a batch size, for which transformers would put 1
_SPLIT_OPTIONS = ("is_split_into_words", "visual_source")
_FIND_OPTIONS = ("max_length", "stride", "on_bad_image", "visual_source")


class BgaMnerPipeline(Pipeline):
    """Find the entities of texts, as `predict` does: `pipeline("multimodal-ner", model="folder")`.

    Parameters
    ----------
    model : BgaMnerForTokenClassification
        The tagger.
    processor : BgaMnerProcessor
        The model's own.
    allow_urls : bool, default False
        Fetch images from `http://` and `https://` addresses: whoever names one makes this machine send a request.
    **options
        Whatever `Pipeline` takes, and the options of a call.

    Raises
    ------
    ValueError
        If there is no processor.

    Examples
    --------
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
                "Expected a processor, got none. Give processor=BgaMnerProcessor(...), or a folder that holds both."
            )
        self.allow_urls = allow_urls
        super().__init__(model=model, processor=processor, **options)
        self.check_model_type(["BgaMnerForTokenClassification"])
        if processor.label2id not in (None, model.config.label2id):
            warnings.warn(
                f"The processor's labels, {shown(processor.label2id)}, are not the model's, "
                f"{shown(model.config.label2id)}, which are given out. Set processor.label2id = model.config.label2id.",
                stacklevel=2,
            )

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = [name for name in options if name not in (*_SPLIT_OPTIONS, *_FIND_OPTIONS)]
        if unknown:
            raise ValueError(
                "Expected is_split_into_words, visual_source, max_length, stride, on_bad_image or batch_size as an "
                f"option of the pipeline, got {shown(unknown[0])}. Leave it out."
            )
        given = {name: value for name, value in options.items() if value is not None}
        split, find = (
            {name: given[name] for name in names if name in given} for names in (_SPLIT_OPTIONS, _FIND_OPTIONS)
        )
        return split, find, {}

    def __call__(
        self, inputs: str | Mapping[str, Any] | Iterable[Any], *, batch_size: int | None = None, **options: Any
    ) -> Any:
        """Find the entities of a text or many.

        Parameters
        ----------
        inputs : str, list of str, dict, a list of these, or an iterable of these
            A text; or, inside a list or with `is_split_into_words`, a list of its words; or a dict with `text` or
            `words`, and optionally `image`, as for `predict`, or a URL. Iterables are read 16 batches ahead (1,024
            items of what has a length, without a `batch_size`, or 256 if images are read), or text by text with
            `batch_size=1`.
        batch_size : int, optional
            Texts, or windows of long ones, at a time: by default the pipeline's, or as many as the device is fastest
            with, or 1 for what has no length.
        num_workers : int, optional
            Processes that read a torch dataset.
        is_split_into_words, visual_source, max_length, stride, on_bad_image : optional
            As for `predict`.

        Returns
        -------
        list of dict, list of list of dict, or iterator of list of dict
            The entities of a text, or of each: `entity_group` (type), `score` (probability that exactly these words are
            an entity of it), `word`, `start` and `end`, where `text[start:end] == word`; if words were given,
            `start_word` and `end_word`, and offsets in `" ".join(words)`.

        Raises
        ------
        ValueError
            If an input is nothing of the above, or options don't fit together.
        """
        sized = isinstance(inputs, Sized)
        column = as_list(inputs) if sized and not isinstance(inputs, Dataset) else None
        if hasattr(inputs, "columns"):  # of these an iterator gives names of columns
            kind = type(inputs).__name__
            raise ValueError(f"Expected texts, got {kind}. Give one of its columns, such as table['text'].")
        if column is not None:
            inputs = column
            split = options.get("is_split_into_words", self._preprocess_params.get("is_split_into_words"))
            if split and all(isinstance(word, str) for word in inputs):
                inputs = {"words": inputs}
            elif not inputs:
                return []
        elif isinstance(inputs, Iterable) and not isinstance(inputs, str | bytes | Mapping | Dataset):
            inputs = (item for item in inputs)  # which is what Pipeline knows
        batch_size = self._batch_size if batch_size is None else batch_size
        if batch_size is not None and batch_size < 1:
            raise mismatch("batch_size of at least 1", batch_size, "Raise it.")
        if batch_size is None:
            batch_size = _BY_TOKENS if sized else 1
        return super().__call__(inputs, batch_size=batch_size, **options)

    def preprocess(
        self,
        input_: str | Mapping[str, Any] | Sequence[str],
        is_split_into_words: bool | None = None,
        visual_source: str | None = None,
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
                f"Expected an image as PIL image, path or bytes, got the URL {shown(urls[0])}. Give its path, or make "
                "the pipeline with allow_urls=True."
            )
        reader = self.processor.word_reader
        if isinstance(content, str) and not is_split_into_words:
            return SplitText.from_text(content, reader, image)
        if not isinstance(content, str) and as_list(content) is None:
            kind = type(content).__name__
            raise ValueError(
                f"Expected a text, a list of words, or a dict with 'text' or 'words', got {kind}. Give one."
            )
        (words,), _, _ = check_texts([content], is_split_into_words, batched=True)
        return SplitText.from_words(words, reader, image)

    def _forward(
        self,
        input_tensors: list[SplitText],
        batch_size: int | None = None,
        on_bad_image: str = "missing",
        **options: Any,
    ) -> list[list[dict[str, Any]]]:
        texts = input_tensors
        if self.allow_urls:
            texts = [_fetched(text, on_bad_image, self.processor.bad_images) for text in texts]
        options |= {"batch_size": batch_size, "on_bad_image": on_bad_image}
        found = find_entities(texts, self.model, self.processor, **options)
        return [describe_entities(text, entities) for text, entities in zip(texts, found, strict=True)]

    def _ensure_tensor_on_device(self, inputs: Any, device: Any) -> Any:
        """Leave texts and entities as they are: transformers would search each of them for tensors."""
        return inputs

    def postprocess(self, model_outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a text's entities."""
        return model_outputs

    def run_single(self, inputs: Any, preprocess_params: dict, forward_params: dict, postprocess_params: dict) -> Any:
        """Find the entities of one text."""
        (found,) = self.forward([self.preprocess(inputs, **preprocess_params)], **forward_params)
        return self.postprocess(found, **postprocess_params)

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict,
        forward_params: dict,
        postprocess_params: dict,
    ) -> Iterable[Any]:
        """Find the entities of many texts, as they are asked for."""

        def find(part: list[SplitText]) -> list[Any]:
            found = self.forward(part, batch_size=batch_size or None, **forward_params)
            return [self.postprocess(entities, **postprocess_params) for entities in found]

        with_images = reads_images(self.model, preprocess_params.get("visual_source"))
        part_size = texts_read_ahead(batch_size or None, with_images)
        if isinstance(inputs, list) and not num_workers:  # what follows takes its time for each text
            return _InParts((self.preprocess(one, **preprocess_params) for one in inputs), find, part_size)
        if isinstance(inputs, Sized):
            dataset: Any = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            # each worker would read the whole stream
            dataset, num_workers = PipelineIterator(inputs, self.preprocess, preprocess_params), min(num_workers, 1)
        texts = DataLoader(dataset, batch_size=None, num_workers=num_workers)
        return _InParts(texts, find, part_size)

    def save_pretrained(self, save_directory: str | os.PathLike, **options: Any) -> None:
        """Save the model and its processor in a folder; options such as `push_to_hub` go to both."""
        self.model.save_pretrained(save_directory, **options)
        self.processor.save_pretrained(save_directory, **options)


@dataclass
class _InParts:
    """What is found in texts, part by part as it is asked for; as long as the texts, if they have a length."""

    texts: Any
    find: Callable[[list[SplitText]], list[Any]]
    part_size: int

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        texts = iter(self.texts)
        while part := list(islice(texts, self.part_size)):
            yield from self.find(part)


def _fetched(text: SplitText, on_bad_image: str, bad_images: Counter[str]) -> SplitText:
    """Put what addresses lead to in the place of a text's images."""
    images = as_image_list(text.image)
    if not any(map(is_url, images)):
        return text
    try:
        from .images.image_download import fetch_images
    except ImportError as error:
        raise ImportError("Expected the package, to fetch images. Run: pip install bga-mner") from error
    return replace(text, image=fetch_images(images, on_bad_image, bad_images))


def _read_mapping(input_: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return text or words of an input, and whether they are words."""
    keys = set(input_)
    if not keys <= {"text", "words", "image"} or len(keys & {"text", "words"}) != 1:
        found = shown(sorted(map(str, keys)))
        raise ValueError(
            f"Expected a dict with either 'text' or 'words', and perhaps 'image', got the keys {found}. Rename yours."
        )
    return input_["text" if "text" in keys else "words"], "words" in keys


__all__ = ["BgaMnerPipeline"]
