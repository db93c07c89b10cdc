"""Take images away from a dataset, or give them to other sentences, to see what a model makes of them.

Both functions return a view: rows that keep their image are indices into the given dataset, so that nothing of them
is read, decoded or copied.
"""

import random

import datasets
import numpy as np

from ...configuration.errors import shown


__all__ = ["choose_images", "mismatch_images", "remove_images"]

_ROWS = 1000  # looked at a time


def choose_images(dataset: datasets.Dataset, share: float, seed: int = 0) -> list[int]:
    """Choose a share of the rows that have an image, in random order; with a larger share the same and others."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"Expected a share of the images between 0 and 1, got {share}. For 25 %, pass 0.25.")
    feature = dataset.features.get("image")
    if not isinstance(feature, datasets.Image):
        raise ValueError(
            f"Expected a column 'image' of datasets.Image, got {'none' if feature is None else shown(feature)} among "
            f"the columns {shown(dataset.column_names)}. Rename yours, or make it one: "
            "dataset.cast_column('image', datasets.Image(decode=False))."
        )
    having: list[int] = []
    # as Arrow tables: neither the files nor the bytes of the images are touched
    for number, table in enumerate(dataset.select_columns("image").with_format("arrow").iter(_ROWS)):
        in_bytes, in_files = (part.is_valid().to_numpy() for part in table["image"].flatten())
        having += (_ROWS * number + np.flatnonzero(in_bytes | in_files)).tolist()
    random.Random(f"pictures-{seed}").shuffle(having)
    return having[: round(share * len(having))]


def remove_images(dataset: datasets.Dataset, share: float, seed: int = 0) -> datasets.Dataset:
    """Take the images away from a share of the rows that have one.

    Parameters
    ----------
    dataset : datasets.Dataset
        With a column `image` of `datasets.Image`.
    share : float
        From 0 to 1; the number of rows is rounded.
    seed : int, default 0
        What is removed with a share is also removed with a larger one and the same seed.

    Returns
    -------
    datasets.Dataset
        The same rows and columns in the same order, with None as the chosen images. A format or transform of the
        dataset is not kept: set it afterwards.

    Raises
    ------
    ValueError
        If there is no such column, or `share` is out of range.

    Examples
    --------
    >>> rows = {"id": ["a", "b"], "image": [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]}
    >>> dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image(decode=False))
    >>> [image is None for image in remove_images(dataset, 1.0)["image"]]
    [True, True]
    """
    rows = choose_images(dataset, share, seed)
    nothing = datasets.Dataset.from_dict(
        {"image": [None] * len(rows)}, features=datasets.Features({"image": datasets.Image(decode=False)})
    )
    return _replace_images(dataset, rows, nothing)


def mismatch_images(dataset: datasets.Dataset, share: float, seed: int = 0) -> datasets.Dataset:
    """Give a share of the rows that have an image that of another one of them.

    The chosen rows pass their images on in a circle, so none keeps its own. Files or bytes that the dataset holds
    twice count as two images.

    Parameters
    ----------
    dataset : datasets.Dataset
        With a column `image` of `datasets.Image`.
    share : float
        From 0 to 1; the number of rows is rounded.
    seed : int, default 0
        Which rows get another image with a share, also get one with a larger share and the same seed.

    Returns
    -------
    datasets.Dataset
        The same rows and columns in the same order, but for the chosen images. Those of them that are held as bytes
        are copied; of files, only the paths are. A format or transform is not kept: set it afterwards.

    Raises
    ------
    ValueError
        If there is no such column, `share` is out of range, or it makes up a single row, which has none to swap with.

    Examples
    --------
    >>> rows = {"id": ["a", "b"], "image": [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]}
    >>> dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image(decode=False))
    >>> [image["path"] for image in mismatch_images(dataset, 1.0)["image"]]
    ['b.jpg', 'a.jpg']
    """
    rows = choose_images(dataset, share, seed)
    if len(rows) == 1:
        raise ValueError(
            f"Expected a share that makes up at least two rows with an image, got {share}, which makes up one. Pass "
            "a larger share, or 0 to leave all images where they are."
        )
    others = _plain(dataset).select_columns("image").select(rows[1:] + rows[:1])
    return _replace_images(dataset, rows, others)


def _plain(dataset: datasets.Dataset) -> datasets.Dataset:
    """Read rows as Arrow tables and images undecoded, which changes nothing but how they are read."""
    return dataset.with_format("arrow").cast_column("image", datasets.Image(decode=False))


def _replace_images(dataset: datasets.Dataset, rows: list[int], images: datasets.Dataset) -> datasets.Dataset:
    """Replace the images of `rows` by `images`, by appending the changed rows and pointing at them."""
    plain, changed = _plain(dataset), images.with_format("arrow")
    if rows and len(plain.column_names) > 1:
        texts = plain.remove_columns("image").select(rows)
        changed = datasets.concatenate_datasets([texts, changed], axis=1)
    order = np.arange(len(plain))
    order[rows] = len(plain) + np.arange(len(rows))
    both = datasets.concatenate_datasets([plain, changed], info=plain.info, split=plain.split)
    return both.select(order).cast_column("image", dataset.features["image"]).with_format(None)
