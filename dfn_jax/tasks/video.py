"""Video prediction (Section 4.2): the next frames from the last ones, and motion read off the filters, unlabelled."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax import losses, ops
from dfn_jax.errors import InputError
from dfn_jax.models.baselines import VideoTwin
from dfn_jax.models.video import VideoDFN, rollout
from dfn_jax.tasks.task import Batch, Params, Task
from dfn_jax.tasks.video_data import lengths, video_data
from dfn_jax.tasks.video_evaluation import evaluate_video

NETWORKS = {"dfn": VideoDFN, "twin": VideoTwin}
LOSSES = {
    "binary_cross_entropy": (losses.binary_cross_entropy_mean, "binary cross-entropy, nats, mean over pixels"),
    "squared_error": (losses.mean_squared_error, "squared error, mean over pixels"),
}


def make_task(config: ConfigDict) -> Task:
    """Binds a task of video prediction.

    Args:
        config: of `experiments/moving_mnist.py` or `experiments/highway.py`.

    Returns:
        The task.

    Raises:
        InputError: a name, size or number in the config, or the data, cannot be used.
    """
    _check(config)
    model = config.model
    network = configs.choose("config.model.name", model.name, NETWORKS)(
        encoder=tuple(model.encoder),
        coarse=tuple(model.coarse),
        fine=tuple(model.fine),
        features=model.features,
        kernel_size=model.kernel_size,
        channels=config.data.channels,
        window=model.window,
        dynamic_bias=model.dynamic_bias,
        position_bias=model.position_bias,
        refinement=model.refinement,
        dtype=configs.PRECISIONS[config.precision],
    )
    measure, loss_name = configs.choose("config.loss", config.loss, LOSSES)
    data, tested = video_data(config, config.data.name), video_data(config, config.eval.name or config.data.name)
    known, horizon = lengths(config)

    def loss(params: Params, batch: Batch) -> jax.Array:
        frames = batch["frames"]
        predicted = rollout(network, params, frames[:, :known], horizon=horizon, rematerialise=model.rematerialise)
        return measure(predicted.frame, frames[:, known:])

    _, tested_horizon = lengths(config, testing=True)

    @jax.jit
    def predict(params: Params, frames: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        predicted = rollout(network, params, frames, horizon=tested_horizon)
        prediction = jnp.clip(predicted.frame, 0, 1)
        if predicted.filters is None:
            return prediction, None
        return prediction, ops.expected_displacement(predicted.filters, (model.kernel_size, model.kernel_size))

    return Task(
        init=lambda key: network.init(key, jnp.zeros((1, model.window, *config.data.image_size, config.data.channels))),
        loss=loss,
        train_batch=data.train_batch,
        evaluate=lambda params: evaluate_video(
            *tested.test_set(),
            lambda frames: predict(params, frames),
            known=known,
            largest_flow=model.kernel_size // 2,
            probabilities=config.loss == "binary_cross_entropy",
        ),
        loss_name=loss_name,
        check_test=tested.test_set,
    )


def _check(config: ConfigDict) -> None:
    if config.experiment != "moving_mnist":
        configs.check_data(config, ("highway", "video"))
    elif config.data.name != "moving_mnist":
        raise InputError(f"config.data.name is {config.data.name!r}; this experiment has moving_mnist alone")
    elif config.eval.name or config.eval.dir:
        raise InputError("config.eval.name and config.eval.dir are for highway driving; moving_mnist has one test set")
    for name, least in (("encoder", 2), ("coarse", 0), ("fine", 1)):
        widths = config.model[name]
        if len(widths) < least or not all(isinstance(width, int) and width > 0 for width in widths):
            raise InputError(
                f"config.model.{name} is {tuple(widths)}; it must be at least {least} whole numbers, channels of layers"
            )
    if config.model.features < 1:
        raise InputError(f"config.model.features is {config.model.features}; it must be at least 1")
    for name, value, minimum in (
        ("data.input_frames", config.data.input_frames, config.model.window),
        ("data.target_frames", config.data.target_frames, 1),
        ("eval.target_frames", config.eval.target_frames, 0),
        ("model.window", config.model.window, 1),
        ("model.refinement", config.model.refinement, 0),
    ):
        if value < minimum:
            raise InputError(f"config.{name} is {value}; it must be a whole number of at least {minimum}")
    if config.model.kernel_size < 1 or config.model.kernel_size % 2 == 0:
        raise InputError(
            f"config.model.kernel_size is {config.model.kernel_size}; it must be odd, so that a filter has a centre"
        )
