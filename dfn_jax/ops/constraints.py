"""Constraints on generated filters: softmax, separability, dynamic bias, smoothness (Section 3.2)."""

import jax
import jax.numpy as jnp

from dfn_jax.ops.arguments import at_least_float32, floating_array


def softmax_filters(logits) -> jax.Array:
    """Makes every filter positive with sum one, by a softmax over its taps.

    Args:
        logits: [..., K], floating-point. Not full banks, [N, H, W, K, C, F] or [N, kh, kw, C, F], whose last axis is
            F: make the softmax before you reshape to them.

    Returns:
        [..., K] in the dtype of `logits`, computed in float32 (float64 if `logits` is).

    Raises:
        ValueError: If `logits` is no floating-point array with a last axis.

    Source: De Brabandere et al., NIPS 2016, Section 3.2.
    """
    logits = _filters(logits, "logits")
    return jax.nn.softmax(logits.astype(at_least_float32(logits)), axis=-1).astype(logits.dtype)


def separable_filters(vertical, horizontal) -> jax.Array:
    """Forms filters as the outer product of a vertical and a horizontal one.

    Args:
        vertical: [..., kh], floating-point.
        horizontal: [..., kw], floating-point, with the same leading axes.

    Returns:
        [..., kh * kw], taps in row-major order, in the promoted dtype.

    Raises:
        ValueError: If the leading axes differ, or if an argument is no floating-point array with a last axis.

    Source: De Brabandere et al., NIPS 2016, Section 3.2.
    """
    vertical, horizontal = _filters(vertical, "vertical"), _filters(horizontal, "horizontal")
    if vertical.shape[:-1] != horizontal.shape[:-1]:
        raise ValueError(f"horizontal: got shape {horizontal.shape}, wanted {[*vertical.shape[:-1], 'kw']}.")
    product = vertical[..., :, None] * horizontal[..., None, :]
    return product.reshape(*vertical.shape[:-1], vertical.shape[-1] * horizontal.shape[-1])


def add_dynamic_bias(images, bias) -> jax.Array:
    """Adds a generated bias to every pixel; call it on the images before the filtering, or on the output after.

    Args:
        images: [N, H, W, C], floating-point.
        bias: [N, H, W, 1], shared by the channels, or [N, H, W, C]; floating-point, in the images' unit.

    Returns:
        [N, H, W, C] in the images' dtype.

    Raises:
        ValueError: If a shape or dtype is not as above.

    Source: De Brabandere et al., NIPS 2016, Section 3.2, dynamic pixel-wise bias.
    """
    images, bias = floating_array(images, "images"), floating_array(bias, "bias")
    if images.ndim != 4:
        raise ValueError(f"images: got shape {images.shape}, wanted [N, H, W, C].")
    if bias.shape not in (images.shape, (*images.shape[:3], 1)):
        raise ValueError(f"bias: got shape {bias.shape}, wanted {(*images.shape[:3], 1)} or {images.shape}.")
    return (images + bias).astype(images.dtype)


def smoothness_penalty(filters) -> jax.Array:
    """Measures how much neighbouring filters differ: squared difference, summed over taps, mean over all neighbours.

    Args:
        filters: [N, H, W, ...], floating-point; every axis after the third belongs to the filter. Filters with an
            axis of time, [N, T, H, W, K] as of a rollout, go by `jax.vmap(smoothness_penalty, in_axes=1)`.

    Returns:
        Scalar, float32 (float64 if `filters` is): the mean over all horizontal and vertical pairs of neighbours of the
        batch; 0 where there is none, as in images of one pixel.

    Raises:
        ValueError: If `filters` has fewer than four axes or is not floating-point.

    Source: De Brabandere et al., NIPS 2016, Section 3.2, smoothness penalty; the norm is ours, the paper names none.
    """
    filters = floating_array(filters, "filters")
    if filters.ndim < 4:
        raise ValueError(f"filters: got shape {filters.shape}, wanted [N, H, W, ..., K].")
    filters = filters.astype(at_least_float32(filters))
    batch, height, width = filters.shape[:3]
    pairs = batch * ((height - 1) * width + height * (width - 1))
    squares = jnp.sum(jnp.diff(filters, axis=1) ** 2) + jnp.sum(jnp.diff(filters, axis=2) ** 2)
    return squares / max(pairs, 1)


def _filters(array, name):
    array = floating_array(array, name)
    if array.ndim < 1:
        raise ValueError(f"{name}: got a scalar, wanted taps on the last axis.")
    return array
