import contextlib
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dfn_jax.ops import dynamic_local_filter
from dfn_jax.ops.dynamic_local import _filter
from tests import reference

IMPLEMENTATIONS = ("patches", "shift", "pallas")
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


def skip_without_banks(layout, implementation):
    if layout == "banks" and implementation == "pallas":
        pytest.skip("the kernels take no full banks")


def compile_anew(monkeypatch):
    """What is compiled inside the operation is kept, whatever has changed since."""
    monkeypatch.setattr("dfn_jax.ops.dynamic_local._filter", _filter.__wrapped__)


def as_on_a_tpu(*arrays, default, cpu=None, tpu=None):
    """In the place of `jax.lax.platform_dependent`."""
    return (tpu or default)(*arrays)


def skip_padded_before(padding, implementation):
    """Images are padded before any implementation sees them; interpreting the kernels takes seconds."""
    if implementation == "pallas" and padding != "edge":
        pytest.skip("padding is the same for all implementations; the kernels are tested with one")


def assert_matches_reference(images, filters, options, implementation):
    skip_without_banks("banks" if filters.ndim == 6 else "", implementation)
    actual = compiled(implementation, **options)(images, filters)
    np.testing.assert_allclose(actual, reference.dynamic_local_filter(images, filters, **options), atol=2e-5)


def softmax(logits, axis):
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis, keepdims=True)


@pytest.mark.parametrize("padding", ["zero", "edge", "reflect", "valid"])
@pytest.mark.parametrize("kernel_size", KERNELS, ids=str)
def test_matches_loops_for_kernels_and_paddings(kernel_size, padding, implementation):
    skip_padded_before(padding, implementation)
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
    skip_padded_before(padding, implementation)
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
    skip_without_banks(layout, implementation)
    images, filters, options = example(layout, (2, 3, 4, 2), (3, 2), strides=(1, 2), padding="edge")
    function = functools.partial(dynamic_local_filter, **options, implementation=implementation)
    expected = reference.dynamic_local_filter(images, filters, **options)
    np.testing.assert_allclose(function(images, filters), expected, atol=1e-5)
    mapped = jax.jit(jax.vmap(function))(images[:, None], filters[:, None])
    np.testing.assert_allclose(mapped[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 5], ids="{} channels".format)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_softmax_of_logits_matches_loops(layout, channels, implementation):
    skip_without_banks(layout, implementation)
    channels = 2 * channels if layout == "grouped" else channels
    images, logits, options = example(layout, (2, 4, 3, channels), (3, 2), padding="edge")
    logits = 5 * logits
    actual = compiled(implementation, **options, normalize="softmax")(images, logits)
    filters = softmax(logits, axis=3 if layout == "banks" else -1)
    np.testing.assert_allclose(actual, reference.dynamic_local_filter(images, filters, **options), atol=2e-5)


@pytest.mark.parametrize("offset", [0, 1e3, 1e6])
def test_softmaxed_filters_sum_to_one_whatever_all_logits_have_in_common(offset, implementation):
    logits = np.random.default_rng(0).normal(size=(1, 5, 4, 9)).astype(np.float32) + np.float32(offset)
    function = compiled(implementation, kernel_size=3, padding="edge", normalize="softmax")
    np.testing.assert_allclose(function(np.ones((1, 5, 4, 1), np.float32), logits), 1, atol=1e-6)


def test_softmax_of_large_logits_is_finite(implementation):
    """Exponentials of 1,000 overflow; those of all but the largest logit vanish."""
    images, logits, options = example("shared", (1, 3, 3, 1), (3, 3))
    function = compiled(implementation, **options, normalize="softmax")
    expected = reference.dynamic_local_filter(images, np.eye(9)[logits.argmax(-1)], **options)
    np.testing.assert_allclose(function(images, 1000 * logits), expected, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda *arrays: function(*arrays).sum(), argnums=(0, 1)))(images, 1000 * logits)
    assert all(np.isfinite(part).all() for part in gradient)


