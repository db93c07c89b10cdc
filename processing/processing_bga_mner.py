"""The processor: tweets, images and tags to the tensors that the model reads."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from ..configuration.arguments import explained, given_arguments
from ..configuration.errors import mismatch
from ..configuration.hub.entry_points import AUTO_MAP
from ..configuration.hub.remote_code import RemoteCodeMixin
from ..modeling_bga.saving.tokenizer_limit import limit_beside
from .images.image_encoding import encode_images, image_of_each_text
from .images.image_loading import Images, stack_images
from .padding import chosen_length, pad_columns
from .sequences import as_list
from .text.target_marking import mark_targets
from .text.text_encoding import encode_sentences
from .text.text_input import as_sentences
from .text.word_encoding import default_max_length, encode_words, placeholders
from .text.word_reader import WordReader
from .text.word_splitting import Words, check_unspaced_scripts


_FIX_WORDS = "Give text=[['Kawhi', 'wins'], ...] with word_labels=[['B-PER', 'O'], ...]."


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
        For ProcessorMixin only.
    unspaced_scripts : {"characters", "words"}, default "characters"
        "characters" reads scripts without spaces between words by characters, also in given words; "words" keeps given
        words whole.

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
        check_unspaced_scripts(unspaced_scripts)
        try:
            from .processor_parts import checked_parts
        except ImportError:  # what is saved was checked before
            pass
        else:
            image_processor, label2id = checked_parts(image_processor, tokenizer, label2id)
        self.image_processor = image_processor
        parts = {} if image_processor is None else {"image_processor": image_processor}
        super().__init__(**parts, tokenizer=tokenizer, chat_template=chat_template)
        self.label2id = None if label2id is None else dict(label2id)
        self.unspaced_scripts = unspaced_scripts
        self.bad_images: Counter[str] = Counter()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Load as every processor does; beside a model, the tokenizer's limit is at most the text encoder's."""
        given = given_arguments(kwargs)
        with explained("a processor of BGA-MNER", given):
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded
        try:
            from .processor_parts import check_options
        except ImportError:
            pass
        else:
            check_options(processor, given.keys())
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
        if (processor_dict or {}).get("image_processor", "absent") is not None:
            return super()._get_arguments_from_pretrained(pretrained_model_name_or_path, processor_dict or {}, **kwargs)
        subfolder = kwargs.pop("subfolder", "")
        tokenizer = cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, subfolder, **kwargs)
        return [None, tokenizer]

    @classmethod
    def from_args_and_dict(cls, args: list[Any], processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make one of saved parts; what was saved before there was a choice keeps given words whole."""
        if "auto_map" in processor_dict:
            processor_dict = {"unspaced_scripts": "words", **processor_dict}
        return super().from_args_and_dict(args, processor_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return what `processor_config.json` holds, the classes that read the folder included."""
        return {**super().to_dict(), "auto_map": dict(AUTO_MAP)}

    @property
    def model_input_names(self) -> list[str]:
        """What the model reads, labels aside."""
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
            A text, texts, or texts as lists of words.
        images : image, sequence of (image or None or sequence), or None
            One per text, as `load_image` takes it; of a list in its place the first that can be read.
        word_labels : sequence or None
            Per text None, or for each word a tag, an id, or None or -100 for unknown.
        targets : sequence of ((int, int) or None) or None
            What each text is asked about, as `mark_target` takes it.
        is_split_into_words : bool or None
            Whether a list of strings holds the words of one text; None looks at the type.
        on_bad_image : {"missing", "raise"}
            "missing" warns, and counts in `bad_images`.
        on_long_text : {"truncate", "raise"}
            "truncate" warns of what is lost.
        truncation : bool
            False neither cuts nor warns.
        max_length : int or None
            Most tokens of a text; by default the tokenizer's limit, or else 512.
        padding : bool, {"longest", "max_length", "do_not_pad"} or None
            None pads to the longest text if tensors are asked for.
        pad_to_multiple_of : int or None
            Round the padded length up.
        return_tensors : {"pt", "np"} or None
            None gives lists, and an array of images.
        return_word_ids, return_word_start_mask : bool
            Add the number of each token's word, or None, and which tokens begin a word.
        images_kwargs : dict or None
            For the image processor.

        Returns
        -------
        transformers.BatchFeature
            input_ids, attention_mask, perhaps token_type_ids : int64, (B, L).
            labels : int64, (B, L), with `word_labels`; -100 where unknown.
            word_start_mask, target_mask : bool, (B, L), if asked for, and with `targets`.
            image_mask : bool, (B,), with `images`.
            pixel_values : float32, (B, 3, H, W), if any text has an image; zeros where there is none.

        Raises
        ------
        ValueError
            If arguments do not fit together, and where "raise" is chosen.
        TypeError
            If an image is of a type that cannot be one.
        """
        if return_tensors not in (None, "pt", "np"):
            raise mismatch("return_tensors 'pt', 'np' or None", return_tensors, "Choose one.")
        if text is None:
            if images is None:
                raise ValueError("Expected `text`, `images` or both, got neither. Give one.")
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
            if (labels := as_list(word_labels)) is not None:
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
            Columns `tokens` (lists of words) or `text`; optionally `ner_tags`, and `image` or `vision_states`; for
            sequence classification `label` and `target`; and `length`. Others are ignored.
        max_length, on_bad_image, on_long_text
            As for a call of the processor.

        Returns
        -------
        dict of str to list
            Unpadded columns, which `DataCollatorForMner` reads.

        Raises
        ------
        ValueError
            As for a call, and if columns are missing or seem to be misnamed.
        """
        try:
            from .data.example_columns import encode_rows
        except ImportError as error:
            raise ImportError("Expected the package, to encode columns. Run: pip install bga-mner") from error
        return encode_rows(self, batch, on_bad_image, max_length=max_length, on_long_text=on_long_text)

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Return the token ids of each word of each sentence, without special tokens."""
        return encode_words(self.tokenizer, sentences, self.word_reader).nested()

    def encode_images(
        self, images: Images, *, on_bad_image: str = "missing", images_kwargs: dict[str, Any] | None = None
    ) -> list[np.ndarray | None]:
        """Decode images and bring them to the model's format: float32 (3, H, W) each, None where none can be used.

        Parameters are those of a call of the processor. If `on_bad_image` is "raise", the first broken image raises.
        """
        encoded, broken = encode_images(self.image_processor, images, on_bad_image, images_kwargs)
        self.bad_images.update(broken)
        return encoded


def _lower_limit(tokenizer: PreTrainedTokenizerBase, folder: str | os.PathLike[str]) -> None:
    longest = limit_beside(folder)
    if longest is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)


__all__ = ["BgaMnerProcessor"]
