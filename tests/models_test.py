"""The networks have exactly the published numbers of parameters, and do what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.models import generators
from dfn_jax.models.deep_stereo import DeepStereo
from dfn_jax.models.generators import Conv
from dfn_jax.models.spatial_transformer import SpatialTransformer
from dfn_jax.models.steerable import SteerableDFN
from dfn_jax.models.stereo import StereoDFN
from tests import reference

KEY = jax.random.key(0)


def random_parameters(network, *inputs):
    """Drawn by NumPy: compiling the networks' own initialisation takes longer than compiling the networks."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, KEY, *inputs)
    return jax.tree.map(lambda leaf: jnp.asarray(0.05 * random.standard_normal(leaf.shape), jnp.float32), shapes)


def parameters(network, *inputs):
    shapes = jax.eval_shape(network.init, KEY, *inputs)
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(shapes))


def lasagne_he(reads, writes):
    """Bound of Lasagne's HeUniform, whose gain is 1 unless told otherwise."""
    return np.sqrt(3 / reads)


def he(reads, writes):
    return np.sqrt(6 / reads)


def glorot(reads, writes):
    return np.sqrt(6 / (reads + writes))


@pytest.mark.parametrize(
    ("network", "inputs", "bounds"),
    [
        (SteerableDFN(), (jnp.zeros((1, 8, 8, 1)), jnp.zeros(1)), {"": glorot}),  # Lasagne's default
        (StereoDFN(), (jnp.zeros((1, 8, 8, 1)),), {"": lasagne_he}),
        (DeepStereo(), (jnp.zeros((1, 8, 8, 1)),), {"StereoGenerator": lasagne_he, "": he}),
        (SpatialTransformer(), (jnp.zeros((1, 8, 8, 1)),), {"Encoder": lasagne_he, "Dense_0": he}),
    ],
)
def test_networks_begin_as_in_the_authors_code_and_what_is_not_there_by_he(network, inputs, bounds):
    for path, leaf in jax.tree.leaves_with_path(jax.jit(network.init)(KEY, *inputs)):
        name = jax.tree_util.keystr(path)
        bound = next((bound for part, bound in bounds.items() if part in name), None)
        if path[-1].key != "kernel" or bound is None:
            assert not leaf.any(), name
            continue
        most = bound(np.prod(leaf.shape[:-1]), leaf.shape[-1])
        assert 0.9 * most < np.abs(leaf).max() <= most, name
        np.testing.assert_allclose(np.std(leaf), most / np.sqrt(3), rtol=0.2)


def test_shared_biases_make_the_size_free():
    network = StereoDFN(position_bias=False)
    assert parameters(network, jnp.zeros((1, 64, 64, 1))) == 464_494 - 32 * 32 * 128 + 128
    params = jax.eval_shape(network.init, KEY, jnp.zeros((1, 8, 8, 1)))
    for height, width in ((8, 8), (7, 13), (1, 1), (2, 33)):
        output = jax.eval_shape(network.apply, params, jnp.zeros((2, height, width, 1)))
        assert output.prediction.shape == (2, height, width, 1)
        assert output.filters.shape == (2, height, width, 13)


def test_colour_has_a_bias_for_each_channel():
    output, _ = jax.eval_shape(StereoDFN(taps=5).init_with_output, KEY, jnp.ones((1, 6, 10, 3)))
    assert output.prediction.shape == output.bias.shape == (1, 6, 10, 3)


def test_the_stereo_prediction_is_the_filtered_left_view():
    left = jax.random.uniform(KEY, (2, 4, 9, 2))
    network = StereoDFN(taps=5)
    output = jax.jit(network.apply)(random_parameters(network, left), left)
    np.testing.assert_allclose(output.filters.sum(-1), 1.0, rtol=1e-5)
    biased = np.asarray(left + output.bias, np.float64)
    wanted = reference.dynamic_local_filter(biased, np.asarray(output.filters, np.float64), kernel_size=(1, 5))
    np.testing.assert_allclose(output.prediction, wanted, atol=1e-5)


def test_the_steerable_prediction_is_the_image_under_its_own_filter():
    images, angles = jax.random.uniform(KEY, (3, 5, 6, 2)), jnp.array([0.0, 1.0, 4.0])
    output, _ = jax.jit(SteerableDFN(kernel_size=3).init_with_output)(KEY, images, angles)
    filters = np.asarray(output.filters, np.float64).reshape(3, 3, 3)
    padded = np.pad(np.asarray(images, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    wanted = np.zeros((3, 5, 6, 2))
    for n, y, x in np.ndindex(3, 5, 6):
        wanted[n, y, x] = np.einsum("ij,ijc->c", filters[n], padded[n, y : y + 3, x : x + 3])
    np.testing.assert_allclose(output.prediction, wanted, atol=1e-5)


def test_half_precision_computes_in_half_and_keeps_float32_parameters():
    left = jax.random.uniform(KEY, (1, 8, 16, 1))
    params = jax.tree.map(lambda leaf: 2 * leaf, random_parameters(StereoDFN(), left))
    exact = jax.jit(StereoDFN().apply)(params, left)
    half = jax.jit(StereoDFN(dtype=jnp.bfloat16).apply)(params, left)
    initial = jax.eval_shape(StereoDFN(dtype=jnp.bfloat16).init, KEY, left)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(initial))
    assert half.prediction.dtype == half.filters.dtype == jnp.float32
    differ_by_pixel = jnp.std(exact.filters, axis=(1, 2)).max()
    assert differ_by_pixel > 0.01
    assert 0 < jnp.abs(half.filters - exact.filters).max() < 0.2 * differ_by_pixel


def test_a_bias_that_samples_share_has_the_sum_of_their_gradients_by_a_product():
    """A reduction over the first axis is what XLA is slow at on CPUs."""
    layer, images = Conv(3, position_bias=True), jax.random.normal(KEY, (5, 4, 6, 2))
    weights = jax.random.normal(jax.random.key(1), (5, 4, 6, 3))
    gradient = jax.grad(lambda params: jnp.vdot(weights, layer.apply(params, images)))
    params = random_parameters(layer, images)
    found = gradient(params)["params"]["position_bias"]
    np.testing.assert_allclose(found, np.asarray(weights, np.float64).sum(0), rtol=1e-5, atol=1e-6)
    assert "axes=(0,)" not in str(jax.make_jaxpr(gradient)(params))
    assert reference.of_few_bits(lambda bias: generators._for_samples(bias, 3), jnp.zeros((4, 6, 3))) == []
