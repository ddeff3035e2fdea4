"""Deep stereo (Section 3.3): a selection tower weighs shifted views, as a softmaxed horizontal filter does."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dfn_jax import ops
from dfn_jax.models.generators import Conv, StereoGenerator
from dfn_jax.ops.arguments import at_least_float32


class Selected(NamedTuple):
    """What deep stereo gives.

    Attributes:
        prediction: [N, H, W, C] float32.
        filters: [N, H, W, taps] float32, each summing to one: which plane each pixel shows.
        colour: [N, H, W, C] float32, what the colour tower added to the planes, as it was selected.
    """

    prediction: Array
    filters: Array
    colour: Array


class DeepStereo(nn.Module):
    """Predicts the right view by two towers over planes, the left view shifted by each disparity.

    The colour tower paints each plane, the selection tower says with a softmax which plane each pixel shows. As all
    planes are one view, shifted, and both towers' layers on them are shared, this is `StereoDFN` (but for the planes'
    borders) with another filter-generating network, which looks at the planes too, and a bias of two layers.

    Attributes:
        taps: number of planes, odd: disparities from -(taps // 2) to taps // 2 pixels.
        position_bias: see `StereoGenerator`.
        dtype: type of the towers' computation; softmax and blending are float32.
    """

    taps: int = 13
    position_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, left: Array) -> Selected:
        """Predicts the right view from left [N, H, W, C] float32 in [0, 1].

        Source:
            Flynn et al., DeepStereo, CVPR 2016; for one view, Xie et al., Deep3D, ECCV 2016.
        """
        samples, height, width, channels = left.shape
        half = self.taps // 2
        padded = jnp.pad(left, ((0, 0), (0, 0), (half, half), (0, 0)))
        planes = jnp.stack([padded[:, :, tap : tap + width] for tap in range(self.taps)], axis=1)
        flat = planes.reshape(-1, height, width, channels)

        # Of gain 1, as in the generator, the error after 700 steps of 4 is twice as large.
        layer = functools.partial(Conv, kernel_init=nn.initializers.he_uniform(), dtype=self.dtype)
        last = functools.partial(layer, dtype=at_least_float32(self.dtype))
        seen = nn.leaky_relu(layer(16)(flat))
        seen = nn.leaky_relu(layer(8)(seen)).reshape(samples, self.taps, height, width, 8)
        seen = jnp.moveaxis(seen, 1, 3).reshape(samples, height, width, -1)
        context = nn.leaky_relu(StereoGenerator(64, self.position_bias, self.dtype)(left))
        selected = nn.leaky_relu(layer(64)(jnp.concatenate([context, seen], axis=-1)))
        selection = ops.softmax_filters(last(self.taps)(selected))

        painted = nn.leaky_relu(layer(16)(flat))
        painted = last(channels)(painted).reshape(planes.shape)
        select = functools.partial(jnp.einsum, "nhwp,nphwc->nhwc", selection, precision="highest")
        added = select(painted)
        return Selected(select(planes) + added, selection, added)
