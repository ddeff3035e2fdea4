"""Moving MNIST: digits that bounce inside a square, drawn on the device as a pure function of a key.

As in Srivastava et al. (2015): each digit starts anywhere, moves a tenth of the free range a frame in a direction of
its own, and is mirrored at the edges; where digits overlap, the brighter wins.
"""

import functools
import hashlib
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dfn_jax.errors import InputError, in_one_line

STEP = 0.1  # of the free range, a frame
TEST_FILE = "mnist_test_seq.npy"
TEST_SHAPE = (20, 10_000, 64, 64)
TEST_SHA256 = "c2a3e8d3939c001ab77bf543f130157424efa486bb4d0974d2cebb773b13f8b3"


def trajectories(start: Array, velocity: Array, *, frames: int) -> Array:
    """Moves points inside the unit square; at an edge they stop for that frame and turn back.

    Args:
        start: [..., 2] float32 in [0, 1], where each is before the first frame.
        velocity: [..., 2] float32, per frame.
        frames: T.

    Returns:
        [T, ..., 2] float32 in [0, 1]: each frame moves first, then clamps.

    Source:
        The generator of Srivastava et al. (2015), as in the authors' code.
    """

    def move(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        position, velocity = state
        position = position + velocity
        velocity = jnp.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = jnp.clip(position, 0, 1)
        return (position, velocity), position

    return lax.scan(move, (start, velocity), length=frames)[1]


def draw_sequences(digits: Array, corners: Array, *, image_size: tuple[int, int]) -> Array:
    """Puts digits on black, the brighter winning where they overlap.

    Args:
        digits: [N, D, h, w] uint8.
        corners: [T, N, D, 2] int32, row and column of each digit's upper left corner; all of it lies inside.
        image_size: (H, W) in pixels.

    Returns:
        [N, T, H, W, 1] float32 in [0, 1].
    """
    samples, frames = digits.shape[0], corners.shape[0]
    free = [image_size[axis] - digits.shape[2 + axis] for axis in (0, 1)]
    # A frame is a window of the digit with as much black around it as it can be away from any edge.
    padded = jnp.pad(digits, ((0, 0), (0, 0), *((space, space) for space in free)))
    windows = lax.GatherDimensionNumbers(offset_dims=(2, 3), collapsed_slice_dims=(0,), start_index_map=(0, 1, 2))
    drawn = jnp.zeros((samples, frames, *image_size), jnp.uint8)
    for digit in range(digits.shape[1]):
        corner = jnp.moveaxis(jnp.array(free) - corners[:, :, digit], 0, 1)
        sample = jnp.broadcast_to(jnp.arange(samples)[:, None, None], (samples, frames, 1))
        window = lax.gather(
            padded[:, digit],
            jnp.concatenate([sample, corner], -1),
            windows,
            (1, *image_size),
            mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
        )
        drawn = jnp.maximum(drawn, window)
    return drawn[..., None].astype(jnp.float32) / 255


@functools.partial(jax.jit, static_argnames=("batch_size", "count", "frames", "image_size"))
def sequence_batch(
    key: Array,
    digits: Array,
    *,
    batch_size: int,
    count: int,
    frames: int,
    image_size: tuple[int, int],
    indices: Array | None = None,
) -> Array:
    """Draws one batch of sequences, or a part of it.

    Args:
        key: typed PRNG key; the same key gives the same batch.
        digits: [D, h, w] uint8, to choose from.
        batch_size: number of sequences in the batch.
        count: how many digits move in each.
        frames: T.
        image_size: (H, W) in pixels, not smaller than a digit.
        indices: [N] int, which sequences to draw; None for all.

    Returns:
        [N, T, H, W, 1] float32 in [0, 1].
    """
    chosen, positions = _motion(key, len(digits), batch_size, count, frames, indices)
    corners = _corners(positions, digits.shape[1:], image_size)
    return draw_sequences(digits[chosen], corners, image_size=image_size)


@functools.partial(jax.jit, static_argnames=("batch_size", "count", "frames", "image_size"))
def sequence_events(
    key: Array, digits: Array, *, batch_size: int, count: int, frames: int, image_size: tuple[int, int]
) -> dict[str, Array]:
    """What happens in the sequences that `sequence_batch` draws with the same arguments.

    Returns:
        overlap: [N, T] bool, frames in which a pixel belongs to two digits; bounce: [N, T] bool, frames in which a
        digit is at an edge, where it turns back.
    """
    chosen, positions = _motion(key, len(digits), batch_size, count, frames, None)
    corners = _corners(positions, digits.shape[1:], image_size)
    painted = [
        draw_sequences(digits[chosen[:, one : one + 1]], corners[:, :, one : one + 1], image_size=image_size) > 0
        for one in range(count)
    ]
    turning = ((positions <= 0) | (positions >= 1)).any((2, 3))
    return {"overlap": (sum(p.astype(jnp.int32) for p in painted) > 1).any((2, 3, 4)), "bounce": turning.T}


def _motion(
    key: Array, digits: int, batch_size: int, count: int, frames: int, indices: Array | None
) -> tuple[Array, Array]:
    """Which digits, [N, D], and where in the unit square, [T, N, D, 2]."""
    which_key, start_key, direction_key = jax.random.split(key, 3)
    chosen = jax.random.randint(which_key, (batch_size, count), 0, digits)
    start = jax.random.uniform(start_key, (batch_size, count, 2))
    direction = jax.random.uniform(direction_key, (batch_size, count), maxval=2 * math.pi)
    velocity = STEP * jnp.stack([jnp.sin(direction), jnp.cos(direction)], -1)
    part = slice(None) if indices is None else indices
    return chosen[part], trajectories(start[part], velocity[part], frames=frames)


def _corners(positions: Array, digit_size: tuple[int, int], image_size: tuple[int, int]) -> Array:
    return (positions * (jnp.array(image_size) - jnp.array(digit_size))).astype(jnp.int32)


def shrink_digits(digits: np.ndarray, size: int) -> np.ndarray:
    """Averages blocks of pixels, for canvases smaller than the paper's.

    Args:
        digits: [D, 28, 28] uint8.
        size: height and width wanted, a divisor of 28.

    Returns:
        [D, size, size] uint8.

    Raises:
        InputError: 28 is no multiple of the size.
    """
    if size < 1 or digits.shape[1] % size:
        raise InputError(f"digits of {size} pixels were asked for; the size must divide {digits.shape[1]}")
    factor = digits.shape[1] // size
    blocks = digits.reshape(-1, size, factor, size, factor)
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)


def open_test_file(path: Path) -> np.ndarray:
    """Opens the test set of the literature without reading it into memory.

    Args:
        path: `mnist_test_seq.npy`.

    Returns:
        [10000, 20, 64, 64] uint8, memory-mapped.

    Raises:
        InputError: the file cannot be read, or has another shape, type or content than the published one.
    """
    try:
        sequences = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = in_one_line(error)
        raise InputError(f"cannot read {path} ({reason}); get {TEST_FILE} again") from error
    if sequences.shape != TEST_SHAPE or sequences.dtype != np.uint8:
        raise InputError(
            f"{path} holds {sequences.dtype} {list(sequences.shape)}; wanted uint8 {list(TEST_SHAPE)}, frames first"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != TEST_SHA256:
        raise InputError(f"{path} has sha256 {found}, the published file has {TEST_SHA256}; get the file again")
    return np.moveaxis(sequences, 1, 0)
