"""Filter-generating networks (Section 3.1): an MLP for one filter per sample, an encoder-decoder for one per pixel.

The recurrent one has a hidden state between encoder and decoder.

All convolutions have zero padding of half the kernel, weights of variance 1 / fan-in and zero biases; after each, but
the last, comes a leaky ReLU with slope 0.01. Parameters are float32; `dtype` is the type the network computes in.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dfn_jax.ops.arguments import at_least_float32
from dfn_jax.ops.conv import conv, upsampled_conv

# Lasagne's HeUniform as the authors call it, of gain 1. With the gain of He et al. (2015), sqrt(2), highway's DFN ends
# with twice the error (docs/results.md).
HE_UNIFORM_OF_GAIN_1 = nn.initializers.lecun_uniform()


class Conv(nn.Module):
    """A convolution with zero padding of half the kernel, so that stride 2 halves an even image.

    Attributes:
        features: channels out.
        kernel_size: side of the square kernel.
        stride: step of the output grid in input pixels.
        position_bias: one bias per position and channel instead of one per channel; fixes the image size.
        upsampled: whether each pixel is repeated 2x2 before the convolution, which then is of 3x3 and stride 1.
        kernel_init: draws the first weights.
        dtype: type of the computation; parameters stay float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    position_bias: bool = False
    upsampled: bool = False
    kernel_init: nn.initializers.Initializer = HE_UNIFORM_OF_GAIN_1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolves x [N, H, W, C] to [N, ceil(H/stride), ceil(W/stride), features], twice that if upsampled."""
        x = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding=self.kernel_size // 2,
            use_bias=not self.position_bias,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            conv_general_dilated=_upsampled_conv if self.upsampled else _conv,
        )(x)
        if self.position_bias:
            bias = self.param("position_bias", nn.initializers.zeros, x.shape[1:]).astype(self.dtype)
            x = x + _for_samples(bias, x.shape[0])
        return x


def _for_samples(values: Array, samples: int) -> Array:
    """The same values [...] for each of N samples, [N, ...].

    By a product, as the gradient is one then, too: XLA's sum over samples takes some fifty times as long on CPUs.
    """
    return jnp.einsum("n,...->n...", jnp.ones(samples, values.dtype), values, precision="highest")


def _conv(images, kernel, strides, padding, **_) -> Array:
    """Puts our convolution where Flax would use XLA's; the options that Flax passes beside are the defaults here."""
    return conv(images, kernel, strides=strides, padding=padding)


def _upsampled_conv(images, kernel, *_, **__) -> Array:
    """The same with each pixel repeated before."""
    return upsampled_conv(images, kernel)


