"""What training changes, and one step of it, as pure functions."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dfn_jax import parallel
from dfn_jax.config import ema_decay
from dfn_jax.optimisers import make_optimiser, optimiser_steps
from dfn_jax.tasks.task import WEIGHTS, Batch, Params, Task, stream


class TrainState(NamedTuple):
    """All that a step changes.

    Attributes:
        step: [] int32, steps taken.
        params: of the network; with `config.optim.ema_decay` an average of those that the optimiser moves.
        optimiser: its moments; with `config.optim.ema_decay` these and the parameters that it moves, in which the
            gradient is taken.
    """

    step: Array
    params: Params
    optimiser: optax.OptState | tuple[optax.OptState, Params]


class InitialWeights(NamedTuple):
    """What training begins with.

    Attributes:
        params: of the network, as NumPy arrays.
        words: what they are, for the records.
    """

    params: Params
    words: str


def make_state(
    task: Task, config: ConfigDict, shardings: TrainState | None = None, *, initial: InitialWeights | None = None
) -> TrainState:
    """The state before the first step.

    Args:
        task: what to train.
        config: the experiment's config.
        shardings: of the state's arrays; by default they are on one device.
        initial: weights; by default they are a pure function of the config's seed.
    """
    # It runs once, and drawing random numbers takes CPUs long to optimise: three seconds longer than to run as it is.
    quickly = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(lambda: _first_state(task, config, initial), compiler_options=quickly, out_shardings=shardings)()


def _first_state(task: Task, config: ConfigDict, initial: InitialWeights | None = None) -> TrainState:
    params = initial.params if initial else task.init(stream(config.seed, WEIGHTS))
    moments = make_optimiser(config.optim)[0].init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, (moments, params) if ema_decay(config) else moments)


def make_train_step(
    loss: Callable[[Params, Batch], Array],
    optimiser: optax.GradientTransformation,
    *,
    skip_non_finite: bool = False,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """One step of gradient descent, as a pure function.

    With `ema_decay` the state's parameters are an exponential moving average of those that the optimiser moves, which
    the noise of small batches moves too (after Polyak and Juditsky, Acceleration of Stochastic Approximation by
    Averaging, 1992, whose average is uniform).

    Args:
        loss: (parameters, batch) -> scalar.
        optimiser: of `make_optimiser`.
        skip_non_finite: leave parameters and optimiser as they are where the loss or the gradient is not finite.
        ema_decay: weight of the past in the average, but at most steps / (9 + steps), so that it is of about the last
            tenth of the steps until that tenth is 1 / (1 - ema_decay) steps; 0 for no average.

    Returns:
        (state, batch) -> (new state, {'loss', 'gradient_norm'}), both of what the optimiser moves.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        moments, here = state.optimiser if ema_decay else (state.optimiser, state.params)
        value, gradient = jax.value_and_grad(loss)(here, batch)
        values = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
        updates, moments = optimiser.update(gradient, moments, here)
        moved = optax.apply_updates(here, updates)
        new = TrainState(state.step + 1, moved, moments)
        if ema_decay:
            done = optimiser_steps(moments)  # This step too; those that were skipped do not count.
            decay = jnp.minimum(ema_decay, done / (9 + done))
            average = optax.incremental_update(moved, state.params, 1 - decay)
            new = new._replace(params=average, optimiser=(moments, moved))
        if skip_non_finite:
            finite = jnp.isfinite(value) & jnp.isfinite(values["gradient_norm"])
            unchanged = state._replace(step=new.step)
            new = jax.tree.map(functools.partial(jnp.where, finite), new, unchanged)
        return new, values

    return train_step


def state_shapes(task: Task, config: ConfigDict, mesh: Mesh) -> TrainState:
    """What a state is like: `jax.ShapeDtypeStruct`s, with the devices that its arrays belong on."""
    shapes = jax.eval_shape(lambda: _first_state(task, config))
    shardings = parallel.state_shardings(mesh, shapes, split=config.mesh.split_state)
    return jax.tree.map(
        lambda one, where: jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=where), shapes, shardings
    )
