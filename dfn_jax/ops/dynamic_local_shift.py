"""Dynamic local filtering by adding up shifted images, each weighted with one tap of the filters.

The gradient is written by hand where few channels share a filter, so that the filters are most of what is read. That of
the filters is one pass over them: every filter's gradient is a window of the image. That of the images first adds up
the taps of a row, then the rows. Compilers that must find this themselves split and join the filters tap by tap.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

Pair = tuple[int, int]
Statistics = tuple[Array, Array]
FEW_CHANNELS = 4  # that share a filter; with more, the images are what is read
_TERMS = 121  # of a complex sum, in whole rows; XLA still vectorises it, with 169 it takes three times as long


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
    # An axis that comes and goes would keep XLA from giving the filters' memory to their gradient.
    return _filter(taps, softmax, padded, filters[:, :, :, 0] if filters.shape[3] == 1 else filters)


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
    """The output [N, H', W', C] of filters [N, H', W', (G,) K]; statistics say that they are logits."""
    return sum(_add_columns(padded, filters, statistics, taps))


def _add_columns(
    padded: Array, filters: Array, statistics: Statistics | None, taps: _Taps, term: Callable = jnp.multiply
) -> list[Array]:
    """What each row of taps adds to it, term(weight, image) by term.

    One sum of 17x17 terms would take three times as long as 17 of 17.
    """
    rows = _shifted_rows(padded, filters.shape[1:3], taps)
    # The transpose of a split is one concatenation; that of indexing would be a padded sum for every tap.
    split = lax.split(filters, [1] * sum(map(len, rows)), axis=filters.ndim - 1)
    weights = [weight.squeeze(-1) for weight in split]
    if statistics:
        weights = [_softmax(weight, statistics) for weight in weights]
    weights = [weight.reshape(*weight.shape[:3], -1) for weight in weights]
    share = padded.shape[3] // weights[0].shape[3]
    weights = [jnp.repeat(weight, share, axis=3) for weight in weights]
    kw = taps.kernel_size[1]
    return [sum(term(weights[i * kw + j], image) for j, image in enumerate(row)) for i, row in enumerate(rows)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _filter(taps: _Taps, softmax: bool, padded: Array, filters: Array) -> Array:
    return _forward(taps, softmax, padded, filters)[0]


def _forward(taps: _Taps, softmax: bool, padded: Array, filters: Array) -> tuple[Array, tuple]:
    if not softmax:
        return _add_taps(padded, filters, None, taps), (padded, filters, None, None)
    one_channel = padded.shape[3] == math.prod(filters.shape[3:-1])
    filter_on_cpu = _filter_in_one_sum if one_channel else _filter_by_exponentials
    on_cpu, elsewhere = (functools.partial(f, taps=taps) for f in (filter_on_cpu, _filter_after_statistics))
    output, statistics = lax.platform_dependent(padded, filters.astype(padded.dtype), cpu=on_cpu, default=elsewhere)
    return output, (padded, filters, statistics, output)


def _filter_after_statistics(padded: Array, logits: Array, taps: _Taps) -> tuple[Array, Statistics]:
    statistics = _statistics(logits)
    return _add_taps(padded, logits, statistics, taps), statistics


def _filter_in_one_sum(padded: Array, logits: Array, taps: _Taps) -> tuple[Array, Statistics]:
    """The same with each exponential computed once: numerator and denominator as the two parts of one complex sum.

    For one channel to a filter: several would each compute them again. The division of complex numbers mixes the parts
    of those that are not finite: such a pixel spoils the statistics of the filters that read it.
    """
    largest = jnp.max(logits, axis=-1)
    statistics = largest, jnp.zeros_like(largest)
    rows = _add_columns(padded, logits, statistics, taps, lambda weight, image: lax.complex(weight * image, weight))
    at_once = max(1, _TERMS // taps.kernel_size[1])
    sums = [sum(rows[i : i + at_once]) for i in range(0, len(rows), at_once)]
    # XLA repeats additions for each that uses their sum, but not a division, which it thinks expensive.
    one = lax.optimization_barrier(jnp.ones((), sums[0].dtype))
    sums = [part / one for part in sums]
    numerator, denominator = sum(part.real for part in sums), sum(part.imag for part in sums)
    return numerator / denominator, (largest, jnp.log(denominator).reshape(largest.shape))


def _filter_by_exponentials(padded: Array, logits: Array, taps: _Taps) -> tuple[Array, Statistics]:
    """The same with each exponential computed once, and written: for several channels to a filter, the fastest.

    XLA would make something slow of a plain sum for the denominator, together with its use.
    """
    largest = jnp.max(logits, axis=-1)
    exponentials = jnp.exp(logits - largest[..., None])
    numerator, denominator = (_add_taps(x, exponentials, None, taps) for x in (padded, jnp.ones_like(padded)))
    return numerator / denominator, (largest, jnp.log(denominator.reshape(*largest.shape, -1)[..., 0]))


def _statistics(logits: Array) -> Statistics:
    """Of each filter, [N, H', W', (G)]: the largest logit, and the logarithm of the sum of exp(logit - largest).

    Their sum would round away what distinguishes large logits.
    """
    largest = jnp.max(logits, axis=-1)
    return largest, jnp.log(jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1))


def _softmax(logits: Array, statistics: Statistics) -> Array:
    """Filters of logits; all [N, H', W', (G)], or with an axis for the taps."""
    largest, logarithm = statistics
    return jnp.exp(logits - largest - logarithm)


def _backward(taps: _Taps, softmax: bool, residuals: tuple, gradient: Array) -> tuple[Array, Array]:
    padded, filters, statistics, output = residuals
    gradient = gradient.reshape(*filters.shape[:-1], -1)
    weights = _softmax(filters, jax.tree.map(lambda row: row[..., None], statistics)) if softmax else filters
    of_images = _add_taps_transposed(weights, gradient, padded.shape, taps)
    pixels = padded.reshape(*padded.shape[:3], *filters.shape[3:-1], -1)
    windows = (_windows(pixels[..., channel], filters.shape[1:3], taps) for channel in range(gradient.shape[-1]))
    if softmax:
        # What all taps together would change, weighted by the filters, is what the output itself would.
        means = output.reshape(gradient.shape)
        windows = (window - means[..., channel, None] for channel, window in enumerate(windows))
    of_filters = sum(gradient[..., channel, None] * window for channel, window in enumerate(windows))
    return of_images, (weights * of_filters if softmax else of_filters).astype(filters.dtype)


_filter.defvjp(_forward, _backward)


def _windows(images: Array, size: Pair, taps: _Taps) -> Array:
    """What every tap reads: [N, H', W', (G,) K] of images [N, Hp, Wp, (G)]; to be fused with what follows."""
    # A TPU would gather one window after the other.
    gathered, stacked = (functools.partial(f, size=size, taps=taps) for f in (_gathered_windows, _stacked_windows))
    return lax.platform_dependent(images, tpu=stacked, default=gathered)


def _stacked_windows(images: Array, size: Pair, taps: _Taps) -> Array:
    return jnp.stack(list(itertools.chain.from_iterable(_shifted_rows(images, size, taps))), axis=-1)


def _gathered_windows(images: Array, size: Pair, taps: _Taps) -> Array:
    """By one gather.

    With a dilation of d, pixel d q + r is the q-th of every d-th pixels, counted from r: neighbours, as windows need.
    """
    (rows, columns), (tall, wide), (kh, kw) = taps.strides, taps.dilation, taps.kernel_size
    batch, height, width, *groups = images.shape
    images = lax.pad(
        images,
        jnp.zeros((), images.dtype),
        ((0, 0, 0), (0, -height % tall, 0), (0, -width % wide, 0), *[(0, 0, 0)] * len(groups)),
    )
    images = images.reshape(batch, -(-height // tall), tall, -(-width // wide), wide, -1)
    images = jnp.moveaxis(images, -1, 1)  # Moved after the gather, XLA would write the windows, twice.
    y, x = rows * jnp.arange(size[0])[:, None], columns * jnp.arange(size[1])[None, :]
    starts = jnp.stack(jnp.broadcast_arrays(y // tall, y % tall, x // wide, x % wide), axis=-1)
    windows = lax.gather(
        images,
        starts,
        lax.GatherDimensionNumbers(offset_dims=(0, 3, 4, 5), collapsed_slice_dims=(3, 5), start_index_map=(2, 3, 4, 5)),
        (batch, images.shape[1], kh, 1, kw, 1),
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )  # [N, H', W', G, kh, kw]
    return windows.reshape(batch, *size, *groups, kh * kw)


def _add_taps_transposed(weights: Array, gradient: Array, shape: tuple[int, ...], taps: _Taps) -> Array:
    """Gradient of the padded images, of filters [N, H', W', (G,) K] and the output's gradient [N, H', W', (G,) C/G]."""
    kh, kw = taps.kernel_size
    gradient = gradient[..., None, :]
    # Strided slices: a reshape to (kh, kw) would keep XLA from giving the weights' memory to the filters' gradient.
    columns = [lax.slice_in_dim(weights, j, None, kw, axis=weights.ndim - 1)[..., None] * gradient for j in range(kw)]
    rows = _add_spread(columns, 2, shape[2], taps.strides[1], taps.dilation[1])  # [N, H', Wp, (G,) kh, C/G]
    rows = lax.optimization_barrier(rows)  # else they are added up again for every row of the image
    rows = [rows[..., i, :] for i in range(kh)]
    return _add_spread(rows, 1, shape[1], taps.strides[0], taps.dilation[0]).reshape(shape)


