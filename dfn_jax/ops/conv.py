"""Ordinary convolution that is fast on CPU: forward, and by a gradient of its own, inside a `lax.scan` too.

XLA (jax 0.10.2 to 0.12) gives convolutions on CPU to one of two libraries. Eigen is the faster one: up to twice in the
forward pass, up to five times in the gradient of the kernel. But YNNPACK comes first wherever it can. It does not take
a convolution whose output is taller than its images, or whose kernel is; so here one of them is, by some rows of zeros,
but for strided forward passes. Other devices get XLA's own convolution and gradients. `python -m
benchmarks.convolutions` measures it.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from dfn_jax.ops.arguments import at_least_float32

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_SAMPLES = 2  # that the gradient of the kernel takes at a time

Pair = tuple[int, int]


def conv(
    images: Array, kernel: Array, *, strides: Pair = (1, 1), padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
) -> Array:
    """Convolves images with one kernel (cross-correlation, no flip).

    Reverse-mode differentiable; for forward mode use `jax.lax.conv_general_dilated`.

    Args:
        images: [N, H, W, C], floating-point.
        kernel: [kh, kw, C, F], same dtype.
        strides: rows and columns from one output to the next.
        padding: zeros ((top, bottom), (left, right)), not negative.

    Returns:
        [N, H', W', F], dtype of the images.

    Raises:
        ValueError: images or kernel have other shapes.
    """
    if images.ndim != 4 or kernel.ndim != 4 or images.shape[3] != kernel.shape[2]:
        raise ValueError(
            f"wanted images [N, H, W, C] and kernel [kh, kw, C, F], got {images.shape} and {kernel.shape}."
        )
    # Under `jax.shard_map` the gradient of a kernel that all devices share is the sum of theirs. Only what differs by
    # device, as the images do, has a gradient that does: so must the kernel. The compiler drops the choice.
    kernel = lax.select(jnp.array(True), kernel, jnp.zeros_like(images, kernel.dtype, shape=kernel.shape))
    return _conv(images, kernel, tuple(strides), tuple(map(tuple, padding)))


def upsampled_conv(images: Array, kernel: Array) -> Array:
    """Convolves images whose pixels are first repeated 2x2, with zero padding of one pixel, in 4/9 of the operations.

    Each output sees only two different pixels a row and a column: through a kernel of 2x2 sums of taps, one for each of
    the four places that an output may have inside a repeated pixel.

    Args:
        images: [N, H, W, C], floating-point.
        kernel: [3, 3, C, F], same dtype.

    Returns:
        [N, 2H, 2W, F], dtype of the images.

    Raises:
        ValueError: images or kernel have other shapes.
    """
    if kernel.shape[:2] != (3, 3):
        raise ValueError(f"wanted a kernel [3, 3, C, F], got {kernel.shape}.")
    # Row 2q reads pixel q - 1 by tap 0 and q by taps 1, 2; row 2q + 1 reads q by taps 0, 1 and q + 1 by tap 2.
    sums = jnp.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], kernel.dtype)
    kernels = jnp.einsum("ati,buj,ijcf->tucabf", sums, sums, kernel, precision=lax.Precision.HIGHEST)
    return _interleaved(conv(images, kernels.reshape(2, 2, kernel.shape[2], -1), padding=((1, 1), (1, 1))))


@jax.custom_vjp
def _interleaved(places: Array) -> Array:
    """Puts the four places side by side: output [2q + a, 2r + b] is that of place (a, b) at [q + a, r + b].

    Args:
        places: [N, H + 1, W + 1, 4 F], place by place.

    Returns:
        [N, 2H, 2W, F].
    """
    return lax.platform_dependent(places, cpu=_gathered, default=_spread)


def _gathered(places: Array) -> Array:
    """By a gather: on CPU one pass, but devices that share the rows of an image would exchange all of it."""
    samples, height, width, _ = places.shape
    row, column = jnp.ogrid[: 2 * height - 2, : 2 * width - 2]
    at = (slice(None), (row + 1) // 2, (column + 1) // 2, row % 2, column % 2)
    return places.reshape(samples, height, width, 2, 2, -1).at[at].get(mode="promise_in_bounds")


def _spread(places: Array) -> Array:
    """By the sum of all four, each with zeros where the others are."""
    features = places.shape[3] // 4

    def one(a: int, b: int) -> Array:
        first = (2 * a + b) * features
        outputs = places[:, a : a - 1 or None, b : b - 1 or None, first : first + features]
        return lax.pad(outputs, jnp.zeros((), outputs.dtype), ((0, 0, 0), (a, 1 - a, 1), (b, 1 - b, 1), (0, 0, 0)))

    return one(0, 0) + one(0, 1) + one(1, 0) + one(1, 1)


def _interleaved_forward(places: Array) -> tuple[Array, None]:
    return _interleaved(places), None


def _interleaved_backward(_: None, gradient: Array) -> tuple[Array]:
    samples, height, width, features = gradient.shape
    places = jnp.zeros_like(gradient, shape=(samples, height // 2 + 1, width // 2 + 1, 4 * features))
    return jax.vjp(_spread, places)[1](gradient)


_interleaved.defvjp(_interleaved_forward, _interleaved_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(images: Array, kernel: Array, strides: Pair, padding: tuple[Pair, Pair]) -> Array:
    if strides != (1, 1):
        return _plain(images, kernel, strides, padding)
    on_cpu, elsewhere = lambda x, w: _dense(x, w, padding), lambda x, w: _plain(x, w, strides, padding)
    return lax.platform_dependent(images, kernel, cpu=on_cpu, default=elsewhere)


def _forward(images: Array, kernel: Array, strides: Pair, padding: tuple[Pair, Pair]):
    return _conv(images, kernel, strides, padding), (images, kernel)


def _backward(strides: Pair, padding: tuple[Pair, Pair], residuals: tuple[Array, Array], gradient: Array):
    def pull(convolve, gradient: Array, *inputs: Array) -> tuple[Array, Array]:
        return jax.vjp(functools.partial(convolve, strides=strides, padding=padding), *inputs)[1](gradient)

    on_cpu, elsewhere = (functools.partial(pull, convolve) for convolve in (_without_strides, _plain))
    return lax.platform_dependent(gradient, *residuals, cpu=on_cpu, default=elsewhere)


_conv.defvjp(_forward, _backward)


def _plain(images: Array, kernel: Array, strides: Pair, padding: tuple[Pair, Pair]) -> Array:
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_LAYOUT)


def _without_strides(images: Array, kernel: Array, strides: Pair, padding: tuple[Pair, Pair]) -> Array:
    """The convolution whose gradient is taken on CPU.

    Strides become channels: the s x s pixels between two outputs, and the taps that read them.
    """
    if strides != (1, 1):
        taps = kernel.shape[:2]
        reach = [-(-size // stride) for size, stride in zip(taps, strides, strict=True)]
        outputs = jax.eval_shape(lambda: _plain(images, kernel, strides, padding)).shape[1:3]
        size = [n - 1 + r for n, r in zip(outputs, reach, strict=True)]
        images = _blocks(images, size, strides, [before for before, _ in padding])
        kernel = _blocks(kernel.reshape(1, *taps, -1), reach, strides, (0, 0)).reshape(*reach, -1, kernel.shape[3])
        padding = ((0, 0), (0, 0))
    return _dense(images, kernel, padding)


def _blocks(images: Array, size: Sequence[int], block: Pair, before: Sequence[int]) -> Array:
    """Makes a pixel of each block of pixels.

    Args:
        images: [N, H, W, C].
        size: rows and columns of the result.
        block: rows and columns of a block.
        before: rows and columns of zeros above and to the left; below and to the right there are as many as needed, or
            the images end there.

    Returns:
        [N, *size, block rows * block columns * C].
    """
    margins = [
        (start, n * step - start - old, 0)
        for start, n, step, old in zip(before, size, block, images.shape[1:3], strict=True)
    ]
    images = lax.pad(images, jnp.zeros((), images.dtype), ((0, 0, 0), *margins, (0, 0, 0)))
    images = images.reshape(images.shape[0], size[0], block[0], size[1], block[1], -1)
    return images.transpose(0, 1, 3, 2, 4, 5).reshape(images.shape[0], *size, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dense(images: Array, kernel: Array, padding: tuple[Pair, Pair]) -> Array:
    """The convolution without strides, on CPU; taller than the images, then cut."""
    if kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
        return lax.dot_general(images, kernel[0, 0], (((3,), (0,)), ((), ())))
    (top, bottom), columns = padding
    height = images.shape[1] + top + bottom - kernel.shape[0] + 1
    more = max(0, images.shape[1] + 1 - height)
    return _plain(images, kernel, (1, 1), ((top, bottom + more), columns))[:, :height]


def _dense_forward(images: Array, kernel: Array, padding: tuple[Pair, Pair]):
    return _dense(images, kernel, padding), (images, kernel)


def _dense_backward(padding: tuple[Pair, Pair], residuals: tuple[Array, Array], gradient: Array):
    images, kernel = residuals
    margins = tuple((n - 1 - a, n - 1 - b) for n, (a, b) in zip(kernel.shape[:2], padding, strict=True))
    of_images = _dense(gradient, kernel[::-1, ::-1].swapaxes(2, 3), margins)
    return of_images, _kernel_gradient(images, gradient, kernel.shape[:2], padding).astype(kernel.dtype)


_dense.defvjp(_dense_forward, _dense_backward)


def _kernel_gradient(images: Array, gradient: Array, kernel_size: Pair, padding: tuple[Pair, Pair]) -> Array:
    """Gradient of the kernel [kh, kw, C, F], at least float32, from images and output gradient [N, H', W', F]."""
    dtype = at_least_float32(images)
    if images.shape[3] > gradient.shape[3]:  # the first gives patches or rows: the fewer, the better
        margins = tuple((n - 1 - a, n - 1 - b) for n, (a, b) in zip(kernel_size, padding, strict=True))
        return _kernel_gradient(gradient, images, kernel_size, margins)[::-1, ::-1].swapaxes(2, 3)
    if kernel_size == (1, 1) and not any(map(any, padding)):
        # Of few pixels, those of all samples in one product; of many, one for each sample.
        batch = len(images) if images.shape[1] * images.shape[2] >= len(images) else 1
        rows = (values.reshape(batch, -1, values.shape[3]) for values in (images, gradient))
        products = lax.dot_general(*rows, (((1,), (1,)), ((0,), (0,))), preferred_element_type=dtype)
        return products.sum(axis=0)[None, None]
    if gradient.shape[2] > gradient.shape[1]:
        swapped = _kernel_gradient(images.swapaxes(1, 2), gradient.swapaxes(1, 2), kernel_size[::-1], padding[::-1])
        return swapped.swapaxes(0, 1)
    chunks = -(-len(images) // _SAMPLES)
    chunk = -(-len(images) // chunks)
    filled = ((0, chunks * chunk - len(images)), (0, 0), (0, 0), (0, 0))
    parts = [jnp.pad(values, filled).reshape(chunks, chunk, *values.shape[1:]) for values in (images, gradient)]

    def add_chunk(total: Array, part: list[Array]) -> tuple[Array, None]:
        return total + _correlation(*part, kernel_size, padding, dtype), None

    # Like another array: under `jax.shard_map` it differs by device, as what is added to it.
    total = jnp.zeros_like(gradient, dtype, shape=(*kernel_size, images.shape[3], gradient.shape[3]))
    return lax.scan(add_chunk, total, parts)[0]


def _correlation(
    images: Array, gradient: Array, kernel_size: Pair, padding: tuple[Pair, Pair], dtype: jnp.dtype
) -> Array:
    """The same for a few images, by one convolution of images with the gradient as its kernel.

    The kernel gets rows of zeros until it is one row taller than the images. So that XLA does not then take one for the
    other, which is slow, it must have no more pixels than the images, which get their columns of zeros beforehand.
    """
    (height, width), (rows, columns), (kh, kw) = images.shape[1:3], gradient.shape[1:3], kernel_size
    (top, _), (left, _) = padding
    more = max(1, kw - 1)
    tall = max(height, rows - 1, columns // more + 1)
    margins = ((0, 0, 0), (0, tall - height, 0), (left, columns + more - left - width, 0), (0, 0, 0))
    images = lax.pad(images, jnp.zeros((), images.dtype), margins).transpose(3, 1, 2, 0)
    gradient = jnp.pad(gradient, ((0, 0), (0, tall + 1 - rows), (0, 0), (0, 0))).transpose(1, 2, 0, 3)
    # Else XLA would move the zeros into the convolution.
    images, gradient = lax.optimization_barrier((images, gradient))
    result = lax.conv_general_dilated(
        images,
        gradient,
        (1, 1),
        ((top, kh - top), (0, 0)),
        dimension_numbers=_LAYOUT,
        preferred_element_type=dtype,
    )
    return result[:, :, :kw].transpose(1, 2, 0, 3)
