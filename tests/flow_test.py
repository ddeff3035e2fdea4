import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dfn_jax.ops import (
    dynamic_local_filter,
    expected_displacement,
    filter_confidence,
    filter_entropy,
    softmax_filters,
    tap_offsets,
)
from tests import reference


def distributions(*shape):
    return reference.softmax_filters(3 * np.random.default_rng(0).normal(size=shape)).astype(np.float32)


def test_tap_offsets_are_row_major_x_before_y():
    np.testing.assert_array_equal(tap_offsets((1, 3)), [[-1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(tap_offsets((2, 2)), [[-1, -1], [0, -1], [-1, 0], [0, 0]])
    np.testing.assert_array_equal(tap_offsets((3, 2), dilation=(5, 2))[:3], [[-2, -5], [0, -5], [-2, 0]])
    assert tap_offsets(4).shape == (16, 2)


@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 4), (1, 13), (1, 1)], ids=str)
def test_displacement_entropy_and_confidence_match_loops(kernel_size):
    filters = distributions(2, 3, np.prod(kernel_size))
    for dilation in (1, 1), (3, 2):
        expected = reference.expected_displacement(filters, kernel_size, dilation=dilation)
        np.testing.assert_allclose(expected_displacement(filters, kernel_size, dilation=dilation), expected, atol=1e-5)
    np.testing.assert_allclose(filter_entropy(filters), reference.filter_entropy(filters), atol=1e-5)
    np.testing.assert_allclose(filter_confidence(filters), reference.filter_confidence(filters), atol=1e-5)


def test_displacement_is_where_the_filter_reads():
    images = jnp.arange(35.0).reshape(1, 5, 7, 1)
    for tap in range(12):
        filters = jnp.zeros((1, 5, 7, 12)).at[..., tap].set(1)
        x, y = expected_displacement(filters, (3, 4), dilation=1)[0, 2, 3].astype(int)
        read = dynamic_local_filter(images, filters, kernel_size=(3, 4))[0, 2, 3, 0]
        assert read == images[0, 2 + y, 3 + x, 0]


def test_extremes_of_entropy_and_confidence():
    one_hot, uniform = np.eye(81, dtype=np.float32)[:2], np.full((2, 81), 1 / 81, np.float32)
    np.testing.assert_array_equal(filter_entropy(one_hot), 0)
    np.testing.assert_allclose(filter_entropy(uniform), np.log(81), rtol=1e-6)
    np.testing.assert_array_equal(filter_confidence(one_hot), 1)
    np.testing.assert_allclose(filter_confidence(uniform), 0, atol=1e-6)
    np.testing.assert_array_equal(filter_confidence(np.ones((3, 1), np.float32)), 1)
    assert ((filter_confidence(uniform) >= 0) & (filter_confidence(uniform) <= 1)).all()


def test_gradients_are_finite_at_zero_taps():
    one_hot = jnp.eye(9)[0]
    for function in (filter_entropy, filter_confidence):
        assert np.isfinite(jax.grad(function)(one_hot)).all()
        assert np.isfinite(jax.grad(lambda logits, f=function: f(softmax_filters(logits)))(1e3 * one_hot)).all()


def test_gradients_jit_and_vmap():
    with jax.enable_x64(True):
        filters = jnp.asarray(distributions(2, 6) + 0.1, jnp.float64)

        def displacement(array):
            return expected_displacement(array, (2, 3))

        for function in (displacement, filter_entropy, filter_confidence):
            jitted = jax.jit(function)
            np.testing.assert_allclose(jitted(filters), function(filters), atol=1e-12)
            np.testing.assert_allclose(jax.vmap(function)(filters), function(filters), atol=1e-12)
            check_grads(jitted, (filters,), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_bfloat16_is_accumulated_in_float32():
    filters = jnp.full((1, 601), 1 / 601, jnp.bfloat16)
    exact = np.asarray(filters, np.float64)
    for function, expected in (
        (lambda array: expected_displacement(array, (1, 601)), reference.expected_displacement(exact, (1, 601))),
        (filter_entropy, reference.filter_entropy(exact)),
    ):
        assert function(filters).dtype == jnp.float32
        np.testing.assert_allclose(function(filters), expected, rtol=1e-5, atol=1e-4)


def test_products_are_of_float32_on_every_device():
    assert reference.of_few_bits(lambda filters: expected_displacement(filters, 3), jnp.zeros((2, 9))) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tap_offsets(0), "kernel_size: got 0"),
        (lambda: tap_offsets(3, dilation=0.5), "dilation: got 0.5"),
        (lambda: expected_displacement(distributions(2, 8), 3), "filters: got 8 taps, wanted 9 for kernel_size 3"),
        (lambda: filter_entropy(np.float32(1)), r"filters: got shape \(\)"),
        (lambda: filter_confidence(np.ones((2, 0), np.float32)), "at least one tap"),
        (lambda: filter_entropy(np.ones(3, np.int32)), "filters: got dtype int32"),
    ],
)
def test_bad_arguments_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
