"""Dynamic local filtering: every position of every sample is filtered with a filter of its own (Eq. 2)."""

import functools

import jax
import jax.numpy as jnp

from dfn_jax.ops.arguments import at_least_float32, floating_array, positive_pair
from dfn_jax.ops.dynamic_local_patches import filter_patches
from dfn_jax.ops.dynamic_local_shift import FEW_CHANNELS, filter_shift

_IMPLEMENTATIONS = ("patches", "shift", "pallas")
_PAD_MODES = {"zero": "constant", "edge": "edge", "reflect": "reflect"}


def dynamic_local_filter(
    images,
    filters,
    *,
    kernel_size,
    strides=1,
    dilation=1,
    padding="zero",
    upsampling=1,
    normalize=None,
    implementation=None,
) -> jax.Array:
    """Filters the neighbourhood of every position with that position's own filter (cross-correlation, no flip).

    With N batch, H W size, C channels in, F filters out and K = kh * kw taps in row-major order, the tap (i, j) of the
    output position (y, x) reads the pixel (y * stride + (i - kh // 2) * dilation, x * stride + (j - kw // 2) *
    dilation): an even kernel reaches one tap further up and left than down and right. Under 'valid' padding it reads
    (y * stride + i * dilation, x * stride + j * dilation).

    Args:
        images: [N, H, W, C], floating-point.
        filters: Floating-point, one of
            [N, H', W', K], shared by all channels;
            [N, H', W', G, K], where G divides C and channel c belongs to group c // (C / G);
            [N, H', W', K, C, F], full banks.
        kernel_size: int or (kh, kw), in taps.
        strides: int or (vertical, horizontal), in pixels.
        dilation: int or (vertical, horizontal), distance between neighbouring taps in pixels.
        padding: What lies outside the image: 'zero', 'edge' (the nearest pixel) or 'reflect' (mirrored at the border
            pixel as often as needed, as in `numpy.pad`; a side of one pixel repeats that pixel), all three with
            H' = ceil(H / stride); or 'valid', only windows inside the image, H' = (H - dilation * (kh - 1) - 1) //
            stride + 1.
        upsampling: int s or (vertical, horizontal). The filters are s times finer than the images: H' grows s times,
            and the output position (y, x) filters the neighbourhood of (y // s, x // s). Excludes strides.
        normalize: None, or 'softmax': `filters` are logits, and a softmax over the taps makes filters of them. It is
            computed inside the filtering, and filters are not written, where at most four channels share one and the
            implementation is not 'patches'. On a CPU the gradient does write them, to where their own gradient then
            goes, and for two to four channels to a filter the exponentials take memory as well; with one channel, a
            pixel that is not finite makes NaN of the images' gradient wherever filters reach that read it. For
            pictures, `softmax_filters` gives the filters; those of full banks, `jax.nn.softmax(logits, axis=3)`.
        implementation: 'patches' (a tensor of all neighbourhoods, then `einsum`; the only one that is always
            differentiable in forward mode), 'shift' (adds tap by tap), 'pallas' (kernels for GPUs, on a CPU
            interpreted, slowly; first derivatives alone, no full banks, less than 2**31 numbers in any array), or None
            for 'shift', on a CPU the fastest in every case measured; on a GPU nothing has been measured yet. The last
            two have gradients written by hand, which hold no neighbourhoods either; with full banks, or with more than
            four channels to a filter, that of 'shift' is the compiler's.

    Returns:
        [N, H', W', C], for full banks [N, H', W', F], in the images' dtype; accumulated in float32 (float64 if an
        argument is).

    Raises:
        ValueError: If a shape, dtype or option is not as above, or if under 'valid' no window fits into the image.

    Source: De Brabandere et al., Dynamic Filter Networks, NIPS 2016, Section 3.2, Eq. 2; upsampling as in Wang et al.,
        CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019.
    """
    images, filters = floating_array(images, "images"), floating_array(filters, "filters")
    kernel_size = positive_pair(kernel_size, "kernel_size")
    strides, dilation = positive_pair(strides, "strides"), positive_pair(dilation, "dilation")
    upsampling = positive_pair(upsampling, "upsampling")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images: got shape {images.shape}, wanted [N, H, W, C], none of them 0.")
    if upsampling != (1, 1) and strides != (1, 1):
        raise ValueError(f"strides: got {strides} together with upsampling {upsampling}, wanted one of the two.")
    if padding not in (*_PAD_MODES, "valid"):
        raise ValueError(f"padding: got {padding!r}, wanted 'zero', 'edge' or 'reflect', which pad, or 'valid'.")
    if normalize not in (None, "softmax"):
        raise ValueError(f"normalize: got {normalize!r}, wanted None or 'softmax'.")
    if implementation not in (None, *_IMPLEMENTATIONS):
        raise ValueError(f"implementation: got {implementation!r}, wanted None, 'patches', 'shift' or 'pallas'.")
    output_size = _output_size(images.shape[1:3], kernel_size, strides, dilation, padding, upsampling)
    _check_filters(filters, images, kernel_size, output_size)
    if implementation == "pallas" and filters.ndim == 6:
        raise ValueError(f"filters: got full banks {filters.shape}, wanted none for 'pallas'; 'shift' takes them.")
    softmax = normalize == "softmax"
    return _filter(images, filters, kernel_size, strides, dilation, padding, upsampling, softmax, implementation)


