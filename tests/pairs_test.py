import os
from pathlib import Path

import numpy as np
import pytest

from dfn_jax.data import epochs, pairs
from dfn_jax.data.pair_folders import find_sequences
from dfn_jax.errors import InputError
from tests.stereo_folders import (
    GREY,
    SIZE,
    TOLERANCE,
    assert_batches_equal,
    halved,
    random_pixels,
    save,
    values,
    write_disparity,
    write_pairs,
    write_sequence,
)

pytestmark = pytest.mark.usefixtures("cache")

DATA = Path(os.environ.get("DFN_DATA", "no such folder")).expanduser()
needs_odometry = pytest.mark.skipif(
    not (DATA / "kitti_odometry").is_dir(), reason="DFN_DATA names no folder with kitti_odometry"
)
needs_kitti_2015 = pytest.mark.skipif(
    not (DATA / "kitti_2015").is_dir(), reason="DFN_DATA names no folder with kitti_2015"
)

VIEWS = [
    # folder of the sequence, left, right, ground truth, mode
    (".", "image_0", "image_1", None, "L"),
    ("00", "image_0", "image_1", None, "L"),
    ("sequences/07", "image_2", "image_3", None, "RGB"),
    ("2011_09_26/2011_09_26_drive_0001_sync", "image_02/data", "image_03/data", None, "RGB"),
    ("2011_09_26/2011_09_26_drive_0001_sync", "image_00/data", "image_01/data", None, "L"),
    ("training", "image_2", "image_3", "disp_occ_0", "RGB"),
    ("training", "image_0", "image_1", "disp_occ", "L"),
    ("training", "colored_0", "colored_1", "disp_occ", "RGB"),
    (".", "left", "right", None, "RGB"),
    ("a/b", "left", "right", "disparity", "L"),
]


@pytest.mark.parametrize(("sequence", "left", "right", "truth", "mode"), VIEWS)
def test_every_layout_gives_its_pixels(folder, sequence, left, right, truth, mode):
    written = write_pairs(folder / sequence, left, right, mode=mode)
    if truth:
        write_disparity(folder / sequence / truth / "000001_10.png", np.full((12, 20), 4.0))
    channels = 1 if mode == "L" else 3
    assert [found.name for found in find_sequences(folder, channels=channels)] == [sequence]

    dataset = pairs.examples(folder, image_size=SIZE, channels=channels)

    assert len(dataset) == 3
    for example, views in zip(dataset, written, strict=True):
        assert set(example) == {"left", "right"} | ({"disparity", "valid", "visible"} if truth else set())
        for name, view in zip(("left", "right"), views, strict=True):
            assert example[name].shape == (*SIZE, channels)
            assert example[name].dtype == np.float32
            np.testing.assert_allclose(example[name], halved(view), atol=TOLERANCE)
    if truth:
        assert [bool(example["valid"].any()) for example in dataset] == [False, True, False]
        example = dataset[1]
        assert example["disparity"].dtype == np.float32
        assert example["valid"].dtype == example["visible"].dtype == bool
        np.testing.assert_array_equal(example["visible"], example["valid"])
        np.testing.assert_array_equal(example["valid"][:, :8], True)
        np.testing.assert_array_equal(example["disparity"], np.where(example["valid"], 2.0, 0.0))


