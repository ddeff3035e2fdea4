import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dfn_jax import losses

EPSILON = 2.0**-23


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    prediction, target = rng.random((2, 3, 4, 5, 2))
    prediction[0, 0, 0] = 0.0, 1.0
    target[0, 0, 1] = 0.0, 1.0
    return prediction, target


def test_mean_squared_error_against_loop(pair):
    prediction, target = pair
    total = sum((p - t) ** 2 for p, t in zip(prediction.ravel(), target.ravel(), strict=True))
    result = jax.jit(losses.mean_squared_error)(prediction, target)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, total / prediction.size, rtol=1e-6)


def test_cross_entropy_against_loop(pair):
    prediction, target = pair
    total = 0.0
    for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
        p = min(max(p, EPSILON), 1 - EPSILON)
        total -= t * np.log(p) + (1 - t) * np.log(1 - p)
    result = jax.jit(losses.binary_cross_entropy_mean)(prediction, target)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, total / prediction.size, rtol=1e-5)


@pytest.mark.parametrize(
    ("prediction", "target", "nats"),
    [(0.0, 0.0, EPSILON), (1.0, 1.0, EPSILON), (0.0, 1.0, 15.942385), (1.0, 0.0, 15.942385), (0.5, 0.3, 0.6931472)],
)
def test_cross_entropy_at_the_ends(prediction, target, nats):
    result = losses.binary_cross_entropy_mean(jnp.full((2, 2), prediction), jnp.full((2, 2), target))
    np.testing.assert_allclose(result, nats, rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.mean_squared_error, losses.binary_cross_entropy_mean])
def test_gradients(loss, pair):
    prediction, target = pair
    check_grads(lambda p: 100 * loss(p, target), (0.1 + 0.8 * prediction,), order=1, rtol=2e-2, atol=2e-2, eps=1e-2)


def test_gradient_is_finite_where_the_prediction_is_surely_wrong():
    gradient = jax.grad(losses.binary_cross_entropy_mean)(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
    assert np.isfinite(gradient).all()


def test_bfloat16_is_added_up_in_float32():
    result = losses.mean_squared_error(jnp.ones(4096, jnp.bfloat16), jnp.zeros(4096, jnp.uint8))
    assert result.dtype == jnp.float32
    assert result == 1


@pytest.mark.parametrize("loss", [losses.mean_squared_error, losses.binary_cross_entropy_mean])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 1\)"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 1)))
