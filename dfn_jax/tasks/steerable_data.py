"""Which images a config of steerable filters trains and is tested on."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax.data import crops, steerable, texture
from dfn_jax.errors import InputError
from dfn_jax.tasks.sources import Data, Source
from dfn_jax.tasks.task import TEST_SEED, TEXTURE, TRAINING, Batch, DrawnBatch, stream


def _steered(config: ConfigDict) -> Callable[..., Batch]:
    """(step, images [n, H, W, 1] in [0, 1], indices of them in the step's batch) -> Batch, with angles and targets."""
    if config.seed == TEST_SEED:
        raise InputError(f"config.seed is {TEST_SEED}, by which the test images are drawn; choose another")
    key = stream(config.seed, TRAINING)

    @jax.jit
    def complete(step: jax.Array, pixels: jax.Array, indices: jax.Array | None) -> Batch:
        """Angles are drawn for a whole batch, whatever part of it is made."""
        angles = steerable.random_angles(jax.random.fold_in(key, step), config.train.batch_size)
        return steerable.batch(pixels, angles if indices is None else angles[indices])

    return complete


def _texture(config: ConfigDict) -> Data:
    @functools.partial(jax.jit, static_argnums=(0, 1))
    def draw(seed: int, batch_size: int, step: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        size = {"batch_size": batch_size, "image_size": tuple(config.data.image_size)}
        return texture.texture_batch(jax.random.fold_in(stream(seed, TEXTURE), step), indices=indices, **size)

    complete, seed, batch_size = _steered(config), config.seed, config.train.batch_size

    def train_batch(_, step: jax.Array, indices: jax.Array | None) -> Batch:
        return complete(step, draw(seed, batch_size, step, indices), indices)

    @functools.cache  # Training may evaluate many times.
    def test_set() -> tuple[str, jax.Array]:
        return "procedural texture", draw(TEST_SEED, config.eval.examples, 0)

    return Data(DrawnBatch(train_batch), test_set)


def _images(config: ConfigDict) -> Data:
    @functools.cache
    def found(folder: str, seed: int) -> Any:
        return crops.crops(configs.data_folder(folder, "images"), seed=seed, image_size=tuple(config.data.image_size))

    complete, seed, batch_size = _steered(config), config.seed, config.train.batch_size

    def train_batch(step: int, indices: range | None = None) -> Batch:
        from dfn_jax.data import epochs  # with Grain, which only images in files need

        images = epochs.batch(found(config.data.dir, seed), step, batch_size=batch_size, indices=indices)["image"]
        return complete(step, images, None if indices is None else np.array(indices))

    @functools.cache
    def test_set() -> tuple[str, np.ndarray]:
        from dfn_jax.data import epochs

        folder = configs.tested_folder(config)
        images = epochs.batch(found(folder, TEST_SEED), 0, batch_size=config.eval.examples)["image"]
        words = f"{config.eval.examples} crops of images of {Path(folder).resolve().name}"
        if config.data.name == "images" and not config.eval.dir:
            words += ", other crops of which it was trained on"
        return words + configs.seen_in_training(config), images

    return Data(train_batch, test_set, lambda: crops.fingerprint(configs.data_folder(config.data.dir, "images")))


# Batches to train on are those of `data.steerable.batch`; the test set is images [N, H, W, 1] in [0, 1], one an angle.
SOURCES = {"texture": Source(_texture), "images": Source(_images, reads_folder=True)}
