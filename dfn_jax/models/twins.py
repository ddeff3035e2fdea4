"""What the dynamic filter networks are measured against: the same generators without the filter."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dfn_jax.models.generators import Conv, StereoGenerator
from dfn_jax.models.video import Predicted, VideoDFN
from dfn_jax.ops.arguments import at_least_float32


class StereoTwin(nn.Module):
    """The stereo network without the filter: its generator, then one linear layer; 464,509 parameters.

    Attributes:
        taps: as in the network with the filter, so that the generators are the same.
        position_bias: see `StereoGenerator`.
        dtype: type of the computation.
    """

    taps: int = 13
    position_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, left: Array) -> Array:
        """Predicts the right view [N, H, W, C] float32 from left [N, H, W, C]."""
        channels = left.shape[-1]
        theta = StereoGenerator(self.taps + channels, self.position_bias, self.dtype)(left)
        return Conv(channels, kernel_size=1, dtype=at_least_float32(self.dtype))(theta)


class VideoTwin(VideoDFN):
    """The video network without the filter: its generator, then one linear layer; see `VideoDFN` for the options.

    637,443 parameters for Moving MNIST, 368,245 for highway driving.
    """

    def setup(self):
        """Builds the same filter-generating network, and one layer after it."""
        super().setup()
        self.image = Conv(self.channels, kernel_size=1, dtype=at_least_float32(self.dtype))

    def predict(self, hidden: Array, newest: Array) -> Predicted:
        """Makes the next frame from hidden [N, h, w, encoder[-1]]; of the newest frame it takes the size alone."""
        return Predicted(self.image(self.generator.decode(hidden, newest.shape[1:3])), None)
