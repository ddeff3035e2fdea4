import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dfn_jax.ops import dynamic_conv, dynamic_separable_conv, separable_filters
from tests import reference

CASES = [
    {"shape": (2, 5, 4, 2), "filters": (3, 3, 2, 3), "padding": ((1, 1), (1, 1))},
    {"shape": (2, 5, 4, 2), "filters": (2, 4, 2, 1), "padding": ((0, 0), (0, 0))},
    {"shape": (1, 6, 5, 1), "filters": (1, 3, 1, 2), "padding": ((2, 0), (0, 3)), "strides": (1, 3)},
    {"shape": (1, 6, 5, 4), "filters": (3, 2, 2, 4), "padding": ((1, 0), (2, 1)), "strides": (2, 2), "groups": 2},
    {"shape": (1, 6, 5, 2), "filters": (3, 2, 1, 4), "padding": ((2, 2), (1, 0)), "dilation": (2, 1), "groups": 2},
    {
        "shape": (1, 6, 7, 3),
        "filters": (2, 3, 3, 2),
        "padding": ((1, 1), (0, 2)),
        "dilation": (3, 2),
        "strides": (3, 2),
    },
    {"shape": (2, 2, 3, 1), "filters": (7, 6, 1, 1), "padding": ((3, 3), (3, 2))},
    {"shape": (2, 1, 1, 1), "filters": (5, 5, 1, 2), "padding": ((2, 2), (2, 2))},
]


