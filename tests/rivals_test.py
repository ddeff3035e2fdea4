"""What the dynamic filter is compared with: DNA and CDNA on video; spatial transformer and deep stereo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.models.cdna import VideoCDNA, VideoDNA, rectified_kernels
from dfn_jax.models.deep_stereo import DeepStereo
from dfn_jax.models.spatial_transformer import SpatialTransformer
from dfn_jax.models.stereo import StereoDFN
from dfn_jax.models.twins import StereoTwin, VideoTwin
from tests import reference
from tests.models_test import KEY, random_parameters
from tests.video_model_test import SMALL, conv, decode, encode, leaky

LEFT = jax.random.uniform(KEY, (2, 6, 9, 2))


def dense(x, layer):
    return x @ np.asarray(layer["kernel"], np.float64) + layer["bias"]


def rectified(x):
    return np.maximum(x, 0) / np.maximum(x, 0).sum(-1, keepdims=True)


def generated(params, left):
    """What the filter-generating network of stereo says of one image [H, W, C]."""
    parts = params["StereoGenerator_0"]
    return decode(encode(left, parts["Encoder_0"]), parts["Decoder_0"], left.shape[:2])


@pytest.mark.parametrize("network", [VideoDNA(**SMALL, channels=2), VideoCDNA(**SMALL, channels=2, masks=4)])
def test_the_prediction_is_the_newest_frame_under_its_filters(network):
    frames = jax.random.uniform(KEY, (2, 1, 8, 8, 2))
    params = jax.tree.map(lambda leaf: 10 * leaf, random_parameters(network, frames))
    predicted = jax.jit(network.apply)(params, frames)
    filters = np.asarray(predicted.filters, np.float64)
    assert (filters >= 0).all()
    assert filters.std() > 0.01
    np.testing.assert_allclose(filters.sum(-1), 1, rtol=1e-5)
    wanted = reference.dynamic_local_filter(np.asarray(frames[:, -1], np.float64), filters, kernel_size=(3, 3))
    np.testing.assert_allclose(predicted.frame, wanted, atol=1e-5)
    params, generator = params["params"], params["params"]["generator"]
    for frame, found in zip(np.asarray(frames[:, 0], np.float64), filters, strict=True):
        first = np.zeros((4, 4, 2))  # the hidden state, 4x4 as CDNA pools it
        hidden = encode(frame, generator["encoding"])
        hidden += leaky(conv(leaky(conv(first, generator["transition_0"])), generator["transition_1"]))
        values = decode(hidden, generator["decoding"], (8, 8))
        if isinstance(network, VideoCDNA):
            kernels = rectified(dense(hidden.reshape(-1), params["kernels"]).reshape(4, 9))
            wanted = reference.softmax_filters(values) @ np.stack([np.eye(9)[4], *kernels])
        else:
            wanted = rectified(values)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


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
    left = jax.random.uniform(KEY, (2, 8, 8, 2))  # whose code is 4x4, as it is pooled
    network = SpatialTransformer()
    params = random_parameters(network, left)["params"]
    params["Dense_1"]["bias"] = jnp.array([-0.5, 0.25, 0.1, 0.0, -0.3, 0.2])
    output = jax.jit(network.apply)({"params": params}, left)
    changes = []
    for n, image in enumerate(np.asarray(left, np.float64)):
        code = encode(image, params["Encoder_0"]).reshape(-1)
        changes.append(dense(leaky(dense(code, params["Dense_0"])), params["Dense_1"]).reshape(2, 3))
        for y, x in np.ndindex(8, 8):
            place = np.array([x / 3.5 - 1, y / 3.5 - 1, 1])  # from -1 to 1
            source_x, source_y = (place[:2] + changes[n] @ place + 1) * 3.5
            np.testing.assert_allclose(output.displacement[n, y, x], [source_x - x, source_y - y], atol=1e-4)
            source_x, source_y = np.clip([source_x, source_y], 0, 7)
            first_x, first_y = min(int(source_x), 6), min(int(source_y), 6)
            part_x, part_y = source_x - first_x, source_y - first_y
            (a, b), (c, d) = image[first_y : first_y + 2, first_x : first_x + 2]
            wanted = (1 - part_y) * ((1 - part_x) * a + part_x * b) + part_y * ((1 - part_x) * c + part_x * d)
            np.testing.assert_allclose(output.prediction[n, y, x], wanted, atol=1e-4)
    assert np.abs(changes[0] - changes[1]).max() > 1e-3


def test_the_stereo_networks_with_and_without_a_filter_share_the_generator():
    for network in (StereoDFN(taps=5), StereoTwin(taps=5)):
        params = random_parameters(network, LEFT)
        output = jax.jit(network.apply)(params, LEFT)
        for n, left in enumerate(np.asarray(LEFT, np.float64)):
            theta = generated(params["params"], left)
            if isinstance(network, StereoDFN):
                np.testing.assert_allclose(output.filters[n], reference.softmax_filters(theta[..., :5]), atol=1e-5)
                np.testing.assert_allclose(output.bias[n], theta[..., 5:], atol=1e-5)
            else:
                np.testing.assert_allclose(output[n], conv(theta, params["params"]["Conv_0"]), atol=1e-5)


def test_deep_stereo_selects_from_planes_which_it_paints():
    """Of towers that go over the whole view; far from its borders, the same as of towers over each plane."""
    lefts = jax.random.uniform(KEY, (2, 6, 14, 2))
    network = DeepStereo(taps=5)
    params = random_parameters(network, lefts)["params"]
    # What the planes are made of is to be seen beside what the generator says.
    params |= {name: jax.tree.map(lambda leaf: 4 * leaf, layer) for name, layer in params.items() if "Conv" in name}
    output = jax.jit(network.apply)({"params": params}, lefts)
    layer = [params[f"Conv_{index}"] for index in range(6)]

    def see(view):
        return leaky(conv(leaky(conv(view, layer[0])), layer[1]))

    def paint(view):
        return conv(leaky(conv(view, layer[4])), layer[5])

    for n, left in enumerate(np.asarray(lefts, np.float64)):
        wide = np.pad(left, ((0, 0), (2, 2), (0, 0)))

        def planes(view):
            return [view[:, tap : tap + 14] for tap in range(5)]

        for seen, painted, columns in (
            (planes(see(wide)), planes(paint(wide)), slice(None)),
            ([see(plane) for plane in planes(wide)], [paint(plane) for plane in planes(wide)], slice(4, -4)),
        ):
            selected = leaky(conv(np.concatenate([leaky(generated(params, left)), *seen], axis=-1), layer[2]))
            selection = reference.softmax_filters(conv(selected, layer[3]))[:, columns]
            np.testing.assert_allclose(output.filters[n, :, columns], selection, atol=1e-4)
            coloured = np.stack([sum(both) for both in zip(planes(wide), painted, strict=True)], axis=2)[:, columns]
            wanted = np.einsum("hwp,hwpc->hwc", selection, coloured)
            np.testing.assert_allclose(output.prediction[n, :, columns], wanted, atol=1e-4)
        np.testing.assert_allclose(output.bias[n], paint(wide)[:, 2:-2], atol=1e-4)
        assert selection.std() > 0.01


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
