"""Dynamic convolution: every sample is convolved with a filter bank of its own (Eq. 1)."""

import numbers
import operator

import jax
import jax.numpy as jnp

from dfn_jax.ops.arguments import at_least_float32, floating_array, positive_pair


def dynamic_conv(images, filters, *, strides=1, dilation=1, padding="SAME", groups=1) -> jax.Array:
    """Convolves every image with its own filter bank (cross-correlation, no flip).

    One batched matrix product of the filters with the image's kw column shifts, whose kh row shifts are then added:
    on two CPU cores forward and both gradients took 40, 3.3 and 4.3 ms (fastest of interleaved runs) at (N=64, 64x64,
    C=F=1, 9x9), (16, 32x32, 3, 5x5) and (8, 32x32, 16, 3x3), against 146, 1085 and 301 ms for `vmap` of
    `conv_general_dilated`, 705, 203 and 104 ms for `conv_general_dilated_patches` and `einsum`, and 240, 36 and 8 ms
    for adding tap by tap.

    Args:
        images: [N, H, W, C], floating-point.
        filters: [N, kh, kw, C / groups, F], floating-point. With groups, the first F / groups filters read the first
            C / groups channels, and so on.
        strides: int or (vertical, horizontal), in pixels. Vertical ones save no multiplications.
        dilation: int or (vertical, horizontal), distance between neighbouring taps in pixels.
        padding: 'SAME' (zeros, H' = ceil(H / stride); as in `jax.lax`, the odd pixel goes below and to the right, so
            that with strides or an even number of taps windows lie elsewhere than those of `dynamic_local_filter`),
            'VALID' (none), or ((top, bottom), (left, right)) rows and columns of zeros.
        groups: int, divides C and F.

    Returns:
        [N, H', W', F] in the images' dtype, accumulated in float32 (float64 if an argument is).

    Raises:
        ValueError: If a shape, dtype or option is not as above, or if no window fits into the padded image.

    Source: De Brabandere et al., Dynamic Filter Networks, NIPS 2016, Section 3.2, Eq. 1.
    """
    images, filters = floating_array(images, "images"), floating_array(filters, "filters")
    _check_images(images)
    if not isinstance(groups, numbers.Integral) or groups < 1 or images.shape[3] % groups:
        raise ValueError(f"groups: got {groups!r}, wanted a positive int that divides C = {images.shape[3]}.")
    wanted = (images.shape[0], images.shape[3] // groups)
    if filters.ndim != 5 or (filters.shape[0], filters.shape[3]) != wanted or filters.shape[4] % groups:
        raise ValueError(
            f"filters: got shape {filters.shape}, wanted [N = {wanted[0]}, kh, kw, C / groups = {wanted[1]}, F] "
            f"with F divisible by groups = {groups}."
        )
    strides, dilation = positive_pair(strides, "strides"), positive_pair(dilation, "dilation")
    padded, (height, width) = _pad(images, filters.shape[1:3], strides, dilation, padding)

    batch, kh, kw, channels, features = filters.shape
    planes = padded.transpose(0, 3, 1, 2).reshape(batch, groups, channels, *padded.shape[1:3])
    columns = jnp.stack([_shift(planes, j * dilation[1], width, strides[1], axis=4) for j in range(kw)], axis=1)
    rows = jnp.einsum(
        "nijcgf,njgchw->ngifhw",
        filters.reshape(batch, kh, kw, channels, groups, features // groups),
        columns,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=at_least_float32(images, filters),
    )
    output = sum(_shift(rows[:, :, i], i * dilation[0], height, strides[0], axis=3) for i in range(kh))
    return output.reshape(batch, features, height, width).transpose(0, 2, 3, 1).astype(images.dtype)


def dynamic_separable_conv(images, vertical, horizontal, *, padding="SAME") -> jax.Array:
    """Filters every image with its own vertical and then its own horizontal filter, all channels alike.

    It equals `dynamic_conv`, channel by channel, with the outer product of the two.

    Args:
        images: [N, H, W, C], floating-point.
        vertical: [N, kh], floating-point.
        horizontal: [N, kw], floating-point.
        padding: As in `dynamic_conv`.

    Returns:
        [N, H', W', C] in the images' dtype, accumulated in float32 (float64 if an argument is).

    Raises:
        ValueError: If a shape, dtype or option is not as above, or if no window fits into the padded image.

    Source: De Brabandere et al., NIPS 2016, Section 3.2, after Klein, Wolf and Afek, A Dynamic Convolutional Layer for
        Short Range Weather Prediction, CVPR 2015.
    """
    images = floating_array(images, "images")
    vertical, horizontal = floating_array(vertical, "vertical"), floating_array(horizontal, "horizontal")
    _check_images(images)
    for name, filters in (("vertical", vertical), ("horizontal", horizontal)):
        if filters.ndim != 2 or filters.shape[0] != images.shape[0]:
            raise ValueError(f"{name}: got shape {filters.shape}, wanted [N = {images.shape[0]}, taps].")
    kernel_size = (vertical.shape[1], horizontal.shape[1])
    padded, (height, width) = _pad(images, kernel_size, (1, 1), (1, 1), padding)

    output = padded.astype(at_least_float32(images, vertical, horizontal))
    for filters, size, axis in ((vertical, height, 1), (horizontal, width, 2)):
        taps = filters.T[:, :, None, None, None]
        output = sum(tap * _shift(output, k, size, 1, axis) for k, tap in enumerate(taps))
    return output.astype(images.dtype)


def _check_images(images):
    if images.ndim != 4:
        raise ValueError(f"images: got shape {images.shape}, wanted [N, H, W, C].")


def _pad(images, kernel_size, strides, dilation, padding):
    """Returns the zero-padded images and the height and width of the output."""
    if min(kernel_size) < 1:
        raise ValueError(f"filters: got a {kernel_size[0]}x{kernel_size[1]} kernel, wanted at least one tap.")
    window = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    size = images.shape[1:3]
    named = isinstance(padding, str) and padding in ("SAME", "VALID")
    try:
        margins = jax.lax.padtype_to_pads(size, window, strides, padding) if named else padding
        (top, bottom), (left, right) = [[operator.index(margin) for margin in side] for side in margins]
    except (TypeError, ValueError):
        top = bottom = left = right = -1
    if min(top, bottom, left, right) < 0:
        raise ValueError(f"padding: got {padding!r}, wanted 'SAME', 'VALID' or ((top, bottom), (left, right)).")
    padded = jnp.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))
    output = [(p - w) // s + 1 for p, w, s in zip(padded.shape[1:3], window, strides, strict=True)]
    if min(output) < 1:
        raise ValueError(
            f"images: got {padded.shape[1]}x{padded.shape[2]} pixels after padding, "
            f"wanted at least the filters' extent of {window[0]}x{window[1]}."
        )
    return padded, output


def _shift(array, start, size, stride, axis):
    return jax.lax.slice_in_dim(array, start, start + (size - 1) * stride + 1, stride, axis)
