"""Steerable targets, true filters and the figures of an evaluation against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from dfn_jax.data import steerable
from dfn_jax.models.steerable import SteerableDFN
from dfn_jax.tasks import make_task
from dfn_jax.tasks.steerable_data import SOURCES
from experiments.steerable import get_config

ANGLES = np.array([0.0, 0.7, 2.0, 4.4])
IMAGES = np.random.default_rng(0).uniform(size=(4, 13, 10, 1))
GAUSSIAN = np.exp(-(np.arange(-4, 5) ** 2) / 2)
DERIVATIVE = -np.arange(-4, 5) * GAUSSIAN


def scipy_targets(images, angles):
    result = np.zeros_like(images)
    for n, angle in enumerate(angles):
        image = images[n, :, :, 0]
        ix = signal.convolve2d(image, np.outer(GAUSSIAN, -DERIVATIVE), mode="same")
        iy = signal.convolve2d(image, np.outer(-DERIVATIVE, GAUSSIAN), mode="same")
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


def test_training_minimises_the_squared_error_of_the_filtered_images():
    task = make_task(get_config("smoke"))
    batch, params = task.train_batch(0), task.init(jax.random.key(0))
    found = np.asarray(SteerableDFN().apply(params, batch["images"], batch["angles"]).prediction, np.float64)
    wanted = np.mean((found - scipy_targets(np.asarray(batch["images"], np.float64), batch["angles"])) ** 2)
    np.testing.assert_allclose(task.loss(params, batch), wanted, rtol=1e-4)


def test_an_evaluation_tells_how_far_filters_and_images_are_off():
    """Of a network whose filters are too large, and wrong."""
    config = get_config("smoke")
    task, count = make_task(config), config.eval.examples
    params = jax.tree.map(lambda leaf: 3 * leaf, task.init(jax.random.key(0)))
    angles = (np.arange(count) + 0.5) * 2 * np.pi / count
    images = np.asarray(SOURCES["texture"].bind(config).test_set()[1], np.float64)
    images -= images.mean((1, 2, 3), keepdims=True)
    output = SteerableDFN().apply(params, jnp.asarray(images, jnp.float32), jnp.asarray(angles, jnp.float32))
    prediction, filters = (np.asarray(one, np.float64) for one in output)
    along_x, along_y = np.outer(GAUSSIAN, DERIVATIVE), np.outer(DERIVATIVE, GAUSSIAN)
    truth = np.stack([np.cos(angle) * along_x + np.sin(angle) * along_y for angle in angles])

    def off(found, true):
        found, true = found.reshape(count, -1), true.reshape(count, -1)
        return np.sqrt(((found - true) ** 2).sum(1) / (true**2).sum(1))

    of_filters, targets = off(filters, truth), scipy_targets(images, angles)
    assert of_filters.max() > 1.1 * of_filters.mean()
    found = task.evaluate(params).metrics
    for name, wanted in {
        "filter_relative_error": of_filters.mean(),
        "filter_relative_error_worst": of_filters.max(),
        "output_relative_error": off(prediction, targets).mean(),
        "mse_per_image": ((prediction - targets) ** 2).sum((1, 2, 3)).mean(),
        "baseline_zero_mse_per_image": (targets**2).sum((1, 2, 3)).mean(),
    }.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, err_msg=name)