def _add_spread(parts: list[Array], axis: int, size: int, stride: int, dilation: int) -> Array:
    """Adds up parts along an axis of `size` places: place x of the j-th part goes to x * stride + j * dilation."""
    places = -(-size // stride)
    starts = [divmod(j * dilation, stride) for j in range(len(parts))]
    phases = []
    for phase in range(stride):
        of_phase = [(start, part) for (start, rest), part in zip(starts, parts, strict=True) if rest == phase]
        phases.append(_add_shifted(of_phase, axis, places) if of_phase else jnp.zeros_like(phases[0]))
    total = jnp.stack(phases, axis + 1)
    total = total.reshape(*total.shape[:axis], places * stride, *total.shape[axis + 2 :])
    return lax.slice_in_dim(total, 0, size, axis=axis)


def _add_shifted(parts: list[tuple[int, Array]], axis: int, size: int) -> Array:
    """Adds up parts along an axis of `size` places, each from its own first place on.

    Where all overlap, no place has to be tested for which do.
    """
    length = parts[0][1].shape[axis]
    firsts = [first for first, _ in parts]
    inside = (max(firsts), min(firsts) + length)
    bounds = (0, *inside, size) if inside[0] < inside[1] else (0, size)

    def between(start: int, stop: int) -> Array:
        like = parts[0][1]
        total = jnp.zeros_like(like, shape=(*like.shape[:axis], stop - start, *like.shape[axis + 1 :]))
        for first, part in parts:
            low, high = max(start, first), min(stop, first + length)
            if low < high:
                margins = [(0, 0, 0)] * part.ndim
                margins[axis] = (low - start, stop - high, 0)
                overlap = lax.slice_in_dim(part, low - first, high - first, axis=axis)
                total += lax.pad(overlap, jnp.zeros((), part.dtype), margins)
        return total

    return jnp.concatenate([between(*pair) for pair in itertools.pairwise(bounds) if pair[0] < pair[1]], axis)
