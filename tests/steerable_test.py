"""Steerable targets and true filters against SciPy's convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from dfn_jax.data import steerable

ANGLES = np.array([0.0, 0.7, 2.0, 4.4])
IMAGES = np.random.default_rng(0).uniform(size=(4, 13, 10, 1))


def scipy_targets(images, angles):
    x = np.arange(-4, 5)
    g = np.exp(-(x**2) / 2)
    minus_derivative = x * g
    result = np.zeros_like(images)
    for n, angle in enumerate(angles):
        image = images[n, :, :, 0]
        ix = signal.convolve2d(image, np.outer(g, minus_derivative), mode="same")
        iy = signal.convolve2d(image, np.outer(minus_derivative, g), mode="same")
        result[n, :, :, 0] = np.cos(angle) * ix + np.sin(angle) * iy
    return result


def test_targets_are_convolutions_with_zero_padding():
    targets = steerable.steer(jnp.asarray(IMAGES, jnp.float32), jnp.asarray(ANGLES, jnp.float32))
    np.testing.assert_allclose(targets, scipy_targets(IMAGES, ANGLES), atol=1e-5)


def test_the_true_filters_make_the_targets_by_cross_correlation():
    filters = np.asarray(steerable.oriented_filters(jnp.asarray(ANGLES, jnp.float32)), np.float64).reshape(-1, 9, 9)
    found = [signal.correlate2d(image[:, :, 0], taps, mode="same") for image, taps in zip(IMAGES, filters, strict=True)]
    np.testing.assert_allclose(np.stack(found)[..., None], scipy_targets(IMAGES, ANGLES), atol=1e-5)


def test_a_batch_is_centred_and_a_function_of_its_key():
    images = jnp.asarray(IMAGES, jnp.float32)
    one, again, other = (
        steerable.batch(images, steerable.random_angles(jax.random.key(seed), len(images))) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one["angles"], again["angles"])
    assert not np.array_equal(one["angles"], other["angles"])
    assert (one["angles"] >= 0).all()
    assert (one["angles"] < 2 * np.pi).all()
    np.testing.assert_allclose(one["images"].mean((1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(
        one["targets"], scipy_targets(np.asarray(one["images"], float), one["angles"]), atol=1e-5
    )
