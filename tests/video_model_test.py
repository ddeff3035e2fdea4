"""The recurrent network against plain NumPy, step by step, and its gradient against finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.models.generators import RecurrentGenerator
from dfn_jax.models.twins import VideoTwin
from dfn_jax.models.video import VideoDFN, initial_state, rollout
from tests import reference

SMALL = {"encoder": (3, 2), "coarse": (2,), "fine": (3,), "features": 4, "kernel_size": 3}
OPTIONS = {
    "plain": {},
    "all": {"window": 2, "dynamic_bias": True, "position_bias": True, "refinement": 2, "channels": 2},
}
SIZE = (5, 6)


def make(network_class=VideoDFN, **options):
    """A network with random parameters, biases too: at zero they could be added in the wrong place unseen."""
    network = network_class(**SMALL, **options)
    random = np.random.default_rng(0)
    frames = jnp.asarray(random.random((2, 3, *SIZE, network.channels)), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), frames[:, : network.window])
    params = jax.tree.map(lambda leaf: jnp.asarray(0.4 * random.standard_normal(leaf.shape), jnp.float32), shapes)
    return network, params, frames


@functools.partial(jax.jit, static_argnums=0, static_argnames=("horizon", "rematerialise"))
def jitted_rollout(network, params, frames, **options):
    return rollout(network, params, frames, **options)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def conv(x, layer, stride=1):
    """One image [H, W, C] through one layer, position by position."""
    kernel = np.asarray(layer["Conv_0"]["kernel"], np.float64)
    half = kernel.shape[0] // 2
    padded = np.pad(x, ((half, half), (half, half), (0, 0)))
    output = np.zeros((-(-x.shape[0] // stride), -(-x.shape[1] // stride), kernel.shape[3]))
    for y, x_ in np.ndindex(output.shape[:2]):
        patch = padded[y * stride :, x_ * stride :][: kernel.shape[0], : kernel.shape[1]]
        output[y, x_] = np.einsum("ijc,ijcf->f", patch, kernel)
    return output + np.asarray(layer.get("position_bias", layer["Conv_0"].get("bias")), np.float64)


def layers(part):
    return [part[name] for name in sorted(part)]


def encode(x, part):
    """One image [H, W, C] through an encoder, whose second layer has stride 2."""
    for index, layer in enumerate(layers(part)):
        x = leaky(conv(x, layer, stride=2 if index == 1 else 1))
    return x


def decode(x, part, size):
    """A code [h, w, C] through a decoder of as many layers before the upsampling as after it, and two for pixels."""
    *convolutions, first, last = layers(part)
    half = len(convolutions) // 2
    for layer in convolutions[:half]:
        x = leaky(conv(x, layer))
    x = x.repeat(2, axis=0).repeat(2, axis=1)
    for layer in convolutions[half:]:
        x = leaky(conv(x, layer))[: size[0], : size[1]]
    return conv(leaky(conv(x, first)), last)


def rollout_by_loops(network, params, frames, horizon):
    """The paper's recurrence for one sequence [T, H, W, C]: every frame is read, and every read frame filtered."""
    params = params["params"]
    generator = params["generator"]
    frames = list(np.asarray(frames, np.float64))
    known, hidden = len(frames), np.zeros(1)
    for time in range(network.window - 1, known + horizon - 1):
        code = encode(np.concatenate(frames[time - network.window + 1 : time + 1], axis=-1), generator["encoding"])
        hidden = np.broadcast_to(hidden, code.shape)
        hidden = code + leaky(conv(leaky(conv(hidden, generator["transition_0"])), generator["transition_1"]))
        theta = decode(hidden, generator["decoding"], SIZE)
        if isinstance(network, VideoTwin):
            frame = conv(theta, params["image"])
        else:
            filters = reference.softmax_filters(theta[..., :9])
            newest = frames[time] + (theta[..., 9:] if network.dynamic_bias else 0)
            frame = reference.dynamic_local_filter(newest[None], filters[None], kernel_size=(3, 3))[0]
            if network.refinement:
                frame = frame + conv(leaky(conv(frame, params["refine_0"])), params["refine_1"])
        if time >= known - 1:
            frames.append(frame)
    return np.stack(frames[known:])


@pytest.mark.parametrize(
    ("network_class", "options"),
    [(VideoDFN, OPTIONS["plain"]), (VideoDFN, OPTIONS["all"]), (VideoTwin, {"window": 2, "channels": 2})],
)
def test_the_rollout_is_the_recurrence_of_the_paper(network_class, options):
    network, params, frames = make(network_class, **options)
    predicted = jitted_rollout(network, params, frames, horizon=4)
    for sample in range(2):
        wanted = rollout_by_loops(network, params, frames[sample], horizon=4)
        np.testing.assert_allclose(predicted.frame[sample], wanted, atol=2e-5)


