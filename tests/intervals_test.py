"""Bootstrap intervals against SciPy's."""

import numpy as np
import scipy.stats

from dfn_jax import intervals


def test_the_confidence_interval_is_that_of_scipy():
    values = np.random.default_rng(1).exponential(size=400)
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2))
    low, high = intervals.confidence_interval(values)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    np.testing.assert_allclose((low, high), theirs.confidence_interval, atol=0.04 * width)


def test_the_interval_of_a_saving_is_that_of_scipy_for_pairs():
    random = np.random.default_rng(1)
    theirs = random.exponential(size=400)
    ours = 0.7 * theirs + random.uniform(0, 0.2, 400)
    expected = scipy.stats.bootstrap(
        (ours, theirs),
        lambda a, b, axis: 1 - a.mean(axis) / b.mean(axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    low, high = intervals.saving_interval(ours, theirs)
    np.testing.assert_allclose((low, high), expected, atol=0.04 * (expected.high - expected.low))
    assert low < 1 - ours.mean() / theirs.mean() < high
