"""Runs of `launch.py` whose results are kept: each in a process of its own, and not again where it is done."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from dfn_jax import pretrained
from dfn_jax.data.digits import choose_source
from dfn_jax.errors import InputError
from dfn_jax.preemption import PREEMPTED, PreemptedError
from dfn_jax.records import read_records
from dfn_jax.workdir import check_workdir, results_folder

ROOT = Path(__file__).parents[1]
# Entries that may change without changing a result.
SAME_RESULT = ("train.checkpoint_every", "train.evaluate_every", "train.log_every")
PLACES = ("data.dir", "eval.dir")  # `launch.py` knows whether the data there are the same
Record = dict[str, Any]  # results.json of one run, and what its table says of it


def outcome(arguments: Sequence[str], workdir: Path) -> Record:
    """What a run reached; it is run, or goes on, unless it is done.

    Nothing here may start JAX: it would take the memory of the GPU that the run needs.

    Args:
        arguments: of `launch.py`, workdir excepted, each as --name=value.
        workdir: of the run.

    Returns:
        Its `results.json`.

    Raises:
        InputError: the run failed, or the workdir is of another one, or began with another pretrained network.
        PreemptedError: it was asked to end; its state is saved.
    """
    config = recipe(arguments)
    _check_initial_weights(workdir, config)
    if (found := _reached(arguments, workdir, config)) is not None:
        print(f"{shlex.join(arguments)}: done before, in {workdir}")
        return found
    _launch(arguments, workdir)
    if (found := _results(workdir, config)) is None:
        raise InputError(f"{workdir} has no results after {config.train.steps} steps; remove it to run again")
    return found


def recipe(arguments: Sequence[str]) -> ConfigDict:
    """The config that arguments of `launch.py` describe.

    Args:
        arguments: --config=experiments/NAME.py:PRESET, any --config.ENTRY=VALUE, and others, which say nothing of it.

    Returns:
        The config, with the digits that a run would find.

    Raises:
        InputError: an entry is unknown, or a value of another type; or there are no such digits.
    """
    file, *rest = (word for word in arguments if word.startswith("--config"))
    words = ["launch.py", f"--config={ROOT / file.removeprefix('--config=')}", *rest]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
    try:
        values(words)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{shlex.join(arguments)} describe no config: {error}") from error
    config = values.config
    if "digits" in config.data:
        config.data.digits, _ = choose_source(config.data.digits, config.data.dir)
    return config


def _reached(arguments: Sequence[str], workdir: Path, config: ConfigDict) -> Record | None:
    """The results of a run, or of an evaluation of it; None where `launch.py` has something to do, or to check."""
    if not (workdir / "config.json").exists():
        return None
    may_differ = (*SAME_RESULT, "eval") if "--mode=evaluate" in arguments else SAME_RESULT
    try:
        check_workdir(workdir, config, may_differ=(*may_differ, *PLACES))
    except InputError as error:
        raise InputError(f"{error}; or remove {workdir} to run again") from error
    try:
        check_workdir(workdir, config, may_differ=may_differ)
    except InputError:
        return None  # The data are in another place.
    return _results(workdir, config)


def _check_initial_weights(workdir: Path, config: ConfigDict) -> None:
    """Checks that a run which began with a pretrained network began with the one that now has this name."""
    name = config.train.get("init_from", "")
    told = [start["initial_weights"] for start in read_records(workdir / "starts.jsonl") if "initial_weights" in start]
    if not (name and told):
        return
    _, _, card = pretrained.load(name)
    if card["sha256"][:12] not in (begun := told[0]):
        raise InputError(
            f"{workdir} began with {begun}; the pretrained network {name} is another one now (SHA-256 "
            f"{card['sha256'][:12]}): remove {workdir} to run again"
        )


def _results(workdir: Path, config: ConfigDict) -> Record | None:
    """What is there of results; None where they are of fewer steps, or do not tell how many examples they are of."""
    if not (workdir / "config.json").exists():
        return None
    path = workdir / results_folder(workdir, config) / "results.json"
    found = read(path) if path.exists() else {}
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: wanted one record; remove it to evaluate again")
    return found if found.get("steps") == config.train.steps and "examples" in found else None


def _launch(arguments: Sequence[str], workdir: Path) -> None:
    process, command = None, [sys.executable, "launch.py", *arguments, f"--workdir={workdir}"]
    try:
        # In a group of its own: a signal comes from here alone, and once.
        process = subprocess.Popen(command, cwd=ROOT, process_group=0)
        code = process.wait()
    except (PreemptedError, KeyboardInterrupt):
        if process:
            process.terminate()  # It saves its state.
            process.wait()
        raise
    if code in (PREEMPTED, -signal.SIGTERM):
        raise PreemptedError(f"the run in {workdir} was asked to end, and is saved; the same command goes on")
    if code < 0:
        raise InputError(
            f"launch.py was killed by signal {-code} (9 is often that memory ran out); the same "
            "command goes on from what is saved"
        )
    if code:
        raise InputError(f"launch.py ended with exit code {code}; the reason is printed above")


def read(path: Path) -> Any:
    """Reads a record, or several.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove it, or take it from the history") from error
