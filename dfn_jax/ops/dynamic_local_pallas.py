"""Dynamic local filtering by kernels of our own for GPUs, which read the filters once and hold nothing else.

The filters are nearly all that is read. A program takes whole filters, so that their memory is read in one piece, and
makes softmax, product and sum of them in registers; the neighbourhoods come out of the cache. The gradient of the
filters is made in the same way. That of the images gathers, for every pixel, from the filters that reached it.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from dfn_jax.ops.arguments import at_least_float32

_ELEMENTS = 4096  # of the filters, held by one program
_WARPS = 4
_PIXELS = 128  # of the image gradient, made by one program at the most


class _Geometry(NamedTuple):
    """Where everything lies; all sizes are Python ints.

    Attributes:
        padded: (N, Hp, Wp, C).
        filters: (N, H', W', G, K).
        kernel: (kh, kw), in taps.
        strides: (vertical, horizontal), in pixels.
        dilation: (vertical, horizontal), in pixels.
        softmax: whether the filters are logits.
    """

    padded: tuple[int, int, int, int]
    filters: tuple[int, int, int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    softmax: bool

    @property
    def channels(self) -> int:
        """Channels that share a filter."""
        return self.padded[3] // self.filters[3]

    @property
    def rows(self) -> int:
        """All filters of the batch."""
        return math.prod(self.filters[:4])


def filter_pallas(padded, filters, kernel_size, strides, dilation, softmax) -> Array:
    """Filters in one pass over the filters, on a GPU; on a CPU the kernels are interpreted, which is slow.

    Args:
        padded: [N, Hp, Wp, C], in the dtype to accumulate in; the window of the output position (y, x) starts at
            (y * stride, x * stride).
        filters: [N, H', W', G, K].
        kernel_size: (kh, kw), in taps.
        strides: (vertical, horizontal), in pixels.
        dilation: (vertical, horizontal), in pixels.
        softmax: whether `filters` are logits, of which a softmax over the taps makes filters.

    Returns:
        [N, H', W', C] in the dtype of `padded`.

    Raises:
        ValueError: an array has 2**31 numbers or more, which the kernels cannot count.

    Source: De Brabandere et al., NIPS 2016, Section 3.2, Eq. 2.
    """
    largest = max(padded.size, filters.size, math.prod(filters.shape[:3]) * padded.shape[3])
    if largest + _ELEMENTS >= 2**31:
        raise ValueError(f"implementation: 'pallas' got an array of {largest} numbers, wanted fewer than 2**31.")
    geometry = _Geometry(padded.shape, filters.shape, kernel_size, strides, dilation, softmax)
    return _filter(geometry, padded, filters)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _filter(geometry: _Geometry, padded: Array, filters: Array) -> Array:
    return _forward(geometry, padded, filters)[0]


def _forward(geometry: _Geometry, padded: Array, filters: Array) -> tuple[Array, tuple[Array, ...]]:
    batch, height, width, groups, taps = geometry.filters
    row = ((geometry.rows,), padded.dtype)
    output, *statistics = _call(
        functools.partial(_output_kernel, geometry),
        [((geometry.rows * geometry.channels,), padded.dtype), row, row],
        geometry.rows,
        _rows_of_a_program(taps),
    )(padded.reshape(-1), filters.reshape(-1))
    return output.reshape(batch, height, width, groups * geometry.channels), (padded, filters, *statistics)


def _backward(geometry: _Geometry, residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, Array]:
    padded, filters, *statistics = residuals
    taps, gradient = geometry.filters[4], gradient.reshape(-1)
    (of_filters,) = _call(
        functools.partial(_filters_gradient_kernel, geometry),
        [((filters.size,), filters.dtype)],
        geometry.rows,
        _rows_of_a_program(taps),
    )(padded.reshape(-1), filters.reshape(-1), *statistics, gradient)
    (of_images,) = _call(
        functools.partial(_images_gradient_kernel, geometry),
        [((padded.size,), padded.dtype)],
        padded.size,
        min(_PIXELS, _rows_of_a_program(geometry.kernel[1])),
    )(filters.reshape(-1), *statistics, gradient)
    return of_images.reshape(padded.shape), of_filters.reshape(filters.shape)


_filter.defvjp(_forward, _backward)


def _call(kernel: Callable, outputs: list, work: int, portion: int) -> Callable:
    """A kernel over flat arrays; its first argument is what part of `work` a program has to do."""

    def with_portion(*references) -> None:
        start = pl.program_id(0) * portion
        kernel(start + jnp.arange(portion, dtype=jnp.int32), *references)

    call = functools.partial(
        pl.pallas_call,
        with_portion,
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in outputs],
        grid=(pl.cdiv(work, portion),),
        compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
    )
    # Without the parameters, jax 0.10 would give the kernels to another compiler than later versions.
    return lambda *arrays: lax.platform_dependent(*arrays, cuda=call(), rocm=call(), cpu=call(interpret=True))


def _rows_of_a_program(taps: int) -> int:
    return max(1, _ELEMENTS // pl.next_power_of_2(taps))


def _split(index: Array, *sizes: int) -> list[Array]:
    """The coordinates of a flat index, the last axis fastest; the first axis needs no size."""
    coordinates = []
    for size in reversed(sizes):
        index, coordinate = index // size, index % size
        coordinates.append(coordinate)
    return [index, *reversed(coordinates)]


def _filters_of(geometry: _Geometry, rows: Array, filters_ref, statistics: tuple | None) -> tuple[Array, tuple]:
    """What a program holds: filters [rows, taps], made of logits if they are, and their statistics.

    The statistics of a row are the largest logit and the logarithm of the sum of exp(logit - largest).
    """
    taps = geometry.filters[4]
    tap = jnp.arange(pl.next_power_of_2(taps), dtype=jnp.int32)
    valid = (rows < geometry.rows)[:, None] & (tap < taps)[None, :]
    other = -jnp.inf if geometry.softmax else 0.0
    values = triton.load(filters_ref.at[rows[:, None] * taps + tap[None, :]], mask=valid, other=other)
    values = values.astype(at_least_float32(values))
    if not geometry.softmax:
        return values, (jnp.zeros(rows.shape, values.dtype),) * 2
    if statistics is None:
        # Rows past the end have no largest logit.
        largest = jnp.where(rows < geometry.rows, jnp.max(values, axis=1), 0)
        statistics = largest, jnp.log(jnp.sum(jnp.exp(values - largest[:, None]), axis=1))
    largest, logarithm = statistics
    return jnp.exp(values - largest[:, None] - logarithm[:, None]), statistics


def _neighbourhoods(geometry: _Geometry, rows: Array) -> Array:
    """The flat index into the padded image of what each tap of each row reads, in the group's first channel."""
    _, height, width, groups, taps = geometry.filters
    _, padded_height, padded_width, channels = geometry.padded
    sample, y, x, group = _split(rows, height, width, groups)
    tap_row, tap_column = _split(jnp.arange(pl.next_power_of_2(taps), dtype=jnp.int32), geometry.kernel[1])
    (row_step, column_step), (tall, wide) = geometry.strides, geometry.dilation
    corner = (sample * padded_height + y * row_step) * padded_width + x * column_step
    offset = tap_row * tall * padded_width + tap_column * wide
    return (corner[:, None] + offset[None, :]) * channels + group[:, None] * geometry.channels


