"""Ordinary convolution with a weight gradient that is fast on CPU.

On CPU, XLA computes a convolution's weight gradient as a convolution with a kernel as large as the image, at a quarter
to a half of the speed of its forward pass. Here it is a sum of matrix products over blocks of rows, whose patches stay
in the cache and lie with positions last, the order in which the matrix product is fastest. Other devices keep
XLA's own gradient.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_POSITIONS = 1024  # in a block: 64 channels' patches of a 3x3 kernel then take 2.4 MB

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(images: Array, kernel: Array, strides: Pair, padding: tuple[Pair, Pair]) -> Array:
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_LAYOUT)


def _forward(images: Array, kernel: Array, strides: Pair, padding: tuple[Pair, Pair]):
    return _conv(images, kernel, strides, padding), (images, kernel)


def _backward(strides: Pair, padding: tuple[Pair, Pair], residuals: tuple[Array, Array], gradient: Array):
    images, kernel = residuals
    plain = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, dimension_numbers=_LAYOUT
    )
    (of_images,) = jax.vjp(lambda x: plain(x, kernel), images)[1](gradient)
    of_kernel = lax.platform_dependent(
        images,
        gradient,
        cpu=lambda x, g: _kernel_gradient(x, g, kernel.shape[:2], strides, padding).astype(kernel.dtype),
        default=lambda x, g: jax.vjp(lambda w: plain(x, w), kernel)[1](g)[0],
    )
    return of_images, of_kernel


_conv.defvjp(_forward, _backward)


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
    planes = lax.pad(images.transpose(0, 3, 1, 2), jnp.zeros((), images.dtype), ((0, 0, 0), (0, 0, 0), *margins))
    tall, wide = (rows - 1) * row_step + 1, (width - 1) * column_step + 1

    def add_block(index: Array, total: Array) -> Array:
        sample, row = index // blocks, index % blocks * rows
        block = lax.dynamic_slice(planes, (sample, 0, row * row_step, 0), (1, channels, tall + kh - 1, reach[1]))[0]
        patches = jnp.stack(
            [block[:, i : i + tall : row_step, j : j + wide : column_step] for i in range(kh) for j in range(kw)]
        )
        part = lax.dynamic_slice(gradient, (sample, row, 0, 0), (1, rows, width, features))
        return total + lax.dot(
            patches.reshape(kh * kw * channels, rows * width),
            part.reshape(rows * width, features),
            preferred_element_type=total.dtype,
        )

    total = jnp.zeros((kh * kw * channels, features), jnp.promote_types(jnp.float32, images.dtype))
    return lax.fori_loop(0, samples * blocks, add_block, total).reshape(kh, kw, channels, features)