def test_filters_are_those_that_made_the_frames():
    network, params, frames = make()
    predicted = jitted_rollout(network, params, frames, horizon=2)
    before = np.concatenate([frames[:, -1:], predicted.frame[:, :1]], axis=1)
    for time in range(2):
        wanted = reference.dynamic_local_filter(before[:, time], predicted.filters[:, time], kernel_size=(3, 3))
        np.testing.assert_allclose(predicted.frame[:, time], wanted, atol=1e-5)
    assert (
        jax.eval_shape(functools.partial(rollout, make(VideoTwin)[0], horizon=2), *make(VideoTwin)[1:]).filters is None
    )


def test_gradient_of_the_whole_rollout():
    with jax.enable_x64(True):
        network, params, frames = make(**OPTIONS["all"], dtype=jnp.float64)
        inputs = jax.tree.map(lambda x: x.astype(jnp.float64), (params, frames[:1]))
        random = np.random.default_rng(1)
        direction = jax.tree.map(lambda x: random.standard_normal(x.shape), inputs)

        def loss(inputs, rematerialise=False):
            return jnp.sum(rollout(network, *inputs, horizon=2, rematerialise=rematerialise).frame ** 2)

        step = 1e-6  # so short that no rectifier changes sides
        functions = [jax.jit(jax.value_and_grad(functools.partial(loss, rematerialise=r))) for r in (False, True)]
        ahead, _ = functions[0](jax.tree.map(lambda x, d: x + step * d, inputs, direction))
        back, _ = functions[0](jax.tree.map(lambda x, d: x - step * d, inputs, direction))
        for function in functions:
            _, gradient = function(inputs)
            slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), gradient, direction)))
            np.testing.assert_allclose(slope, (ahead - back) / (2 * step), rtol=1e-7)


def test_rematerialising_holds_less_for_the_gradient():
    network, params, frames = make()

    def held(rematerialise):
        def loss(params):
            return jnp.sum(rollout(network, params, frames, horizon=40, rematerialise=rematerialise).frame)

        return jax.jit(jax.grad(loss)).lower(params).compile().memory_analysis().temp_size_in_bytes

    assert held(True) < 0.3 * held(False)


def test_half_precision_predicts_in_float32():
    network, params, frames = make()
    half = jitted_rollout(VideoDFN(**SMALL, dtype=jnp.bfloat16), params, frames, horizon=2)
    assert half.frame.dtype == half.filters.dtype == jnp.float32
    state = jax.eval_shape(functools.partial(initial_state, VideoDFN(**SMALL, dtype=jnp.bfloat16)), params, frames)
    assert state.hidden.dtype == jnp.float32
    assert 0 < float(jnp.abs(half.frame - jitted_rollout(network, params, frames, horizon=2).frame).max()) < 0.05


def test_what_does_not_fit_is_named():
    network, params, frames = make(window=2)
    with pytest.raises(ValueError, match="at least 2"):
        rollout(network, params, frames[:, :1], horizon=1)
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        rollout(network, params, frames, horizon=0)


def test_the_first_filters_average():
    """At first no tap is told apart: each filter's entropy is almost that of equal weights, log 121."""
    network = VideoDFN((32, 32, 64, 64), (64,), (32, 64), 128, kernel_size=11, window=2, dynamic_bias=True)
    frames = jax.random.uniform(jax.random.key(1), (1, 3, 12, 12, 1))
    entropies = []
    for seed in range(4):
        params = jax.jit(network.init)(jax.random.key(seed), frames[:, :2])
        filters = np.asarray(jitted_rollout(network, params, frames, horizon=3).filters, np.float64)
        entropies.append(-(filters * np.log(filters + 1e-30)).sum(-1).mean())
    assert np.log(121) - 0.05 < np.mean(entropies) <= np.log(121)


class Forgetful(RecurrentGenerator):
    """Remembers nothing: what it decodes is always the same."""

    def update(self, hidden, code):
        return jnp.zeros_like(code)


class ForgetfulDFN(VideoDFN):
    generator_class = Forgetful


def test_a_subclass_may_have_another_generator():
    """With one that forgets the frames, the filters do not depend on them."""
    for network_class in (VideoDFN, ForgetfulDFN):
        network, params, frames = make(network_class)
        filters = jitted_rollout(network, params, frames, horizon=2).filters
        assert (float(jnp.ptp(filters, axis=(0, 1)).max()) < 1e-6) == (network_class is ForgetfulDFN)
