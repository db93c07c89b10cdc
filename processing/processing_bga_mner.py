"""The processor: tweets, images and tags to the tensors that the model reads."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from ..configuration.arguments import check_names, explained, given_arguments
from ..configuration.errors import shown
from ..configuration.hub.entry_points import AUTO_MAP
from ..configuration.hub.saved_code import RemoteCodeMixin
from ..modeling_bga.saving.tokenizer_limit import limit_beside
from .data.example_columns import read_example_columns
from .images.image_encoding import check_side, encode_images, image_of_each_text
from .images.image_loading import Images, stack_images
from .images.vision_states import VISION_STATES, read_vision_states
from .padding import chosen_length, pad_columns
from .sequences import as_list
from .tags.tag_scheme import check_label2id
from .text.target_marking import mark_targets
from .text.text_encoding import encode_sentences
from .text.text_input import as_sentences
from .text.word_encoding import check_tokenizer, default_max_length, encode_words, placeholders
from .text.word_reader import WordReader
from .text.word_splitting import Words, check_unspaced_scripts


_FIX_WORDS = "Give words: text=[['Kawhi', 'wins'], ...] with word_labels=[['B-PER', 'O'], ...]."


class _AttributeNames:
    """`get_attributes` without the image processor for an instance that has none, and so none to save."""

    def __get__(self, instance: Any, owner: type) -> Callable[[], list[str]]:
        names = ["image_processor", "tokenizer"]
        if instance is not None and instance.__dict__.get("image_processor") is None:
            names = ["tokenizer"]
        return lambda: list(names)


class BgaMnerProcessor(RemoteCodeMixin, ProcessorMixin):
    """Tokenizer and image processor in one, for tweets with images.

    Parameters
    ----------
    image_processor : transformers.BaseImageProcessor or None
        Brings images to `pixel_values`, all of one size; None for text alone. Those of SigLIP2 NaFlex and timm are
        replaced by stock ones that make squares.
    tokenizer : transformers.PreTrainedTokenizerBase
        A fast tokenizer.
    label2id : dict of str to int or None
        Ids of the BIO labels, as in the model's config. Needed to encode labels.
    chat_template : None
        Present for ProcessorMixin only.
    unspaced_scripts : {"characters", "words"}, default "characters"
        "characters" reads scripts without spaces between words character by character, and splits given words as
        running text. "words" keeps given words whole.

    Attributes
    ----------
    bad_images : collections.Counter
        How many images were treated as missing so far, by kind. Not saved.

    Raises
    ------
    ValueError
        If the tokenizer is missing or slow, `label2id` is no set of BIO labels, or images would be huge.
    TypeError
        If an argument is of the wrong class.

    Examples
    --------
    >>> processor = BgaMnerProcessor.from_pretrained("folder")  # doctest: +SKIP
    >>> batch = processor([["#", "NBA"]], images=["nba.jpg"], return_tensors="pt")  # doctest: +SKIP
    """

    get_attributes = _AttributeNames()

    # `from_pretrained` passes saved arguments only to positional parameters: no `*` in this signature.
    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        label2id: Mapping[str, int] | None = None,
        chat_template: str | None = None,
        unspaced_scripts: str = "characters",
    ):
        check_tokenizer(tokenizer)
        check_unspaced_scripts(unspaced_scripts)
        self.image_processor = image_processor = _squared(image_processor)
        check_side(image_processor)
        parts = {} if image_processor is None else {"image_processor": image_processor}
        super().__init__(**parts, tokenizer=tokenizer, chat_template=chat_template)
        self.label2id = None if label2id is None else check_label2id(label2id)
        self.unspaced_scripts = unspaced_scripts
        self.bad_images: Counter[str] = Counter()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Load as every processor does; beside a model, the tokenizer's limit is at most the text encoder's."""
        given = given_arguments(kwargs)
        with explained("a processor of BGA-MNER", given):
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded
        # tokenizers and image processors keep or ignore what they don't know
        known = {*signature(cls.__init__).parameters, *processor.tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
        known |= processor.tokenizer.init_kwargs.keys() - given.keys()
        if processor.image_processor is not None:
            known |= processor.image_processor.valid_kwargs.__annotations__.keys()
        check_names(cls, given.keys() - known, known)
        _lower_limit(processor.tokenizer, pretrained_model_name_or_path)
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save as every processor does; beside a model, with a tokenizer whose limit its text encoder takes."""
        limit = self.tokenizer.model_max_length
        _lower_limit(self.tokenizer, save_directory)
        try:
            return super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.tokenizer.model_max_length = limit

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, processor_dict: dict | None = None, **kwargs: Any
    ) -> list[Any]:
        """Load the sub-processors; a saved `"image_processor": null` stands for a processor for text alone."""
        processor_dict = processor_dict or {}
        if processor_dict.get("image_processor", "absent") is not None:
            return super()._get_arguments_from_pretrained(pretrained_model_name_or_path, processor_dict, **kwargs)
        subfolder = kwargs.pop("subfolder", "")
        tokenizer = cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, subfolder, **kwargs)
        return [None, tokenizer]

    @classmethod
    def from_args_and_dict(cls, args: list[Any], processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make one of saved parts; what was saved before there was a choice keeps the words of a file whole."""
        if "auto_map" in processor_dict:
            processor_dict = {"unspaced_scripts": "words", **processor_dict}
        return super().from_args_and_dict(args, processor_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return what `processor_config.json` holds, the classes that read the folder included."""
        return {**super().to_dict(), "auto_map": dict(AUTO_MAP)}

    @property
    def model_input_names(self) -> list[str]:
        """Names of what the model reads, labels aside."""
        names = list(self.tokenizer.model_input_names)
        return names if self.image_processor is None else [*names, "pixel_values", "image_mask"]

    @property
    def word_reader(self) -> WordReader:
        """How running text and given words are split into what is encoded."""
        whole = () if self.unspaced_scripts == "words" else placeholders(self.tokenizer)
        return WordReader(self.unspaced_scripts, whole)

    def split_words(self, text: str) -> Words:
        """Split running text into words with their offsets, as the model reads them."""
        return self.word_reader.split(text)

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        images: Images = None,
        word_labels: Sequence[Sequence[str | int | None] | None] | None = None,
        *,
        targets: Sequence[Sequence[int] | None] | None = None,
        is_split_into_words: bool | None = None,
        on_bad_image: str = "missing",
        on_long_text: str = "truncate",
        truncation: bool = True,
        max_length: int | None = None,
        padding: bool | str | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_word_ids: bool = False,
        return_word_start_mask: bool = False,
        images_kwargs: dict[str, Any] | None = None,
    ) -> BatchFeature:
        """Encode a batch. A single text is a batch of one.

        Parameters
        ----------
        text : str, sequence of str, sequence of sequences of str, or None
            A text, texts, or texts as lists of words. Any sequence may also be a column of a dataset or data frame.
        images : image, sequence of (image or None or sequence), or None
            One for each text, whatever `load_image` takes; of a list in its place the first that can be read.
        word_labels : sequence or None
            For each text None, or a label for each word: a tag, an id, or None or -100 for unknown.
        targets : sequence of ((int, int) or None) or None
            For each text what it is asked about, as `mark_target` takes it. For sequence classification.
        is_split_into_words : bool or None
            True says that a list of strings holds the words of one text. None looks at the type.
        on_bad_image : {"missing", "raise"}
            Treat broken images as missing, with a warning and counted in `bad_images`, or raise.
        on_long_text : {"truncate", "raise"}
            Cut texts longer than `max_length`, with a warning that says what is lost, or raise.
        truncation : bool
            False neither cuts nor warns.
        max_length : int or None
            Most tokens of a text, special tokens included; the tokenizer's limit by default, 512 if it has none.
        padding : bool, {"longest", "max_length", "do_not_pad"} or None
            None pads to the longest text if tensors are asked for.
        pad_to_multiple_of : int or None
            Round the padded length up.
        return_tensors : {"pt", "np"} or None
            None gives lists, and an array of images.
        return_word_ids, return_word_start_mask : bool
            Add "word_ids", the number of each token's word or None, and "word_start_mask": which tokens begin a word.
        images_kwargs : dict or None
            For the image processor, such as `{"do_center_crop": False}`.

        Returns
        -------
        transformers.BatchFeature
            input_ids, attention_mask and, with some tokenizers, token_type_ids : int64, (B, L).
            labels : int64, (B, L), if `word_labels` is given; -100 where unknown and on padding.
            word_start_mask, target_mask : bool, (B, L), if asked for, and if `targets` is given.
            image_mask : bool, (B,), if `images` is given: which texts have an image.
            pixel_values : float32, (B, 3, H, W), if any text has an image; zeros where there is none.

        Raises
        ------
        ValueError
            If arguments do not fit together, and where "raise" is chosen.
        TypeError
            If an image is of a type that cannot be one.
        """
        if text is None and images is None:
            raise ValueError("Expected `text`, `images` or both, got neither. Give one.")
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f"Expected return_tensors 'pt', 'np' or None, got {shown(return_tensors)}. Choose one.")
        if text is None:
            if word_labels is not None:
                raise ValueError(f"Expected `text` beside `word_labels`, got none. {_FIX_WORDS}")
            pixels = self.encode_images(images, on_bad_image=on_bad_image, images_kwargs=images_kwargs)
            return BatchFeature(stack_images(pixels), tensor_type=return_tensors)

        if targets is not None:
            if word_labels is not None:
                raise ValueError("Expected either `word_labels` or `targets`, got both. A target has one label.")
            targets = as_list(targets) or targets  # an iterator can be read once
            text = mark_targets(text, targets, is_split_into_words)
        sentences, single, are_words = as_sentences(text, is_split_into_words, split=self.word_reader.split)
        if word_labels is not None:
            if not are_words:
                raise ValueError(f"Expected texts as lists of words, since `word_labels` is given. {_FIX_WORDS}")
            labels = as_list(word_labels)
            if labels is not None:
                word_labels = [labels] if single and all(as_list(item) is None for item in labels) else labels
        if images is not None:
            images = image_of_each_text(images, len(sentences))
        data: dict[str, Any] = encode_sentences(
            self.tokenizer,
            self.word_reader,
            sentences,
            are_words=are_words,
            word_labels=word_labels,
            label2id=self.label2id,
            targets=targets,
            max_length=max_length,
            on_long_text=on_long_text,
            truncation=truncation,
        )
        for name, is_wanted in (("word_ids", return_word_ids), ("word_start_mask", return_word_start_mask)):
            if not is_wanted:
                data.pop(name)
        limit = default_max_length(self.tokenizer) if max_length is None else max_length
        length = chosen_length(data["input_ids"], padding, limit, pad_to_multiple_of, return_tensors is not None)
        if length is not None:
            data = pad_columns(data, self.tokenizer, length)
        if images is not None:
            pixels = self.encode_images(images, on_bad_image=on_bad_image, images_kwargs=images_kwargs)
            data.update(stack_images(pixels))
        word_ids = data.pop("word_ids", None)
        batch = BatchFeature(data, tensor_type=return_tensors)
        if word_ids is not None:  # holds None, so it cannot be a tensor
            batch["word_ids"] = word_ids
        return batch

    def encode_examples(
        self,
        batch: Mapping[str, Sequence[Any]],
        *,
        max_length: int | None = None,
        on_bad_image: str = "missing",
        on_long_text: str = "truncate",
    ) -> dict[str, list[Any]]:
        """Encode rows of a dataset at the moment they are read, for `dataset.with_transform`.

        Use it with `TrainingArguments(remove_unused_columns=False)` and `DataCollatorForMner`.

        Parameters
        ----------
        batch : mapping of str to sequence
            Columns `tokens` (lists of words) or `text`; optionally `ner_tags` (lists of tags or ids, None where
            unknown), and `image`, or `vision_states` of `cache_vision_states`. For sequence classification `label` (a
            number or list of numbers, or None) and `target`. `length` is handed on, others are ignored.
        max_length, on_bad_image, on_long_text
            As for a call of the processor.

        Returns
        -------
        dict of str to list
            Unpadded input_ids, attention_mask, word_start_mask, and token_type_ids where the tokenizer gives them;
            labels, or label and target_mask without word_start_mask; pixel_values or vision_states, float32 or None
            each.

        Raises
        ------
        ValueError
            As for a call of the processor, if there is neither `tokens` nor `text`, and if annotations stand in a
            column of another name.
        """
        batch = read_example_columns(batch, self.image_processor is not None, self.label2id)
        name = "tokens" if "tokens" in batch else "text"
        texts, tags, targets = batch[name], batch.get("ner_tags"), None
        if tags is None and batch.get("target") is not None:
            texts, targets = mark_targets(texts, batch["target"], None), batch["target"]
        reader = self.word_reader
        sentences, _, are_words = as_sentences(texts, name == "tokens" or None, batched=True, split=reader.split)
        encoded = encode_sentences(
            self.tokenizer,
            reader,
            sentences,
            are_words=are_words,
            word_labels=tags,
            label2id=self.label2id,
            targets=targets,
            max_length=max_length,
            on_long_text=on_long_text,
        )
        encoded.pop("word_ids")
        if "length" in batch:
            encoded["length"] = list(batch["length"])
        if tags is None and batch.get("label") is not None:
            encoded["label"] = list(batch["label"])
        if {"label", "target_mask"} & encoded.keys():
            encoded.pop("word_start_mask")  # which only a tagger reads
        if batch.get(VISION_STATES) is not None:
            encoded[VISION_STATES] = [None if row is None else read_vision_states(row) for row in batch[VISION_STATES]]
        elif batch.get("image") is not None and self.image_processor is not None:
            encoded["pixel_values"] = self.encode_images(batch["image"], on_bad_image=on_bad_image)
        return encoded

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Encode words one by one, without special tokens: token ids of each word of each sentence."""
        return encode_words(self.tokenizer, sentences, self.word_reader)

    def encode_images(
        self, images: Images, *, on_bad_image: str = "missing", images_kwargs: dict[str, Any] | None = None
    ) -> list[np.ndarray | None]:
        """Decode images and bring them to the model's format: float32 (3, H, W) each, None where none can be used.

        Parameters are those of a call of the processor. If `on_bad_image` is "raise", the first broken image raises.
        """
        encoded, broken = encode_images(self.image_processor, images, on_bad_image, images_kwargs)
        self.bad_images.update(broken)
        return encoded


def _squared(image_processor: BaseImageProcessor | None) -> BaseImageProcessor | None:
    try:
        from .images.square_images import squaring_processor
    except ImportError:  # a saved one makes squares already
        return image_processor
    return squaring_processor(image_processor)


def _lower_limit(tokenizer: PreTrainedTokenizerBase, folder: str | os.PathLike[str]) -> None:
    longest = limit_beside(folder)
    if longest is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)


__all__ = ["BgaMnerProcessor"]
