"""Which stereo pairs a config trains and is tested on."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax.data import highway, pair_folders
from dfn_jax.errors import InputError
from dfn_jax.tasks.sources import Batches, Data, Source
from dfn_jax.tasks.task import STEREO_TEST, TEST_BATCH, TEST_SEED, TRAINING, Batch, DrawnBatch, stream


def _highway(config: ConfigDict) -> Data:
    if config.data.channels != 1:
        raise InputError(f"config.data.channels is {config.data.channels} on highway; the renderer has 1")
    key, image_size = stream(config.seed, TRAINING), tuple(config.data.image_size)
    size = {"batch_size": config.train.batch_size, "image_size": image_size}

    def train_batch(_, step: jax.Array, indices: jax.Array | None) -> Batch:
        return highway.stereo_batch(jax.random.fold_in(key, step), indices=indices, **size)

    @functools.cache  # Training may evaluate many times.
    def test_set() -> tuple[str, Batch]:
        count, test_key = config.eval.examples, stream(TEST_SEED, STEREO_TEST)
        options = {"batch_size": TEST_BATCH, "image_size": image_size, "with_truth": True}
        batches = Batches(count, lambda index: highway.stereo_batch(jax.random.fold_in(test_key, index), **options))
        examples = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
        return f"{count} scenes of the highway renderer that training never sees", examples

    return Data(DrawnBatch(train_batch), test_set)


def _pairs(config: ConfigDict) -> Data:
    if config.data.channels not in (1, 3):
        raise InputError(f"config.data.channels is {config.data.channels} on pairs; they have 1 or 3")
    size = {"image_size": tuple(config.data.image_size), "channels": config.data.channels}

    def parts() -> dict[str, Any]:
        return {"test_sequences": tuple(config.data.test_sequences), "test_fraction": config.data.test_fraction}

    @functools.cache
    def train_examples() -> Sequence:
        from dfn_jax.data import pairs  # with TFDS, which only real pairs need

        folder = configs.data_folder(config.data.dir, "pairs")
        return pairs.train_examples(folder, seed=config.seed, **size, **parts())

    def train_batch(step: int, indices: range | None = None) -> Batch:
        from dfn_jax.data import epochs  # with Grain

        fields = epochs.batch(train_examples(), step, batch_size=config.train.batch_size, indices=indices)
        return {"left": fields["left"], "right": fields["right"]}

    @functools.cache
    def test_set() -> tuple[str, Batch]:
        from dfn_jax.data import pairs

        folder = configs.data_folder(configs.tested_folder(config), "pairs")
        split, options = ("all", {}) if config.eval.dir else ("test", parts())
        found = pairs.examples(folder, split=split, **size, **options)
        count = min(config.eval.examples, len(found))
        chosen = np.linspace(0, len(found) - 1, count).round().astype(int)  # from all sequences
        examples = jax.tree.map(lambda *parts: np.stack(parts), *(found[index] for index in chosen))
        words = f"{count} of the {len(found)} real pairs of {Path(folder).resolve().name} ({split})"
        words += configs.seen_in_training(config)
        return words + (", evenly spaced" if count < len(found) else ""), examples

    def fingerprint() -> str:
        folder = configs.data_folder(config.data.dir, "pairs")
        return pair_folders.fingerprint(folder, channels=config.data.channels)

    return Data(train_batch, test_set, fingerprint)


# Batches to train on are {'left', 'right'} [N, H, W, C] float32 in [0, 1]; the test set is one Batch of all examples,
# where there is ground truth also with disparity, valid and visible (see `evaluate_stereo`).
SOURCES = {
    "highway": Source(_highway),
    "pairs": Source(_pairs, reads_folder=True, independent=False),
}
