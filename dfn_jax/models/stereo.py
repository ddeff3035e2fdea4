"""Stereo prediction (Section 4.3): from the left view alone, the horizontal filters that make the right view of it."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dfn_jax import ops
from dfn_jax.models.generators import StereoGenerator


class Filtered(NamedTuple):
    """What a dynamic filter network gives: the filtered image and the filters that made it.

    Attributes:
        prediction: [N, H, W, C] float32.
        filters: [N, H, W, K] float32, each summing to one.
        bias: [N, H, W, C] float32, added to the image before filtering.
    """

    prediction: Array
    filters: Array
    bias: Array


class StereoDFN(nn.Module):
    """The dynamic filter network for stereo prediction; 464,494 parameters for grey 64x64 images and 13 taps.

    Each pixel of the right view is a softmaxed horizontal filter on the left view, to which a dynamic bias is added
    first. The weight of a filter sits at the disparity: tap `taps // 2 + d` fetches the pixel d to the right.

    Attributes:
        taps: width of the horizontal filters in pixels, odd.
        position_bias: see `StereoGenerator`.
        dtype: type of the generator's computation; softmax and filtering are float32.
    """

    taps: int = 13
    position_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, left: Array) -> Filtered:
        """Predicts the right view from left [N, H, W, C] float32 in [0, 1].

        Returns:
            The prediction, the filters [N, H, W, taps] and the dynamic bias [N, H, W, C].
        """
        theta = StereoGenerator(self.taps + left.shape[-1], self.position_bias, self.dtype)(left)
        logits, bias = theta[..., : self.taps], theta[..., self.taps :]
        biased = ops.add_dynamic_bias(left, bias)
        prediction = ops.dynamic_local_filter(biased, logits, kernel_size=(1, self.taps), normalize="softmax")
        return Filtered(prediction, ops.softmax_filters(logits), bias)