def example(shape, filters, seed=0, **options):
    random = np.random.default_rng(seed)
    images, filters = random.normal(size=shape), random.normal(size=(shape[0], *filters))
    return images.astype(np.float32), filters.astype(np.float32), options


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_loops(case):
    images, filters, options = example(**case)
    expected = reference.dynamic_conv(images, filters, **options)
    actual = jax.jit(functools.partial(dynamic_conv, **options))(images, filters)
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("filters", "options"),
    [
        ((2, 4, 2, 1), {"strides": (2, 2), "dilation": (1, 1), "groups": 1}),
        ((3, 2, 1, 4), {"strides": (1, 3), "dilation": (2, 1), "groups": 2}),
    ],
    ids=str,
)
def test_named_padding_is_that_of_lax(filters, options, padding):
    images, filters, _ = example((1, 7, 6, 2), filters)
    actual = jax.jit(functools.partial(dynamic_conv, padding=padding, **options))(images, filters)
    expected = jax.lax.conv_general_dilated(
        images,
        filters[0],
        options["strides"],
        padding,
        rhs_dilation=options["dilation"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=options["groups"],
    )
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_every_sample_has_its_own_filter():
    images = np.ones((2, 3, 3, 1), np.float32)
    filters = np.zeros((2, 1, 1, 1, 1), np.float32)
    filters[1] = 5
    output = dynamic_conv(images, filters)
    np.testing.assert_array_equal(output[0], 0)
    np.testing.assert_array_equal(output[1], 5)


def test_vmap_and_eager_match_loops():
    images, filters, options = example((2, 5, 4, 2), (3, 2, 1, 4), groups=2, strides=(2, 1), padding=((1, 1), (0, 1)))
    function = functools.partial(dynamic_conv, **options)
    expected = reference.dynamic_conv(images, filters, **options)
    np.testing.assert_allclose(function(images, filters), expected, atol=1e-5)
    mapped = jax.jit(jax.vmap(function))(images[:, None], filters[:, None])
    np.testing.assert_allclose(mapped[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "case",
    [
        {"shape": (2, 4, 3, 2), "filters": (3, 2, 2, 3)},
        {"shape": (1, 5, 4, 2), "filters": (2, 3, 1, 2), "groups": 2, "strides": (2, 1), "dilation": (1, 2)},
    ],
    ids=str,
)
def test_gradients(case):
    images, filters, options = example(**case)
    function = jax.jit(functools.partial(dynamic_conv, **options))
    with jax.enable_x64(True):
        arrays = jnp.asarray(images, jnp.float64), jnp.asarray(filters, jnp.float64)
        check_grads(function, arrays, order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_bfloat16_is_accumulated_in_float32():
    images = jnp.ones((1, 3, 3, 1), jnp.bfloat16)
    # 256 + 1 + 1 + 1 - 256 is 0 or 4 in bfloat16, which has no numbers between 256 and 258.
    for taps in ([[256, 1, 1], [1, -256, 0], [0, 0, 0]], [[256, 1, 0], [1, 0, 0], [1, -256, 0]]):
        filters = jnp.array(taps, jnp.bfloat16)[None, :, :, None, None]
        output = jax.jit(functools.partial(dynamic_conv, padding="VALID"))(images, filters)
        assert output.dtype == jnp.bfloat16
        assert output[0, 0, 0, 0] == 3
    output = dynamic_separable_conv(
        jnp.ones((1, 5, 1, 1), jnp.bfloat16),
        jnp.array([[256, 1, 1, 1, -256]], jnp.bfloat16),
        jnp.ones((1, 1), jnp.bfloat16),
        padding="VALID",
    )
    assert output.dtype == jnp.bfloat16
    assert output[0, 0, 0, 0] == 3


@pytest.mark.parametrize(
    ("kernel_size", "padding"),
    [((3, 5), ((1, 1), (2, 2))), ((2, 1), ((0, 0), (0, 0))), ((7, 4), ((3, 3), (1, 2)))],
    ids=str,
)
def test_separable_matches_loops_and_the_outer_product(kernel_size, padding):
    random = np.random.default_rng(0)
    images = random.normal(size=(2, 4, 3, 2)).astype(np.float32)
    vertical, horizontal = (random.normal(size=(2, taps)).astype(np.float32) for taps in kernel_size)
    output = jax.jit(functools.partial(dynamic_separable_conv, padding=padding))(images, vertical, horizontal)
    expected = reference.dynamic_separable_conv(images, vertical, horizontal, padding=padding)
    np.testing.assert_allclose(output, expected, atol=2e-5)
    outer = separable_filters(vertical, horizontal).reshape(2, *kernel_size, 1, 1)
    per_channel = np.concatenate([outer, outer], axis=-1)
    by_outer_product = jax.jit(functools.partial(dynamic_conv, padding=padding, groups=2))(images, per_channel)
    np.testing.assert_allclose(output, by_outer_product, atol=2e-5)


def test_separable_padding_gradients_jit_and_vmap():
    random = np.random.default_rng(0)
    images, vertical, horizontal = (random.normal(size=shape) for shape in ((2, 3, 3, 2), (2, 3), (2, 2)))
    with jax.enable_x64(True):
        arrays = jnp.asarray(images), jnp.asarray(vertical), jnp.asarray(horizontal)
        function = jax.jit(dynamic_separable_conv)
        expected = reference.dynamic_separable_conv(*arrays, padding=((1, 1), (0, 1)))
        np.testing.assert_allclose(function(*arrays), expected, atol=1e-12)
        alone = jax.jit(jax.vmap(dynamic_separable_conv))(*(array[:, None] for array in arrays))
        np.testing.assert_allclose(alone[:, 0], expected, atol=1e-12)
        check_grads(function, arrays, order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_groups_may_be_any_whole_number():
    random = np.random.default_rng(0)
    images, filters = (random.standard_normal(shape) for shape in ((1, 4, 4, 2), (1, 3, 3, 1, 4)))
    by_type = [dynamic_conv(images, filters, groups=groups) for groups in (2, np.int64(2))]
    np.testing.assert_array_equal(*by_type)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((4, 4, 2), np.float32)}, r"images: got shape \(4, 4, 2\)"),
        ({"images": np.zeros((1, 4, 4, 2), np.int32)}, "images: got dtype int32"),
        ({"filters": np.zeros((3, 3, 2, 1), np.float32)}, r"wanted \[N = 1, kh, kw, C / groups = 2, F\]"),
        ({"filters": np.zeros((2, 3, 3, 2, 1), np.float32)}, r"filters: got shape \(2, 3, 3, 2, 1\)"),
        ({"filters": np.zeros((1, 0, 3, 2, 1), np.float32)}, "at least one tap"),
        ({"filters": np.zeros((1, 3, 3, 1, 3), np.float32), "groups": 2}, "F divisible by groups = 2"),
        ({"groups": 3}, "groups: got 3, wanted a positive int that divides C = 2"),
        ({"groups": 0}, "groups: got 0"),
        ({"strides": 0}, "strides: got 0"),
        ({"dilation": (1, 2, 3)}, "dilation"),
        ({"padding": "same"}, "padding: got 'same'"),
        ({"padding": 1}, "padding: got 1"),
        ({"padding": ((0, -1), (0, 0))}, "padding"),
        ({"padding": "VALID", "dilation": 2}, "images: got 4x4 pixels after padding"),
    ],
    ids=str,
)
def test_bad_arguments_raise(changes, message):
    arguments = {"images": np.zeros((1, 4, 4, 2), np.float32), "filters": np.zeros((1, 3, 3, 2, 1), np.float32)}
    with pytest.raises(ValueError, match=message):
        dynamic_conv(**(arguments | changes))


def test_bad_separable_arguments_raise():
    images, taps = np.zeros((2, 4, 4, 1), np.float32), np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"vertical: got shape \(3,\), wanted \[N = 2, taps\]"):
        dynamic_separable_conv(images, taps[0], taps)
    with pytest.raises(ValueError, match=r"horizontal: got shape \(1, 3\)"):
        dynamic_separable_conv(images, taps, taps[:1])
    with pytest.raises(ValueError, match="images: got shape"):
        dynamic_separable_conv(images[0], taps, taps)


def test_products_are_of_float32_on_every_device():
    assert reference.of_few_bits(dynamic_conv, jnp.zeros((1, 9, 9, 2)), jnp.zeros((1, 3, 3, 2, 4))) == []
