"""Real rectified stereo pairs: training batches and test examples, split by sequence or by time."""

import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import grain
import numpy as np

from dfn_jax.data.epochs import shuffled_epochs
from dfn_jax.data.image_files import check_channels, unit_range
from dfn_jax.data.pair_folders import StereoSequence, find_sequences
from dfn_jax.data.pairs_builder import PreparedPairs, prepared_source
from dfn_jax.errors import InputError
from dfn_jax.files import expanded

Split = Literal["train", "test", "all"]


def examples(
    data_dir: str | Path,
    *,
    image_size: tuple[int, int],
    channels: int,
    split: Split = "all",
    test_sequences: Iterable[str] = (),
    test_fraction: float = 0.2,
) -> grain.MapDataset:
    """Reads the pairs of a folder one by one, in order of sequence and time.

    Neighbouring frames show nearly the same, so a split never shuffles them: with `test_sequences`, the last
    `test_fraction` of each of those is the test set and all other sequences are the training set; with none, the
    last `test_fraction` (rounded up) of every sequence is the test set and the rest the training set.

    The pairs are resized once and kept in `$XDG_CACHE_HOME/dfn_jax/pairs`, or `~/.cache/dfn_jax/pairs`; `data_dir` is
    only read.

    Args:
        data_dir: Folder with KITTI odometry, raw, 2012 or 2015 data, or folders of `left/` + `right/`
            (+ `disparity/` in KITTI's encoding, on the grid of the left view).
        image_size: (H, W) in pixels.
        channels: C, 1 for grey (Rec. 601) or 3 for RGB.
        split: "train", "test" or "all".
        test_sequences: Names of sequences to hold out: their folders' paths relative to `data_dir`.
        test_fraction: Share of a sequence that is tested on, in [0, 1].

    Returns:
        Random-access data set of dicts:
            left, right: [H, W, C] float32 in [0, 1].
            disparity: [H, W] float32, in pixels of the resized image, on the grid of the right view:
                left[y, x + disparity[y, x]] shows what right[y, x] shows. Only where the folder has ground truth,
                as the next two.
            valid: [H, W] bool, where the disparity is known; nowhere for a pair without ground truth.
            visible: [H, W] bool, where the point is seen in both views. Ground truth comes from the left view, so
                here this is the same as `valid`.

    Raises:
        InputError: The folder, a file in it, a sequence's name, a fraction or the cache cannot be used, or the
            split is empty.
    """
    check_channels(channels)
    sequences = find_sequences(data_dir, channels=channels)
    indices = _split_indices(sequences, split, tuple(test_sequences), test_fraction)
    if not indices:
        lengths = ", ".join(f"{sequence.name} ({len(sequence.pairs)} pairs)" for sequence in sequences)
        raise InputError(
            f"the {split} split of {data_dir} is empty with test_fraction={test_fraction} and "
            f"test_sequences={tuple(test_sequences)}; its sequences are {lengths}: change one of the two"
        )
    source = prepared_source(expanded(data_dir), sequences, image_size=tuple(image_size), channels=channels)
    return grain.MapDataset.source(indices).map(functools.partial(_read, source))


def train_examples(data_dir: str | Path, *, seed: int, **options) -> grain.MapDataset:
    """Draws examples without end, in a new order every epoch; `epochs.batch` makes batches of them.

    Args:
        data_dir: As in `examples`.
        seed: Non-negative integer.
        **options: The other options of `examples`, but for the split.

    Returns:
        Random-access data set of the fields of `examples`, a pure function of (seed, position).

    Raises:
        InputError: As in `examples`.
    """
    singles = examples(data_dir, split="train", **options)
    return shuffled_epochs(len(singles), seed=seed).map(singles.__getitem__)


def _read(source: PreparedPairs, index: int) -> dict[str, np.ndarray]:
    record = source[index]
    example = {"left": unit_range(record["left"]), "right": unit_range(record["right"])}
    if "disparity" in record:
        valid = record["disparity"] > 0
        example |= {"disparity": record["disparity"], "valid": valid, "visible": valid}
    return example


def _split_indices(
    sequences: list[StereoSequence], split: Split, test_sequences: tuple[str, ...], test_fraction: float
) -> list[int]:
    """Returns the positions of a split's pairs in the chain of all sequences."""
    _check_split(sequences, split, test_sequences, test_fraction)
    indices, start = [], 0
    for sequence in sequences:
        end = start + len(sequence.pairs)
        # Rounded first, so that a fifth of 15 is 3 though 0.2 * 15 is a little more.
        first_test = end - math.ceil(round(test_fraction * len(sequence.pairs), 6))
        if test_sequences and sequence.name not in test_sequences:
            first_test = end
        last_train = start if sequence.name in test_sequences else first_test
        chosen = {"train": range(start, last_train), "test": range(first_test, end), "all": range(start, end)}
        indices += chosen[split]
        start = end
    return indices


def _check_split(
    sequences: list[StereoSequence], split: Split, test_sequences: tuple[str, ...], test_fraction: float
) -> None:
    if split not in ("train", "test", "all"):
        raise InputError(f"unknown split {split!r}; choose train, test or all")
    if not 0 <= test_fraction <= 1:
        raise InputError(f"test_fraction is {test_fraction}; choose a share between 0 and 1")
    names = [sequence.name for sequence in sequences]
    unknown = [name for name in test_sequences if name not in names]
    if unknown:
        raise InputError(f"unknown test sequence {unknown[0]!r}; known are {', '.join(names)}")
