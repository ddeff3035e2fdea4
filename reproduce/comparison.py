"""Two rows of a table on the same test examples: how much less error one has."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dfn_jax.intervals import saving_interval
from reproduce.runs import Record

Examples = Mapping[str, np.ndarray]  # a metric of each test example [N], by `key` of the run


def key(record: Record) -> str:
    """What a run is called among the examples of its table."""
    return f"{record['row']}-{record['protocol']}-{record['seed']}"


class Saving(NamedTuple):
    """By which part the error of one row is less than that of another; negative where it is more.

    Attributes:
        mean: over the seeds that both rows have.
        by_seed: of each of them.
        interval: of what is saved of the error of all seeds together, 95 %, over test examples drawn for both; what
            other seeds would give, it does not say.
    """

    mean: float
    by_seed: list[float]
    interval: tuple[float, float]


def saving(ours: list[Record], theirs: list[Record], examples: Examples) -> Saving | None:
    """Compares two rows.

    Args:
        ours: records of one row under one protocol, of any seeds.
        theirs: records of the other.
        examples: of their table.

    Returns:
        The part of `theirs` that `ours` saves; None where the two have no seed in common whose examples are known.
    """
    mine, other = ({one["seed"]: examples[key(one)] for one in rows if key(one) in examples} for rows in (ours, theirs))
    seeds = sorted(mine.keys() & other.keys())
    if not seeds:
        return None
    by_seed = [1 - mine[seed].mean(dtype=np.float64) / other[seed].mean(dtype=np.float64) for seed in seeds]
    means = (np.mean([rows[seed] for seed in seeds], axis=0, dtype=np.float64) for rows in (mine, other))
    return Saving(float(np.mean(by_seed)), by_seed, saving_interval(*means))
