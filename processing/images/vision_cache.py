"""Run a frozen vision encoder once over a dataset's images, instead of once per epoch."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, Features, Value
from transformers import PreTrainedModel

from ...configuration.errors import shown
from ...modeling_bga.encoders.encoder import is_frozen, only_new_layers_trained, pretrained_part
from ..inference.evaluation_mode import evaluating
from ..processing_bga_mner import BgaMnerProcessor
from ..weight_digest import add_weights
from .vision_states import VISION_STATES


def cache_vision_states(
    dataset: Dataset,
    model: PreTrainedModel,
    processor: BgaMnerProcessor,
    *,
    batch_size: int = 32,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Add what a frozen vision encoder makes of each image, for training without running it.

    `BgaMnerProcessor.encode_examples` and `DataCollatorForMner` then hand these states to the model in the place of
    images, and the training is the same but for rounding. Of a convolutional encoder the last feature map is kept if
    the new layers on it are trained. States are kept on disk, and a second run finds them as long as dataset, images'
    files, vision encoder, number of stages and preprocessing are the same. An image takes (stages + 1) * vision tokens
    * vision width * 4 bytes: 0.77 MB with ViT-B/32 and 4 stages.

    Parameters
    ----------
    dataset : datasets.Dataset
        With a column `image`; None, and images that can't be used, are rows without an image.
    model : BgaMnerForTokenClassification or BgaMnerModel
        Its vision encoder is frozen (`freeze_vision_encoder`), and layers of it that aren't trained read no text.
    processor : BgaMnerProcessor
        Of the same model.
    batch_size : int
        Images at a time.
    cache_dir : str, Path or None
        Folder of the cache; by default where `datasets` keeps what is made of this dataset, which is a temporary folder
        for one that was never on disk.

    Returns
    -------
    datasets.Dataset
        With a column `vision_states` in the place of `image`.

    Raises
    ------
    ValueError
        If the dataset is streamed or has no images, the vision encoder is trained or reads text, or images come in
        another size than the model's.

    Examples
    --------
    >>> model.freeze_vision_encoder()  # doctest: +SKIP
    >>> train = cache_vision_states(train, model, processor)  # doctest: +SKIP
    >>> Trainer(..., train_dataset=train.with_transform(processor.encode_examples))  # doctest: +SKIP
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"Expected a datasets.Dataset, whose cache is on disk, got {type(dataset).__name__}. Streamed data is seen "
            "once per epoch: pass it to the Trainer as it is, or load it whole."
        )
    if "image" not in dataset.column_names:
        raise ValueError(f"Expected a column 'image', got {shown(dataset.column_names)}. Rename yours.")
    base = getattr(model, "bga_mner", model)
    if base.vision_encoder is not None and not is_frozen(pretrained_part(base.vision_encoder)):
        raise ValueError(
            "Expected a frozen vision encoder, got one whose weights are trained, so that what it makes of an image "
            "changes. Freeze it with model.freeze_vision_encoder()."
        )

    def encode(images: Sequence[Any]) -> dict[str, list[bytes | None]]:
        pixels = processor.encode_images(images)
        states: list[bytes | None] = [None] * len(images)
        present = [index for index, array in enumerate(pixels) if array is not None]
        if present:
            pixel_values = torch.from_numpy(np.stack([array for array in pixels if array is not None]))
            encoded = base.encode_images(pixel_values.to(base.device, base.dtype)).float().cpu().numpy()
            for index, row in zip(present, encoded, strict=True):
                states[index] = write_vision_states(row)
        return {VISION_STATES: states}

    key = _key(dataset, base, processor)
    kept = dataset.with_format(None)
    features = Features({name: kind for name, kind in kept.features.items() if name != "image"})
    if cache_dir is not None:
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
    with evaluating(base):
        return kept.map(
            encode,
            input_columns="image",
            remove_columns="image",
            batched=True,
            batch_size=batch_size,
            features=Features({**features, VISION_STATES: Value("large_binary")}),
            # of what the result depends on; datasets would hash the whole model, by pickling it
            new_fingerprint=key,
            cache_file_name=None if cache_dir is None else str(Path(cache_dir, f"vision_states-{key}.arrow")),
            writer_batch_size=batch_size,
            desc="Running the vision encoder",
        )


def _key(dataset: Dataset, base: Any, processor: BgaMnerProcessor) -> str:
    """Return what tells cached states apart: data, files, weights, stages, preprocessing and dtype."""
    key = hashlib.sha256(dataset._fingerprint.encode())
    for path in _paths(dataset):
        try:
            file = os.stat(path)
        except (OSError, ValueError):  # missing, an address, or nothing that a path can be
            continue
        # of an image that was mended or replaced under its name the fingerprint says nothing
        key.update(json.dumps([path, file.st_size, file.st_mtime_ns]).encode())
    preprocessing: Mapping[str, Any] = {} if processor.image_processor is None else processor.image_processor.to_dict()
    sizes = [base.config.num_stages, base.config.image_size, str(base.dtype), base.config.vision_config.to_dict()]
    key.update(json.dumps([preprocessing, *sizes], sort_keys=True, default=str).encode())
    if base.vision_encoder is not None:
        whole = not only_new_layers_trained(base.vision_encoder)
        key.update(b"states" if whole else b"feature map")
        add_weights(key, base.vision_encoder if whole else pretrained_part(base.vision_encoder))
    return key.hexdigest()[:32]


def _paths(dataset: Dataset) -> list[str]:
    """List the paths that images are read from, each once. No image is read."""
    paths, indices = dataset.data.column("image"), dataset._indices
    if pa.types.is_list(paths.type) or pa.types.is_large_list(paths.type):  # several images a text
        paths, indices = pc.list_flatten(paths if indices is None else paths.take(indices.column(0))), None
    if pa.types.is_struct(paths.type):
        names = {field.name for field in paths.type}
        if "path" not in names:
            return []
        content = pc.struct_field(paths, "bytes") if "bytes" in names else None
        paths = pc.struct_field(paths, "path")
        if content is not None:
            # what the dataset holds is read in place of the file
            paths = pc.if_else(pc.is_valid(content), pa.scalar(None, paths.type), paths)
    if not (pa.types.is_string(paths.type) or pa.types.is_large_string(paths.type)):
        return []
    if indices is not None:
        paths = paths.take(indices.column(0))
    return [path for path in paths.unique().to_pylist() if path is not None]


def write_vision_states(states: np.ndarray) -> bytes:
    """Return the states of one image, float32 (stages + 1, vision tokens, vision width), in numpy's file format.

    Of a convolutional encoder below new layers that are trained: (1, vision tokens, feature channels).

    Arrow's own nested lists would be read back as Python numbers, a hundred thousand an image.
    """
    file = BytesIO()
    np.save(file, states.astype(np.float32), allow_pickle=False)
    return file.getvalue()


__all__ = ["cache_vision_states", "write_vision_states"]
