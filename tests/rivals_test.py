"""What the dynamic filter is compared with: DNA and CDNA on video; spatial transformer and deep stereo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.models.cdna import VideoCDNA, VideoDNA, rectified_kernels
from dfn_jax.models.deep_stereo import DeepStereo
from dfn_jax.models.spatial_transformer import SpatialTransformer
from dfn_jax.models.twins import StereoTwin, VideoTwin
from tests import reference
from tests.models_test import KEY, random_parameters
from tests.video_model_test import SMALL

LEFT = jax.random.uniform(KEY, (2, 6, 9, 2))


@pytest.mark.parametrize("network", [VideoDNA(**SMALL, channels=2), VideoCDNA(**SMALL, channels=2, masks=4)])
def test_the_prediction_is_the_newest_frame_under_its_filters(network):
    frames = jax.random.uniform(KEY, (2, 1, 5, 6, 2))
    params = jax.tree.map(lambda leaf: 10 * leaf, random_parameters(network, frames))
    predicted = jax.jit(network.apply)(params, frames)
    filters = np.asarray(predicted.filters, np.float64)
    assert (filters >= 0).all()
    assert filters.std() > 0.01
    np.testing.assert_allclose(filters.sum(-1), 1, rtol=1e-5)
    wanted = reference.dynamic_local_filter(np.asarray(frames[:, -1], np.float64), filters, kernel_size=(3, 3))
    np.testing.assert_allclose(predicted.frame, wanted, atol=1e-5)


def test_cdna_has_one_set_of_kernels_for_all_pixels():
    """Its filters are blends of its three kernels and the pixel itself, which bounds their rank."""
    frames = jax.random.uniform(KEY, (1, 1, 8, 8, 1))
    ranks = []
    for network in (VideoCDNA(**SMALL, masks=3), VideoDNA(**SMALL)):
        params = jax.tree.map(lambda leaf: 20 * leaf, random_parameters(network, frames))
        filters = jax.jit(network.apply)(params, frames).filters
        ranks.append(np.linalg.matrix_rank(np.asarray(filters[0]).reshape(64, 9), tol=1e-4))
    assert 1 < ranks[0] <= 4 < ranks[1]


def test_rectified_kernels_are_positive_parts():
    np.testing.assert_allclose(rectified_kernels(jnp.array([1.0, -2.0, 3.0])), [0.25, 0, 0.75], atol=1e-6)
    np.testing.assert_allclose(rectified_kernels(jnp.array([-1.0, -2.0])), [0.5, 0.5])


def test_a_spatial_transformer_begins_at_the_identity():
    output, _ = jax.jit(SpatialTransformer().init_with_output)(KEY, LEFT)
    np.testing.assert_allclose(output.prediction, LEFT, atol=1e-5)
    np.testing.assert_allclose(output.displacement, 0, atol=1e-5)


def test_a_spatial_transformer_moves_turns_and_scales_as_its_parameters_say():
    network = SpatialTransformer()
    params = random_parameters(network, LEFT)["params"]
    last = params["Dense_1"]
    params["Dense_1"] = {"kernel": jnp.zeros_like(last["kernel"]), "bias": jnp.array([-0.5, 0.25, 0.1, 0.0, -0.3, 0.2])}
    output = jax.jit(network.apply)({"params": params}, LEFT)
    images = np.asarray(LEFT, np.float64)
    for y, x in np.ndindex(6, 9):
        across, down = x / 4 - 1, y / 2.5 - 1  # from -1 to 1
        source_x = (0.5 * across + 0.25 * down + 0.1 + 1) * 4
        source_y = (0.7 * down + 0.2 + 1) * 2.5
        np.testing.assert_allclose(output.displacement[:, y, x], [[source_x - x, source_y - y]] * 2, atol=1e-5)
        source_x, source_y = min(max(source_x, 0), 8), min(max(source_y, 0), 5)
        left, top = min(int(source_x), 7), min(int(source_y), 4)
        part_x, part_y = source_x - left, source_y - top
        wanted = (
            (1 - part_y) * ((1 - part_x) * images[:, top, left] + part_x * images[:, top, left + 1])
            + part_y * ((1 - part_x) * images[:, top + 1, left] + part_x * images[:, top + 1, left + 1])
        )  # fmt: skip
        np.testing.assert_allclose(output.prediction[:, y, x], wanted, atol=1e-5)


def test_deep_stereo_without_its_colour_tower_is_a_dynamic_local_filter():
    network = DeepStereo(taps=5)
    params = jax.tree.map(lambda leaf: 4 * leaf, random_parameters(network, LEFT))
    output = jax.jit(network.apply)(params, LEFT)
    selection = np.asarray(output.filters, np.float64)
    assert selection.std() > 0.01
    wanted = reference.dynamic_local_filter(np.asarray(LEFT, np.float64), selection, kernel_size=(1, 5))
    np.testing.assert_allclose(output.prediction - output.colour, wanted, atol=1e-5)
    assert jnp.abs(output.colour).max() > 0.01


@pytest.mark.parametrize(
    ("twin", "inputs"),
    [(StereoTwin(dtype=jnp.bfloat16), LEFT), (VideoTwin(**SMALL, channels=2, dtype=jnp.bfloat16), LEFT[:, None])],
)
def test_without_a_filter_the_image_of_a_network_in_half_precision_is_not_rounded(twin, inputs):
    """As little as the filtered one is: near white half precision has steps of 1/256."""
    output = jax.jit(twin.apply)(random_parameters(twin, inputs), inputs)
    image = getattr(output, "frame", output)
    assert image.dtype == jnp.float32
    assert (image != image.astype(jnp.bfloat16)).mean() > 0.9
