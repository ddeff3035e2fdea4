"""Steerable filters (Section 4.1): an angle in, the oriented filter out, learned from images and filtered images."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dfn_jax import ops
from dfn_jax.models.generators import MLP


class Steered(NamedTuple):
    """The filtered images [N, H, W, C] and the filters [N, K] that made them."""

    prediction: Array
    filters: Array


class SteerableDFN(nn.Module):
    """The dynamic filter network for steerable filters; 18,897 parameters with 9x9 taps.

    The angle enters in half turns from -1 to 1. Biases begin at zero, so every kink of the first layer begins at zero
    too: in radians from 0 to 2 pi it takes thousands of steps to move them to where they are needed.

    Attributes:
        kernel_size: side of the square filters in pixels, odd.
        dtype: type of the generator's computation; the filtering is float32.
    """

    kernel_size: int = 9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array, angles: Array) -> Steered:
        """Filters each of images [N, H, W, C] at its own angle [N], in radians."""
        size, channels = self.kernel_size, images.shape[-1]
        filters = MLP((64, 128, size * size), self.dtype)(angles[:, None] / jnp.pi - 1.0)
        bank = filters.reshape(-1, size, size, 1, 1).repeat(channels, axis=-1)
        return Steered(ops.dynamic_conv(images, bank, groups=channels), filters)
