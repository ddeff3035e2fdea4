import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dfn_jax.ops import (
    add_dynamic_bias,
    dynamic_local_filter,
    separable_filters,
    smoothness_penalty,
    softmax_filters,
)
from tests import reference


def normal(*shape):
    """The same numbers again for the same shape."""
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 3, 2, 9), (4,), (1, 1)], ids=str)
def test_softmax_matches_loops(shape):
    logits = 5 * normal(*shape)
    np.testing.assert_allclose(softmax_filters(logits), reference.softmax_filters(logits), atol=1e-6)


def test_softmax_takes_large_logits_and_computes_in_float32():
    np.testing.assert_array_equal(softmax_filters(jnp.array([1e4, 0.0, -1e4])), [1, 0, 0])
    logits = jnp.asarray(5 * normal(50, 81), jnp.bfloat16)
    filters = softmax_filters(logits)
    assert filters.dtype == jnp.bfloat16
    rounding_once = 2.0**-7.9
    np.testing.assert_allclose(filters.astype(jnp.float32), reference.softmax_filters(logits), rtol=rounding_once)


@pytest.mark.parametrize(("vertical", "horizontal"), [((2, 3, 4), (2, 3, 5)), ((1,), (7,)), ((2, 3), (2, 1))], ids=str)
def test_separable_matches_loops(vertical, horizontal):
    vertical, horizontal = normal(*vertical), normal(*horizontal)
    expected = reference.separable_filters(vertical, horizontal)
    np.testing.assert_allclose(separable_filters(vertical, horizontal), expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_dynamic_bias_matches_loops(channels):
    images, bias = normal(2, 3, 4, 3), normal(2, 3, 4, channels)[::-1]
    np.testing.assert_allclose(add_dynamic_bias(images, bias), reference.add_dynamic_bias(images, bias), rtol=1e-6)
    assert add_dynamic_bias(images.astype(jnp.bfloat16), bias).dtype == jnp.bfloat16


def test_dynamic_bias_before_and_after_the_filtering():
    images, bias, filters = normal(1, 3, 4, 2), normal(1, 3, 4, 1), normal(1, 3, 4, 9)
    before = dynamic_local_filter(add_dynamic_bias(images, bias), filters, kernel_size=3)
    after = add_dynamic_bias(dynamic_local_filter(images, filters, kernel_size=3), bias)
    np.testing.assert_allclose(
        before, reference.dynamic_local_filter(images + bias, filters, kernel_size=(3, 3)), atol=1e-5
    )
    np.testing.assert_allclose(
        after, reference.dynamic_local_filter(images, filters, kernel_size=(3, 3)) + bias, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 2, 2, 3, 2), (1, 1, 4, 2), (2, 3, 1, 2), (2, 1, 1, 9)], ids=str)
def test_smoothness_matches_loops(shape):
    filters = normal(*shape)
    np.testing.assert_allclose(smoothness_penalty(filters), reference.smoothness_penalty(filters), rtol=1e-5)
    assert np.isfinite(jax.grad(smoothness_penalty)(jnp.asarray(filters))).all()


def test_smoothness_of_equal_filters_is_zero_and_of_an_edge_is_known():
    assert smoothness_penalty(np.ones((2, 3, 4, 9), np.float32)) == 0
    filters = np.zeros((1, 1, 3, 2), np.float32)
    filters[0, 0, 2] = [3, 4]
    assert smoothness_penalty(filters) == 25 / 2
    assert smoothness_penalty(filters.astype(jnp.bfloat16)).dtype == jnp.float32


def test_gradients_jit_and_vmap():
    with jax.enable_x64(True):
        cases = [
            (softmax_filters, reference.softmax_filters, [normal(2, 4)]),
            (separable_filters, reference.separable_filters, [normal(2, 2), normal(2, 3)]),
            (add_dynamic_bias, reference.add_dynamic_bias, [normal(2, 2, 2, 2), normal(2, 2, 2, 1)]),
            (smoothness_penalty, reference.smoothness_penalty, [normal(2, 2, 2, 3)]),
        ]
        for function, expected, arrays in cases:
            arrays = [jnp.asarray(array, jnp.float64) for array in arrays]
            jitted = jax.jit(function)
            np.testing.assert_allclose(jitted(*arrays), expected(*arrays), rtol=1e-12)
            mapped = jax.jit(jax.vmap(function))(*(jnp.stack([array, 2 * array]) for array in arrays))
            np.testing.assert_allclose(mapped[1], expected(*(2 * array for array in arrays)), rtol=1e-12)
            check_grads(jitted, arrays, order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: softmax_filters(np.float32(1)), "logits: got a scalar"),
        (lambda: softmax_filters(np.zeros(3, np.int32)), "logits: got dtype int32"),
        (lambda: separable_filters(normal(2, 3), normal(3, 3)), r"horizontal: got shape \(3, 3\)"),
        (lambda: add_dynamic_bias(normal(2, 3, 3), normal(2, 3, 3)), r"wanted \[N, H, W, C\]"),
        (lambda: add_dynamic_bias(normal(2, 3, 3, 3), normal(3, 3, 3)), r"bias: got shape \(3, 3, 3\)"),
        (lambda: smoothness_penalty(normal(2, 3, 3)), r"filters: got shape \(2, 3, 3\)"),
    ],
)
def test_bad_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
