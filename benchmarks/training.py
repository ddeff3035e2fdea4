"""A training step as the benchmarks time it."""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from dfn_jax.optimisers import make_optimiser
from dfn_jax.tasks import make_task
from dfn_jax.tasks.task import Batch, Task
from dfn_jax.train_step import TrainState, make_state, make_train_step

EXPERIMENTS = ("moving_mnist", "highway", "stereo")


class Training(NamedTuple):
    """What a step of a recipe needs.

    Attributes:
        config: the recipe.
        task: that it trains.
        state: before the first step.
        batch: of that step.
        step: (state, batch) -> (new state, values), compiled; the new state takes over the memory of the old one.
    """

    config: ConfigDict
    task: Task
    state: TrainState
    batch: Batch
    step: Callable


def prepare(experiment: str, preset: str = "paper") -> Training:
    """Makes what a step needs; Moving MNIST's digits are drawn."""
    config = importlib.import_module(f"experiments.{experiment}").get_config(preset)
    if experiment == "moving_mnist":
        config.data.digits = "drawn"
    task = make_task(config)
    state, batch = make_state(task, config), task.train_batch(0)
    step = jax.jit(make_train_step(task.loss, make_optimiser(config.optim)[0]), donate_argnums=0)
    return Training(config, task, state, batch, step.lower(state, batch).compile())
