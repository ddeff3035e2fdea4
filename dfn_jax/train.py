"""The one training loop: it knows a task by what it needs of it, and no experiment by name."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict
from tqdm import tqdm

from dfn_jax import parallel
from dfn_jax.checkpoint import Checkpoints
from dfn_jax.errors import DivergedError, PreemptedError
from dfn_jax.optimisers import make_optimiser
from dfn_jax.records import Records
from dfn_jax.tasks.task import Batch, Params, Task


class TrainState(NamedTuple):
    """All that a step changes.

    Attributes:
        step: [] int32, steps taken.
        params: of the network.
        optimiser: moments of the optimiser.
    """

    step: Array
    params: Params
    optimiser: optax.OptState


def make_state(task: Task, config: ConfigDict) -> TrainState:
    """The state before the first step, a pure function of the config's seed."""

    def make() -> TrainState:
        params = task.init(jax.random.fold_in(jax.random.key(config.seed), 0))
        return TrainState(jnp.zeros((), jnp.int32), params, make_optimiser(config.optim)[0].init(params))

    # It runs once, and drawing random numbers takes long to optimise: three seconds longer than to run as it is.
    return jax.jit(make, compiler_options={"xla_backend_optimization_level": 0})()


def make_train_step(
    loss: Callable[[Params, Batch], Array], optimiser: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """One step of gradient descent, as a pure function.

    Args:
        loss: (parameters, batch) -> scalar.
        optimiser: of `make_optimiser`.

    Returns:
        (state, batch) -> (new state, {'loss', 'gradient_norm'}).
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        value, gradient = jax.value_and_grad(loss)(state.params, batch)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, optimiser_state), {
            "loss": value,
            "gradient_norm": optax.tree.norm(gradient),
        }

    return train_step


def restore(task: Task, config: ConfigDict, workdir: Path) -> TrainState:
    """The newest checkpoint of a workdir.

    Raises:
        InputError: there is none, or it does not fit the config.
    """
    mesh = parallel.make_mesh(config.mesh, config.train.batch_size)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.restore(jax.device_put(make_state(task, config), parallel.replicated(mesh)))


def train(task: Task, config: ConfigDict, workdir: Path) -> TrainState:
    """Trains until `config.train.steps`, from the newest checkpoint of the workdir if there is one.

    Args:
        task: what to train.
        config: the experiment's config.
        workdir: where checkpoints and `metrics.jsonl` are.

    Returns:
        The state after the last step.

    Raises:
        DivergedError: the loss or a gradient is not finite; no checkpoint holds such a state.
        InputError: the config does not fit the devices or the workdir's checkpoints.
        PreemptedError: SIGTERM asked for the end; the state is saved.
    """
    mesh = parallel.make_mesh(config.mesh, config.train.batch_size)
    everywhere, split = parallel.replicated(mesh), parallel.by_example(mesh)
    optimiser, schedule = make_optimiser(config.optim)
    step_function = jax.jit(
        make_train_step(task.loss, optimiser),
        in_shardings=(everywhere, split),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    steps, log_every, checkpoint_every = (config.train[n] for n in ("steps", "log_every", "checkpoint_every"))
    with _termination() as asked_to_end, Checkpoints(workdir) as checkpoints, Records(workdir) as records:
        state = jax.device_put(make_state(task, config), everywhere)
        if checkpoints.any():
            state = checkpoints.restore(state)
        start = int(state.step)
        checkpoints.set_aside_after(start)
        records.drop_after(start)
        if 0 < start < steps:
            tqdm.write(f"going on from step {start}")
        pending: list[dict[str, Array]] = []
        began = time.monotonic()
        progress = tqdm(range(start, steps), initial=start, total=steps, unit="step", disable=start >= steps)
        progress.set_description("compiling")
        for step in progress:
            batch = jax.device_put(task.train_batch(step), split)
            state, values = step_function(state, batch)
            pending.append(values)
            jax.block_until_ready(pending[-2:][0])  # At most two steps in flight: enough to keep the device busy.
            done = step + 1
            if done == start + 1:
                progress.set_description("training")
            ending = asked_to_end.is_set()
            saving = done % checkpoint_every == 0 or done == steps or ending
            if not (saving or done % log_every == 0):
                continue
            record = _summarise(jax.device_get(pending), first_step=done - len(pending))
            now = time.monotonic()
            record |= {"learning_rate": float(schedule(step)), "steps_per_second": len(pending) / (now - began)}
            pending, began = [], now
            records.write(done, record)
            progress.set_postfix(loss=f"{record['loss']:.5f}")
            if saving:
                checkpoints.save(done, state)
            if ending:
                break
    # Only now the last checkpoint is whole.
    if (done := int(state.step)) < steps:
        raise PreemptedError(f"asked to end at step {done}, which is saved; the same command goes on from there")
    return state


@contextlib.contextmanager
def _termination() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, as schedulers send it before they take a machine away."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # Only the main thread may listen to signals.
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _summarise(values: list[dict[str, Array]], first_step: int) -> dict[str, float]:
    """Means over the steps since the last record, after a check that every one of them is finite."""
    for step, value in enumerate(values, start=first_step + 1):
        for name, number in value.items():
            if not math.isfinite(number):
                raise DivergedError(
                    f"{name} is {number} at step {step}; the last good checkpoint stays. Lower "
                    "config.optim.learning_rate, or look at the batch of that step"
                )
    return {name: float(sum(value[name] for value in values) / len(values)) for name in values[0]}
