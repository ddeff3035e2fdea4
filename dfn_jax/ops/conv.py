"""Ordinary convolution, with a gradient that is fast on CPU, inside a `lax.scan` too.

On CPU, XLA computes a convolution's weight gradient as a convolution with a kernel as large as the image, at a quarter
to a half of the speed of its forward pass. Here it is a sum of matrix products over blocks of rows that stay in the
cache. The gradient of the images is a plain convolution with the flipped kernel: XLA's own, with reversed and dilated
operands, leaves the fast path, and inside a loop is tens of times slower. Other devices keep XLA's own gradients.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_POSITIONS = 2048  # of the output in a block
_MANY_CHANNELS = 16

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
    samples, height, width, _ = images.shape
    # Row 2q reads pixel q - 1 by tap 0 and q by taps 1, 2; row 2q + 1 reads q by taps 0, 1 and q + 1 by tap 2.
    sums = jnp.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], kernel.dtype)
    kernels = jnp.einsum("ati,buj,ijcf->tucabf", sums, sums, kernel, precision=lax.Precision.HIGHEST)
    places = conv(images, kernels.reshape(2, 2, kernel.shape[2], -1), padding=((1, 1), (1, 1)))
    places = places.reshape(samples, height + 1, width + 1, 2, 2, -1)
    rows = jnp.stack([places[:, a : a + height, :, a] for a in (0, 1)], axis=2)
    return jnp.stack([rows[:, :, :, b : b + width, b] for b in (0, 1)], axis=4).reshape(
        samples, 2 * height, 2 * width, -1
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(images: Array, kernel: Array, strides: Pair, padding: tuple[Pair, Pair]) -> Array:
    return _plain(images, kernel, strides, padding)


def _plain(images: Array, kernel: Array, strides: Pair, padding: Sequence[Pair]) -> Array:
    if kernel.shape[:2] == strides == (1, 1) and not any(map(any, padding)):
        return lax.dot_general(images, kernel[0, 0], (((3,), (0,)), ((), ())))  # twice as fast on CPU
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_LAYOUT)


def _forward(images: Array, kernel: Array, strides: Pair, padding: tuple[Pair, Pair]):
    return _conv(images, kernel, strides, padding), (images, kernel)


def _backward(strides: Pair, padding: tuple[Pair, Pair], residuals: tuple[Array, Array], gradient: Array):
    images, kernel = residuals

    def on_cpu(images: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return (
            _image_gradient(gradient, kernel, images.shape[1:3], strides, padding),
            _kernel_gradient(images, gradient, kernel.shape[:2], strides, padding).astype(kernel.dtype),
        )

    def elsewhere(images: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, w: _plain(x, w, strides, padding), images, kernel)[1](gradient)

    return lax.platform_dependent(images, kernel, gradient, cpu=on_cpu, default=elsewhere)


_conv.defvjp(_forward, _backward)


def _image_gradient(
    gradient: Array, kernel: Array, image_size: Pair, strides: Pair, padding: tuple[Pair, Pair]
) -> Array:
    """Gradient of the images [N, H, W, C], from the gradient of the output [N, H', W', F] and the kernel.

    With a stride of s, one convolution makes all s x s pixels that lie between two outputs, as so many channels: pixel
    s q + r of the padded image receives the gradients q, q - 1, ... through the taps r, r + s, ... of the kernel.
    """
    samples, channels = gradient.shape[0], kernel.shape[2]
    reach = [-(-size // stride) for size, stride in zip(kernel.shape[:2], strides, strict=True)]
    filled = [(0, n * stride - size) for n, stride, size in zip(reach, strides, kernel.shape[:2], strict=True)]
    (up, left), (row_step, column_step) = reach, strides
    phases = jnp.pad(kernel, (*filled, (0, 0), (0, 0))).reshape(up, row_step, left, column_step, channels, -1)
    phases = phases[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4).reshape(up, left, -1, row_step * column_step * channels)
    first = [before // stride for (before, _), stride in zip(padding, strides, strict=True)]
    last = [
        (before + size - 1) // stride for (before, _), size, stride in zip(padding, image_size, strides, strict=True)
    ]
    margins = tuple(
        (n - 1 - start, end + 1 - size)
        for n, start, end, size in zip(reach, first, last, gradient.shape[1:3], strict=True)
    )
    spread = _plain(gradient, phases, (1, 1), margins)
    rows, columns = (end + 1 - start for start, end in zip(first, last, strict=True))
    spread = spread.reshape(samples, rows, columns, row_step, column_step, channels).transpose(0, 1, 3, 2, 4, 5)
    spread = spread.reshape(samples, rows * row_step, columns * column_step, channels)
    top, side = (before % stride for (before, _), stride in zip(padding, strides, strict=True))
    return spread[:, top : top + image_size[0], side : side + image_size[1]]


def _kernel_gradient(
    images: Array, gradient: Array, kernel_size: Pair, strides: Sequence[int], padding: Sequence[Pair]
) -> Array:
    """Gradient of the kernel [kh, kw, C, F], from the images and the gradient of the output [N, H', W', F]."""
    (samples, height, width, features), channels = gradient.shape, images.shape[3]
    (kh, kw), (row_step, column_step) = kernel_size, strides
    rows = max(1, min(height, _POSITIONS // width))
    blocks = -(-height // rows)
    # Rows of zero gradient fill up the last block; the images are padded, or cut, to what all blocks together read.
    gradient = jnp.pad(gradient, ((0, 0), (0, rows * blocks - height), (0, 0), (0, 0)))
    reach = ((rows * blocks - 1) * row_step + kh, (width - 1) * column_step + kw)
    margins = [
        (before, size - before - images.shape[axis], 0)
        for axis, size, (before, _) in zip((1, 2), reach, padding, strict=True)
    ]
    images = lax.pad(images, jnp.zeros((), images.dtype), ((0, 0, 0), *margins, (0, 0, 0)))
    tall, wide = (rows - 1) * row_step + kh, (width - 1) * column_step + 1

    def add_block(index: Array, total: Array) -> Array:
        sample, row = index // blocks, index % blocks * rows
        block = lax.dynamic_slice(images, (sample, row * row_step, 0, 0), (1, tall, reach[1], channels))[0]
        part = lax.dynamic_slice(gradient, (sample, row, 0, 0), (1, rows, width, features))[0]
        columns = [block[:, j : j + wide : column_step] for j in range(kw)]
        if channels >= _MANY_CHANNELS and row_step == 1:
            return total + _by_rows(columns, part, kh, total.dtype)
        return total + _by_patches(columns, part, kh, row_step, total.dtype)

    total = jnp.zeros((kh, kw, channels, features), jnp.promote_types(jnp.float32, images.dtype))
    return lax.fori_loop(0, samples * blocks, add_block, total)


def _by_rows(columns: list[Array], gradient: Array, kh: int, dtype: jnp.dtype) -> Array:
    """One block's part where there are many channels: one product of all columns with all rows of the kernel.

    Args:
        columns: for each column of the kernel, what it reads of the images, [rows + kh - 1, W', C].
        gradient: [rows, W', F].
        kh: rows of the kernel.
        dtype: to accumulate in.

    Returns:
        [kh, kw, C, F].
    """
    rows = [jnp.pad(gradient, ((i, kh - 1 - i), (0, 0), (0, 0))) for i in range(kh)]
    left, right = (jnp.concatenate(parts, -1).reshape(-1, len(parts) * parts[0].shape[2]) for parts in (rows, columns))
    product = lax.dot_general(left, right, (((0,), (0,)), ((), ())), preferred_element_type=dtype)
    return product.reshape(kh, gradient.shape[2], len(columns), -1).transpose(0, 2, 3, 1)


def _by_patches(columns: list[Array], gradient: Array, kh: int, row_step: int, dtype: jnp.dtype) -> Array:
    """The same in general, and for few channels: whole patches of the images, with positions last."""
    (height, width, features), channels = gradient.shape, columns[0].shape[2]
    tall = (height - 1) * row_step + 1
    columns = [column.transpose(2, 0, 1) for column in columns]
    patches = jnp.stack([column[:, i : i + tall : row_step] for i in range(kh) for column in columns])
    product = lax.dot(patches.reshape(-1, height * width), gradient.reshape(-1, features), preferred_element_type=dtype)
    return product.reshape(kh, len(columns), channels, features)
