"""Which sequences a config of video prediction trains and is tested on."""

import functools
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax.data import highway, moving_mnist
from dfn_jax.data.image_files import unit_range
from dfn_jax.errors import InputError
from dfn_jax.tasks.sources import Batches, Data, Source
from dfn_jax.tasks.task import (
    DIGITS_TEST,
    HIGHWAY_TEST,
    TEST_BATCH,
    TEST_SEED,
    TRAINING,
    Batch,
    DrawnBatch,
    stream,
)

FRAME_INTERVAL = 0.04  # seconds between frames of the renderer: 25 a second


def lengths(config: ConfigDict, *, testing: bool = False) -> tuple[int, int]:
    """Frames read and frames predicted."""
    horizon = config.eval.target_frames if testing else 0
    return config.data.input_frames, horizon or config.data.target_frames


def _check_digits(config: ConfigDict) -> None:
    data = config.data
    if data.channels != 1:
        raise InputError(f"config.data.channels is {data.channels} on moving_mnist; its digits have 1")
    if min(data.image_size) < data.digit_size:
        raise InputError(
            f"config.data.image_size is {tuple(data.image_size)}, too small for digits of {data.digit_size} pixels; "
            "make it larger, or config.data.digit_size smaller"
        )
    if not 0 < data.digit_count < 100 or not 0 <= config.eval.digit_count < 100:
        raise InputError(
            f"config.data.digit_count is {data.digit_count}, config.eval.digit_count {config.eval.digit_count}; "
            "wanted 1 to 99, and for evaluation 0 for as many as in training"
        )


def _moving_mnist(config: ConfigDict) -> Data:
    from dfn_jax.data import digits

    _check_digits(config)
    data = config.data
    source, folder = digits.choose_source(data.digits, data.dir)
    if source == "drawn" != data.digits and jax.process_index() == 0:
        print("no MNIST in config.data.dir or DFN_DATA: the digits are drawn by dfn_jax", file=sys.stderr, flush=True)
    data.digits = source  # The run's folder records it: going on without DFN_DATA is then an error, not other digits.
    key = stream(config.seed, TRAINING)

    @functools.cache
    def pictures(split: str) -> np.ndarray:
        return moving_mnist.shrink_digits(digits.load_digits(source, folder, split), data.digit_size)

    open_test_file = functools.cache(moving_mnist.open_test_file)  # It reads the whole file, for its hash.

    def draw(key: jax.Array, table: jax.Array, **options) -> Batch:
        size = tuple(data.image_size)
        return {"frames": moving_mnist.sequence_batch(key, table, image_size=size, **options)}

    def train_batch(table: jax.Array, step: jax.Array, indices: jax.Array | None) -> Batch:
        options = {"batch_size": config.train.batch_size, "count": data.digit_count, "frames": sum(lengths(config))}
        return draw(jax.random.fold_in(key, step), table, indices=indices, **options)

    def test_set() -> tuple[str, Iterable[Batch]]:
        count, frames = config.eval.digit_count or data.digit_count, sum(lengths(config, testing=True))
        published = Path(folder, moving_mnist.TEST_FILE)
        as_published = (*data.image_size, data.digit_size, count) == (64, 64, 28, 2) and frames <= 20
        if source == "mnist" and as_published and published.exists():
            sequences = open_test_file(published)[: config.eval.examples, :frames]
            words = f"{len(sequences)} sequences of the published test set, {published.name}"
            return words, _in_batches(sequences[..., None])
        words = (
            f"{config.eval.examples} sequences of {count} moving digit{'s' * (count > 1)}, generated with a fixed seed "
            f"from {_DIGITS[source]}"
        )
        test_key = stream(TEST_SEED, DIGITS_TEST)
        options = {"batch_size": TEST_BATCH, "count": count, "frames": frames}
        test_digits = jax.device_put(pictures("test"))

        def examples(index: int) -> Batch:
            drawn_by = jax.random.fold_in(test_key, index)
            happening = moving_mnist.sequence_events(
                drawn_by, test_digits, image_size=tuple(data.image_size), **options
            )
            predicted = {name: field[:, data.input_frames :] for name, field in happening.items()}
            return draw(drawn_by, test_digits, **options) | predicted

        return words, Batches(config.eval.examples, examples)

    def fingerprint() -> str:
        return "" if source == "drawn" else f"digits {zlib.crc32(digits.load_digits(source, folder, 'train')):08x}"

    return Data(DrawnBatch(train_batch, lambda: pictures("train")), test_set, fingerprint)


