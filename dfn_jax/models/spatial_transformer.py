"""The spatial transformer (Section 3.3) on stereo prediction: one affine map for the whole image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.scipy.ndimage import map_coordinates

from dfn_jax.models.generators import pooled, stereo_encoder
from dfn_jax.ops.arguments import at_least_float32


class Warped(NamedTuple):
    """What a spatial transformer gives.

    Attributes:
        prediction: [N, H, W, C] float32.
        displacement: [N, H, W, 2] float32, (horizontal, vertical) in pixels from each pixel to where it was fetched.
    """

    prediction: Array
    displacement: Array


class SpatialTransformer(nn.Module):
    """Predicts the right view as an affine map of the left one that is generated from the left one.

    The localisation network is the encoder of the filter-generating network and two dense layers, the last of which
    begins at the identity.

    Attributes:
        position_bias: see `StereoGenerator`.
        dtype: type of the localisation network's computation.
    """

    position_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, left: Array) -> Warped:
        """Predicts the right view from left [N, H, W, C] float32 in [0, 1].

        Source:
            Jaderberg et al., Spatial Transformer Networks, NIPS 2015: affine grid, Eq. 1; bilinear sampler, Eq. 5.
        """
        samples, height, width, _ = left.shape
        code = stereo_encoder(self.position_bias, self.dtype)(left)
        hidden = nn.leaky_relu(nn.Dense(128, kernel_init=nn.initializers.he_uniform(), dtype=self.dtype)(pooled(code)))
        change = nn.Dense(6, kernel_init=nn.initializers.zeros, dtype=at_least_float32(self.dtype))(hidden)
        change = change.reshape(samples, 2, 3)  # theta without the identity
        rows, columns = jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width)
        y, x = jnp.meshgrid(rows, columns, indexing="ij")
        grid = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)
        moved = jnp.einsum("nij,hwj->nhwi", change, grid, precision="highest")
        displacement = moved * jnp.array([width - 1, height - 1]) / 2
        return Warped(_fetch(left, displacement), displacement)


def _fetch(images: Array, displacement: Array) -> Array:
    """Images [N, H, W, C] at each pixel plus its displacement [N, H, W, 2], bilinearly; beyond the edge, the edge."""
    height, width = images.shape[1:3]
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")

    def fetch_one(plane: Array, moved: Array) -> Array:
        return map_coordinates(plane, [y + moved[..., 1], x + moved[..., 0]], order=1, mode="nearest")

    over_channels = jax.vmap(fetch_one, in_axes=(2, None), out_axes=2)
    return jax.vmap(over_channels)(images, displacement)