@pytest.mark.parametrize("normalize", [None, "softmax"])
@pytest.mark.parametrize(
    ("layout", "channels", "options"),
    [
        ("shared", 2, {"padding": "zero"}),
        ("shared", 5, {"strides": 2}),
        ("shared", 1, {"strides": (2, 3), "dilation": (3, 2)}),
        ("grouped", 4, {"padding": "reflect", "strides": (2, 1)}),
        ("grouped", 2, {"padding": "edge", "upsampling": (2, 1)}),
        ("grouped", 2, {"padding": "valid", "dilation": (1, 2)}),
        ("grouped", 2, {"strides": (3, 2), "dilation": (1, 2)}),
        ("banks", 2, {"padding": "edge", "upsampling": 2}),
        ("banks", 2, {"padding": "valid", "dilation": (1, 2)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("platform", ["cpu", "cpu, optimised", "tpu"])
def test_gradients(layout, channels, options, normalize, implementation, platform, monkeypatch):
    """And those that a TPU would compute, by other programs: here on the CPU, to which JAX is told to give them.

    Most are not optimised, as by default in the tests (see `conftest.py`); some are, as users' programs are.
    """
    skip_without_banks(layout, implementation)
    if platform == "cpu, optimised" and (implementation != "shift" or channels != 2):
        pytest.skip("optimising takes half a second each time")
    if platform == "tpu":
        if implementation != "shift" or layout == "banks" or channels == 5:
            pytest.skip("it is the same on every platform")
        compile_anew(monkeypatch)
        chosen = mock.Mock(side_effect=as_on_a_tpu)
        monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    if implementation == "pallas" and not normalize and channels != 5:
        pytest.skip("the kernels differ in one exponential; interpreting them takes seconds")
    if implementation == "patches" and normalize and layout == "grouped":
        pytest.skip("patches are of filters, of which JAX's softmax has been taken before")
    kernel_size = (2, 2) if layout == "banks" else (2, 3)
    images, filters, options = example(layout, (2, 3, 5, channels), kernel_size, **options)
    function = functools.partial(dynamic_local_filter, **options, normalize=normalize, implementation=implementation)
    random = np.random.default_rng(1)
    arrays = images.astype(np.float64), filters.astype(np.float64)
    directions = [random.standard_normal(array.shape) for array in arrays]

    def expected(images, filters):
        if normalize:
            filters = softmax(filters, 3 if layout == "banks" else -1)
        return reference.dynamic_local_filter(images, filters, **options)

    weights = random.standard_normal(expected(*arrays).shape)
    with jax.enable_x64(True):
        value, (for_images, for_filters) = jax.jit(
            jax.value_and_grad(lambda *arrays: jnp.sum(weights * function(*arrays)), argnums=(0, 1)),
            compiler_options={"xla_backend_optimization_level": 3} if platform == "cpu, optimised" else None,
        )(*arrays)
        assert value.dtype == for_images.dtype == for_filters.dtype == jnp.float64
        assert platform != "tpu" or chosen.called
        if implementation == "patches":
            ahead = jax.jit(functools.partial(jax.jvp, function))(arrays, tuple(directions))[1]
    np.testing.assert_allclose(np.asarray(value), np.sum(weights * expected(*arrays)), rtol=1e-9)
    step = 1e-4
    (x, dx), (f, df) = zip(arrays, directions, strict=True)
    slope_of_images = (expected(x + step * dx, f) - expected(x - step * dx, f)) / (2 * step)
    slope_of_filters = (expected(x, f + step * df) - expected(x, f - step * df)) / (2 * step)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    close(np.sum(np.asarray(for_images) * dx), np.sum(weights * slope_of_images))
    close(np.sum(np.asarray(for_filters) * df), np.sum(weights * slope_of_filters))
    if implementation == "patches":
        close(np.asarray(ahead), slope_of_images + slope_of_filters)


def test_second_derivative_of_the_written_gradient():
    images, filters, options = example("shared", (1, 3, 3, 1), (3, 2), strides=(1, 2))
    function = compiled("shift", **options, normalize="softmax")
    with jax.enable_x64(True):
        arrays = jnp.asarray(images, jnp.float64), jnp.asarray(filters, jnp.float64)
        check_grads(function, arrays, order=2, modes=("rev",), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("implementation", "bound", "portion", "channels", "kernel_size"),
    [
        ("pallas", "dynamic_local_pallas._ELEMENTS", 16, 2, (2, 2)),
        ("shift", "dynamic_local_shift._TERMS", 8, 1, (5, 3)),
    ],
)
def test_many_portions(monkeypatch, implementation, bound, portion, channels, kernel_size):
    """Portions of at most 16 numbers, or 8 terms, the last of them smaller."""
    compile_anew(monkeypatch)
    monkeypatch.setattr(f"dfn_jax.ops.{bound}", portion)
    images, filters, options = example("shared", (2, 3, 5, channels), kernel_size)
    expected = reference.dynamic_local_filter(images, softmax(filters, -1), **options)
    functions = {name: compiled(name, **options, normalize="softmax") for name in (implementation, "patches")}
    np.testing.assert_allclose(functions[implementation](images, filters), expected, atol=1e-5)
    gradients = [
        jax.jit(jax.grad(lambda *arrays, f=f: jnp.sum(f(*arrays) ** 2), argnums=(0, 1)))(images, filters)
        for f in functions.values()
    ]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("normalize", [None, "softmax"])
def test_gradients_of_bfloat16(normalize, implementation):
    images, filters, options = example("shared", (1, 4, 4, 1), (3, 3))
    function = compiled(implementation, **options, normalize=normalize)
    gradient = jax.jit(jax.grad(lambda *arrays: jnp.sum(function(*arrays).astype(jnp.float32) ** 2), argnums=(0, 1)))
    halves = jnp.asarray(images, jnp.bfloat16), jnp.asarray(filters, jnp.bfloat16)
    for half, full in zip(gradient(*halves), gradient(*(a.astype(jnp.float32) for a in halves)), strict=True):
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(half.astype(np.float32), full, rtol=0.02, atol=0.02 * np.abs(full).max())


def test_the_gradient_under_shard_map():
    images, filters, options = example("shared", (2, 4, 4, 1), (3, 3))
    function = functools.partial(dynamic_local_filter, **options, normalize="softmax")
    gradient = jax.grad(lambda *arrays: jnp.sum(function(*arrays) ** 2), argnums=(0, 1))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec("data")
    mapped = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=split, out_specs=split))
    for ours, whole in zip(mapped(images, filters), jax.jit(gradient)(images, filters), strict=True):
        np.testing.assert_allclose(ours, whole, atol=1e-6)


def test_vmap_of_the_gradient(implementation):
    images, filters, options = example("shared", (3, 3, 4, 1), (2, 3))
    function = functools.partial(dynamic_local_filter, **options, normalize="softmax", implementation=implementation)
    gradient = jax.grad(lambda *arrays: jnp.sum(function(*arrays) ** 2), argnums=(0, 1))
    mapped = jax.jit(jax.vmap(gradient))(images[:, None], filters[:, None])
    # The samples of a batch do not meet: the gradient of a sum over them is that of each.
    for whole, parts in zip(jax.jit(gradient)(images, filters), mapped, strict=True):
        np.testing.assert_allclose(parts[:, 0], whole, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_is_accumulated_in_float32(layout, implementation):
    skip_without_banks(layout, implementation)
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


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the bounds are those of XLA's compiler for CPUs")
@pytest.mark.parametrize(
    ("implementation", "layout", "channels", "derivative", "normalize", "least", "most"),
    [
        ("patches", "shared", 4, False, None, 0.9, 1.5),
        ("shift", "shared", 4, False, None, 0, 0.1),
        ("shift", "shared", 1, False, "softmax", 0, 0.1),
        ("shift", "shared", 1, True, None, 0, 0.3),
        ("shift", "grouped", 2, True, None, 0, 0.3),
        ("shift", "shared", 1, True, "softmax", 0, 0.3),
    ],
)
def test_only_patches_hold_the_neighbourhoods(implementation, layout, channels, derivative, normalize, least, most):
    """Temporary memory, beside a tensor of all neighbourhoods: the image, once for each of 49 taps."""
    images, filters, options = example(layout, (2, 24, 24, channels), (7, 7))
    function = compiled(implementation, **options, normalize=normalize)
    if derivative:
        function = jax.jit(jax.grad(lambda *arrays, f=function: jnp.sum(f(*arrays)), argnums=(0, 1)))
    temporary = function.lower(images, filters).compile().memory_analysis().temp_size_in_bytes
    assert least <= temporary / (49 * images.nbytes) <= most


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("implementation", "platform"), [("shift", "tpu"), ("patches", "tpu"), ("shift", "cuda"), ("pallas", "cuda")]
)
def test_lowers_for_other_platforms(implementation, platform, dtype):
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), dtype)
    filters = jax.ShapeDtypeStruct((2, 16, 16, 81), dtype)
    function = compiled(implementation, kernel_size=9, normalize="softmax")
    both = jax.jit(jax.value_and_grad(lambda *arrays: jnp.sum(function(*arrays)), argnums=(0, 1)))
    kernels = jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    # From jax 0.11 on, Pallas wants to know for which GPU.
    gpu = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=gpu)
    with jax.sharding.use_abstract_mesh(mesh) if platform == "cuda" else contextlib.nullcontext():
        exported = jax.export.export(both, platforms=[platform], disabled_checks=[kernels])(images, filters)
    module = exported.mlir_module()
    assert module.count("xla.gpu.triton") == (3 if implementation == "pallas" else 0)


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
        ({"dilation": 2**40}, "dilation: got 1099511627776"),
        ({"upsampling": -1}, "upsampling"),
        ({"upsampling": 2, "strides": 2}, "wanted one of the two"),
        ({"implementation": "fast"}, "implementation: got 'fast', wanted None, 'patches', 'shift' or 'pallas'"),
        ({"images": np.zeros((0, 4, 4, 2), np.float32)}, "none of them 0"),
        ({"normalize": "sum"}, "normalize: got 'sum', wanted None or 'softmax'"),
        ({"filters": np.zeros((1, 4, 4, 9, 2, 5), np.float32), "implementation": "pallas"}, "got full banks"),
        ({"padding": "SAME"}, "padding: got 'SAME'"),
        ({"padding": "valid", "dilation": 2}, "images: got 4x4 pixels"),
    ],
    ids=str,
)
def test_bad_arguments_raise(changes, message):
    arguments = {"images": np.zeros((1, 4, 4, 2), np.float32), "filters": np.zeros((1, 4, 4, 9), np.float32)}
    with pytest.raises(ValueError, match=message):
        dynamic_local_filter(**(arguments | {"kernel_size": 3} | changes))


