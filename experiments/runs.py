"""Runs of `launch.py` whose results are kept: each in a process of its own, and not again where it is done."""

import ast
import importlib
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dfn_jax.config import check_workdir
from dfn_jax.errors import PREEMPTED, InputError, PreemptedError
from dfn_jax.evaluate import results_folder

ROOT = Path(__file__).parents[1]
# What may change without changing a result.
FREE = ("mesh", "train.checkpoint_every", "train.log_every", "train.non_finite")
Record = dict[str, Any]  # results.json of one run, and the command


def outcome(arguments: Sequence[str], workdir: Path) -> Record:
    """What a run reached; it is run, or goes on, unless it is done.

    Args:
        arguments: of `launch.py`, workdir excepted, each as --name=value.
        workdir: of the run.

    Returns:
        Its `results.json`.

    Raises:
        InputError: the run failed, or the workdir is of another one.
        PreemptedError: it was asked to end; its state is saved.
    """
    config = recipe(arguments)
    if (workdir / "config.json").exists():
        # What digits were there is written into a run's config where the recipe leaves it open.
        free = FREE if config.data.get("digits") else (*FREE, "data.digits")
        check_workdir(workdir, config, free=(*free, "eval") if "--mode=evaluate" in arguments else free)
        path = workdir / results_folder(workdir, config) / "results.json"
        if path.exists() and (found := read(path)).get("steps") == config.train.steps:
            print(f"{shlex.join(arguments)}: done before, in {path.parent}")
            return found
    _launch(arguments, workdir)
    return read(workdir / results_folder(workdir, config) / "results.json")


def recipe(arguments: Sequence[str]) -> ConfigDict:
    """The config that arguments of `launch.py` describe.

    Args:
        arguments: --config=experiments/NAME.py:PRESET, any --config.ENTRY=VALUE, and others, which say nothing of it.

    Returns:
        The config.

    Raises:
        InputError: an entry is unknown, or its value of another type.
    """
    given = dict(argument.split("=", 1) for argument in arguments)
    file, _, preset = given.pop("--config").partition(":")
    config = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(preset)
    entries = {name.removeprefix("--config."): value for name, value in given.items() if name.startswith("--config.")}
    try:
        config.update_from_flattened_dict({name: _value(text) for name, text in entries.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{shlex.join(arguments)} describe no config: {error}") from error
    return config


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _launch(arguments: Sequence[str], workdir: Path) -> None:
    process = subprocess.Popen([sys.executable, "launch.py", *arguments, f"--workdir={workdir}"], cwd=ROOT)
    try:
        code = process.wait()
    except (PreemptedError, KeyboardInterrupt):
        process.terminate()  # It saves its state.
        process.wait()
        raise
    if code == PREEMPTED:
        raise PreemptedError(f"the run in {workdir} was asked to end, and is saved; the same command goes on")
    if code < 0:
        raise InputError(
            f"launch.py was killed by signal {-code} (9 is what a system sends that has no memory left); the same "
            "command goes on from what is saved"
        )
    if code:
        raise InputError(f"launch.py ended with exit code {code}; why is told above")


def read(path: Path) -> Any:
    """Reads a record, or several.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove it, or take it from the history") from error