def test_colour_becomes_grey_by_rec_601(folder):
    (views,) = write_pairs(folder, mode="RGB", count=1)
    example = pairs.examples(folder, **GREY)[0]
    expected = halved(views[0] @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_allclose(example["left"], expected, atol=2 * TOLERANCE)


def test_grey_is_repeated_to_rgb(folder):
    (views,) = write_pairs(folder, count=1)
    example = pairs.examples(folder, image_size=SIZE, channels=3)[0]
    np.testing.assert_allclose(example["right"], np.repeat(halved(views[1]), 3, -1), atol=TOLERANCE)


def test_pairs_of_different_sizes_are_all_resized(folder):
    write_pairs(folder / "one")
    write_pairs(folder / "two", size=(30, 17))
    assert len(pairs.examples(folder, **GREY)) == 6


def test_prepared_disparity_explains_the_right_view(folder):
    rng = np.random.default_rng(3)
    left = random_pixels(rng, size=(16, 48))
    disparity = np.repeat([4, 8, 4, 12], 4)  # multiples of the resize, so that the small views match exactly
    right = np.stack([np.roll(row, -shift) for row, shift in zip(left, disparity, strict=True)])
    save(folder / "left" / "0.png", left)
    save(folder / "right" / "0.png", right)
    write_disparity(folder / "disparity" / "0.png", np.tile(disparity[:, None], (1, 48)))

    example = pairs.examples(folder, image_size=(4, 12), channels=1)[0]

    for y, shift in enumerate([1, 2, 1, 3]):
        inside = 12 - shift
        np.testing.assert_array_equal(example["valid"][y], np.arange(12) < inside)
        np.testing.assert_array_equal(example["disparity"][y, :inside], shift)
        np.testing.assert_array_equal(example["right"][y, :inside], example["left"][y, shift:])


# Splits and batches


@pytest.fixture
def three_sequences(folder):
    write_sequence(folder / "b", 15, 100)
    write_sequence(folder / "a", 6, 0)
    write_sequence(folder / "c", 3, 200)
    return folder


def test_without_names_the_end_of_every_sequence_is_tested(three_sequences):
    train = values(pairs.examples(three_sequences, **GREY, split="train"))
    test = values(pairs.examples(three_sequences, **GREY, split="test"))
    assert test == [4, 5, 112, 113, 114, 202]
    assert train == [*range(4), *range(100, 112), 200, 201]
    assert values(pairs.examples(three_sequences, **GREY)) == [*range(6), *range(100, 115), *range(200, 203)]


def test_named_sequences_are_held_out_and_their_end_is_tested(three_sequences):
    options = {**GREY, "test_sequences": ("b",), "test_fraction": 0.4}
    assert values(pairs.examples(three_sequences, split="test", **options)) == [*range(109, 115)]
    assert values(pairs.examples(three_sequences, split="train", **options)) == [*range(6), *range(200, 203)]


def test_batches_are_a_pure_function_of_seed_and_step(three_sequences):
    def draw(examples, step, indices=None):
        return epochs.batch(examples, step, batch_size=4, indices=indices)

    one, again, other = (pairs.train_examples(three_sequences, seed=seed, **GREY) for seed in (5, 5, 6))
    seventh, third = draw(one, 7), draw(one, 3)
    assert_batches_equal(draw(again, 3), third)
    assert_batches_equal(draw(again, 7), seventh)
    assert_batches_equal(draw(again, 7, range(1, 3)), {name: field[1:3] for name, field in seventh.items()})
    assert third["left"].shape == third["right"].shape == (4, *SIZE, 1)
    assert third["left"].dtype == np.float32
    assert any(not np.array_equal(draw(other, step)["left"], draw(one, step)["left"]) for step in range(3))
    assert draw(one, 10**9)["left"].shape == (4, *SIZE, 1)


def test_epochs_visit_every_pair_once_in_changing_order(three_sequences):
    train = values(pairs.examples(three_sequences, **GREY, split="train"))
    found = pairs.train_examples(three_sequences, **GREY, seed=0)
    visits = [values(found[step * len(train) + index] for index in range(len(train))) for step in range(3)]
    assert [sorted(visit) for visit in visits] == [train] * 3
    assert visits[0] != visits[1] != visits[2] != train


def test_a_batch_may_be_larger_than_the_set(folder):
    write_sequence(folder, 1, 7)
    batch = epochs.batch(pairs.train_examples(folder, **GREY, seed=0, test_fraction=0.0), 2, batch_size=5)
    assert batch["left"].shape == (5, *SIZE, 1)


# Errors


BAD_OPTIONS = {
    "unknown sequence": ({"test_sequences": ("d",)}, ["'d'", "a, b, c"]),
    "empty test": ({"split": "test", "test_fraction": 0.0}, ["test split", "empty", "a (6 pairs)"]),
    "empty train": ({"split": "train", "test_sequences": ("a", "b", "c")}, ["train split", "empty"]),
    "fraction": ({"test_fraction": 1.5}, ["1.5", "between 0 and 1"]),
    "split": ({"split": "valid"}, ["'valid'", "train, test or all"]),
    "channels": ({"channels": 2}, ["2", "1 (grey) or 3 (RGB)"]),
}


@pytest.mark.parametrize(("options", "words"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_are_told_in_one_line(three_sequences, cache, options, words):
    with pytest.raises(InputError) as caught:
        pairs.examples(three_sequences, **{**GREY, **options})
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not cache.exists()


def test_missing_folder_and_file_for_a_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        pairs.examples(tmp_path / "nowhere", **GREY)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        pairs.examples(tmp_path / "file", **GREY)


# Real data


@needs_odometry
def test_kitti_odometry():
    options = {"image_size": (64, 64), "channels": 1}
    sequences = find_sequences(DATA / "kitti_odometry", channels=1)
    held_out = sequences[-1]
    split = {**options, "test_sequences": (held_out.name,)}
    test = pairs.examples(DATA / "kitti_odometry", split="test", **split)
    train = pairs.examples(DATA / "kitti_odometry", split="train", **split)
    assert len(test) == -(-len(held_out.pairs) // 5)
    assert len(train) == sum(len(sequence.pairs) for sequence in sequences[:-1])
    batch = epochs.batch(pairs.train_examples(DATA / "kitti_odometry", seed=0, **split), 0, batch_size=16)
    shifts = [np.abs(batch["left"][:, 40:, 4 + s : 60 + s] - batch["right"][:, 40:, 4:60]).mean() for s in range(-3, 4)]
    assert np.argmin(shifts) > 3  # the road is to be found to the right in the left view


@needs_kitti_2015
def test_kitti_2015_disparity_explains_the_right_view():
    example = pairs.examples(DATA / "kitti_2015", image_size=(64, 64), channels=1)[0]
    left, right = example["left"][..., 0], example["right"][..., 0]
    columns = np.indices(left.shape)[1]
    source = columns + example["disparity"]
    inside = example["valid"] & (source <= 63)
    warped = np.stack([np.interp(source[y], columns[y], left[y]) for y in range(64)])
    assert inside.mean() > 0.4
    error, unwarped = (np.abs(image - right)[inside].mean() for image in (warped, left))
    assert error < 0.5 * unwarped
