"""One experiment from its config to its report: what `launch.py` runs, and a notebook may call."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dfn_jax import parallel, pretrained, processes
from dfn_jax.checkpoint import check_path
from dfn_jax.config import check, differing, tested_name
from dfn_jax.errors import InputError
from dfn_jax.evaluate import evaluate
from dfn_jax.files import expanded
from dfn_jax.predict import open_inputs, write_predictions
from dfn_jax.preemption import preempt_on_sigterm
from dfn_jax.provenance import commit
from dfn_jax.records import Records, read_records
from dfn_jax.tasks import make_task, make_task_without_data
from dfn_jax.tasks.task import Evaluation, Params, Task, open_train_data
from dfn_jax.train import check_trainable, restore, train
from dfn_jax.train_step import InitialWeights, TrainState
from dfn_jax.workdir import MAY_CHANGE, check_workdir, claim_workdir, newest_checkpoint


def run(config: ConfigDict, workdir: str | Path, *, training: bool = True) -> tuple[Path, Evaluation] | None:
    """Trains an experiment, or goes on with it, and evaluates it.

    Args:
        config: of an experiment.
        workdir: where the run is, or will be; of many processes, the same for all.
        training: False to evaluate what is there alone.

    Returns:
        The folder that holds `results.json` and `report/`, and what was found; None in all processes but the first.

    Raises:
        DivergedError: the loss, a gradient or the parameters' norm is not finite.
        InputError: the config, the data or the workdir cannot be used.
        PreemptedError: SIGTERM asked for the end; the state is saved.
    """
    began, workdir = time.monotonic(), expanded(workdir)
    config = config.copy_and_resolve_references()  # `make_task` writes into it which data it found.
    found = initial = None
    with contextlib.ExitStack() as claimed, processes.end_with_the_others():
        begun = processes.broadcast(newest_checkpoint(workdir))
        with processes.together():  # What cannot be used is told of before the workdir is claimed.
            parallel.check_jax()
            check(config)
            task = make_task(config)
            _check_apart(workdir, config)
            if training:
                check_path(workdir)
                check_trainable(task, config)
                initial = None if begun else _initial_weights(task, config)
                open_train_data(task)
                task.check_test()
            own_test = not config.eval.dir and tested_name(config) == config.data.name
            data = task.fingerprint() if training or own_test else None
            may_differ = _may_change(workdir, config, data)
        asked = f"{workdir.absolute()} {training} {data} {initial and initial.words} {config.to_json_best_effort()}"
        if not processes.alike(asked):
            raise InputError("the processes of this run have different flags, configs or data; give all the same")
        with processes.together():
            if training and processes.is_first():
                claimed.enter_context(claim_workdir(workdir, config, may_differ=may_differ))
        with processes.together():
            if not (training and processes.is_first()):
                processes.wait_for_file(workdir / "config.json")
                check_workdir(workdir, config, may_differ=may_differ)
        state = train(task, config, workdir, initial=initial) if training else restore(task, config, workdir)
        if jax.process_count() > 1:
            preempt_on_sigterm()  # JAX listened while training.
        if training and config.eval.best:
            state = restore(task, config, workdir)
        with processes.together():
            if processes.is_first():
                found = evaluate(task, config, workdir, state, began=began)
    return found


def _initial_weights(task: Task, config: ConfigDict) -> InitialWeights | None:
    """The weights that a new run begins with; None where they are to be drawn.

    Raises:
        InputError: there is no such pretrained network, or it is another one.
    """
    if not (name := config.train.get("init_from", "")):
        return None
    trained_with, params, card = pretrained.load(name)
    theirs, ours = (recipe.get("model", {}).get("name") for recipe in (trained_with, config))
    if ours != theirs:
        raise InputError(
            f"the pretrained network {name} has config.model.name {theirs}, this config {ours}; give another "
            "config.train.init_from, or the same model"
        )
    pretrained.check_fits(name, params, jax.eval_shape(task.init, jax.random.key(0)))
    return InitialWeights(params, f"pretrained {name} of {card['steps']} steps (SHA-256 {card['sha256'][:12]})")


def evaluate_pretrained(name: str, workdir: str | Path, config: ConfigDict | None = None) -> tuple[Path, Evaluation]:
    """Evaluates a pretrained network.

    Args:
        name: one of `dfn_jax.pretrained.names()`.
        workdir: a new folder for the results.
        config: what to evaluate it on, and in which precision; by default what it was trained for. Results name the
            training that it had, whatever this one says of training.

    Returns:
        The folder that holds `results.json` and `report/`, and what was found.

    Raises:
        InputError: there is no such network, it does not fit the config, or the config or the data cannot be used.
    """
    began, workdir = time.monotonic(), expanded(workdir)
    config, task, params, card = _open_pretrained(name, config, make_task)
    task.check_test()
    _check_apart(workdir, config)
    _check_new(workdir)
    with claim_workdir(workdir, config), Records(workdir) as records:
        told = ("commit", "hardware", "precision", "initial_weights")
        records.begin(0, {name: card.get(name) for name in told})
        state = TrainState(jnp.int32(card["steps"]), params, optimiser=())
        return evaluate(task, config, workdir, state, began=began)


def predict(config: ConfigDict, workdir: str | Path, source: str | Path) -> Path:
    """Applies the network of a run to images or clips of which nothing else is known.

    Args:
        config: of the run; `eval.target_frames` says how many frames are predicted.
        workdir: of the run.
        source: for stereo, a left view or a folder of them; for video, a clip or a folder of them.

    Returns:
        The folder below the workdir that holds a picture of each, `NAME.png`, and the arrays, `NAME.npz`.

    Raises:
        InputError: the config, the workdir or the input cannot be used.
    """
    workdir = expanded(workdir)
    parallel.check_jax()
    check(config)
    check_workdir(workdir, config, may_differ=(*MAY_CHANGE, "data.dir", "data.digits"))
    task = make_task_without_data(config)
    inputs, folder = open_inputs(task, source, workdir)
    state = restore(task, config, workdir)
    write_predictions(inputs, state.params, folder, {"steps": int(state.step), **_terms(config)})
    return folder


def predict_by_pretrained(name: str, workdir: str | Path, source: str | Path, config: ConfigDict | None = None) -> Path:
    """Applies a pretrained network, as `predict` does that of a run.

    Args:
        name: one of `dfn_jax.pretrained.names()`.
        workdir: a new folder, or one of the same network's predictions.
        source: see `predict`.
        config: in which precision, and how many frames; by default as it was trained.

    Returns:
        See `predict`.

    Raises:
        InputError: there is no such network, it does not fit the config, or the config or the input cannot be used.
    """
    workdir = expanded(workdir)
    config, task, params, card = _open_pretrained(name, config, make_task_without_data)
    _check_new(workdir)
    inputs, folder = open_inputs(task, source, workdir)
    with claim_workdir(workdir, config):
        write_predictions(inputs, params, folder, {"pretrained": name, "sha256": card["sha256"], **_terms(config)})
    return folder


def _open_pretrained(
    name: str, config: ConfigDict | None, make: Callable[[ConfigDict], Task]
) -> tuple[ConfigDict, Task, Params, dict[str, Any]]:
    """The config by which a pretrained network is used, its task, its parameters and its card."""
    parallel.check_jax()
    trained_with, params, card = pretrained.load(name)
    config = config or trained_with
    check(config)
    config = _used_with(name, trained_with, config)
    task = make(config)
    pretrained.check_fits(name, params, jax.eval_shape(task.init, jax.random.key(0)))
    return config, task, params, card


def _terms(config: ConfigDict) -> dict[str, Any]:
    """By what predictions are made, beside the network."""
    return {"eval": config.eval.to_dict(), "precision": config.precision, "commit": commit()}


def _check_new(workdir: Path) -> None:
    if any((workdir / name).exists() for name in ("checkpoints", "results.json")):
        raise InputError(f"{workdir} has results, or a run, already; choose a new folder")


def _check_apart(workdir: Path, config: ConfigDict) -> None:
    """Checks that no new run writes its pictures among the data, which the next one would read."""
    if (workdir / "config.json").exists():
        return
    for entry in ("data", "eval"):
        folder = config[entry].dir
        if folder and workdir.resolve().is_relative_to(expanded(folder).resolve()):
            raise InputError(f"{workdir} is inside config.{entry}.dir, {folder}; give a --workdir that is not")


def _may_change(workdir: Path, config: ConfigDict, data: str | None) -> tuple[str, ...]:
    """Entries that may differ from a run's own: also where the data lie, if they are known to be the same.

    Args:
        workdir: of the run, or of none yet.
        config: what the command asks for.
        data: their fingerprint, None where nothing is read from where the run's own lie.

    Raises:
        InputError: the run began with other data.
    """
    starts = [start["data"] for start in read_records(workdir / "starts.jsonl") if "data" in start]
    if data is None or not starts:
        return MAY_CHANGE
    may_differ = (*MAY_CHANGE, "data.dir")
    if data != starts[-1]:
        check_workdir(workdir, config, may_differ=may_differ)  # Where the configs differ, that is why.
        raise InputError(
            f"{workdir} was begun with other data ({starts[-1] or 'rendered'} there, {data or 'rendered'} here); give "
            "the folder that it was begun with (--config.data.dir, or for MNIST DFN_DATA), or choose another --workdir"
        )
    return may_differ


def _used_with(name: str, trained_with: ConfigDict, config: ConfigDict) -> ConfigDict:
    """A config to evaluate or apply a pretrained network by, with what it was trained by.

    Raises:
        InputError: the config is of another experiment, network or training data.
    """
    if config.experiment != trained_with.experiment:
        raise InputError(
            f"the pretrained network {name} is of experiments/{trained_with.experiment}.py, the config is of "
            f"experiments/{config.experiment}.py; leave out --config"
        )
    if config.data.name != trained_with.data.name:
        raise InputError(
            f"the pretrained network {name} was trained on {trained_with.data.name}, config.data.name is "
            f"{config.data.name}; to evaluate it on other data, give --config.eval.name and --config.eval.dir, and to "
            "predict --input alone"
        )
    theirs, ours = ({"model": dict(recipe.get("model", {}))} for recipe in (trained_with, config))
    if differ := differing(theirs, ours):
        entries = "; ".join(f"{name} is {there} there, {here} in the config" for name, (there, here) in differ.items())
        raise InputError(f"the pretrained network {name} is another one ({entries}); leave out --config")
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for entry in ("preset", "seed", "train", "optim"):
            config[entry] = trained_with[entry]
        config.pretrained = name  # No run goes on in a folder that says so.
    return config
