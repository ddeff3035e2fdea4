"""Video prediction (Section 4.2): read frames, then filter the newest one again and again, each time by new filters.

The networks are one step of the recurrence. `advance` reads a frame, `predict` makes the next one, and `rollout` does
both under `lax.scan`, feeding each prediction back.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from dfn_jax import ops
from dfn_jax.models.generators import Conv, RecurrentGenerator
from dfn_jax.ops.arguments import at_least_float32


class Predicted(NamedTuple):
    """A predicted frame, or, with T after N, several.

    Attributes:
        frame: [N, H, W, C] float32.
        filters: [N, H, W, K] float32, each summing to one, that made it of the frame before; None from the twin.
    """

    frame: Array
    filters: Array | None


class State(NamedTuple):
    """What the recurrence carries.

    Attributes:
        hidden: [N, h, w, encoder[-1]], of the filter-generating network; float32 at least.
        window: [N, window, H, W, C] float32, the newest frames, oldest first.
    """

    hidden: Array
    window: Array


class VideoDFN(nn.Module):
    """One step of the dynamic filter network for video prediction.

    637,361 parameters for Moving MNIST, 368,122 for highway driving (see the configs in `experiments/`).

    Attributes:
        encoder: channels of the encoder's layers, the last also of the hidden state.
        coarse: channels of the decoder's layers before its upsampling.
        fine: channels after it.
        features: channels of the decoder's 1x1 layer.
        kernel_size: side of the square filters, pixels.
        channels: C, of the frames.
        window: how many of the newest frames the encoder reads at a time.
        dynamic_bias: whether to add a generated bias to each pixel before it is filtered.
        position_bias: whether the encoder's first layer has one bias per position; fixes the frames' size.
        refinement: channels of a network of two layers that corrects the filtered frame; 0, as in all published
            recipes, for none. (The authors' code has one of four layers, which reads the filter's input too.)
        dtype: type of the generator's computation; softmax and filtering are float32.
        generator_class: of the class, what makes the generator; a subclass may have another.
    """

    encoder: Sequence[int]
    coarse: Sequence[int]
    fine: Sequence[int]
    features: int
    kernel_size: int
    channels: int = 1
    window: int = 1
    dynamic_bias: bool = False
    position_bias: bool = False
    refinement: int = 0
    dtype: jnp.dtype = jnp.float32
    generator_class: ClassVar[type[RecurrentGenerator]] = RecurrentGenerator

    def setup(self):
        """Builds the filter-generating network and, where asked for, the refinement."""
        self.generator = self.generator_class(
            encoder=self.encoder,
            coarse=self.coarse,
            fine=self.fine,
            features=self.features,
            outputs=self.filter_values() + self.channels * self.dynamic_bias,
            position_bias=self.position_bias,
            dtype=self.dtype,
        )
        if self.refinement:
            last = Conv(self.channels, dtype=at_least_float32(self.dtype))
            self.refine = [Conv(self.refinement, dtype=self.dtype), last]

    def encode(self, frames: Array) -> Array:
        """Encodes the newest frames [N, H, W, window * C] to [N, h, w, encoder[-1]]."""
        return self.generator.encode(frames)

    def update(self, hidden: Array, code: Array) -> Array:
        """The next hidden state from the last one and a code, all [N, h, w, encoder[-1]]."""
        return self.generator.update(hidden, code)

    def filter_values(self) -> int:
        """Values that the generator makes per pixel for the filter, before those of the dynamic bias."""
        return self.kernel_size**2

    def filter_frame(self, frame: Array, values: Array, hidden: Array) -> Predicted:
        """Filters a frame [N, H, W, C] by what was generated for it, [N, H, W, filter_values()], from hidden."""
        filtered = ops.dynamic_local_filter(frame, values, kernel_size=self.kernel_size, normalize="softmax")
        return Predicted(filtered, ops.softmax_filters(values))

    def predict(self, hidden: Array, newest: Array) -> Predicted:
        """Generates filters from hidden [N, h, w, encoder[-1]] and filters the newest frame [N, H, W, C] by them."""
        theta = self.generator.decode(hidden, newest.shape[1:3])
        values, bias = jnp.split(theta, [self.filter_values()], axis=-1)
        if self.dynamic_bias:
            newest = ops.add_dynamic_bias(newest, bias)
        frame, filters = self.filter_frame(newest, values, hidden)
        if self.refinement:
            hidden_layer, correction = self.refine
            frame = frame + correction(nn.leaky_relu(hidden_layer(frame)))
        return Predicted(frame, filters)

    def __call__(self, window: Array) -> Predicted:
        """Predicts the next frame from a window [N, window, H, W, C] alone; makes all parameters."""
        code = self.encode(_stacked(window))
        return self.predict(self.update(jnp.zeros_like(code), code), window[:, -1])


def initial_state(network: nn.Module, params: Any, frames: Array) -> State:
    """Reads the known frames.

    All are encoded at once; only the hidden state goes through them one by one.

    Args:
        network: `VideoDFN` or its twin.
        params: of the network.
        frames: [N, T, H, W, C] float32, T at least the network's window.

    Returns:
        The state after the last frame.

    Raises:
        ValueError: there are fewer frames than the network reads at a time, or they have another shape.
    """
    if frames.ndim != 5 or frames.shape[1] < network.window:
        raise ValueError(
            f"wanted frames [N, T, H, W, C] with T at least {network.window}, the window; got {frames.shape}."
        )
    windows = jnp.stack(
        [_stacked(frames[:, start : start + network.window]) for start in range(frames.shape[1] - network.window + 1)]
    )
    times, samples = windows.shape[:2]
    codes = network.apply(params, windows.reshape(times * samples, *windows.shape[2:]), method="encode")
    codes = codes.reshape(times, samples, *codes.shape[1:])

    def read(hidden: Array, code: Array) -> tuple[Array, None]:
        return network.apply(params, hidden, code, method="update"), None

    # From nothing, the recurrence adds the same to every sample: once is enough.
    hidden = network.apply(params, jnp.zeros_like(codes[0, :1]), codes[0], method="update")
    hidden, _ = lax.scan(read, hidden, codes[1:])
    return State(hidden, frames[:, -network.window :])


def advance(network: nn.Module, params: Any, state: State, frame: Array) -> State:
    """Reads one more frame [N, H, W, C]."""
    window = jnp.concatenate([state.window[:, 1:], frame[:, None]], axis=1)
    code = network.apply(params, _stacked(window), method="encode")
    return State(network.apply(params, state.hidden, code, method="update"), window)


def predict(network: nn.Module, params: Any, state: State) -> Predicted:
    """Predicts the frame after the newest one of the state."""
    return network.apply(params, state.hidden, state.window[:, -1], method="predict")


def rollout(network: nn.Module, params: Any, frames: Array, *, horizon: int, rematerialise: bool = False) -> Predicted:
    """Predicts the frames that follow, each from the prediction before it.

    Args:
        network: `VideoDFN` or its twin.
        params: of the network.
        frames: [N, T, H, W, C] float32 in [0, 1], the input sequence.
        horizon: how many frames to predict; may exceed what the network was trained for.
        rematerialise: of the predicted frames but the first keep only the states for the gradient, and compute the rest
            of each step again: less memory, one more forward pass.

    Returns:
        frame [N, horizon, H, W, C] and filters [N, horizon, H, W, K] (None from the twin).

    Raises:
        ValueError: the frames do not fit, or the horizon is not positive.

    Source:
        Section 4.2; the first predictions of the authors' code, from frames before the last, are not used there
        either, so they are not made here.
    """
    if horizon < 1:
        raise ValueError(f"the horizon must be at least 1 frame, got {horizon}.")

    def step(carry: tuple[State, Array], _: None) -> tuple[tuple[State, Array], Predicted]:
        state, frame = carry
        state = advance(network, params, state, frame)
        predicted = predict(network, params, state)
        return (state, predicted.frame), predicted

    state = initial_state(network, params, frames)
    first = predict(network, params, state)
    step = jax.checkpoint(step, prevent_cse=False) if rematerialise else step  # A loop needs no barriers for it.
    _, others = lax.scan(step, (state, first.frame), length=horizon - 1)
    return jax.tree.map(lambda one, more: jnp.concatenate([one[:, None], jnp.moveaxis(more, 0, 1)], 1), first, others)


def _stacked(window: Array) -> Array:
    """Frames [N, window, H, W, C] as channels [N, H, W, window * C], oldest first."""
    return jnp.concatenate(list(jnp.moveaxis(window, 1, 0)), axis=-1)
