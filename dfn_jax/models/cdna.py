"""The filters of Finn et al. (2016) as configurations of the operations here: DNA, one per pixel, and CDNA, blended.

Both make the kernels positive and sum to one by a rectifier and a division where the dynamic filter network has a
softmax. The filter-generating network is the same, so that the filters alone are compared.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dfn_jax import ops
from dfn_jax.models.generators import pooled
from dfn_jax.models.video import Predicted, VideoDFN
from dfn_jax.ops.arguments import at_least_float32

SMALLEST = 1e-12  # tap before the division, so that a kernel whose taps are all negative becomes the mean


def rectified_kernels(values: Array) -> Array:
    """Kernels that are positive and sum to one.

    Args:
        values: [..., K] float32.

    Returns:
        [..., K], relu(values) divided by its sum.

    Source:
        Finn, Goodfellow, Levine, Unsupervised Learning for Physical Interaction through Video Prediction, NIPS 2016.
    """
    positive = nn.relu(values - SMALLEST) + SMALLEST
    return positive / positive.sum(axis=-1, keepdims=True)


class VideoDNA(VideoDFN):
    """Dynamic neural advection: one rectified kernel per pixel on the newest frame; see `VideoDFN` for the options."""

    def filter_frame(self, frame: Array, values: Array, hidden: Array) -> Predicted:
        """Filters a frame [N, H, W, C] by kernels made of values [N, H, W, K]."""
        filters = rectified_kernels(values)
        return Predicted(ops.dynamic_local_filter(frame, filters, kernel_size=self.kernel_size), filters)


class VideoCDNA(VideoDFN):
    """Convolutional dynamic neural advection: a few kernels per sample, blended by masks; see `VideoDFN`.

    Attributes:
        masks: kernels per sample; one more mask keeps pixels of the newest frame as they are.
    """

    masks: int = 10

    def setup(self):
        """Builds the generator of the masks, and one dense layer for the kernels."""
        super().setup()
        self.kernels = nn.Dense(self.masks * self.kernel_size**2, dtype=at_least_float32(self.dtype))

    def filter_values(self) -> int:
        """The masks alone are generated per pixel."""
        return self.masks + 1

    def filter_frame(self, frame: Array, values: Array, hidden: Array) -> Predicted:
        """Filters a frame [N, H, W, C] by each kernel and blends the results by masks made of values [N, H, W, M + 1].

        Returns:
            The frame, and the filters that the blend amounts to at each pixel.
        """
        samples, channels, taps = frame.shape[0], frame.shape[3], self.kernel_size**2
        kernels = rectified_kernels(self.kernels(pooled(hidden)).reshape(samples, self.masks, taps))
        banks = kernels.transpose(0, 2, 1).reshape(samples, self.kernel_size, self.kernel_size, 1, self.masks)
        moved = ops.dynamic_conv(frame, jnp.tile(banks, channels), groups=channels).reshape(*frame.shape, self.masks)
        masks = ops.softmax_filters(values)
        still = jnp.zeros((samples, 1, taps)).at[:, :, taps // 2].set(1)
        images, kernels = jnp.concatenate([frame[..., None], moved], axis=-1), jnp.concatenate([still, kernels], axis=1)
        blended = jnp.einsum("nhwm,nhwcm->nhwc", masks, images, precision="highest")
        return Predicted(blended, jnp.einsum("nhwm,nmk->nhwk", masks, kernels, precision="highest"))