class MLP(nn.Module):
    """Dense layers with leaky ReLU between them; the last one is linear. Glorot-uniform weights, zero biases.

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
            x = nn.leaky_relu(nn.Dense(features, kernel_init=nn.initializers.glorot_uniform(), dtype=self.dtype)(x))
        return nn.Dense(last, kernel_init=nn.initializers.glorot_uniform(), dtype=at_least_float32(self.dtype))(x)


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
        """Encodes x [N, H, W, C] to [N, ceil(H/2), ceil(W/2), features[-1]], with one stride of 2."""
        for features, stride, position_bias in zip(self.features, self.strides, self.position_bias, strict=True):
            x = nn.leaky_relu(Conv(features, stride=stride, position_bias=position_bias, dtype=self.dtype)(x))
        return x


class Decoder(nn.Module):
    """Convolutions, one upsampling, convolutions and two 1x1 layers from the code to one vector per pixel.

    The last layer is computed in float32 at least: an error of a logit is one of the filter, in proportion. (Its
    products, as those of all layers, are as precise as JAX makes them: see `precision` in docs/clusters.md.)

    Attributes:
        coarse: channels out of each 3x3 layer before the upsampling.
        fine: channels out of each 3x3 layer after it, at least one.
        features: channels out of the first 1x1 layer.
        outputs: channels out of the last 1x1 layer, which is linear: taps and dynamic bias.
        dtype: type of the computation.
    """

    coarse: Sequence[int]
    fine: Sequence[int]
    features: int
    outputs: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, code: Array, size: tuple[int, int]) -> Array:
        """Decodes code [N, h, w, C] to [N, H, W, outputs], where size = (H, W) and h = ceil(H/2), w = ceil(W/2)."""
        x = code
        for features in self.coarse:
            x = nn.leaky_relu(Conv(features, dtype=self.dtype)(x))
        first, *others = self.fine
        # Of an odd size, the last row or column is one too many.
        x = nn.leaky_relu(Conv(first, upsampled=True, dtype=self.dtype)(x))[:, : size[0], : size[1]]
        for features in others:
            x = nn.leaky_relu(Conv(features, dtype=self.dtype)(x))
        x = nn.leaky_relu(Conv(self.features, kernel_size=1, dtype=self.dtype)(x))
        return Conv(self.outputs, kernel_size=1, dtype=at_least_float32(self.dtype))(x)


def pooled(features: Array) -> Array:
    """What one dense layer can take of a map: features [N, H, W, C], resized to 4x4, as [N, 16 C]."""
    samples, channels = features.shape[0], features.shape[3]
    return jax.image.resize(features, (samples, 4, 4, channels), "linear").reshape(samples, -1)


def stereo_encoder(position_bias: bool, dtype: jnp.dtype) -> Encoder:
    """The encoder of Section 4.3, to [N, H/2, W/2, 128]; see `StereoGenerator` for the options."""
    return Encoder(
        features=(32, 32, 64, 64, 128),
        strides=(1, 2, 1, 1, 1),
        position_bias=(False, False, False, False, position_bias),
        dtype=dtype,
    )


class StereoGenerator(nn.Module):
    """The filter-generating network of Section 4.3: an encoder-decoder without recurrence.

    Attributes:
        outputs: values generated per pixel.
        position_bias: one bias per position in the encoder's last layer, as published; fixes the image size.
        dtype: type of the computation; parameters stay float32.
    """

    outputs: int
    position_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, left: Array) -> Array:
        """Generates [N, H, W, outputs] from left [N, H, W, C]."""
        code = stereo_encoder(self.position_bias, self.dtype)(left)
        decoder = Decoder(coarse=(64, 64), fine=(64, 64), features=128, outputs=self.outputs, dtype=self.dtype)
        return decoder(code, left.shape[1:3])


class RecurrentGenerator(nn.Module):
    """The filter-generating network of Section 4.2, in three parts: encode, update the hidden state, decode.

    Attributes:
        encoder: channels of the encoder's layers, the second of which has stride 2; the last is the hidden state's.
        coarse: channels of the decoder's layers before its upsampling.
        fine: channels after it.
        features: channels of the decoder's first 1x1 layer.
        outputs: values generated per pixel.
        position_bias: one bias per position in the encoder's first layer; fixes the image size.
        dtype: type of the computation; parameters stay float32.
    """

    encoder: Sequence[int]
    coarse: Sequence[int]
    fine: Sequence[int]
    features: int
    outputs: int
    position_bias: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Builds the three parts."""
        others = len(self.encoder) - 1
        self.encoding = Encoder(
            features=self.encoder,
            strides=(1, 2, *(1,) * (others - 1)),
            position_bias=(self.position_bias, *(False,) * others),
            dtype=self.dtype,
        )
        self.transition = [Conv(self.encoder[-1], dtype=self.dtype) for _ in range(2)]
        self.decoding = Decoder(self.coarse, self.fine, self.features, self.outputs, dtype=self.dtype)

    def encode(self, x: Array) -> Array:
        """Encodes x [N, H, W, C] to [N, h, w, encoder[-1]], half as high and wide."""
        return self.encoding(x)

    def update(self, hidden: Array, code: Array) -> Array:
        """Adds what two layers make of the hidden state [N or 1, h, w, encoder[-1]] to the code [N, ...].

        Both are added, and returned, in float32 at least.
        """
        for layer in self.transition:
            hidden = nn.leaky_relu(layer(hidden))
        hidden, code = (values.astype(at_least_float32(self.dtype)) for values in (hidden, code))
        return code + (_for_samples(hidden[0], code.shape[0]) if hidden.shape[0] == 1 else hidden)

    def decode(self, hidden: Array, size: tuple[int, int]) -> Array:
        """Decodes hidden [N, h, w, encoder[-1]] to [N, H, W, outputs], where size = (H, W)."""
        return self.decoding(hidden, size)
