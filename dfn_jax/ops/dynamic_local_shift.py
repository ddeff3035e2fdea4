"""Dynamic local filtering by adding up shifted images, each weighted with one tap of the filters.

The gradient is written by hand where few channels share a filter, so that the filters are most of what is read. That of
the filters is one pass over them: every filter's gradient is a window of the image. That of the images first adds up
the taps of a row, then the rows. Compilers that must find this themselves split and join the filters tap by tap.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

Pair = tuple[int, int]
Statistics = tuple[Array, Array]
FEW_CHANNELS = 4  # that share a filter; with more, the images are what is read


class _Taps(NamedTuple):
    """Which pixels a filter reads: the tap (i, j) at (y, x) that at (y * stride + i * dilation, the same for x).

    Attributes:
        kernel_size: (kh, kw), in taps.
        strides: (vertical, horizontal), in pixels.
        dilation: (vertical, horizontal), in pixels.
    """

    kernel_size: Pair
    strides: Pair
    dilation: Pair


def filter_shift(padded, filters, kernel_size, strides, dilation, softmax) -> Array:
    """Adds tap by tap, without a tensor of neighbourhoods; full banks row of taps by row of taps.

    Args:
        padded: [N, Hp, Wp, C], in the dtype to accumulate in; the window of the output position (y, x) starts at
            (y * stride, x * stride).
        filters: [N, H', W', G, K] or [N, H', W', K, C, F].
        kernel_size: (kh, kw), in taps.
        strides: (vertical, horizontal), in pixels.
        dilation: (vertical, horizontal), in pixels.
        softmax: whether `filters` are logits, of which a softmax over the taps makes filters; only where at most
            `FEW_CHANNELS` channels share one.

    Returns:
        [N, H', W', C], or [N, H', W', F] for full banks, in the dtype of `padded`.

    Source: De Brabandere et al., NIPS 2016, Section 3.2, Eq. 2.
    """
    taps = _Taps(kernel_size, strides, dilation)
    if filters.ndim == 6:
        return _add_rows(_shifted_rows(padded, filters.shape[1:3], taps), filters)
    if padded.shape[3] > FEW_CHANNELS * filters.shape[3]:
        return _add_taps(padded, filters, None, taps)
    return _filter(taps, softmax, padded, filters)


def _shifted_rows(padded: Array, size: Pair, taps: _Taps) -> list[list[Array]]:
    """Returns, for every row of taps, the list of the images that its taps weigh.

    Cutting rows first and columns second halves the time of the gradient and of its compilation.
    """
    height, width = size

    def cut(array, tap, length, axis):
        start, stride = tap * taps.dilation[axis - 1], taps.strides[axis - 1]
        return lax.slice_in_dim(array, start, start + (length - 1) * stride + 1, stride, axis)

    rows = [cut(padded, i, height, axis=1) for i in range(taps.kernel_size[0])]
    return [[cut(row, j, width, axis=2) for j in range(taps.kernel_size[1])] for row in rows]


def _add_rows(shifted_rows: list[list[Array]], filters: Array) -> Array:
    banks = lax.split(filters, [len(row) for row in shifted_rows], axis=3)
    return sum(
        jnp.einsum("nhwkc,nhwkcf->nhwf", jnp.stack(row, axis=3), bank, precision=lax.Precision.HIGHEST)
        for row, bank in zip(shifted_rows, banks, strict=True)
    )


def _add_taps(padded: Array, filters: Array, statistics: Statistics | None, taps: _Taps) -> Array:
    """The output [N, H', W', C]; statistics say that the filters are logits."""
    images = [image for row in _shifted_rows(padded, filters.shape[1:3], taps) for image in row]
    # The transpose of a split is one concatenation; that of indexing would be a padded sum for every tap.
    split = lax.split(filters, [1] * filters.shape[4], axis=4)
    weights = [weight.squeeze(4) for weight in split]
    if statistics:
        weights = [_softmax(weight, statistics) for weight in weights]
    share = padded.shape[3] // filters.shape[3]
    return sum(jnp.repeat(weight, share, axis=3) * image for weight, image in zip(weights, images, strict=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _filter(taps: _Taps, softmax: bool, padded: Array, filters: Array) -> Array:
    return _forward(taps, softmax, padded, filters)[0]


def _forward(taps: _Taps, softmax: bool, padded: Array, filters: Array) -> tuple[Array, tuple]:
    if not softmax:
        return _add_taps(padded, filters, None, taps), (padded, filters, None, None)
    on_cpu, elsewhere = (functools.partial(f, taps=taps) for f in (_filter_in_one_sum, _filter_after_statistics))
    output, statistics = lax.platform_dependent(padded, filters.astype(padded.dtype), cpu=on_cpu, default=elsewhere)
    return output, (padded, filters, statistics, output)


def _filter_after_statistics(padded: Array, logits: Array, taps: _Taps) -> tuple[Array, Statistics]:
    statistics = _statistics(logits)
    return _add_taps(padded, logits, statistics, taps), statistics


def _filter_in_one_sum(padded: Array, logits: Array, taps: _Taps) -> tuple[Array, Statistics]:
    """The same with each exponential computed once: numerator and denominator as the two parts of one complex sum."""
    largest = jnp.max(logits, axis=4)
    pairs = lax.complex(padded, jnp.ones_like(padded))
    sums = _add_taps(pairs, logits, (largest, jnp.zeros_like(largest)), taps)
    # XLA repeats additions for each that uses their sum, but not a division, which it thinks expensive.
    sums = sums / lax.optimization_barrier(jnp.ones((), sums.dtype))
    share = padded.shape[3] // logits.shape[3]
    return sums.real / sums.imag, (largest, jnp.log(sums.imag[..., ::share]))


def _statistics(logits: Array) -> Statistics:
    """Of each filter, [N, H', W', G]: the largest logit, and the logarithm of the sum of exp(logit - largest).

    Their sum would round away what distinguishes large logits.
    """
    largest = jnp.max(logits, axis=4)
    return largest, jnp.log(jnp.sum(jnp.exp(logits - largest[..., None]), axis=4))


def _softmax(logits: Array, statistics: Statistics) -> Array:
    """Filters of logits; all [N, H', W', G], or with an axis for the taps."""
    largest, logarithm = statistics
    return jnp.exp(logits - largest - logarithm)


def _backward(taps: _Taps, softmax: bool, residuals: tuple, gradient: Array) -> tuple[Array, Array]:
    padded, filters, statistics, output = residuals
    gradient = gradient.reshape(*gradient.shape[:3], filters.shape[3], -1)
    weights = _softmax(filters, jax.tree.map(lambda row: row[..., None], statistics)) if softmax else filters
    pixels = padded.reshape(*padded.shape[:3], filters.shape[3], -1)
    windows = [_windows(pixels[..., channel], filters.shape[1:3], taps) for channel in range(gradient.shape[4])]
    # In a softmax, what all taps together would change, weighted by the filters, is what the output itself would.
    if softmax and len(windows) == 1:
        weights, gradient = weights * gradient, jnp.ones_like(gradient)  # so that one array serves both gradients
        of_filters = weights * (windows[0] - output[..., None])
    else:
        of_filters = sum(gradient[..., channel, None] * window for channel, window in enumerate(windows))
        if softmax:
            mean = jnp.sum(gradient * output.reshape(gradient.shape), axis=4, keepdims=True)
            of_filters = weights * (of_filters - mean)
    of_images = _add_taps_transposed(weights, gradient, padded.shape, taps)
    return of_images, of_filters.astype(filters.dtype)


_filter.defvjp(_forward, _backward)


def _windows(images: Array, size: Pair, taps: _Taps) -> Array:
    """What every tap reads: [N, H', W', G, K] of images [N, Hp, Wp, G]; to be fused with what follows.

    With a dilation of d, pixel d q + r is the q-th of every d-th pixels, counted from r: neighbours, as windows need.
    """
    (rows, columns), (tall, wide), (kh, kw) = taps.strides, taps.dilation, taps.kernel_size
    batch, height, width, groups = images.shape
    images = jnp.pad(images, ((0, 0), (0, -height % tall), (0, -width % wide), (0, 0)))
    images = images.reshape(batch, -(-height // tall), tall, -(-width // wide), wide, groups)
    y, x = rows * jnp.arange(size[0])[:, None], columns * jnp.arange(size[1])[None, :]
    starts = jnp.stack(jnp.broadcast_arrays(y // tall, y % tall, x // wide, x % wide), axis=-1)
    windows = lax.gather(
        images,
        starts,
        lax.GatherDimensionNumbers(offset_dims=(0, 3, 4, 5), collapsed_slice_dims=(2, 4), start_index_map=(1, 2, 3, 4)),
        (batch, kh, 1, kw, 1, groups),
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )  # [N, H', W', kh, kw, G]
    return jnp.moveaxis(windows.reshape(batch, *size, kh * kw, groups), 4, 3)


def _add_taps_transposed(weights: Array, gradient: Array, shape: tuple[int, ...], taps: _Taps) -> Array:
    """Gradient of the padded images of that shape, from filters [N, H', W', G, K] and gradient [N, H', W', G, C/G]."""
    batch, height, width, groups, _ = weights.shape
    (kh, kw), (row_step, column_step), (tall, wide) = taps
    across = shape[2]
    by_row = weights.reshape(batch * height, width, groups * kh, kw)
    # The gradient at the pixels that it belongs to, and zero elsewhere: there the filters read do not matter.
    reach = (kw - 1) * wide
    spread = gradient.reshape(batch * height, width, groups, 1, -1)
    filled = (reach, across - 1 - (width - 1) * column_step, column_step - 1)
    spread = lax.pad(spread, jnp.zeros((), spread.dtype), ((0, 0, 0), filled, *[(0, 0, 0)] * 3))
    rows = 0
    for j in range(kw):
        source = (jnp.arange(across) - j * wide) // column_step
        weight = lax.gather(
            by_row[..., j],
            source[:, None],
            lax.GatherDimensionNumbers(offset_dims=(0, 2), collapsed_slice_dims=(1,), start_index_map=(1,)),
            (batch * height, 1, groups * kh),
            mode=lax.GatherScatterMode.CLIP,
        ).reshape(batch * height, across, groups, kh, 1)
        rows += weight * lax.slice_in_dim(spread, reach - j * wide, reach - j * wide + across, axis=1)
    rows = rows.reshape(batch, height, 1, across, groups, kh, -1)

    def add_row(i: Array, total: Array) -> Array:
        row = lax.dynamic_index_in_dim(rows, i, axis=5, keepdims=False).reshape(batch, height, 1, across, -1)
        start = (0, i * tall // row_step, i * tall % row_step, 0, 0)
        return lax.dynamic_update_slice(total, lax.dynamic_slice(total, start, row.shape) + row, start)

    # The loop keeps the compiler from adding up rows of taps again for every row of the image.
    down = (kh - 1) * tall // row_step + height
    total = lax.fori_loop(0, kh, add_row, jnp.zeros_like(rows, shape=(batch, down, row_step, across, shape[3])))
    total = total.reshape(batch, down * row_step, across, shape[3])
    total = lax.slice_in_dim(total, 0, min(shape[1], down * row_step), axis=1)
    return jnp.pad(total, ((0, 0), (0, shape[1] - total.shape[1]), (0, 0), (0, 0)))
