"""Experiments by name: each binds a data set, a network, a loss, metrics and pictures."""

import functools
import importlib

from ml_collections import ConfigDict

from dfn_jax.errors import InputError
from dfn_jax.tasks.task import Task

TASKS = ("stereo", "steerable", "video")
EXPERIMENTS = {"stereo": "stereo", "steerable": "steerable", "moving_mnist": "video", "highway": "video"}


def make_task(config: ConfigDict) -> Task:
    """Builds the task that `config.task` names.

    Args:
        config: an experiment's config.

    Returns:
        The task.

    Raises:
        InputError: the name is unknown, or the config asks for what the task cannot do.
    """
    if config.task not in TASKS:
        raise InputError(f"config.task is {config.task!r}; known tasks: {', '.join(TASKS)}")
    if config.task != EXPERIMENTS.get(config.experiment, config.task):
        raise InputError(f"config.task is {config.task!r}; {config.experiment} is {EXPERIMENTS[config.experiment]}")
    task = importlib.import_module(f"dfn_jax.tasks.{config.task}").make_task(config)
    return task._replace(fingerprint=functools.cache(task.fingerprint))  # It reads all digits, or looks at all files.


def make_task_without_data(config: ConfigDict) -> Task:
    """Builds the task for predicting from files alone: its own data need not be there."""
    config = config.copy_and_resolve_references()
    if "digits" in config.data:
        config.data.digits, config.data.dir = "drawn", ""  # MNIST is looked for when the task is made.
    return make_task(config)
