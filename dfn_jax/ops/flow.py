"""What filters tell: the displacement they apply, and how sure they are of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from dfn_jax.ops.arguments import at_least_float32, floating_array, positive_pair


def tap_offsets(kernel_size, *, dilation=1) -> np.ndarray:
    """Lists how far every tap lies from the centre tap (kh // 2, kw // 2), as in `dynamic_local_filter`.

    Args:
        kernel_size: int or (kh, kw), in taps.
        dilation: int or (vertical, horizontal), distance between neighbouring taps in pixels.

    Returns:
        [K, 2] float32, (x to the right, y down) in pixels, taps in row-major order.

    Raises:
        ValueError: If an option is no positive int or pair of them.

    Source: De Brabandere et al., NIPS 2016, Section 3.2, Eq. 2.
    """
    (kh, kw), (dy, dx) = positive_pair(kernel_size, "kernel_size"), positive_pair(dilation, "dilation")
    y, x = np.mgrid[:kh, :kw]
    return np.stack([(x - kw // 2) * dx, (y - kh // 2) * dy], axis=-1).reshape(kh * kw, 2).astype(np.float32)


def expected_displacement(filters, kernel_size, *, dilation=1) -> jax.Array:
    """Weighs every tap's offset with the tap: where, on average, a filter with sum one takes its value from.

    Args:
        filters: [..., K], floating-point, non-negative with sum one over the last axis.
        kernel_size: int or (kh, kw), in taps, K = kh * kw.
        dilation: int or (vertical, horizontal), distance between neighbouring taps in pixels.

    Returns:
        [..., 2] float32 (float64 if `filters` is), (x to the right, y down) in pixels.

    Raises:
        ValueError: If a shape, dtype or option is not as above.

    Source: De Brabandere et al., NIPS 2016, Section 4, flow and disparity from filters.
    """
    filters, offsets = _filters(filters), tap_offsets(kernel_size, dilation=dilation)
    if filters.shape[-1] != len(offsets):
        raise ValueError(f"filters: got {filters.shape[-1]} taps, wanted {len(offsets)} for kernel_size {kernel_size}.")
    return jnp.matmul(filters, offsets, precision=jax.lax.Precision.HIGHEST)


def filter_entropy(filters) -> jax.Array:
    """Measures the Shannon entropy of every filter, taken as a distribution over its taps.

    Args:
        filters: [..., K], floating-point, non-negative with sum one over the last axis.

    Returns:
        [...] float32 (float64 if `filters` is), in nats; 0 log 0 counts as 0, and its gradient as 0.

    Raises:
        ValueError: If `filters` is no floating-point array with at least one tap on its last axis.

    Source: Shannon, A Mathematical Theory of Communication, 1948.
    """
    filters = _filters(filters)
    filters = filters.astype(at_least_float32(filters))
    return -jnp.sum(filters * jnp.log(jnp.where(filters > 0, filters, 1)), axis=-1)


def filter_confidence(filters) -> jax.Array:
    """Measures how sure a filter is of where it takes its value from: 1 - entropy / log K.

    Args:
        filters: [..., K], floating-point, non-negative with sum one over the last axis.

    Returns:
        [...] float32 (float64 if `filters` is), in [0, 1]: 1 for a filter of one tap, 0 for a uniform one; 1 if K = 1.

    Raises:
        ValueError: If `filters` is no floating-point array with at least one tap on its last axis.

    Source: Normalised entropy (efficiency); Shannon, 1948.
    """
    filters = _filters(filters)
    return jnp.clip(1 - filter_entropy(filters) / math.log(max(filters.shape[-1], 2)), 0, 1)


def _filters(filters):
    filters = floating_array(filters, "filters")
    if filters.ndim < 1 or filters.shape[-1] < 1:
        raise ValueError(f"filters: got shape {filters.shape}, wanted [..., K] with at least one tap.")
    return filters
