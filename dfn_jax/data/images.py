"""Images for the steerable task: procedural texture, or random crops of a folder."""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from dfn_jax.data.image_files import (
    IMAGE_SUFFIXES,
    check_channels,
    existing_folder,
    header_size,
    list_images,
    read_pixels,
    unit_range,
)
from dfn_jax.errors import InputError

if TYPE_CHECKING:
    import grain

_DECODED_BYTES = 2**30
_OCTAVES = 5
_EDGES = 2


def texture_batch(key: jax.Array, *, batch_size: int, image_size: tuple[int, int], channels: int = 1) -> jax.Array:
    """Draws random broad-band textures: noise between white and 1/f, with edges, at random contrast.

    Args:
        key: PRNG key, the only source of randomness.
        batch_size: N.
        image_size: (H, W) in pixels.
        channels: C; the channels of an image are drawn independently.

    Returns:
        Images [N, H, W, C], float32 in [0, 1].
    """
    keys = jax.random.split(key, 4)
    noise = _octave_noise(keys[0], batch_size, image_size, channels)
    edges = _edges(keys[1], batch_size, image_size, channels)
    edge_share, contrast, brightness = jnp.split(
        jax.random.uniform(keys[2], (batch_size, 1, 1, 3 * channels)), 3, axis=-1
    )
    mixed = (1 - edge_share) * noise + edge_share * edges
    # At a contrast of 0.3 three standard deviations of unit noise nearly fill [0, 1].
    return jnp.clip(0.3 + 0.4 * brightness + (0.03 + 0.27 * contrast) * mixed, 0.0, 1.0)


def _octave_noise(key: jax.Array, batch_size: int, image_size: tuple[int, int], channels: int) -> jax.Array:
    """Sums lattice noise from coarse to fine; a random slope per image sets the spectrum from white to 1/f."""
    slope_key, *octave_keys = jax.random.split(key, _OCTAVES + 1)
    slope = jax.random.uniform(slope_key, (batch_size, 1, 1, channels))
    # White noise has a quarter of its power in each coarser octave, 1/f noise the same in all.
    weights = [2.0 ** (-octave * (1 - slope)) for octave in range(_OCTAVES)]
    total = jnp.zeros((batch_size, 1, 1, channels))
    for octave in reversed(range(_OCTAVES)):
        lattice = _lattice(octave_keys[octave], batch_size, image_size, channels, spacing=2**octave)
        total = weights[octave] * lattice + jax.image.resize(total, lattice.shape, "linear")
    return total / jnp.sqrt(sum(weight**2 for weight in weights))


def _edges(key: jax.Array, batch_size: int, image_size: tuple[int, int], channels: int) -> jax.Array:
    """Draws regions of constant value, bounded by the zero crossings of smooth noise."""
    total = 0.0
    for octave, octave_key in enumerate(jax.random.split(key, _EDGES)):
        lattice = _lattice(octave_key, batch_size, image_size, channels, spacing=8 * 2**octave)
        total += jnp.sign(jax.image.resize(lattice, (batch_size, *image_size, channels), "linear"))
    return total / jnp.sqrt(float(_EDGES))


def _lattice(key: jax.Array, batch_size: int, image_size: tuple[int, int], channels: int, *, spacing: int) -> jax.Array:
    """Draws uniform noise of unit variance at every `spacing`-th pixel."""
    height, width = (-(-size // spacing) for size in image_size)
    bits = _random_bytes(key, (batch_size, height, width, channels))
    return (bits.astype(jnp.float32) - 127.5) * (math.sqrt(12.0) / 256)


def _random_bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws uint8 four to a word, which `jax.random.bits(..., uint8)` does not, and which is most of the cost."""
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 4),), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(shape)


def crop_batches(
    data_dir: str | Path, *, image_size: tuple[int, int], channels: int = 1, batch_size: int, seed: int
) -> "grain.MapDataset":
    """Cuts random crops from a folder of images, as an endless sequence of batches.

    Every epoch visits all images in a new order. The headers of all files are checked at the door; pixels are
    decoded when first used and kept in memory up to 1 GiB.

    Args:
        data_dir: Folder searched recursively for 8-bit grey or RGB images.
        image_size: (H, W) of a crop in pixels.
        channels: C, 1 for grey (Rec. 601) or 3 for RGB.
        batch_size: N; may exceed the number of images.
        seed: Non-negative integer; item `step` is a pure function of (seed, step).

    Returns:
        Random-access data set of {"image": [N, H, W, C] float32 in [0, 1]}.

    Raises:
        InputError: The folder is missing or has no images, or an image is unreadable, not 8-bit or too small.
    """
    import grain

    check_channels(channels)
    folder = existing_folder(data_dir)
    paths = list_images(folder, recursive=True)
    if not paths:
        raise InputError(f"no images under {folder}; wanted {', '.join(IMAGE_SUFFIXES)} files: check data.dir")
    sizes = [header_size(path) for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        if size[0] < image_size[0] or size[1] < image_size[1]:
            raise InputError(
                f"{path} is {size[0]} x {size[1]}, smaller than the crop of {image_size[0]} x {image_size[1]} "
                "(height x width); remove it or ask for a smaller image_size"
            )
    largest = channels * max(height * width for height, width in sizes)
    pixels = functools.lru_cache(maxsize=max(1, _DECODED_BYTES // largest))(read_pixels)
    order_seed, crop_seed = np.random.SeedSequence(seed).generate_state(2)
    return (
        grain.MapDataset.source(paths)
        .shuffle(seed=int(order_seed))
        .repeat()
        .random_map(lambda path, rng: {"image": _crop(pixels(path, channels), image_size, rng)}, seed=int(crop_seed))
        .batch(batch_size)
    )


def _crop(pixels: np.ndarray, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    height, width = image_size
    top = rng.integers(pixels.shape[0] - height + 1)
    left = rng.integers(pixels.shape[1] - width + 1)
    return unit_range(pixels[top : top + height, left : left + width])
