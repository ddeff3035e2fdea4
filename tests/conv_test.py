"""The convolution's hand-written weight gradient against NumPy loops, for every shape that it may meet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.ops import conv as conv_module
from dfn_jax.ops.conv import _gathered, _spread, conv, upsampled_conv

CASES = [
    # images, kernel, strides, padding
    ((2, 6, 5, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1))),
    ((1, 7, 6, 2), (3, 3, 2, 3), (2, 2), ((1, 1), (1, 1))),
    ((2, 5, 4, 3), (1, 1, 3, 2), (1, 1), ((0, 0), (0, 0))),
    ((1, 9, 4, 1), (5, 2, 1, 2), (3, 1), ((2, 0), (0, 1))),
    ((1, 1, 1, 2), (3, 3, 2, 2), (1, 1), ((1, 1), (1, 1))),
    ((3, 8, 3, 2), (2, 3, 2, 1), (2, 1), ((0, 0), (1, 1))),
    ((3, 3, 9, 2), (3, 1, 2, 3), (1, 1), ((1, 1), (0, 0))),
    ((1, 3, 9, 2), (1, 3, 2, 3), (1, 1), ((0, 0), (1, 1))),
    ((2, 4, 4, 2), (1, 1, 2, 3), (1, 1), ((1, 0), (0, 2))),
    ((5, 2, 1, 3), (1, 1, 3, 4), (1, 1), ((0, 0), (0, 0))),
    ((1, 4, 5, 2), (2, 2, 2, 3), (1, 1), ((3, 2), (2, 3))),
    ((2, 5, 5, 2), (1, 1, 2, 3), (2, 2), ((0, 0), (0, 0))),
    ((2, 7, 5, 17), (3, 2, 17, 3), (1, 1), ((1, 1), (0, 1))),
    ((1, 6, 8, 16), (2, 3, 16, 2), (1, 3), ((1, 0), (1, 1))),
]


def kernel_gradient_by_loops(images, gradient, kernel_shape, strides, padding):
    padded = np.pad(images, ((0, 0), *padding, (0, 0)))
    result = np.zeros(kernel_shape)
    for i, j in np.ndindex(kernel_shape[:2]):
        for n, y, x in np.ndindex(gradient.shape[:3]):
            result[i, j] += np.outer(padded[n, y * strides[0] + i, x * strides[1] + j], gradient[n, y, x])
    return result


@pytest.mark.parametrize(
    ("case", "samples", "level"),
    [
        *((case, at_once, None) for case in CASES for at_once in (1, 2, 16)[: case[0][0]]),  # each in other portions
        *((case, 2, 3) for case in CASES[:4]),  # optimised, as users' programs are
    ],
)
def test_gradients(case, samples, level, monkeypatch):
    image_shape, kernel_shape, strides, padding = case
    monkeypatch.setattr(conv_module, "_SAMPLES", samples)
    random = np.random.default_rng(0)
    images = random.standard_normal(image_shape).astype(np.float32)
    kernel = random.standard_normal(kernel_shape).astype(np.float32)
    plain, plain_pull = jax.vjp(
        lambda x, w: jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")),
        images,
        kernel,
    )
    gradient = random.standard_normal(plain.shape).astype(np.float32)

    def ours(images, kernel, gradient):
        output, pull = jax.vjp(lambda x, w: conv(x, w, strides=strides, padding=padding), images, kernel)
        return output, *pull(gradient)

    options = {"compiler_options": {"xla_backend_optimization_level": level}} if level else {}
    output, of_images, of_kernel = jax.jit(ours, **options)(images, kernel, gradient)
    np.testing.assert_allclose(output, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_images, plain_pull(gradient)[0], rtol=1e-5, atol=1e-5)
    wanted = kernel_gradient_by_loops(images.astype(np.float64), gradient, kernel_shape, strides, padding)
    np.testing.assert_allclose(of_kernel, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (1, 1, 1, 2), (1, 2, 5, 1)])
def test_upsampled_convolution_is_that_of_the_repeated_pixels(shape):
    random = np.random.default_rng(0)
    images, kernel = (random.standard_normal(s).astype(np.float32) for s in (shape, (3, 3, shape[3], 4)))
    repeated = np.pad(images.repeat(2, axis=1).repeat(2, axis=2), ((0, 0), (1, 1), (1, 1), (0, 0)))
    wanted = np.zeros((shape[0], 2 * shape[1], 2 * shape[2], 4))
    for n, y, x, _ in np.ndindex(wanted.shape):
        wanted[n, y, x] = np.einsum("ijc,ijcf->f", repeated[n, y : y + 3, x : x + 3], kernel)
    found, pull = jax.vjp(upsampled_conv, images, kernel)
    np.testing.assert_allclose(found, wanted, atol=1e-5)

    def plain(images, kernel):
        repeated = jnp.repeat(jnp.repeat(images, 2, axis=1), 2, axis=2)
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(repeated, kernel, (1, 1), "SAME", dimension_numbers=layout)

    gradient = random.standard_normal(wanted.shape).astype(np.float32)
    for ours, theirs in zip(pull(gradient), jax.vjp(plain, images, kernel)[1](gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_results_of_an_upsampled_convolution_are_put_together_alike_on_every_device():
    places = np.random.default_rng(0).standard_normal((2, 4, 3, 8)).astype(np.float32)
    wanted = np.zeros((2, 6, 4, 2), np.float32)
    for y, x in np.ndindex(6, 4):  # [2q + a, 2r + b] is place (a, b) of [q + a, r + b]; a place has two channels.
        first = 2 * (2 * (y % 2) + x % 2)
        wanted[:, y, x] = places[:, -(-y // 2), -(-x // 2), first : first + 2]
    for function in (_gathered, _spread):
        np.testing.assert_array_equal(function(jnp.asarray(places)), wanted)


def test_half_precision_accumulates_in_float32():
    """256 + 1 + 1 + 1 - 256 is 0 or 4 in bfloat16, which has no numbers between 256 and 258."""
    images = jnp.ones((5, 1, 1, 1), jnp.bfloat16)
    weights = jnp.array([256, 1, 1, 1, -256], jnp.bfloat16)[:, None, None, None]
    for side, padding in ((1, 0), (3, 1)):
        kernel = jnp.zeros((side, side, 1, 1), jnp.bfloat16)
        _, pull = jax.vjp(lambda w, padding=padding: conv(images, w, padding=((padding, padding),) * 2), kernel)
        (of_kernel,) = pull(weights)
        assert of_kernel.dtype == jnp.bfloat16
        assert float(of_kernel[side // 2, side // 2, 0, 0]) == 3


def test_double_precision_stays():
    with jax.enable_x64(True):
        images = jnp.linspace(0.0, 1.0, 36, dtype=jnp.float64).reshape(1, 6, 6, 1)
        of_kernel = jax.grad(lambda w: (conv(images, w) ** 2).sum())(jnp.full((1, 1, 1, 1), 1 / 3, jnp.float64))
        assert abs(float(of_kernel[0, 0, 0, 0]) - 2 / 3 * float((images**2).sum())) < 1e-12


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="on CPU alone XLA has two libraries")
@pytest.mark.parametrize("size", [(8, 8), (6, 12), (12, 6)])
def test_no_convolution_goes_to_the_slow_library(size):
    images, kernel = jnp.ones((4, *size, 32)), jnp.ones((3, 3, 32, 32))

    def loss(images, kernel):
        return (conv(images, kernel, padding=((1, 1), (1, 1))) ** 2).sum()

    def in_a_loop(images, kernel):
        return jax.lax.scan(lambda total, _: (total + loss(images * total, kernel), None), 1.0, length=3)[0]

    def plain(images, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return (jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout) ** 2).sum()

    for work in (loss, in_a_loop, plain):
        compiled = jax.jit(jax.grad(work, argnums=(0, 1))).lower(images, kernel).compile().as_text()
        computations = [text for text in compiled.split("\n\n") if " convolution(" in text]
        assert computations
        # What goes to YNNPACK is a fusion of its own; the other slow way reverses a kernel as large as an image.
        fusions = [text for text in computations if "fused_computation" in text.splitlines()[0]]
        if work is not plain:
            assert not fusions
            assert "rhs_reversal" not in compiled
        elif not fusions:
            pytest.skip("this XLA does not have YNNPACK: what keeps convolutions from it may be needless")


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"got \(1, 4, 4, 2\)"):
        conv(jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 1, 1)))
    with pytest.raises(ValueError, match=r"got \(5, 5, 2, 1\)"):
        upsampled_conv(jnp.zeros((1, 4, 4, 2)), jnp.zeros((5, 5, 2, 1)))
