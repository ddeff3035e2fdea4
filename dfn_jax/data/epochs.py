"""An endless order over a finite data set, as a pure function of seed and position."""

import functools
import sys
from typing import Any

import grain
import jax
import numpy as np


def shuffled_epochs(length: int, *, seed: int) -> grain.MapDataset:
    """Visits 0 ... length - 1 once per epoch, each epoch in an order of its own, without end.

    Grain's own `shuffle` takes over a millisecond per index where the data set is small.

    Args:
        length: Number of examples.
        seed: Non-negative integer.

    Returns:
        Random-access data set of ints; to be followed by `.map` and `batch`.
    """
    return grain.MapDataset.range(sys.maxsize).map(functools.partial(_shuffled_index, length, seed))


def batch(examples: grain.MapDataset, step: int, *, batch_size: int, indices: range | None = None) -> Any:
    """Reads the batch of a step, or a part of it.

    Args:
        examples: endless, of pytrees of arrays.
        step: not negative.
        batch_size: examples in a whole batch.
        indices: which of them to read, N in a row; None for all.

    Returns:
        The pytree, its arrays stacked [N, ...].
    """
    found = (examples[step * batch_size + index] for index in indices or range(batch_size))
    return jax.tree.map(lambda *fields: np.stack(fields), *found)


def _shuffled_index(length: int, seed: int, position: int) -> int:
    epoch, index = divmod(position, length)
    return int(_order(length, seed, epoch)[index])


@functools.lru_cache(maxsize=4)
def _order(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)
