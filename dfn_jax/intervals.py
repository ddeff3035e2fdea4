"""How sure a mean over test examples is: intervals by the bootstrap."""

from collections.abc import Callable

import numpy as np

from dfn_jax.losses import check_same_shape

RESAMPLES = 10_000  # of the bootstrap
_DRAWN_AT_ONCE = 2**20  # numbers


def confidence_interval(values: np.ndarray) -> tuple[float, float]:
    """Between which bounds the mean lies with 95 % confidence, if the examples are a sample of all there could be.

    Args:
        values: [N], one for each example (not for each frame of a video: frames of one are alike). Of fewer than some
            twenty the bounds lie too close together: of ten skewed ones, they hold the mean five times in six.

    Returns:
        The 2.5th and 97.5th percentile of the means of `RESAMPLES` drawings of N examples with replacement; the same
        for the same values.

    Source:
        Efron, Bootstrap Methods, Annals of Statistics 1979; the percentile method.
    """
    return _bootstrap(lambda drawn: values[drawn].mean(axis=1, dtype=np.float64), len(values))


def saving_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Between which bounds 1 - mean(ours) / mean(theirs) lies with 95 % confidence, of two networks' errors.

    The same examples are drawn for both, so that how hard they are counts for neither: the bounds lie closer together
    than those of each mean.

    Args:
        ours: [N], one for each example.
        theirs: [N], for the same examples.

    Returns:
        The 2.5th and 97.5th percentile over as many drawings as in `confidence_interval`.

    Raises:
        ValueError: the shapes differ.

    Source:
        As of `confidence_interval`.
    """
    check_same_shape(ours, theirs)
    return _bootstrap(
        lambda drawn: 1 - ours[drawn].mean(axis=1, dtype=np.float64) / theirs[drawn].mean(axis=1, dtype=np.float64),
        len(ours),
    )


def _bootstrap(statistic: Callable[[np.ndarray], np.ndarray], count: int) -> tuple[float, float]:
    """Percentiles of a statistic, indices [D, N] -> [D], of all drawings of N examples."""
    random, some = np.random.default_rng(0), max(1, _DRAWN_AT_ONCE // count)
    found = [
        statistic(random.integers(0, count, (min(some, RESAMPLES - done), count))) for done in range(0, RESAMPLES, some)
    ]
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return float(low), float(high)
