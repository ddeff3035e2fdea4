"""Filter-generating networks (Section 3.1): an MLP for one filter per sample, an encoder-decoder for one per pixel.

All convolutions have zero padding of half the kernel, He-uniform weights, zero biases and, unless said otherwise, leaky
ReLU with slope 0.01. Parameters are float32; `dtype` is the type the network computes in.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dfn_jax.ops.conv import conv


class Conv(nn.Module):
    """A convolution with zero padding of half the kernel, so that stride 2 halves an even image.

    Attributes:
        features: channels out.
        kernel_size: side of the square kernel.
        stride: step of the output grid in input pixels.
        position_bias: one bias per position and channel instead of one per channel; fixes the image size.
        dtype: type of the computation; parameters stay float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    position_bias: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolves x [N, H, W, C] to [N, ceil(H/stride), ceil(W/stride), features]."""
        x = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding=self.kernel_size // 2,
            use_bias=not self.position_bias,
            kernel_init=nn.initializers.he_uniform(),
            dtype=self.dtype,
            conv_general_dilated=_conv,
        )(x)
        if self.position_bias:
            x = x + self.param("position_bias", nn.initializers.zeros, x.shape[1:]).astype(self.dtype)
        return x


def _conv(images, kernel, strides, padding, **_) -> Array:
    """Puts our convolution where Flax would use XLA's; the options that Flax passes beside are the defaults here."""
    return conv(images, kernel, strides=strides, padding=padding)


def upsample(x: Array) -> Array:
    """Doubles the height and width of x [N, H, W, C] by repeating each pixel."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class MLP(nn.Module):
    """Dense layers with leaky ReLU between them; the last one is linear.

    Attributes:
        features: channels out of each layer.
        dtype: type of the computation.
    """

    features: Sequence[int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [N, C] to [N, features[-1]]."""
        *hidden, last = self.features
        for features in hidden:
            x = nn.leaky_relu(nn.Dense(features, kernel_init=nn.initializers.he_uniform(), dtype=self.dtype)(x))
        return nn.Dense(last, kernel_init=nn.initializers.he_uniform(), dtype=self.dtype)(x)


class Encoder(nn.Module):
    """Strided 3x3 convolutions from the image to the code.

    Attributes:
        features: channels out of each layer.
        strides: stride of each layer.
        position_bias: whether each layer has one bias per position.
        dtype: type of the computation.
    """

    features: Sequence[int]
    strides: Sequence[int]
    position_bias: Sequence[bool]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Encodes x [N, H, W, C] to [N, H/2, W/2, features[-1]], with one stride of 2."""
        for features, stride, position_bias in zip(self.features, self.strides, self.position_bias, strict=True):
            x = nn.leaky_relu(Conv(features, stride=stride, position_bias=position_bias, dtype=self.dtype)(x))
        return x


class Decoder(nn.Module):
    """Convolutions, one upsampling, convolutions and two 1x1 layers from the code to one vector per pixel.

    Attributes:
        coarse: channels out of each 3x3 layer before the upsampling.
        fine: channels out of each 3x3 layer after it.
        hidden: channels out of the first 1x1 layer.
        outputs: channels out of the last 1x1 layer, which is linear: taps and dynamic bias.
        dtype: type of the computation.
    """

    coarse: Sequence[int]
    fine: Sequence[int]
    hidden: int
    outputs: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, code: Array, size: tuple[int, int]) -> Array:
        """Decodes code [N, h, w, C] to [N, H, W, outputs], where size = (H, W) and h = ceil(H/2), w = ceil(W/2)."""
        x = code
        for features in self.coarse:
            x = nn.leaky_relu(Conv(features, dtype=self.dtype)(x))
        x = upsample(x)[:, : size[0], : size[1]]
        for features in self.fine:
            x = nn.leaky_relu(Conv(features, dtype=self.dtype)(x))
        x = nn.leaky_relu(Conv(self.hidden, kernel_size=1, dtype=self.dtype)(x))
        return Conv(self.outputs, kernel_size=1, dtype=self.dtype)(x)
