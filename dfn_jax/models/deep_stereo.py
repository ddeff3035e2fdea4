"""Deep stereo (Section 3.3): a selection tower weighs shifted views, as a softmaxed horizontal filter does."""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dfn_jax import ops
from dfn_jax.models.generators import Conv, StereoGenerator
from dfn_jax.models.stereo import Filtered
from dfn_jax.ops.arguments import at_least_float32


class DeepStereo(nn.Module):
    """Predicts the right view by two towers over planes, the left view shifted by each disparity.

    The colour tower paints each plane, the selection tower says with a softmax which plane each pixel shows. The planes
    are one view, shifted, and the towers treat them alike. So the towers go once over that view, and what is left is a
    dynamic local filter: the selection is the filter, of a generator that looks at features of all planes too, and the
    paint is the dynamic bias, of two layers.

    Attributes:
        taps: number of planes, odd: disparities from -(taps // 2) to taps // 2 pixels.
        position_bias: see `StereoGenerator`.
        dtype: type of the towers' computation; softmax and blending are float32.
    """

    taps: int = 13
    position_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, left: Array) -> Filtered:
        """Predicts the right view from left [N, H, W, C] float32 in [0, 1].

        Returns:
            The prediction, the filters [N, H, W, taps], which say what plane each pixel shows, and the paint
            [N, H, W, C]; beyond the view's borders, where planes are black, they are painted too.

        Source:
            Flynn et al., DeepStereo, CVPR 2016; for one view, Xie et al., Deep3D, ECCV 2016.
        """
        width, channels = left.shape[2:]
        half = self.taps // 2
        wide = jnp.pad(left, ((0, 0), (0, 0), (half, half), (0, 0)))

        # Of gain 1, as in the generator, the error after 700 steps of 4 was twice as large.
        layer = functools.partial(Conv, kernel_init=nn.initializers.he_uniform(), dtype=self.dtype)
        last = functools.partial(layer, dtype=at_least_float32(self.dtype))
        seen = nn.leaky_relu(layer(16)(wide))
        seen = nn.leaky_relu(layer(8)(seen))
        planes = [seen[:, :, tap : tap + width] for tap in range(self.taps)]
        context = nn.leaky_relu(StereoGenerator(64, self.position_bias, self.dtype)(left))
        selected = nn.leaky_relu(layer(64)(jnp.concatenate([context, *planes], axis=-1)))
        selection = last(self.taps)(selected)

        painted = nn.leaky_relu(layer(16)(wide))
        painted = last(channels)(painted)
        prediction = ops.dynamic_local_filter(
            ops.add_dynamic_bias(wide, painted),
            selection,
            kernel_size=(1, self.taps),
            padding="valid",
            normalize="softmax",
        )
        return Filtered(prediction, ops.softmax_filters(selection), painted[:, :, half : half + width])
