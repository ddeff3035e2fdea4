"""Video prediction (Section 4.2): the next frames from the last ones, and motion read off the filters, unlabelled."""

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax import losses, ops, parallel
from dfn_jax.errors import InputError
from dfn_jax.tasks.sources import Source, bind
from dfn_jax.tasks.task import Batch, Curriculum, Params, Program, Task
from dfn_jax.tasks.video_data import SOURCES, lengths
from dfn_jax.tasks.video_evaluation import Guess, evaluate_video
from dfn_jax.tasks.video_networks import make_network
from dfn_jax.tasks.video_prediction import video_inputs

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
    network = make_network(config)
    measure, loss_name = configs.choose("config.loss", config.loss, LOSSES)
    data = bind(config, _sources(config))
    known, horizon = lengths(config)

    def loss(params: Params, batch: Batch) -> jax.Array:
        given, following = batch["frames"][:, :known], batch["frames"][:, known:]
        return measure(network.rollout(params, given, following.shape[1]).frame, following)

    _, tested_horizon = lengths(config, testing=True)

    def apply(params: Params, frames: jax.Array) -> Guess:
        predicted = network.rollout(params, frames, tested_horizon)
        prediction = jnp.clip(predicted.frame, 0, 1)
        if predicted.filters is None:
            return Guess(prediction)
        flow = network.flow(predicted.filters) if network.flow else None
        return Guess(prediction, flow, ops.filter_entropy(predicted.filters).mean((2, 3)))

    def named(params: Params, frames: jax.Array) -> dict[str, jax.Array]:
        guess = apply(params, frames)
        return {"predicted": guess.frames} | ({} if guess.flow is None else {"flow": guess.flow})

    predict = parallel.over_examples(apply)
    return Task(
        init=network.init,
        loss=loss,
        train_batch=data.trained.train_batch,
        evaluate=lambda params: evaluate_video(
            *data.tested.test_set(),
            lambda frames: predict(params, frames),
            known=known,
            reach=network.reach,
            probabilities=config.loss == "binary_cross_entropy",
            independent=data.independent,
        ),
        loss_name=loss_name,
        check_test=data.check_test,
        fingerprint=data.trained.fingerprint,
        inputs=lambda source: video_inputs(
            source,
            parallel.over_examples(named),
            image_size=tuple(config.data.image_size),
            channels=config.data.channels,
            known=known,
        ),
        program=Program(named, (known, *config.data.image_size, config.data.channels)),
        curriculum=_curriculum(config.train.get("double_horizon_every", 0), known, horizon),
    )


def _curriculum(every: int, known: int, horizon: int) -> Curriculum:
    """One frame is predicted at first, and twice as many after every so many steps, up to the horizon; 0: all at once.

    What is far ahead is learned from what is near, in steps that take a fraction of the time.
    """
    if not every or horizon == 1:
        return Curriculum()
    ends = every * (horizon - 1).bit_length()

    def shown(batch: Batch, step: int) -> Batch:
        if step >= ends:
            return batch
        return {**batch, "frames": lax.slice_in_dim(batch["frames"], 0, known + 2 ** (step // every), axis=1)}

    words = f"of one predicted frame at first, and of twice as many after every {every:,} steps, up to {horizon}"
    return Curriculum(shown, ends, words)


def _sources(config: ConfigDict) -> dict[str, Source]:
    """The data that a recipe may name: one with digits has Moving MNIST alone, which has one test set."""
    of_digits = "digit_count" in config.data
    if of_digits and (config.eval.name or config.eval.dir):
        raise InputError("config.eval.name and config.eval.dir are for highway driving; moving_mnist has one test set")
    return {name: source for name, source in SOURCES.items() if (name == "moving_mnist") == of_digits}


def _check(config: ConfigDict) -> None:
    # Few enough that their sum, too, is a whole number to JAX.
    frames = {"data.input_frames": 1, "data.target_frames": 1, "eval.target_frames": 0}
    configs.check_whole_numbers(config, frames, bits=30)
    if "double_horizon_every" in config.train:  # Older configs, such as those of pretrained networks, have none.
        configs.check_whole_numbers(config, {"train.double_horizon_every": 0})
