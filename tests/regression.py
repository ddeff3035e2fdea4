"""A task that trains in no time, for tests of what stands around training: a linear regression."""

import jax
import jax.numpy as jnp
import numpy as np

from dfn_jax.tasks.task import Task
from experiments.steerable import get_config


def config(**changes):
    result = get_config("smoke")
    result.train.steps, result.train.checkpoint_every = 6, 2
    result.update_from_flattened_dict(changes)
    return result


def regression(spoil_at: int | None = None) -> Task:
    """A small task whose optimum is known: weights [1, 2, 3] behind noisy batches."""

    def batch(step, indices=None):
        inputs = np.random.default_rng(step).standard_normal((8, 3)).astype(np.float32)
        targets = inputs @ np.array([1.0, 2.0, 3.0], np.float32)
        inputs = inputs * (np.nan if step == spoil_at else 1)
        part = slice(indices.start, indices.stop) if indices else slice(None)
        return {"inputs": inputs[part], "targets": targets[part]}

    return Task(
        init=lambda key: {"w": jax.random.normal(key, (3,))},
        loss=lambda params, batch: jnp.mean((batch["inputs"] @ params["w"] - batch["targets"]) ** 2),
        train_batch=batch,
        evaluate=None,
        loss_name="squared error",
    )
