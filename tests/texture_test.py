import functools

import jax
import numpy as np
import pytest

from dfn_jax.data.texture import texture_batch
from tests.reference import of_few_bits


def draw(seed, **options):
    return np.asarray(jax.jit(functools.partial(texture_batch, **options))(jax.random.key(seed)))


def test_textures_are_the_same_on_every_device():
    assert of_few_bits(lambda key: texture_batch(key, batch_size=2, image_size=(16, 16)), jax.random.key(0)) == []


@pytest.mark.parametrize("image_size", [(64, 64), (37, 50), (1, 1), (5, 130)])
def test_textures_have_their_shape_and_range(image_size):
    images = draw(0, batch_size=3, image_size=image_size)
    assert images.shape == (3, *image_size, 1)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.fixture(scope="module")
def textures():
    return draw(1, batch_size=64, image_size=(64, 64))


def test_textures_are_a_pure_function_of_the_key(textures):
    eager = texture_batch(jax.random.key(1), batch_size=64, image_size=(64, 64))
    np.testing.assert_allclose(eager, textures, atol=1e-5)
    assert not np.allclose(draw(2, batch_size=64, image_size=(64, 64)), textures, atol=0.1)


def test_textures_differ_in_contrast_and_none_is_flat(textures):
    contrast = textures.std((1, 2, 3))
    assert contrast.min() > 0.01
    assert contrast.max() > 0.2
    assert np.quantile(contrast, 0.9) > 2 * np.quantile(contrast, 0.1)
    assert np.mean((textures == 0) | (textures == 1)) < 0.05


def test_textures_have_power_at_all_frequencies_and_a_spectrum_each(textures):
    power = np.abs(np.fft.fft2(textures[..., 0] - textures[..., 0].mean((1, 2), keepdims=True))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    low = power[:, (frequency > 0) & (frequency < 0.08)].mean(1)
    high = power[:, frequency > 0.35].mean(1)
    assert np.all(high > 0)
    slopes = np.log10(low / high)
    assert slopes.min() < 1  # nearly white
    assert slopes.max() > 2  # as in natural images
