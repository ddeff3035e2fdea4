"""Stereo prediction (Section 4.3): the right view from the left, and disparity read off the filters, without labels."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax import losses, ops, parallel
from dfn_jax.errors import InputError
from dfn_jax.models.deep_stereo import DeepStereo
from dfn_jax.models.spatial_transformer import SpatialTransformer, Warped
from dfn_jax.models.stereo import Filtered, StereoDFN
from dfn_jax.models.twins import StereoTwin
from dfn_jax.tasks.sources import bind
from dfn_jax.tasks.stereo_data import SOURCES
from dfn_jax.tasks.stereo_evaluation import evaluate_stereo
from dfn_jax.tasks.stereo_prediction import stereo_inputs
from dfn_jax.tasks.task import Batch, Params, Program, Task

# Flax modules whose fields are the entries of `config.model`, and dtype: of the left view [N, H, W, C] they make the
# right one, or what `_prediction` and `_disparity` below take apart.
NETWORKS = {
    "dfn": StereoDFN,
    "twin": StereoTwin,
    "deep_stereo": DeepStereo,
    "spatial_transformer": lambda taps, **options: SpatialTransformer(**options),
}


def make_task(config: ConfigDict) -> Task:
    """Binds the stereo task.

    Args:
        config: of `experiments/stereo.py`.

    Returns:
        The task.

    Raises:
        InputError: a name or size in the config, or the data, cannot be used.
    """
    configs.check_filter_size(config, "taps")
    height, width, channels = *config.data.image_size, configs.entry(config, "data.channels")
    data = bind(config, SOURCES)
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
    largest_shift = max(1, taps // 2)
    return Task(
        init=lambda key: network.init(key, jnp.zeros((1, height, width, channels))),
        loss=loss,
        train_batch=data.trained.train_batch,
        evaluate=lambda params: evaluate_stereo(
            *data.tested.test_set(),
            lambda left: predict(params, left),
            largest_shift=largest_shift,
            independent=data.independent,
        ),
        loss_name="squared error, mean over pixels",
        check_test=data.check_test,
        fingerprint=data.trained.fingerprint,
        inputs=lambda path: stereo_inputs(
            path,
            parallel.over_examples(named),
            image_size=(height, width),
            channels=channels,
            largest_shift=largest_shift,
        ),
        program=Program(named, (height, width, channels)),
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