def test_more_numbers_than_the_kernels_can_count_are_refused():
    images, filters = (jax.ShapeDtypeStruct((1, 2**16, 2**15, 1), jnp.float32) for _ in range(2))
    with pytest.raises(ValueError, match=r"'pallas' got an array of 2147483648 numbers, wanted fewer than 2\*\*31"):
        jax.eval_shape(functools.partial(dynamic_local_filter, kernel_size=1, implementation="pallas"), images, filters)


def test_a_size_that_is_traced_is_told_how_to_be_static():
    images, filters = np.zeros((1, 4, 4, 2), np.float32), np.zeros((1, 4, 4, 9), np.float32)
    for size in (3, (3, 3)):
        with pytest.raises(
            ValueError, match=r"kernel_size: got a traced value; give 'kernel_size' to jax.jit in static"
        ):
            jax.jit(dynamic_local_filter)(images, filters, kernel_size=size)
    jax.jit(dynamic_local_filter, static_argnames="kernel_size")(images, filters, kernel_size=3)


@pytest.mark.parametrize(("name", "layout"), [("patches", "shared"), ("patches", "banks"), ("shift", "banks")])
def test_products_are_of_float32_on_every_device(name, layout):
    images, filters, options = example(layout, (1, 3, 4, 2), (2, 3))
    function = functools.partial(dynamic_local_filter, **options, implementation=name)
    gradient = jax.grad(lambda *arrays: jnp.sum(function(*arrays) ** 2), argnums=(0, 1))
    assert reference.of_few_bits(function, images, filters) == []
    assert reference.of_few_bits(gradient, images, filters) == []
