"""Procedural texture, on which steerable filters are learned."""

import math

import jax
import jax.numpy as jnp
import numpy as np

_NOISE_SPACINGS = (1, 2, 4, 8, 16)  # of the lattices, in pixels
_EDGE_SPACINGS = (8, 16)


def texture_batch(
    key: jax.Array,
    *,
    batch_size: int,
    image_size: tuple[int, int],
    indices: jax.Array | None = None,
) -> jax.Array:
    """Draws random broad-band textures: noise between white and 1/f, with edges, at random contrast.

    Args:
        key: PRNG key, the only source of randomness.
        batch_size: images in the batch.
        image_size: (H, W) in pixels.
        indices: [N] int, which images to draw; None for all.

    Returns:
        Images [N, H, W, 1], float32 in [0, 1].
    """
    look_key, lattice_key = jax.random.split(key)
    part = slice(None) if indices is None else indices
    slope, edge_share, contrast, brightness = jax.random.uniform(look_key, (4, batch_size, 1, 1, 1))[:, part]
    # Mostly near white: only there do errors of a filter weigh the same at all frequencies.
    slope, edge_share = slope**3, edge_share**3
    shapes = [
        (batch_size, -(-image_size[0] // spacing), -(-image_size[1] // spacing), 1)
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
