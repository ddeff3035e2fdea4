import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dfn_jax.ops import dynamic_local_filter
from tests import reference

IMPLEMENTATIONS = ("patches", "shift")
LAYOUTS = ("shared", "grouped", "banks")
KERNELS = ((3, 3), (2, 2), (1, 1), (1, 4), (5, 2))


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def output_size(size, kernel_size, strides, dilation, padding, upsampling):
    """The grid by its definition: every stride-th pixel; under 'valid' those whose window ends inside the image."""
    last = [d * (k - 1) if padding == "valid" else 0 for k, d in zip(kernel_size, dilation, strict=True)]
    return tuple(len(range(0, n - e, s)) * u for n, e, s, u in zip(size, last, strides, upsampling, strict=True))


def example(layout, image_shape, kernel_size, *, strides=1, dilation=1, padding="zero", upsampling=1, seed=0):
    """Random images and filters for the options, and the options with every pair written out."""
    options = {
        "kernel_size": pair(kernel_size),
        "strides": pair(strides),
        "dilation": pair(dilation),
        "padding": padding,
        "upsampling": pair(upsampling),
    }
    random = np.random.default_rng(seed)
    size = output_size(image_shape[1:3], **options)
    taps, channels = np.prod(options["kernel_size"]), image_shape[3]
    trailing = {"shared": (taps,), "grouped": (2, taps), "banks": (taps, channels, 3)}[layout]
    images = random.normal(size=image_shape).astype(np.float32)
    filters = random.normal(size=(image_shape[0], *size, *trailing)).astype(np.float32)
    return images, filters, options


def compiled(implementation, **options):
    """Compiled at once: step by step, every tap of every case would be compiled apart."""
    return jax.jit(functools.partial(dynamic_local_filter, **options, implementation=implementation))


def assert_matches_reference(images, filters, options, implementation):
    actual = compiled(implementation, **options)(images, filters)
    np.testing.assert_allclose(actual, reference.dynamic_local_filter(images, filters, **options), atol=2e-5)


@pytest.mark.parametrize("padding", ["zero", "edge", "reflect", "valid"])
@pytest.mark.parametrize("kernel_size", KERNELS, ids=str)
def test_matches_loops_for_kernels_and_paddings(kernel_size, padding, implementation):
    layout = LAYOUTS[KERNELS.index(kernel_size) % 3]
    images, filters, options = example(layout, (2, 5, 4, 4), kernel_size, padding=padding)
    assert_matches_reference(images, filters, options, implementation)


@pytest.mark.parametrize(
    ("layout", "kernel_size", "options"),
    [
        ("shared", (3, 2), {"strides": 2}),
        ("grouped", (2, 3), {"strides": (1, 3), "padding": "edge"}),
        ("banks", (3, 3), {"strides": (3, 2), "padding": "valid"}),
        ("banks", (2, 1), {"dilation": 2, "padding": "reflect"}),
        ("shared", (3, 2), {"dilation": (1, 3)}),
        ("grouped", (3, 3), {"dilation": (2, 1), "strides": (2, 2), "padding": "valid"}),
        ("shared", (3, 3), {"upsampling": 2}),
        ("grouped", (2, 4), {"upsampling": (1, 3), "padding": "edge"}),
        ("banks", (3, 2), {"upsampling": 2, "dilation": (2, 1), "padding": "reflect"}),
        ("shared", (2, 3), {"upsampling": 2, "padding": "valid"}),
    ],
    ids=str,
)
def test_matches_loops_for_strides_dilation_and_upsampling(layout, kernel_size, options, implementation):
    assert_matches_reference(*example(layout, (1, 6, 5, 2), kernel_size, **options), implementation)


@pytest.mark.parametrize("padding", ["zero", "edge", "reflect"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 3)], ids=str)
def test_matches_loops_for_kernels_larger_than_the_image(size, padding, implementation):
    assert_matches_reference(*example("shared", (1, *size, 2), (7, 6), padding=padding), implementation)


