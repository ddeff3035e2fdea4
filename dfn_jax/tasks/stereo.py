"""Stereo prediction (Section 4.3): the right view from the left, and disparity read off the filters, without labels."""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax import losses, ops, parallel
from dfn_jax.data import highway, pair_folders
from dfn_jax.errors import InputError
from dfn_jax.models.deep_stereo import DeepStereo
from dfn_jax.models.spatial_transformer import SpatialTransformer, Warped
from dfn_jax.models.stereo import Filtered, StereoDFN
from dfn_jax.models.twins import StereoTwin
from dfn_jax.tasks.stereo_evaluation import evaluate_stereo
from dfn_jax.tasks.stereo_prediction import stereo_inputs
from dfn_jax.tasks.task import (
    STEREO_TEST,
    TEST_BATCH,
    TEST_SEED,
    TRAINING,
    Batch,
    DrawnBatch,
    Params,
    Program,
    Task,
    TrainBatch,
    stream,
)

# Flax modules whose fields are the entries of `config.model`, and dtype: of the left view [N, H, W, C] they make the
# right one, or what `_prediction` and `_disparity` below take apart.
NETWORKS = {
    "dfn": StereoDFN,
    "twin": StereoTwin,
    "deep_stereo": DeepStereo,
    "spatial_transformer": lambda taps, **options: SpatialTransformer(**options),
}
READS_FOLDER = {"highway": False, "pairs": True}  # by the names of the data


