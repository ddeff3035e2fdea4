import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from dfn_jax import metrics
from tests import reference

disparity_errors = jax.jit(metrics.disparity_errors)
flow_errors = jax.jit(metrics.flow_errors)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    target = rng.random((2, 3, 24, 17, 2), np.float32)
    target[0] = np.linspace(0, 1, 17, dtype=np.float32)[:, None]
    target[0, :, 4:12, 3:11] = 0.5
    noise = rng.normal(0, 0.1, target.shape).astype(np.float32)
    return np.clip(target + noise, 0, 1), target


def each_image(prediction, target, function):
    pairs = zip(prediction.reshape(-1, 24, 17, 2), target.reshape(-1, 24, 17, 2), strict=True)
    return np.reshape([function(p, t) for p, t in pairs], prediction.shape[:2])


def test_squared_error_against_loop(images):
    expected = each_image(*images, lambda p, t: sum((float(a) - b) ** 2 for a, b in zip(p.flat, t.flat, strict=True)))
    np.testing.assert_allclose(jax.jit(metrics.squared_error_per_image)(*images), expected, rtol=1e-5)


def test_psnr_against_scikit_image(images):
    expected = each_image(*images, lambda p, t: peak_signal_noise_ratio(t, p, data_range=1))
    np.testing.assert_allclose(jax.jit(metrics.psnr)(*images), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.psnr(images[1], images[1]), 100)


def test_ssim_against_scikit_image(images):
    function = jax.jit(metrics.ssim)
    np.testing.assert_allclose(function(*images), each_image(*images, reference.ssim), atol=2e-5)
    np.testing.assert_allclose(function(images[1], images[1]), 1, atol=1e-6)


def test_ssim_of_a_single_window():
    target = np.random.default_rng(1).random((1, 11, 11, 1), np.float32)
    weights = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    mean = (weights * target[0, :, :, 0]).sum()
    variance = (weights * (target[0, :, :, 0] - mean) ** 2).sum()
    expected = (0.6 * mean + 1e-4) / (mean**2 + 0.09 + 1e-4) * 9e-4 / (variance + 9e-4)
    np.testing.assert_allclose(jax.jit(metrics.ssim)(np.full_like(target, 0.3), target), [expected], rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 10, 64, 1), (2, 64, 10, 1)])
def test_ssim_refuses_images_smaller_than_its_window(shape):
    with pytest.raises(ValueError, match="at least 11x11"):
        metrics.ssim(jnp.zeros(shape), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("truth", "error", "bad1", "d1"),
    [
        (10, 1.0, 0, 0),  # bad-1 means more than 1 px
        (10, 1.25, 1, 0),
        (10, 2.75, 1, 0),  # 27 %, but under 3 px
        (10, 3.0, 1, 1),
        (59, 3.0, 1, 1),  # 5.08 %
        (60, 3.0, 1, 1),  # 5 % exactly
        (61, 3.0, 1, 0),  # 4.92 %
        (100, 4.75, 1, 0),
        (100, 5.0, 1, 1),
    ],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_disparity_thresholds(truth, error, bad1, d1, sign):
    truth = np.full((1, 1, 1), truth, np.float32)
    sums = disparity_errors(truth + sign * error, truth, np.ones((1, 1, 1), bool))
    assert {name: value.item() for name, value in sums.items()} == {"valid": 1, "epe": error, "bad1": bad1, "d1": d1}


def test_what_is_not_a_number_is_wrong():
    truth, mask = np.full((1, 1, 1), 10, np.float32), np.ones((1, 1, 1), bool)
    found = disparity_errors(np.full_like(truth, np.nan), truth, mask)
    assert (found["bad1"], found["d1"]) == (1, 1)
    found = metrics.flow_errors(np.full((1, 1, 1, 2), np.nan), np.ones((1, 1, 1, 2)), mask)
    assert found["fl_all"] == 1


def test_disparity_against_loop_over_a_streamed_test_set():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 80, (5, 7, 9)).astype(np.float32)
    disparity = truth + rng.normal(0, 3, truth.shape).astype(np.float32)
    mask = rng.random(truth.shape) < rng.random((5, 1, 1))
    mask[3] = False
    truth[~mask] = np.nan
    errors, bad1, d1 = [], 0, 0
    for d, t, valid in zip(disparity.flat, truth.flat, mask.flat, strict=True):
        if valid:
            errors.append(abs(float(d) - float(t)))
            bad1 += errors[-1] > 1
            d1 += errors[-1] >= 3 and errors[-1] / t >= 0.05
    batches = [disparity_errors(disparity[i], truth[i], mask[i]) for i in (slice(0, 2), slice(2, 5))]
    sums = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert sums["valid"].tolist() == mask.sum((1, 2)).tolist()
    result = metrics.mean_over_valid(sums)
    n = len(errors)
    np.testing.assert_allclose(result.pop("epe"), sum(errors) / n, rtol=1e-5)
    assert result == {"bad1": bad1 / n, "d1": d1 / n}