_DIGITS = {
    "mnist": "the MNIST test digits",
    "tfds": "the MNIST test digits (TFDS)",
    "drawn": "digits drawn by dfn_jax, not MNIST: the figures are not those of Moving MNIST",
}


def _highway(config: ConfigDict) -> Data:
    if config.data.channels != 1:
        raise InputError(f"config.data.channels is {config.data.channels} on highway; the renderer has 1")
    key = stream(config.seed, TRAINING)
    size = {"image_size": tuple(config.data.image_size), "interval": FRAME_INTERVAL}

    def train_batch(_, step: jax.Array, indices: jax.Array | None) -> Batch:
        options = {"batch_size": config.train.batch_size, "frames": sum(lengths(config))}
        return highway.video_batch(jax.random.fold_in(key, step), indices=indices, **size, **options)

    def test_set() -> tuple[str, Iterable[Batch]]:
        test_key = stream(TEST_SEED, HIGHWAY_TEST)
        known, predicted = lengths(config, testing=True)
        options = {"batch_size": TEST_BATCH, "frames": known + predicted, "flows": predicted}
        words = f"{config.eval.examples} scenes of the highway renderer that training never sees"
        return words, Batches(
            config.eval.examples,
            lambda index: highway.video_batch(jax.random.fold_in(test_key, index), **size, **options),
        )

    return Data(DrawnBatch(train_batch), test_set)


def _video(config: ConfigDict) -> Data:
    from dfn_jax.data import video

    @functools.cache
    def clips(folder: str) -> dict[str, np.ndarray]:
        return video.load_clips(
            configs.data_folder(folder, "clips"),
            image_size=tuple(config.data.image_size),
            channels=config.data.channels,
        )

    @functools.cache
    def parts(folder: str, fraction: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return video.split_by_time(clips(folder), test_fraction=fraction)

    def train_batch(step: int, indices: range | None = None) -> Batch:
        length = sum(lengths(config))
        train, _ = parts(config.data.dir, config.data.test_fraction)
        found = video.check_lengths(train, length=length, purpose="training")
        options = {"seed": config.seed, "batch_size": config.train.batch_size, "length": length}
        return {"frames": video.segment_batch(found, step, indices=indices, **options)}

    def test_set() -> tuple[str, Iterable[Batch]]:
        length = sum(lengths(config, testing=True))
        folder = configs.tested_folder(config)
        _, test = parts(folder, 1.0 if config.eval.dir else config.data.test_fraction)
        test = video.check_lengths(test, length=length, purpose="testing")
        sequences = video.segments(test, length=length, limit=config.eval.examples)
        words = (
            f"{len(sequences)} segments of real video from {Path(configs.data_folder(folder, 'clips')).resolve().name}"
        )
        words += "" if config.eval.dir else ", the end of each clip, which training never sees"
        words += configs.seen_in_training(config)
        return words, _in_batches(sequences)

    def fingerprint() -> str:
        return video.fingerprint(configs.data_folder(config.data.dir, "clips"))

    return Data(train_batch, test_set, fingerprint)


# Batches to train on are {'frames': [N, T, H, W, C] float32 in [0, 1]}; the test set is in batches of at most
# TEST_BATCH, of rendered highways also with flow and visible (see `highway.video_batch`), of moving digits with overlap
# and bounce for each predicted frame (see `moving_mnist.sequence_events`).
SOURCES = {
    "moving_mnist": Source(_moving_mnist, reads_folder=True),
    "highway": Source(_highway),
    "video": Source(_video, reads_folder=True, independent=False),
}


def _in_batches(sequences: np.ndarray) -> Batches:
    """Batches of sequences [N, T, H, W, C] uint8."""
    return Batches(len(sequences), lambda index: {"frames": unit_range(sequences[TEST_BATCH * index :][:TEST_BATCH])})
