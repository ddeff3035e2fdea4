"""Experiments by name: each binds a data set, a network, a loss, metrics and pictures."""

import functools
import importlib
from collections.abc import Callable

from ml_collections import ConfigDict

from dfn_jax.config import choose
from dfn_jax.tasks.task import Task


def _of_module(name: str) -> Callable[[ConfigDict], Task]:
    """The `make_task` of a module here, which is imported when it is called."""
    return lambda config: importlib.import_module(f"dfn_jax.tasks.{name}").make_task(config)


TASKS = {name: _of_module(name) for name in ("stereo", "steerable", "video")}


def make_task(config: ConfigDict) -> Task:
    """Builds the task that `config.task` names.

    Args:
        config: an experiment's config; a task may write into it which data it found (`data.digits`).

    Returns:
        The task.

    Raises:
        InputError: the name is unknown, or the config asks for what the task cannot do.
    """
    task = choose("config.task", config.task, TASKS)(config)
    return task._replace(fingerprint=functools.cache(task.fingerprint))  # It reads all digits, or looks at all files.


def make_task_without_data(config: ConfigDict) -> Task:
    """Builds the task for predicting from files alone: its own data need not be there."""
    config = config.copy_and_resolve_references()
    if "digits" in config.data:
        config.data.digits, config.data.dir = "drawn", ""  # MNIST is looked for when the task is made.
    return make_task(config)