def _output_kernel(
    geometry: _Geometry, rows: Array, padded_ref, filters_ref, output_ref, largest_ref, logarithm_ref
) -> None:
    """Output and statistics of some rows."""
    present = rows < geometry.rows
    filters, statistics = _filters_of(geometry, rows, filters_ref, None)
    for reference, values in zip((largest_ref, logarithm_ref), statistics, strict=True):
        triton.store(reference.at[rows], values.astype(reference.dtype), mask=present)
    valid = present[:, None] & (jnp.arange(filters.shape[1]) < geometry.filters[4])[None, :]
    index = _neighbourhoods(geometry, rows)

    def filter_channel(channel: Array, _: None) -> None:
        pixels = triton.load(padded_ref.at[index + channel], mask=valid, other=0.0)
        output = jnp.sum(filters * pixels, axis=1).astype(output_ref.dtype)
        triton.store(output_ref.at[rows * geometry.channels + channel], output, mask=present)

    lax.fori_loop(0, geometry.channels, filter_channel, None)


def _filters_gradient_kernel(
    geometry: _Geometry, rows: Array, padded_ref, filters_ref, largest_ref, logarithm_ref, gradient_ref, output_ref
) -> None:
    """Gradient of the filters, or of the logits, of some rows."""
    present, taps = rows < geometry.rows, geometry.filters[4]
    index = _neighbourhoods(geometry, rows)
    tap = jnp.arange(index.shape[1], dtype=jnp.int32)
    valid = present[:, None] & (tap < taps)[None, :]

    def add_channel(channel: Array, total: Array) -> Array:
        pixels = triton.load(padded_ref.at[index + channel], mask=valid, other=0.0)
        gradient = triton.load(gradient_ref.at[rows * geometry.channels + channel], mask=present, other=0.0)
        return total + gradient[:, None] * pixels

    total = lax.fori_loop(0, geometry.channels, add_channel, jnp.zeros(index.shape, padded_ref.dtype))
    if geometry.softmax:
        statistics = [triton.load(row.at[rows], mask=present, other=0.0) for row in (largest_ref, logarithm_ref)]
        filters, _ = _filters_of(geometry, rows, filters_ref, statistics)
        total = filters * (total - jnp.sum(filters * total, axis=1)[:, None])
    triton.store(output_ref.at[rows[:, None] * taps + tap[None, :]], total.astype(output_ref.dtype), mask=valid)


