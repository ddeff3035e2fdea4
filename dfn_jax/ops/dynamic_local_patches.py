"""Dynamic local filtering through a tensor that holds the neighbourhood of every position."""

import jax
import jax.numpy as jnp


def filter_patches(padded, filters, kernel_size, strides, dilation) -> jax.Array:
    """Gathers all neighbourhoods, then multiplies them with the filters.

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
    batch, height, width = filters.shape[:3]
    channels = padded.shape[3]
    exact = jax.lax.Precision.HIGHEST
    patches = jax.lax.conv_general_dilated_patches(
        padded,
        kernel_size,
        strides,
        "VALID",
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=exact,  # gathering must not round
    )
    if filters.ndim == 6:
        patches = patches.reshape(batch, height, width, channels, -1)
        return jnp.einsum("nhwck,nhwkcf->nhwf", patches, filters, precision=exact)
    groups, taps = filters.shape[3:]
    patches = patches.reshape(batch, height, width, groups, channels // groups, taps)
    output = jnp.einsum("nhwgck,nhwgk->nhwgc", patches, filters, precision=exact)
    return output.reshape(batch, height, width, channels)
