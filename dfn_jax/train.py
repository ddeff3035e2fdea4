"""The one training loop: it knows a task by what it needs of it, and no experiment by name."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from dfn_jax import parallel, processes
from dfn_jax.checkpoint import Checkpoints
from dfn_jax.config import ema_decay
from dfn_jax.errors import InputError
from dfn_jax.guards import LossGuard, Watchdog, check_norm
from dfn_jax.optimisers import make_optimiser, optimiser_steps
from dfn_jax.preemption import PreemptedError, asked_to_end
from dfn_jax.progress import progress
from dfn_jax.provenance import commit, hardware
from dfn_jax.records import TEST_PREFIX, Records, mean_loss, read_records
from dfn_jax.tasks.task import NOT_THE_NETWORKS, Batch, DrawnBatch, Task
from dfn_jax.train_step import InitialWeights, TrainState, make_state, make_train_step, state_shapes

_norm = jax.jit(optax.tree.norm)


def check_trainable(task: Task, config: ConfigDict) -> None:
    """Checks that a run could begin.

    Raises:
        InputError: the optimiser is unknown, the batch does not fit the devices, or there would be no best checkpoint.
    """
    make_optimiser(config.optim)
    _make_mesh(config)
    steps, every = config.train.steps, config.train.checkpoint_every
    if config.eval.best and not _comparable(steps, config, task):
        raise InputError(
            f"config.eval.best needs a checkpoint after {every} steps on whole examples, but the curriculum "
            f"shows those from step {task.curriculum.ends} on, of {steps}; leave it out, or train longer"
        )


def _tell_where_no_batch_is_whole(task: Task, config: ConfigDict) -> None:
    ends, steps = task.curriculum.ends, config.train.steps
    if 0 < steps <= ends and processes.is_first():
        tqdm.write(
            f"no step of the {steps} is on whole examples, as the curriculum shows those from step {ends} on",
            file=sys.stderr,
        )


def _make_mesh(config: ConfigDict) -> Mesh:
    size = {"batch_size": config.train.batch_size, "image_size": tuple(config.data.image_size)}
    return parallel.make_mesh(config.mesh, **size)


def _tell_of_idle_devices(config: ConfigDict, mesh: Mesh) -> None:
    if config.mesh.data == -1 and mesh.size < jax.device_count():
        words = f"{mesh.size} of {jax.device_count()} devices share the batch of {config.train.batch_size}"
        tqdm.write(f"{words}; the others are idle", file=sys.stderr)


def restore(task: Task, config: ConfigDict, workdir: Path) -> TrainState:
    """Reads the newest checkpoint of a workdir, or with `config.eval.best` that of the lowest loss.

    Returns:
        The state, as NumPy arrays.

    Raises:
        InputError: there is none, or it does not fit the config.
    """
    everywhere = ConfigDict({"data": -1, "height": 1})  # whatever the training's batch could be split over
    mesh = parallel.make_mesh(everywhere, batch_size=jax.device_count(), image_size=tuple(config.data.image_size))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return parallel.to_host(checkpoints.restore(state_shapes(task, config, mesh), best=config.eval.best))


def train(task: Task, config: ConfigDict, workdir: Path, *, initial: InitialWeights | None = None) -> TrainState:
    """Trains until `config.train.steps`, from the newest checkpoint of the workdir if there is one.

    Args:
        task: what to train.
        config: the experiment's config.
        workdir: where checkpoints and records are; the same for all processes.
        initial: weights to begin with where there is no checkpoint; by default they are drawn by the config's seed.

    Returns:
        The state after the last step, as NumPy arrays.

    Raises:
        DivergedError: the loss, a gradient or the parameters' norm is not finite; no checkpoint holds such a state.
        InputError: the config does not fit the devices or the workdir's checkpoints.
        PreemptedError: SIGTERM asked for the end; the state is saved.
    """
    check_trainable(task, config)
    _tell_where_no_batch_is_whole(task, config)
    mesh = _make_mesh(config)
    _tell_of_idle_devices(config, mesh)
    optimiser, schedule = make_optimiser(config.optim)
    steps, log_every, checkpoint_every = (config.train[name] for name in ("steps", "log_every", "checkpoint_every"))
    first = processes.is_first()
    with (
        asked_to_end() as asked,
        Checkpoints(workdir) as checkpoints,
        Records(workdir, writing=first) as records,
        Watchdog(records.tell) as watchdog,
    ):
        state = _begin(task, config, mesh, workdir, checkpoints, records, initial)
        start = int(state.step)
        step_function = _compiled_step(task, config, mesh, optimiser, state)
        batch = make_batches(task, mesh, config.train.batch_size)
        guard = LossGuard(config.train.non_finite, config.seed, records.tell)
        pending: list[dict[str, Array]] = []
        before = None
        # The first process may not have dropped yet what was recorded after the start.
        window = range(start - checkpoint_every + 1, start + 1)
        recent = [one for one in read_records(workdir / "metrics.jsonl") if one["step"] in window]
        began, ending, compiled = time.monotonic(), False, None
        quiet = start >= steps or not first
        bar = progress(range(start, steps), initial=start, total=steps, unit="step", disable=quiet)
        bar.set_description("compiling")
        for step in bar:
            if _is_tested(step, config):
                _write_test_metrics(task, state, step, records)
                began = time.monotonic()
            watchdog.begin(step + 1)
            examples = task.curriculum.shown(batch(step), step)
            shapes = jax.tree.map(jnp.shape, examples)
            compiles, compiled = shapes != compiled, shapes
            if compiles:
                bar.set_description("compiling")
                watchdog.forget()
            state, values = step_function(state, examples)
            pending.append(values)
            jax.block_until_ready(before)  # At most two steps in flight: enough to keep the device busy.
            before = values
            watchdog.end()
            done = step + 1
            if compiles:
                bar.set_description("training")
            ending = asked()
            # Nothing is to be lost where an evaluation, which may take long, is cut short.
            regular = done % checkpoint_every == 0 or done == steps
            saving = regular or ending or _is_tested(done, config)
            if not (saving or done % log_every == 0):
                continue
            record = guard.summarise(jax.device_get(pending), first_step=done - len(pending))
            now = time.monotonic()
            # Steps that were skipped do not count.
            rate = float(schedule(max(int(optimiser_steps(state.optimiser)) - 1, 0)))
            record |= {"learning_rate": rate, "steps_per_second": len(pending) / (now - began)}
            pending, began = [], now
            records.write(done, record)
            recent.append({"step": done, **record})
            bar.set_postfix(loss=f"{record.get('loss', math.inf):.4g}", refresh=False)
            if saving:
                check_norm(done, float(_norm(state.params)))
                recent = [one for one in recent if one["step"] > done - checkpoint_every]
                # Neither an interruption nor an evaluation is to change which checkpoint is the best.
                comparable = regular and _comparable(done, config, task)
                checkpoints.save(done, state, mean_loss(done - checkpoint_every, recent) if comparable else None)
            if ending:
                break
    # Only now the last checkpoint is whole.
    if ending or asked():
        again = f"the same command, with --workdir={workdir}, goes on from there"
        raise PreemptedError(f"asked to end at step {state.step}, which is saved; {again}")
    return parallel.to_host(state)


def _is_tested(step: int, config: ConfigDict) -> bool:
    """Whether training looks at the test set before it goes on from a step."""
    every = config.train.evaluate_every
    return bool(every and step and step % every == 0)


def _comparable(step: int, config: ConfigDict, task: Task) -> bool:
    """Whether the mean loss before a checkpoint is of whole batches: that of parts does not compare with it."""
    return max(step - config.train.checkpoint_every, 0) >= task.curriculum.ends


def make_batches(task: Task, mesh: Mesh, batch_size: int) -> Callable[[int], Batch]:
    """Batches by step: drawn on the devices if they can be, or else each process makes what its devices hold."""
    if isinstance(task.train_batch, DrawnBatch):
        return parallel.drawn(mesh, task.train_batch.draw, task.train_batch.tables(), batch_size)
    indices = parallel.local_indices(mesh, batch_size)
    return lambda step: parallel.place(mesh, task.train_batch(step, indices), indices, batch_size)


def _compiled_step(
    task: Task, config: ConfigDict, mesh: Mesh, optimiser: optax.GradientTransformation, state: TrainState
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The training step for the devices that hold the state, whose memory the new one takes over."""
    loss = parallel.mean_over_devices(task.loss, mesh)
    step = make_train_step(
        loss, optimiser, skip_non_finite=config.train.non_finite == "skip", ema_decay=ema_decay(config)
    )
    placement = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(step, out_shardings=(placement, parallel.replicated(mesh)), donate_argnums=0)


