"""Dynamic local filtering by adding up shifted images, each weighted with one tap of the filters."""

import jax
import jax.numpy as jnp


def filter_shift(padded, filters, kernel_size, strides, dilation) -> jax.Array:
    """Adds tap by tap, without a tensor of neighbourhoods; full banks row of taps by row of taps.

    Args:
        padded: [N, Hp, Wp, C], in the dtype to accumulate in; the window of the output position (y, x) starts at
            (y * stride, x * stride).
        filters: [N, H', W', G, K] or [N, H', W', K, C, F].
        kernel_size: (kh, kw), in taps.
        strides: (vertical, horizontal), in pixels.
        dilation: (vertical, horizontal), in pixels.

    Returns:
        [N, H', W', C], or [N, H', W', F] for full banks, in the dtype of `padded`.

    Source: De Brabandere et al., NIPS 2016, Section 3.2, Eq. 2.
    """
    shifted_rows = _shifted_rows(padded, filters.shape[1:3], kernel_size, strides, dilation)
    if filters.ndim == 6:
        return _add_rows(shifted_rows, filters)
    return _add_taps(shifted_rows, filters)


def _shifted_rows(padded, size, kernel_size, strides, dilation):
    """Returns, for every row of taps, the list of the images that its taps weigh.

    Cutting rows first and columns second halves the time of the gradient and of its compilation.
    """
    height, width = size

    def cut(array, tap, length, axis):
        start, stride = tap * dilation[axis - 1], strides[axis - 1]
        return jax.lax.slice_in_dim(array, start, start + (length - 1) * stride + 1, stride, axis)

    rows = [cut(padded, i, height, axis=1) for i in range(kernel_size[0])]
    return [[cut(row, j, width, axis=2) for j in range(kernel_size[1])] for row in rows]


def _add_taps(shifted_rows, filters):
    # The transpose of a split is one concatenation; that of indexing would be a padded sum for every tap.
    weights = jax.lax.split(filters, [1] * filters.shape[4], axis=4)
    images = [image for row in shifted_rows for image in row]
    batch, height, width, channels = images[0].shape
    grouped = (batch, height, width, filters.shape[3], channels // filters.shape[3])
    output = sum(weight * image.reshape(grouped) for weight, image in zip(weights, images, strict=True))
    return output.reshape(batch, height, width, channels)


def _add_rows(shifted_rows, filters):
    banks = jax.lax.split(filters, [len(row) for row in shifted_rows], axis=3)
    return sum(
        jnp.einsum("nhwkc,nhwkcf->nhwf", jnp.stack(row, axis=3), bank)
        for row, bank in zip(shifted_rows, banks, strict=True)
    )
