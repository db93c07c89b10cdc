import itertools

import datasets
import pytest

from bga_mner.processing.evaluation.image_ablation import choose_images, mismatch_images, remove_images


def make_dataset(count=40, without=(3, 17), decode=False):
    """Rows with broken images, held as bytes and as paths in turn: decoding or opening one would raise."""
    images = [{"bytes": b"broken %d" % i, "path": None} if i % 2 else {"bytes": None, "path": f"{i}.jpg"}
              for i in range(count)]  # fmt: skip
    rows = {
        "id": [f"row {i}" for i in range(count)],
        "image": [None if i in without else image for i, image in enumerate(images)],
        "ner_tags": [None if i % 5 == 0 else ["O", "B-PER"][: i % 3] for i in range(count)],
    }
    features = {"id": datasets.Value("string"), "image": datasets.Image(decode=decode)}
    features["ner_tags"] = datasets.List(datasets.Value("string"))
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def images(dataset):
    return dataset.cast_column("image", datasets.Image(decode=False))["image"][:]


def same_but_for_images(ours, theirs):
    others = ["id", "ner_tags"]
    return (
        ours.features == theirs.features
        and ours.column_names == theirs.column_names
        and ours.select_columns(others)[:] == theirs.select_columns(others)[:]
    )


VIEWS = {
    "plain": lambda: make_dataset(),
    "decoding": lambda: make_dataset(decode=True),
    "selected": lambda: make_dataset(60, without=(3, 4, 59)).select([*range(59, 20, -1), 3]),
    "transformed": lambda: make_dataset().with_transform(lambda batch: 1 / 0),
    "several tables": lambda: datasets.concatenate_datasets([make_dataset(13, ()), make_dataset(27)]),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.3, 0.5, 1.0])
def test_exactly_the_share_is_removed_and_nothing_else_changes(name, share):
    dataset = VIEWS[name]()
    removed = remove_images(dataset, share, seed=1)
    dataset = dataset.with_format(None)
    before, after = images(dataset), images(removed)
    having = sum(image is not None for image in before)
    gone = [old is not None and new is None for old, new in zip(before, after, strict=True)]
    assert sum(gone) == round(share * having)
    assert all(new == old for old, new, lost in zip(before, after, gone, strict=True) if not lost)
    assert same_but_for_images(removed, dataset)


def test_what_is_removed_stays_removed_at_larger_shares():
    dataset = make_dataset()
    chosen = [set(choose_images(dataset, share, seed=2)) for share in (0.25, 0.5, 0.75, 1.0)]
    for fewer, more in itertools.pairwise(chosen):
        assert fewer < more
    assert chosen[-1] == set(range(40)) - {3, 17}
    assert choose_images(dataset, 0.5, seed=2) != choose_images(dataset, 0.5, seed=3)
    assert choose_images(dataset, 0.5, seed=2) == choose_images(dataset, 0.5, seed=2)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("share", [0.0, 0.06, 0.5, 1.0])
def test_no_chosen_row_keeps_its_image_when_mismatched(name, share):
    dataset = VIEWS[name]()
    chosen = set(choose_images(dataset, share, seed=4))
    swapped = mismatch_images(dataset, share, seed=4)
    dataset = dataset.with_format(None)
    # "several tables" holds images twice, which are told apart by their rows
    before, after = images(dataset), images(swapped)
    twice = name == "several tables"
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        if row in chosen:
            assert new is not None
            assert twice or new != old
        else:
            assert new == old
    assert sorted(map(str, before)) == sorted(map(str, after))
    assert same_but_for_images(swapped, dataset)


def test_rows_are_numbered_on_in_large_datasets():
    dataset = make_dataset(2500, without=range(100, 2400))
    assert set(choose_images(dataset, 1.0)) == {*range(100), *range(2400, 2500)}


def test_a_dict_of_nothing_is_no_image():
    # datasets makes no such row itself, but a Parquet file may hold one
    rows = [{"bytes": None, "path": None}, {"bytes": b"x", "path": None}, None]
    dataset = datasets.Dataset.from_dict({"image": rows}).cast_column("image", datasets.Image(decode=False))
    assert dataset["image"][0] is not None
    assert choose_images(dataset, 1.0) == [1]


def test_a_view_copies_no_bytes():
    content = bytes(1 << 20)
    feature = datasets.Features({"id": datasets.Value("int64"), "image": datasets.Image(decode=False)})
    rows = {"id": list(range(20)), "image": [{"bytes": content, "path": None}] * 20}
    dataset = datasets.Dataset.from_dict(rows, features=feature)
    assert remove_images(dataset, 0.5).data.nbytes < dataset.data.nbytes + 10_000
    assert mismatch_images(dataset, 0.2).data.nbytes < dataset.data.nbytes + 4.1 * len(content)


def test_wrong_arguments_are_refused():
    dataset = make_dataset()
    for function in (remove_images, mismatch_images):
        for share in (-0.1, 25):
            with pytest.raises(ValueError, match=f"between 0 and 1, got {share}"):
                function(dataset, share)
        with pytest.raises(ValueError, match="got none among the columns"):
            function(dataset.remove_columns("image"), 0.5)
        with pytest.raises(ValueError, match="cast_column"):
            function(dataset.select_columns("id").rename_column("id", "image"), 0.5)
    with pytest.raises(ValueError, match="at least two rows"):
        mismatch_images(dataset, 1 / 38)
    assert remove_images(dataset.select([]), 1.0).num_rows == 0
    assert mismatch_images(dataset.select([3]), 1.0).num_rows == 1