def _images_gradient_kernel(
    geometry: _Geometry, pixels: Array, filters_ref, largest_ref, logarithm_ref, gradient_ref, output_ref
) -> None:
    """Gradient of some pixels of the padded images: from every output that read them, row of taps by row of taps."""
    _, height, width, groups, taps = geometry.filters
    _, padded_height, padded_width, channels = geometry.padded
    (kh, kw), (row_step, column_step), (tall, wide) = geometry.kernel, geometry.strides, geometry.dilation
    sample, row, column, channel = _split(pixels, padded_height, padded_width, channels)
    present = pixels < math.prod(geometry.padded)
    tap_column = jnp.arange(pl.next_power_of_2(kw), dtype=jnp.int32)
    left = column[:, None] - tap_column[None, :] * wide
    x = left // column_step
    reads = present[:, None] & (tap_column < kw)[None, :] & (left >= 0) & (left % column_step == 0) & (x < width)

    def add_row(tap_row: Array, total: Array) -> Array:
        top = row - tap_row * tall
        y = top // row_step
        valid = reads & ((top >= 0) & (top % row_step == 0) & (y < height))[:, None]
        position = (sample * height + y)[:, None] * width + x
        filter_row = position * groups + (channel // geometry.channels)[:, None]
        index = filter_row * taps + tap_row * kw + tap_column[None, :]
        weights = triton.load(filters_ref.at[index], mask=valid, other=0.0).astype(total.dtype)
        if geometry.softmax:
            largest, logarithm = (
                triton.load(row.at[filter_row], mask=valid, other=0.0) for row in (largest_ref, logarithm_ref)
            )
            weights = jnp.exp(weights - largest - logarithm)
        index = position * channels + channel[:, None]
        gradient = triton.load(gradient_ref.at[index], mask=valid, other=0.0)
        return total + jnp.sum(weights * gradient, axis=1)

    total = lax.fori_loop(0, kh, add_row, jnp.zeros(pixels.shape, output_ref.dtype))
    triton.store(output_ref.at[pixels], total, mask=present)
