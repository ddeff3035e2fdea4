"""The LSTM networks of Table 1: the equations, step by step, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.models.lstm import EncoderForecaster
from tests.models_test import KEY, random_parameters
from tests.video_model_test import conv


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cell_step(layer, image, hidden, cell):
    """Shi et al. (2015), Eq. 3, for one sample [h, w, C]."""
    layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layer)
    total = conv(hidden, {"Conv_0": {"kernel": layer["recurrent_kernel"], "bias": layer["bias"]}})
    if image is not None:
        total = total + conv(image, {"Conv_0": {"kernel": layer["input_kernel"], "bias": 0}})
    features = cell.shape[-1]
    i, f, o, g = (total[..., n * features : (n + 1) * features] for n in range(4))
    peepholes = layer["peepholes"]
    i, f = sigmoid(i + peepholes[0] * cell), sigmoid(f + peepholes[1] * cell)
    cell = f * cell + i * np.tanh(g)
    return sigmoid(o + peepholes[2] * cell) * np.tanh(cell), cell


def to_patches(frame, tall, wide):
    """[H, W, C] to [H / tall, W / wide, tall * wide * C], patch by patch."""
    rows, columns = frame.shape[0] // tall, frame.shape[1] // wide
    patches = np.zeros((rows, columns, tall * wide * frame.shape[2]))
    for y, x in np.ndindex(rows, columns):
        patches[y, x] = frame[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide].ravel()
    return patches


def predict_by_loops(network, params, frames, horizon):
    """One sequence [T, H, W, C]: time by time, and in it layer by layer."""
    params = params["params"]
    height, width = frames.shape[1:3]
    tall, wide = (network.patch, network.patch) if network.patch else (height, width)
    memories = [(np.zeros((height // tall, width // wide, n)),) * 2 for n in network.features]
    for frame in np.asarray(frames, np.float64):
        image = to_patches(frame, tall, wide)
        for index, memory in enumerate(memories):
            memories[index] = cell_step(params[f"encoder_{index}"], image, *memory)
            image = memories[index][0]
    predicted = []
    for _ in range(horizon):
        below = None
        for index, memory in enumerate(memories):
            memories[index] = cell_step(params[f"forecaster_{index}"], below, *memory)
            below = memories[index][0]
        read = np.concatenate([hidden for hidden, _ in memories], axis=-1) if network.read_all else below
        readout = {name: np.asarray(leaf, np.float64) for name, leaf in params["Dense_0"].items()}
        pixels = sigmoid(read @ readout["kernel"] + readout["bias"])
        frame = np.zeros(frames.shape[1:])
        for y, x in np.ndindex(pixels.shape[:2]):
            patch = pixels[y, x].reshape(tall, wide, -1)
            frame[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide] = patch
        predicted.append(frame)
    return np.stack(predicted)


@pytest.mark.parametrize(
    "network",
    [
        EncoderForecaster(features=(3, 2), kernel_size=3, patch=2, read_all=True),
        EncoderForecaster(features=(3, 3), kernel_size=1, patch=0, read_all=False),
    ],
    ids=["convolutional", "fully connected"],
)
def test_the_forecast_is_that_of_the_equations(network):
    frames = jax.random.uniform(KEY, (2, 3, 4, 6, 2))
    params = jax.tree.map(lambda leaf: 8 * leaf, random_parameters(network, frames))
    predicted = jax.jit(network.apply, static_argnums=2)(params, frames, 2)
    assert predicted.filters is None
    for sample in range(2):
        wanted = predict_by_loops(network, params, frames[sample], 2)
        assert wanted.std() > 0.01
        np.testing.assert_allclose(predicted.frame[sample], wanted, atol=2e-6)


def test_half_precision_predicts_in_float32():
    network = EncoderForecaster(features=(3, 2), kernel_size=3, patch=2, read_all=True)
    frames = jax.random.uniform(KEY, (1, 2, 4, 4, 1))
    params = jax.tree.map(lambda leaf: 8 * leaf, random_parameters(network, frames))
    half = EncoderForecaster(features=(3, 2), kernel_size=3, patch=2, read_all=True, dtype=jnp.bfloat16)
    exact, rough = (jax.jit(n.apply, static_argnums=2)(params, frames, 2).frame for n in (network, half))
    assert rough.dtype == jnp.float32
    assert exact.std() > 0.01
    assert 0 < jnp.abs(exact - rough).max() < 0.2 * exact.std()


def test_half_precision_adds_gradients_up_in_float32():
    """Numbers of bfloat16, one for each time, have a sum that is seldom one."""
    network = EncoderForecaster(features=(3,), kernel_size=3, patch=2, read_all=True, dtype=jnp.bfloat16)
    frames = jax.random.uniform(KEY, (1, 4, 4, 4, 1))
    params = random_parameters(network, frames)
    gradient = jax.jit(jax.grad(lambda params: network.apply(params, frames, 3).frame.sum()))(params)["params"]
    for layer in ("encoder_0", "forecaster_0"):
        found = gradient[layer]["recurrent_kernel"]
        assert found.dtype == jnp.float32
        assert (found.astype(jnp.bfloat16).astype(jnp.float32) != found).mean() > 0.5


def test_the_readout_begins_glorot_uniform():
    network = EncoderForecaster(features=(8,), kernel_size=1, patch=4, read_all=True)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 2, 8, 8, 1)))["params"]
    most = np.sqrt(6 / (8 + 16))
    assert 0.9 * most < np.abs(params["Dense_0"]["kernel"]).max() <= most