def make_task(config: ConfigDict) -> Task:
    """Binds the stereo task.

    Args:
        config: of `experiments/stereo.py`.

    Returns:
        The task.

    Raises:
        InputError: a name or size in the config, or the data, cannot be used.
    """
    _check(config)
    height, width = config.data.image_size
    network_class = configs.choose("config.model.name", configs.entry(config, "model.name"), NETWORKS)
    fields = {name: value for name, value in config.model.items() if name != "name"}
    try:
        network = network_class(**fields, dtype=configs.PRECISIONS[config.precision])
    except TypeError as error:
        raise InputError(f"config.model does not fit the network {config.model.name!r}: {error}") from error
    taps = config.model.taps

    def loss(params: Params, batch: Batch) -> jax.Array:
        return losses.mean_squared_error(_prediction(network.apply(params, batch["left"])), batch["right"])

    def apply(params: Params, left: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        output = network.apply(params, left)
        return _prediction(output), _disparity(output, taps)

    def named(params: Params, left: jax.Array) -> dict[str, jax.Array]:
        right, disparity = apply(params, left)
        found = {"right": jnp.clip(right, 0, 1)}
        return found if disparity is None else found | {"disparity": disparity}

    predict = parallel.over_examples(apply)

    test_examples = functools.cache(lambda: _test_examples(config))  # Training may evaluate many times.
    largest_shift = max(1, taps // 2)
    return Task(
        init=lambda key: network.init(key, jnp.zeros((1, height, width, config.data.channels))),
        loss=loss,
        train_batch=_train_batch(config),
        evaluate=lambda params: evaluate_stereo(
            *test_examples(),
            lambda left: predict(params, left),
            largest_shift=largest_shift,
            independent=configs.tested_name(config) == "highway",
        ),
        loss_name="squared error, mean over pixels",
        check_test=lambda: None if configs.tested_name(config) == "highway" else test_examples(),
        fingerprint=lambda: _fingerprint(config),
        inputs=lambda source: stereo_inputs(
            source, parallel.over_examples(named), largest_shift=largest_shift, **_pair_options(config)
        ),
        program=Program(named, (height, width, config.data.channels)),
    )


def _prediction(output: Filtered | Warped | jax.Array) -> jax.Array:
    if not isinstance(output, Filtered | Warped | jax.Array):
        raise InputError(
            f"the network returns a {type(output).__name__}; wanted an image [N, H, W, C], Filtered or Warped"
        )
    return output if isinstance(output, jax.Array) else output.prediction


def _disparity(output: Filtered | Warped | jax.Array, taps: int) -> jax.Array | None:
    """What a network fetched pixels by, [N, H, W] in pixels; None where it makes them up."""
    match output:
        case Filtered(filters=filters):
            if filters.shape[-1] != taps:
                raise InputError(
                    f"the network's filters have {filters.shape[-1]} taps, config.model.taps is {taps}; disparity is "
                    "read off filters of one row. For others return Warped, with ops.expected_displacement of them"
                )
            return ops.expected_displacement(filters, (1, taps))[..., 0]
        case Warped(displacement=displacement):
            return displacement[..., 0]
    return None


def _check(config: ConfigDict) -> None:
    configs.check_data(config, READS_FOLDER)
    configs.check_filter_size(config, "taps")
    names, channels = (config.data.name, configs.tested_name(config)), configs.entry(config, "data.channels")
    if channels not in (1, 3) or ("highway" in names and channels != 1):
        where = " and ".join(dict.fromkeys(names))
        raise InputError(f"config.data.channels is {channels} on {where}; highway has 1, pairs have 1 or 3")


def _pair_options(config: ConfigDict) -> dict:
    return {"image_size": tuple(config.data.image_size), "channels": config.data.channels}


def _split_options(config: ConfigDict) -> dict:
    return {"test_sequences": tuple(config.data.test_sequences), "test_fraction": config.data.test_fraction}


def _fingerprint(config: ConfigDict) -> str:
    if config.data.name == "highway":
        return ""
    folder = configs.data_folder(config.data.dir, "pairs")
    return pair_folders.fingerprint(folder, channels=config.data.channels)


def _train_batch(config: ConfigDict) -> TrainBatch:
    """What to train on."""
    batch_size = config.train.batch_size
    if config.data.name == "highway":
        key = stream(config.seed, TRAINING)
        size = {"batch_size": batch_size, "image_size": tuple(config.data.image_size)}
        return DrawnBatch(
            lambda _, step, indices: highway.stereo_batch(jax.random.fold_in(key, step), indices=indices, **size)
        )
    from dfn_jax.data import epochs, pairs  # TFDS and Grain, which only real pairs need

    @functools.cache
    def examples():
        folder = configs.data_folder(config.data.dir, "pairs")
        return pairs.train_examples(folder, seed=config.seed, **_pair_options(config), **_split_options(config))

    def batch(step: int, indices: range | None = None) -> Batch:
        fields = epochs.batch(examples(), step, batch_size=batch_size, indices=indices)
        return {"left": fields["left"], "right": fields["right"]}

    return batch


def _test_examples(config: ConfigDict) -> tuple[str, Batch]:
    """The test set: what it is, and its arrays, all examples along the first axis."""
    count = config.eval.examples
    if configs.tested_name(config) == "highway":
        key = stream(TEST_SEED, STEREO_TEST)
        size = {"batch_size": TEST_BATCH, "image_size": tuple(config.data.image_size), "with_truth": True}
        batches = [
            jax.device_get(highway.stereo_batch(jax.random.fold_in(key, index), **size))
            for index in range(-(-count // TEST_BATCH))
        ]
        examples = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *batches)
        return f"{count} scenes of the highway renderer that training never sees", examples
    words, found = _test_pairs(config)
    count = min(count, len(found))
    chosen = np.linspace(0, len(found) - 1, count).round().astype(int)  # from all sequences
    examples = jax.tree.map(lambda *parts: np.stack(parts), *(found[index] for index in chosen))
    spaced = ", evenly spaced" if count < len(found) else ""
    return f"{count} of the {len(found)} {words}{spaced}", examples


def _test_pairs(config: ConfigDict) -> tuple[str, Sequence]:
    """Real pairs to test on: what they are, and their examples by index."""
    from dfn_jax.data import pairs

    folder = configs.data_folder(configs.tested_folder(config), "pairs")
    split, options = ("all", {}) if config.eval.dir else ("test", _split_options(config))
    found = pairs.examples(folder, split=split, **_pair_options(config), **options)
    words = f"real pairs of {Path(folder).resolve().name} ({split})"
    return words + configs.seen_in_training(config), found