# Compiled also where the caller is not; inlined where it is.
@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6, 7, 8), inline=True)
def _filter(images, filters, kernel_size, strides, dilation, padding, upsampling, softmax, implementation):
    padded = _pad(images.astype(at_least_float32(images, filters)), kernel_size, dilation, padding)
    for axis, factor in enumerate(upsampling, start=1):
        padded = jnp.repeat(padded, factor, axis)
    dilation = (dilation[0] * upsampling[0], dilation[1] * upsampling[1])
    filters = filters[:, :, :, None] if filters.ndim == 4 else filters
    few = filters.ndim == 5 and images.shape[3] <= FEW_CHANNELS * filters.shape[3]
    if softmax and not (few and implementation != "patches"):
        filters = jax.nn.softmax(filters.astype(padded.dtype), axis=3 if filters.ndim == 6 else 4)
        softmax = False
    if implementation == "patches":
        output = filter_patches(padded, filters, kernel_size, strides, dilation)
    elif implementation == "pallas":
        from dfn_jax.ops.dynamic_local_pallas import filter_pallas  # Loads compilers that no one else needs.

        output = filter_pallas(padded, filters, kernel_size, strides, dilation, softmax)
    else:
        output = filter_shift(padded, filters, kernel_size, strides, dilation, softmax)
    return output.astype(images.dtype)


def _output_size(size, kernel_size, strides, dilation, padding, upsampling):
    span = [d * (k - 1) if padding == "valid" else 0 for k, d in zip(kernel_size, dilation, strict=True)]
    if min(n - s for n, s in zip(size, span, strict=True)) < 1:
        raise ValueError(
            f"images: got {size[0]}x{size[1]} pixels under 'valid' padding, "
            f"wanted at least the filters' extent of {span[0] + 1}x{span[1] + 1}."
        )
    return tuple(((n - s - 1) // t + 1) * u for n, s, t, u in zip(size, span, strides, upsampling, strict=True))


def _check_filters(filters, images, kernel_size, output_size):
    taps, channels = kernel_size[0] * kernel_size[1], images.shape[3]
    grid = (images.shape[0], *output_size)
    shared = filters.ndim == 4 and filters.shape[3] == taps
    grouped = filters.ndim == 5 and filters.shape[4] == taps and filters.shape[3] and channels % filters.shape[3] == 0
    banks = filters.ndim == 6 and filters.shape[3:5] == (taps, channels) and filters.shape[5]
    if filters.shape[:3] != grid or not (shared or grouped or banks):
        n, h, w = grid
        raise ValueError(
            f"filters: got shape {filters.shape}, wanted [{n}, {h}, {w}, {taps}], [{n}, {h}, {w}, G, {taps}] with G "
            f"dividing C = {channels}, or [{n}, {h}, {w}, {taps}, {channels}, F]."
        )


def _pad(images, kernel_size, dilation, padding):
    if padding == "valid":
        return images
    margins = [(k // 2 * d, (k - 1 - k // 2) * d) for k, d in zip(kernel_size, dilation, strict=True)]
    return jnp.pad(images, ((0, 0), *margins, (0, 0)), mode=_PAD_MODES[padding])
