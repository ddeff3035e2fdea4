"""Value noise on a lattice of hashed cells, from which the highway's textures are made.

As in `highway_geometry.py`, all is elementwise and free of calls into the C library.
"""

import jax.numpy as jnp
from jax import Array


def lattice(x: Array) -> Array:
    """Whole numbers, given as float32, as the uint32 that `cell_value` takes; negative ones wrap around."""
    return x.astype(jnp.int32).astype(jnp.uint32)


def cell_value(column: Array, row: Array, seed: Array) -> Array:
    """A number in [-1, 1] for each cell of the lattice."""
    h = column * jnp.uint32(0x9E3779B1) ^ row * jnp.uint32(0x85EBCA77) ^ seed
    h = (h ^ (h >> 15)) * jnp.uint32(0x2C1B3C6D)
    h = (h ^ (h >> 13)) * jnp.uint32(0x297A2D39)
    return (h >> 8).astype(jnp.float32) * (2.0 / (1 << 24)) - 1.0


def _ramp(x: Array) -> Array:
    return x * x * (3 - 2 * x)


def noise_line(u: Array, row: Array, seed: Array) -> Array:
    """Value noise in [-1, 1] along one row of the lattice: hashed corners, joined by cubic ramps."""
    floor = jnp.floor(u)
    column = lattice(floor)
    left, right = cell_value(column, row, seed), cell_value(column + jnp.uint32(1), row, seed)
    return left + (right - left) * _ramp(u - floor)


def noise(u: Array, v: Array, seed: Array) -> Array:
    """Value noise in [-1, 1] on the unit lattice."""
    floor = jnp.floor(v)
    row = lattice(floor)
    upper, lower = noise_line(u, row, seed), noise_line(u, row + jnp.uint32(1), seed)
    return upper + (lower - upper) * _ramp(v - floor)