def _write_test_metrics(task: Task, state: TrainState, step: int, records: Records) -> None:
    """Records the network's own metrics on the test set, without curves by frame; all processes must ask."""
    params = parallel.to_host(state.params)
    with processes.together():
        if processes.is_first():
            found = task.evaluate(parallel.on_all_local_devices(params)).metrics
            own = {name: value for name, value in found.items() if not name.startswith(NOT_THE_NETWORKS)}
            finite = {name: one for name, one in own.items() if isinstance(one, float) and math.isfinite(one)}
            records.write(step, {TEST_PREFIX + name: one for name, one in finite.items()})


def _begin(
    task: Task,
    config: ConfigDict,
    mesh: Mesh,
    workdir: Path,
    checkpoints: Checkpoints,
    records: Records,
    initial: InitialWeights | None,
) -> TrainState:
    """The state of the newest checkpoint, or a new one; what was saved and recorded after it is put away.

    Where steps are left, or none was made, it is recorded by what they are made.
    """
    first, steps, shapes = processes.is_first(), config.train.steps, state_shapes(task, config, mesh)
    if checkpoints.any():
        state = checkpoints.restore(shapes)
    else:
        _check_none_is_gone(workdir, config)
        state = make_state(task, config, jax.tree.map(lambda one: one.sharding, shapes), initial=initial)
    start = int(state.step)
    checkpoints.set_aside_after(start)
    records.drop_after(start, tests_anew=start < steps and _is_tested(start, config))
    if first and (start < steps or not start):
        if start:
            tqdm.write(f"going on from step {start}")
        origin = {"commit": commit(), "hardware": hardware(mesh.devices.flat), "precision": config.precision}
        if not start:
            origin["initial_weights"] = initial.words if initial else f"drawn by seed {config.seed}"
        terms = {"eval": config.eval.to_dict(), "checkpoint_every": config.train.checkpoint_every}
        records.begin(start, origin | {"data": task.fingerprint(), **terms})
    return state


def _check_none_is_gone(workdir: Path, config: ConfigDict) -> None:
    """Checks, where there is no checkpoint, that there was none: a run that begins anew replaces what is recorded."""
    records, starts = read_records(workdir / "metrics.jsonl"), read_records(workdir / "starts.jsonl")
    reached = max((record["step"] for record in records), default=0)
    told = [start["checkpoint_every"] for start in starts if "checkpoint_every" in start]
    # The first one is written while training goes on; the second, begun after its step is recorded, waits for it.
    saved = reached > 2 * max(told, default=config.train.checkpoint_every)
    if saved or (reached and (workdir / "results.json").exists()):
        raise InputError(
            f"the run in {workdir} has recorded {reached} steps, but its checkpoints are gone; bring them back, or "
            "choose another --workdir"
        )
    if records and processes.is_first():
        tqdm.write(f"{workdir} has records, but no checkpoint was saved: training begins anew", file=sys.stderr)
