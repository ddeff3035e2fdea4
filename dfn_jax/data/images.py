"""Images for the steerable task: procedural texture, or random crops of a folder."""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from dfn_jax import files
from dfn_jax.data.image_files import (
    check_channels,
    existing_folder,
    find_images,
    header_size,
    list_images,
    read_pixels,
    unit_range,
)
from dfn_jax.errors import InputError

if TYPE_CHECKING:
    import grain

_DECODED_BYTES = 2**30
_NOISE_SPACINGS = (1, 2, 4, 8, 16)  # of the lattices, in pixels
_EDGE_SPACINGS = (8, 16)


def texture_batch(
    key: jax.Array,
    *,
    batch_size: int,
    image_size: tuple[int, int],
    channels: int = 1,
    indices: jax.Array | None = None,
) -> jax.Array:
    """Draws random broad-band textures: noise between white and 1/f, with edges, at random contrast.

    Args:
        key: PRNG key, the only source of randomness.
        batch_size: images in the batch.
        image_size: (H, W) in pixels.
        channels: C; the channels of an image are drawn independently.
        indices: [N] int, which images to draw; None for all.

    Returns:
        Images [N, H, W, C], float32 in [0, 1].
    """
    look_key, lattice_key = jax.random.split(key)
    part = slice(None) if indices is None else indices
    slope, edge_share, contrast, brightness = jax.random.uniform(look_key, (4, batch_size, 1, 1, channels))[:, part]
    # Mostly near white: only there do errors of a filter weigh the same at all frequencies.
    slope, edge_share = slope**3, edge_share**3
    shapes = [
        (batch_size, -(-image_size[0] // spacing), -(-image_size[1] // spacing), channels)
        for spacing in (*_NOISE_SPACINGS, *_EDGE_SPACINGS)
    ]
    lattices = [lattice[part] for lattice in _white_noise(lattice_key, shapes)]
    noise = _octave_noise(lattices[: len(_NOISE_SPACINGS)], slope)
    edges = _edges(lattices[len(_NOISE_SPACINGS) :], noise.shape)
    mixed = (1 - edge_share) * noise + edge_share * edges
    # At a contrast of 0.3 three standard deviations of unit noise nearly fill [0, 1].
    return jnp.clip(0.3 + 0.4 * brightness + (0.03 + 0.27 * contrast) * mixed, 0.0, 1.0)


def _octave_noise(lattices: list[jax.Array], slope: jax.Array) -> jax.Array:
    """Sums lattice noise from coarse to fine; a slope of 0 makes it white, a slope of 1 makes it 1/f."""
    # White noise has a quarter of its power in each coarser octave, 1/f noise the same in all.
    weights = [2.0 ** (-octave * (1 - slope)) for octave in range(len(lattices))]
    total = weights[-1] * lattices[-1]
    for weight, lattice in zip(weights[-2::-1], lattices[-2::-1], strict=True):
        total = weight * lattice + _enlarge(total, lattice.shape)
    return total / jnp.sqrt(sum(weight**2 for weight in weights))


def _edges(lattices: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Draws regions of constant value, bounded by the zero crossings of smooth noise."""
    regions = [jnp.sign(_enlarge(lattice, shape)) for lattice in lattices]
    return sum(regions) / math.sqrt(len(regions))


def _enlarge(images: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Interpolates linearly; two constant matrices compile and run in less time than `jax.image.resize`."""
    rows, columns = (_interpolation(images.shape[axis], shape[axis]) for axis in (1, 2))
    return jnp.einsum("Hh,nhwc,Ww->nHWc", rows, images, columns, precision="highest")


def _interpolation(old: int, new: int) -> np.ndarray:
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    return np.stack([np.interp(centres, np.arange(old), column) for column in np.eye(old)], axis=1).astype(np.float32)


def _white_noise(key: jax.Array, shapes: list[tuple[int, ...]]) -> list[jax.Array]:
    """Draws uniform noise of unit variance, a byte per value and all in one draw, for that is most of the cost."""
    sizes = [math.prod(shape) for shape in shapes]
    words = jax.random.bits(key, (-(-sum(sizes) // 4),), jnp.uint32)
    values = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1).astype(jnp.float32)
    values = (values - 127.5) * (math.sqrt(12.0) / 256)
    ends = np.cumsum(sizes)
    return [values[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)]


def crops(data_dir: str | Path, *, image_size: tuple[int, int], channels: int = 1, seed: int) -> "grain.MapDataset":
    """Cuts random crops from a folder of images, without end; `epochs.batch` makes batches of them.

    Every epoch visits all images in a new order. The headers of all files are checked at the door; pixels are
    decoded when first used and kept in memory up to 1 GiB.

    Args:
        data_dir: Folder searched recursively for 8-bit grey or RGB images.
        image_size: (H, W) of a crop in pixels.
        channels: C, 1 for grey (Rec. 601) or 3 for RGB.
        seed: Non-negative integer; an item is a pure function of seed and position.

    Returns:
        Random-access data set of {"image": [H, W, C] float32 in [0, 1]}.

    Raises:
        InputError: The folder is missing or has no images, or an image is unreadable, not 8-bit or too small.
    """
    from dfn_jax.data.epochs import shuffled_epochs

    check_channels(channels)
    folder = existing_folder(data_dir)
    paths = find_images(folder)
    sizes = [header_size(path) for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        if size[0] < image_size[0] or size[1] < image_size[1]:
            raise InputError(
                f"{path} is {size[0]} x {size[1]}, smaller than the crop of {image_size[0]} x {image_size[1]} "
                "(height x width); remove it or ask for a smaller image_size"
            )
    largest = channels * max(height * width for height, width in sizes)
    pixels = functools.lru_cache(maxsize=max(1, _DECODED_BYTES // largest))(read_pixels)
    order = shuffled_epochs(len(paths), seed=seed)

    def crop(position: int, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, position])
        return {"image": _crop(pixels(paths[index], channels), image_size, rng)}

    return order.map_with_index(crop)


def fingerprint(data_dir: str | Path) -> str:
    """Identifies the images of a folder, wherever it lies.

    Raises:
        InputError: There is no such folder.
    """
    folder = existing_folder(data_dir)
    return files.fingerprint(folder, list_images(folder, recursive=True))


def _crop(pixels: np.ndarray, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    height, width = image_size
    top = rng.integers(pixels.shape[0] - height + 1)
    left = rng.integers(pixels.shape[1] - width + 1)
    return unit_range(pixels[top : top + height, left : left + width])
