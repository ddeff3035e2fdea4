"""The LSTM networks of Table 1: an encoder reads the frames, a forecaster unrolls what the encoder remembers.

Each layer goes over all times before the next one begins, so that what it takes from the layer below is convolved for
all times at once and only its own recurrence is a loop.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from dfn_jax.models.video import Predicted
from dfn_jax.ops.arguments import at_least_float32
from dfn_jax.ops.conv import conv


class Memory(NamedTuple):
    """What an LSTM layer carries.

    Attributes:
        hidden: [N, h, w, features], its output; in the type of the computation.
        cell: [N, h, w, features] float32.
    """

    hidden: Array
    cell: Array


class PeepholeLSTM(nn.Module):
    """A convolutional LSTM layer with one peephole per channel and gate, over all times.

    Attributes:
        features: channels of the state.
        kernel_size: side of the square kernels, odd; on 1x1 images a kernel of 1 makes it the fully connected LSTM.
        dtype: type of the convolutions; gates and cells are float32.
    """

    features: int
    kernel_size: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, memory: Memory, inputs: Array | None, times: int) -> tuple[Memory, Array]:
        """Runs the layer.

        Args:
            memory: before the first time.
            inputs: [T, N, h, w, C], or None for a layer that has none.
            times: T.

        Returns:
            The memory after the last time, and the outputs [T, N, h, w, features].

        Source:
            Shi et al., Convolutional LSTM Network, NIPS 2015, Eq. 3, with peepholes that all positions share.
        """

        def kernel(name: str, channels: int) -> Array:
            shape = (self.kernel_size, self.kernel_size, channels, 4 * self.features)
            return self.param(name, nn.initializers.glorot_uniform(), shape)

        def convolve(images: Array, kernel: Array) -> Array:
            half = (self.kernel_size // 2, self.kernel_size // 2)
            # The kernel is cast here, in each step, so that its gradients are added up in its own type.
            images, kernel = images.astype(self.dtype), kernel.astype(self.dtype)
            return conv(images, kernel, padding=(half, half)).astype(at_least_float32(self.dtype))

        bias = self.param("bias", _remember, (4 * self.features,))
        to_input, to_forget, to_output = self.param("peepholes", nn.initializers.zeros, (3, self.features))
        recurrent = kernel("recurrent_kernel", self.features)
        entering = None
        if inputs is not None:
            entering = convolve(inputs.reshape(-1, *inputs.shape[2:]), kernel("input_kernel", inputs.shape[-1]))
            entering = entering.reshape(times, -1, *entering.shape[1:])

        def step(memory: Memory, entering: Array | None) -> tuple[Memory, Array]:
            hidden, cell = memory
            total = convolve(hidden, recurrent) + bias
            enter, forget, leave, candidate = jnp.split(total if entering is None else total + entering, 4, axis=-1)
            enter = nn.sigmoid(enter + to_input * cell)
            cell = nn.sigmoid(forget + to_forget * cell) * cell + enter * nn.tanh(candidate)
            hidden = (nn.sigmoid(leave + to_output * cell) * nn.tanh(cell)).astype(self.dtype)
            return Memory(hidden, cell), hidden

        return lax.scan(step, memory, entering, length=times)


def _remember(_: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Biases of zero, but for the forget gate's of one: at first, what is in the cell stays."""
    return jnp.repeat(jnp.array([0, 1, 0, 0], dtype), shape[0] // 4)


class EncoderForecaster(nn.Module):
    """Predicts frames by two stacks of LSTM layers, the second of which starts from the memory of the first.

    The forecaster's first layer has no input: nothing is fed back. With features (128, 64, 64), 5x5 kernels, patches of
    4 pixels and all layers read it is the Conv-LSTM of Table 1, 7,585,296 parameters; with features (2048, 2048), 1x1
    kernels, the whole frame as one patch and the top layer read the FC-LSTM, 142,667,776. Weights are Glorot-uniform.

    Attributes:
        features: channels of each layer.
        kernel_size: of all layers, see `PeepholeLSTM`.
        patch: side in pixels of the squares that become channels of one position; 0 for the whole frame.
        read_all: whether the frames are made of the forecaster's outputs in all layers, or in the top one.
        dtype: type of the convolutions.
    """

    features: Sequence[int]
    kernel_size: int
    patch: int
    read_all: bool
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, frames: Array, horizon: int = 1) -> Predicted:
        """Predicts the `horizon` frames that follow frames [N, T, H, W, C]; H and W are multiples of the patch.

        Returns:
            Frames [N, horizon, H, W, C] in [0, 1], by a sigmoid; no filters.
        """
        samples, known, height, width, channels = frames.shape
        tall, wide = (self.patch, self.patch) if self.patch else (height, width)
        rows, columns = height // tall, width // wide
        patches = frames.reshape(samples, known, rows, tall, columns, wide, channels)
        outputs = patches.transpose(1, 0, 2, 4, 3, 5, 6).reshape(known, samples, rows, columns, -1)
        memories = []
        for index, features in enumerate(self.features):
            nothing = jnp.zeros_like(frames, at_least_float32(frames), shape=(samples, rows, columns, features))
            layer = PeepholeLSTM(features, self.kernel_size, self.dtype, name=f"encoder_{index}")
            memory, outputs = layer(Memory(nothing.astype(self.dtype), nothing), outputs, known)
            memories.append(memory)
        below, layers = None, []
        for index, (features, memory) in enumerate(zip(self.features, memories, strict=True)):
            layer = PeepholeLSTM(features, self.kernel_size, self.dtype, name=f"forecaster_{index}")
            _, below = layer(memory, below, horizon)
            layers.append(below)
        read = jnp.concatenate(layers, axis=-1) if self.read_all else below
        glorot = nn.initializers.glorot_uniform()
        readout = nn.Dense(tall * wide * channels, kernel_init=glorot, dtype=at_least_float32(self.dtype))
        pixels = nn.sigmoid(readout(read))
        pixels = pixels.reshape(horizon, samples, rows, columns, tall, wide, channels)
        return Predicted(pixels.transpose(1, 0, 2, 4, 3, 5, 6).reshape(samples, horizon, height, width, channels), None)
