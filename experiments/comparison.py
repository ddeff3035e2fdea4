"""Two rows of a table on the same test examples: how much less error one has, and how sure that is."""

from collections.abc import Mapping

import numpy as np

from dfn_jax.metrics import saving_interval
from experiments.runs import Record

Examples = Mapping[str, np.ndarray]  # a metric of each test example [N], by `key` of the run


def key(record: Record) -> str:
    """What a run is called among the examples of its table."""
    return f"{record['row']}-{record['protocol']}-{record['seed']}"


def saving(ours: list[Record], theirs: list[Record], examples: Examples) -> tuple[float, float, float] | None:
    """How much less error one row has than another.

    Args:
        ours: records of one row under one protocol, of any seeds.
        theirs: records of the other.
        examples: of their table.

    Returns:
        1 - ours / theirs, a mean over the seeds that both have, and the 95 % interval over test examples; None where
        the two have no seed in common whose examples are known.
    """
    seeds = {record["seed"] for record in ours} & {record["seed"] for record in theirs}
    found = [
        [examples[key(one)] for one in sorted(rows, key=key) if one["seed"] in seeds and key(one) in examples]
        for rows in (ours, theirs)
    ]
    if not seeds or any(len(values) != len(seeds) for values in found):
        return None
    mine, other = (np.mean(values, axis=0, dtype=np.float64) for values in found)
    return 1 - mine.mean() / other.mean(), *saving_interval(mine, other)