@pytest.mark.parametrize(
    ("truth", "flow", "epe", "fl_all"),
    [
        ((3, 4), (6, 8), 5, 1),
        ((36, 48), (36 + 1.8, 48 + 2.4), 3, 1),  # 5 % of a length of 60
        ((0, 61), (0, 64), 3, 0),
        ((0, 0), (0, -2), 2, 0),
    ],
)
def test_flow_errors(truth, flow, epe, fl_all):
    truth, flow = (np.array(value, np.float32).reshape(1, 1, 1, 2) for value in (truth, flow))
    sums = flow_errors(flow, truth, np.ones((1, 1, 1), bool))
    assert sums["valid"] == 1
    np.testing.assert_allclose(sums["epe"], [epe], rtol=1e-6)
    assert sums["fl_all"] == fl_all


def test_flow_ignores_invalid_pixels():
    truth = np.zeros((2, 2, 2, 2), np.float32)
    mask = np.array([[[1, 0], [0, 0]], [[1, 1], [1, 0]]], np.uint16)
    truth[mask == 0] = np.nan
    sums = flow_errors(np.ones_like(truth) * np.float32([0, 4]), truth, mask)
    assert sums["valid"].tolist() == [1, 3]
    assert metrics.mean_over_valid(sums) == {"epe": 4, "fl_all": 1}


def test_without_a_valid_pixel_there_is_no_average():
    sums = disparity_errors(np.ones((1, 2, 2)), np.ones((1, 2, 2)), np.zeros((1, 2, 2)))
    assert np.isnan(list(metrics.mean_over_valid(sums).values())).all()


def test_cross_entropy_and_entropy_against_loop(images):
    def cross_entropy(prediction, target):
        clipped = np.clip(prediction.astype(float), 2.0**-23, 1 - 2.0**-23)
        return -sum(t * np.log(p) + (1 - t) * np.log(1 - p) for p, t in zip(clipped.flat, target.flat, strict=True))

    def entropy(target, _):
        return -sum(x * np.log(x) for t in target.astype(float).flat for x in (t, 1 - t) if x > 0)

    prediction, target = images
    expected = each_image(prediction, target, cross_entropy)
    np.testing.assert_allclose(jax.jit(metrics.cross_entropy_nats_per_frame)(prediction, target), expected, rtol=1e-5)
    expected = each_image(target, target, entropy)
    np.testing.assert_allclose(jax.jit(metrics.target_entropy_nats)(target), expected, rtol=1e-5)


def test_entropy_is_the_floor_of_the_cross_entropy():
    target = np.array([0, 1, 0.25, 0.5], np.float32).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(metrics.target_entropy_nats(target), [0.5623351 + 0.6931472], rtol=1e-6)
    cross_entropy = jax.jit(metrics.cross_entropy_nats_per_frame)
    np.testing.assert_allclose(cross_entropy(target, target), metrics.target_entropy_nats(target), rtol=1e-5)
    assert cross_entropy(target + 0.01, target) > cross_entropy(target, target)


@pytest.mark.parametrize(
    "metric",
    [metrics.squared_error_per_image, metrics.psnr, metrics.ssim, metrics.cross_entropy_nats_per_frame],
)
def test_images_of_other_shapes_are_refused(metric):
    with pytest.raises(ValueError, match="must be equal"):
        metric(jnp.zeros((2, 16, 16, 3)), jnp.zeros((2, 16, 16, 1)))
    with pytest.raises(ValueError, match=r"\[\.\.\., H, W, C\]"):
        metric(jnp.zeros((16, 16)), jnp.zeros((16, 16)))


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[\.\.\., H, W\]"):
        metrics.disparity_errors(jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"\[\.\.\., H, W, 2\]"):
        metrics.flow_errors(jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 4, 4)))