def test_one_hot_filter_moves_the_image(implementation):
    images = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    filters = np.zeros((1, 3, 4, 9), np.float32)
    filters[..., 5] = 1  # the tap to the right of the centre
    moved = compiled(implementation, kernel_size=3)(images, filters)
    np.testing.assert_array_equal(moved[0, :, :3, 0], images[0, :, 1:, 0])
    np.testing.assert_array_equal(moved[0, :, 3, 0], 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vmap_and_eager_match_loops(layout, implementation):
    images, filters, options = example(layout, (2, 3, 4, 2), (3, 2), strides=(1, 2), padding="edge")
    function = functools.partial(dynamic_local_filter, **options, implementation=implementation)
    expected = reference.dynamic_local_filter(images, filters, **options)
    np.testing.assert_allclose(function(images, filters), expected, atol=1e-5)
    mapped = jax.jit(jax.vmap(function))(images[:, None], filters[:, None])
    np.testing.assert_allclose(mapped[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("shared", {"padding": "zero"}),
        ("grouped", {"padding": "reflect", "strides": (2, 1)}),
        ("banks", {"padding": "edge", "upsampling": 2}),
        ("banks", {"padding": "valid", "dilation": (1, 2)}),
    ],
    ids=str,
)
def test_gradients(layout, options, implementation):
    images, filters, options = example(layout, (1, 3, 4, 2), (2, 3) if layout != "banks" else (2, 2), **options)
    function = compiled(implementation, **options)
    with jax.enable_x64(True):
        arrays = jnp.asarray(images, jnp.float64), jnp.asarray(filters, jnp.float64)
        assert function(*arrays).dtype == jnp.float64
        check_grads(function, arrays, order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_is_accumulated_in_float32(layout, implementation):
    images = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    _, filters, options = example(layout, images.shape, (1, 5), padding="edge")
    # 256 + 1 + 1 + 1 - 256 is 0 or 4 in bfloat16, which has no numbers between 256 and 258.
    taps_axis = 3 if layout == "banks" else filters.ndim - 1
    taps = jnp.array([256, 1, 1, 1, -256], jnp.bfloat16)
    filters = jnp.moveaxis(jnp.broadcast_to(taps, jnp.moveaxis(filters, taps_axis, -1).shape), -1, taps_axis)
    function = functools.partial(dynamic_local_filter, **options, implementation=implementation)
    output = jax.jit(function)(images, filters)
    gradient = jax.jit(jax.grad(lambda array: function(array, filters)[0, 0, 0, 0]))(images)
    assert output.dtype == gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(output[0, 0, 0], [6, 6, 6] if layout == "banks" else [3, 3])
    np.testing.assert_array_equal(gradient[0, 0, 0], [3, 3] if layout == "banks" else [3, 0])


def test_output_has_the_dtype_of_the_images(implementation):
    images, filters, options = example("shared", (1, 2, 2, 1), (1, 2))
    mixed = compiled(implementation, **options)(images, filters.astype(jnp.bfloat16))
    assert mixed.dtype == jnp.float32


def test_shift_never_holds_the_neighbourhoods():
    images, filters, options = example("grouped", (2, 24, 24, 4), (7, 7))
    temporary = {}
    for implementation in IMPLEMENTATIONS:
        function = compiled(implementation, **options)
        analysis = function.lower(images, filters).compile().memory_analysis()
        temporary[implementation] = analysis.temp_size_in_bytes / (images.nbytes * 49)
    assert temporary["patches"] > 0.9
    assert temporary["shift"] < 0.1


def test_default_is_shift():
    images, filters, options = example("shared", (2, 5, 4, 3), (3, 3))
    jaxprs = [
        str(jax.make_jaxpr(functools.partial(dynamic_local_filter, **options, implementation=name))(images, filters))
        for name in (None, "shift", "patches")
    ]
    assert jaxprs[0] == jaxprs[1] != jaxprs[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((4, 4, 1), np.float32)}, r"images: got shape \(4, 4, 1\), wanted \[N, H, W, C\]"),
        ({"images": np.zeros((1, 4, 4, 2), np.uint8)}, "images: got dtype uint8"),
        ({"filters": np.zeros((1, 4, 4, 8), np.float32)}, r"filters: got shape \(1, 4, 4, 8\)"),
        ({"filters": np.zeros((1, 4, 5, 9), np.float32)}, r"filters: got shape \(1, 4, 5, 9\)"),
        ({"filters": np.zeros((2, 4, 4, 9), np.float32)}, r"filters: got shape \(2, 4, 4, 9\)"),
        ({"filters": np.zeros((1, 4, 4, 3, 9), np.float32)}, "G dividing C = 2"),
        ({"filters": np.zeros((1, 4, 4, 9, 1, 5), np.float32)}, r"\[1, 4, 4, 9, 2, F\]"),
        ({"filters": np.zeros((1, 4, 4, 9), np.int32)}, "filters: got dtype int32"),
        ({"kernel_size": 0}, "kernel_size: got 0"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"strides": 1.5}, "strides: got 1.5"),
        ({"dilation": (1, 0)}, "dilation"),
        ({"upsampling": -1}, "upsampling"),
        ({"upsampling": 2, "strides": 2}, "wanted one of the two"),
        ({"implementation": "fast"}, "implementation: got 'fast', wanted None, 'patches' or 'shift'"),
        ({"padding": "SAME"}, "padding: got 'SAME'"),
        ({"padding": "valid", "dilation": 2}, "images: got 4x4 pixels"),
    ],
    ids=str,
)
def test_bad_arguments_raise(changes, message):
    arguments = {"images": np.zeros((1, 4, 4, 2), np.float32), "filters": np.zeros((1, 4, 4, 9), np.float32)}
    with pytest.raises(ValueError, match=message):
        dynamic_local_filter(**(arguments | {"kernel_size": 3} | changes))
