import functools
import hashlib
import os

import jax
import numpy as np
import pytest

from dfn_jax.data import moving_mnist
from dfn_jax.data.moving_mnist import (
    draw_sequences,
    open_test_file,
    sequence_batch,
    sequence_events,
    shrink_digits,
    trajectories,
)
from dfn_jax.errors import InputError
from tests import reference


def random_digits(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def assert_pixels(frames, expected):
    """Whole 8-bit values; XLA may divide by 255 by multiplying, which may cost the last bit of float32."""
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(np.rint(frames * 255.0), expected)
    np.testing.assert_array_max_ulp(frames, expected.astype(np.float32) / np.float32(255), maxulp=1)
    np.testing.assert_array_equal(frames[expected == 255], 1)


# Trajectories


def test_trajectories_equal_loops_exactly():
    rng = np.random.default_rng(1)
    start = rng.random((3, 40, 2), np.float32)
    velocity = rng.uniform(-0.1, 0.1, start.shape).astype(np.float32)
    velocity[0] *= 12  # across the square in a frame
    start[1, :4] = [[0, 0], [1, 1], [0, 1], [1, 0]]
    velocity[1, :2] = 0
    start[1, 4:6], velocity[1, 4:6] = [[0.75, 0.25]] * 2, [[0.25, -0.25], [0.125, -0.125]]  # lands on the edge
    expected = np.zeros((50, *start.shape), np.float32)
    for index in np.ndindex(start.shape):
        expected[:, *index] = reference.bouncing_positions(start[index], velocity[index], 50)
    found = trajectories(start, velocity, frames=50)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_each_frame_moves_then_stops_at_the_edge_and_turns_back():
    start = np.array([[0.875, 0.25], [0.5, 0.5]], np.float32)
    velocity = np.array([[0.25, -0.125], [0.0, 0.5]], np.float32)
    expected = [
        [[1, 0.125], [0.5, 1]],
        [[0.75, 0], [0.5, 0.5]],
        [[0.5, 0.125], [0.5, 0]],
        [[0.25, 0.25], [0.5, 0.5]],
        [[0, 0.375], [0.5, 1]],
        [[0.25, 0.5], [0.5, 0.5]],
    ]
    np.testing.assert_array_equal(trajectories(start, velocity, frames=6), expected)


# Drawing


def test_drawn_frames_equal_loops_and_rows_are_no_columns():
    sequences, frames, count, size = 3, 4, 3, (13, 9)
    digits = random_digits(sequences, count, 6, 4)
    rng = np.random.default_rng(2)
    corners = rng.integers(0, [size[0] - 6 + 1, size[1] - 4 + 1], (frames, sequences, count, 2), dtype=np.int32)
    corners[0, 0] = [[0, 0], [7, 5], [7, 0]]
    corners[1, 0] = [[3, 2], [3, 2], [4, 3]]
    drawn = np.asarray(draw_sequences(digits, corners, image_size=size))
    expected = [reference.pasted_digits(digits[n], corners[:, n], size) for n in range(sequences)]
    assert drawn.shape == (sequences, frames, *size, 1)
    assert_pixels(drawn[..., 0], np.stack(expected))


def test_every_grey_value_stays_exact():
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 8, 32)
    drawn = jax.jit(functools.partial(draw_sequences, image_size=(9, 34)))(values, np.ones((1, 1, 1, 2), np.int32))
    assert_pixels(np.asarray(drawn)[0, 0, 1:, 1:33, 0], values[0, 0])


# Random sequences. Blocks of one grey value each, so that frames tell where they are.

SEQUENCES, FRAMES, SIZE, BLOCK, FREE = 2000, 20, (14, 12), (4, 3), (10, 9)
VALUES = np.array([100, 150, 250], np.uint8)
BLOCKS = np.broadcast_to(VALUES[:, None, None], (3, *BLOCK))


def draw(seed, count):
    key = jax.random.key(seed)
    options = {"batch_size": SEQUENCES, "count": count, "frames": FRAMES, "image_size": SIZE}
    return np.asarray(sequence_batch(key, BLOCKS, **options))


@functools.cache
def drawn_pixels(count):
    return np.rint(draw(0, count)[..., 0] * 255).astype(np.uint8)


def drawn_corners():
    """Row and column of the block in every frame, [N, T, 2]."""
    lit = drawn_pixels(1) > 0
    return np.stack([lit.any(3).argmax(2), lit.any(2).argmax(2)], -1)


@functools.cache
def reference_corners(count):
    rng = np.random.default_rng(count)
    return np.stack([reference.moving_corners(rng, free=FREE, count=count, frames=FRAMES) for _ in range(SEQUENCES)])


def assert_same_mean(found, expected):
    """Of values [N, ...] whose rows are independent: within five standard errors of each other."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    error = np.sqrt(found.var(0) / len(found) + expected.var(0) / len(expected))
    np.testing.assert_array_less(np.abs(found.mean(0) - expected.mean(0)), 5 * error + 1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sequences_are_a_pure_function_of_the_key(count):
    first = draw(0, count)
    assert first.shape == (SEQUENCES, FRAMES, *SIZE, 1)
    assert first.dtype == np.float32
    other = draw(1, count)
    np.testing.assert_array_equal(draw(0, count), first)
    assert np.mean((first != other).any((1, 2, 3, 4))) > 0.99
    assert len(np.unique(first.reshape(SEQUENCES, -1), axis=0)) > 0.99 * SEQUENCES


def test_one_block_keeps_its_value_and_lies_inside_whole():
    pixels, corners = drawn_pixels(1), drawn_corners()
    value = pixels.max((1, 2, 3))
    assert set(value) <= set(VALUES)
    for axis in (0, 1):
        assert corners[..., axis].min() == 0
        assert corners[..., axis].max() == FREE[axis]
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    top, left = np.moveaxis(corners, -1, 0)[..., None, None]
    inside = (rows >= top) & (rows < top + BLOCK[0]) & (columns >= left) & (columns < left + BLOCK[1])
    np.testing.assert_array_equal(pixels, np.where(inside, value[:, None, None, None], 0))


def test_events_are_what_the_frames_show():
    """Blocks overlap where they cover less than both would; one that turns back was at an edge before."""
    key = jax.random.key(3)
    full = np.full((1, 8, 8), 255, np.uint8)
    options = {"batch_size": 40, "frames": 12, "image_size": (60, 70)}
    frames = np.asarray(sequence_batch(key, full, count=2, **options))
    events = sequence_events(key, full, count=2, **options)
    np.testing.assert_array_equal(events["overlap"], frames.sum((2, 3, 4)) < 2 * 64)
    assert 0.01 < np.mean(events["overlap"]) < 0.2

    frames = np.asarray(sequence_batch(key, full, count=1, **options))[..., 0]
    corners = np.stack([frames.any(3).argmax(2), frames.any(2).argmax(2)], -1).astype(int)
    steps = np.diff(corners, axis=1)
    into, out = steps[:, :-1], steps[:, 1:]
    turned = (np.sign(into) != np.sign(out)).any(-1)
    clear = (np.minimum(abs(into), abs(out)) >= 2).all(-1)
    bounce = np.asarray(sequence_events(key, full, count=1, **options)["bounce"])[:, 1:-1]
    np.testing.assert_array_equal(bounce[clear], turned[clear])
    assert 10 < bounce[clear].sum() < clear.sum() - 10


def test_every_digit_is_as_likely():
    value = drawn_pixels(1).max((1, 2, 3))
    shares = np.array([np.mean(value == known) for known in VALUES])
    np.testing.assert_allclose(shares, 1 / 3, atol=5 * np.sqrt(2 / 9 / SEQUENCES))


def test_positions_are_distributed_as_in_loops():
    found, expected = drawn_corners(), reference_corners(1)[:, :, 0]
    assert_same_mean(found, expected)  # of each frame and axis
    for axis in (0, 1):
        places = np.arange(FREE[axis] + 1)
        # Rounded positions, which the generator cuts, would lie at the edges and in between in other shares.
        assert_same_mean(*((c[..., axis, None] == places).mean(1) for c in (found, expected)))
    # By frame, the first included: only who moved before it can have been stopped at the far edge.
    assert_same_mean(*((c == FREE).any(-1) for c in (found, expected)))
    assert_same_mean(*((c == 0).any(-1) for c in (found, expected)))


@pytest.mark.parametrize("lag", [1, 4, 15])
def test_movements_are_distributed_as_in_loops(lag):
    rows, columns = np.moveaxis(drawn_corners()[:, lag:] - drawn_corners()[:, :-lag], -1, 0)
    expected = reference_corners(1)[:, :, 0]
    expected_rows, expected_columns = np.moveaxis(expected[:, lag:] - expected[:, :-lag], -1, 0)
    assert_same_mean(rows, expected_rows)
    assert_same_mean(columns, expected_columns)
    assert_same_mean(rows**2, expected_rows**2)
    assert_same_mean(columns**2, expected_columns**2)
    assert_same_mean(rows * columns, expected_rows * expected_columns)
    assert_same_mean(rows**2 * columns**2, expected_rows**2 * expected_columns**2)


@pytest.mark.parametrize("count", [2, 3])
def test_mass_and_overlap_are_distributed_as_in_loops(count):
    rng = np.random.default_rng(0)
    pixels = drawn_pixels(count)
    expected = np.zeros_like(pixels)
    for frames, corners in zip(expected, reference_corners(count), strict=True):
        chosen = rng.choice(VALUES, count)
        for frame, places in zip(frames, corners, strict=True):
            for value, (top, left) in zip(chosen, places, strict=True):
                box = frame[top : top + BLOCK[0], left : left + BLOCK[1]]
                np.maximum(box, value, out=box)
    assert_same_mean(pixels.mean((2, 3)), expected.mean((2, 3)))
    assert_same_mean((pixels > 0).mean((2, 3)), (expected > 0).mean((2, 3)))
    for value in VALUES:
        assert_same_mean((pixels == value).mean((1, 2, 3)), (expected == value).mean((1, 2, 3)))
    assert_same_mean(*(sum((p == value).any((1, 2, 3)) for value in VALUES) for p in (pixels, expected)))
    hidden = count * BLOCK[0] * BLOCK[1] - (pixels > 0).sum((2, 3))
    assert hidden.min() == 0
    assert hidden.max() >= BLOCK[0] * BLOCK[1]


# Smaller digits


@pytest.mark.parametrize("size", [28, 14, 7, 4, 1])
def test_shrinking_is_the_mean_of_blocks(size):
    digits = random_digits(3, 28, 28)
    digits[2] = 255
    shrunk = shrink_digits(digits, size)
    assert shrunk.shape == (3, size, size)
    assert shrunk.dtype == np.uint8
    factor = 28 // size
    for index in np.ndindex(shrunk.shape):
        d, y, x = index
        block = digits[d, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].astype(float)
        assert abs(shrunk[index] - block.mean()) <= 0.5


@pytest.mark.parametrize("size", [0, -1, 5, 27, 56])
def test_sizes_that_do_not_divide_are_told(size):
    with pytest.raises(InputError, match=rf"digits of {size} pixels .* must divide 28") as caught:
        shrink_digits(random_digits(1, 28, 28), size)
    assert "\n" not in str(caught.value)


# The test set of the literature


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mnist_test_seq.npy"


def test_the_test_file_comes_sequences_first_and_stays_on_disk(path, monkeypatch):
    sequences = random_digits(3, 5, 1100, 1025)  # more than the block that is hashed at once
    np.save(path, sequences)
    monkeypatch.setattr(moving_mnist, "TEST_SHAPE", sequences.shape)
    monkeypatch.setattr(moving_mnist, "TEST_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    opened = open_test_file(path)
    assert isinstance(opened, np.memmap)
    assert opened.shape == (5, 3, 1100, 1025)
    assert opened.dtype == np.uint8
    for n in range(5):
        for t in range(3):
            np.testing.assert_array_equal(opened[n, t], sequences[t, n])

    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([255 - sequences[-1, -1, -1, -1]]))
    with pytest.raises(InputError, match="sha256"):
        open_test_file(path)


def test_another_content_is_told_with_the_published_hash(path, monkeypatch):
    monkeypatch.setattr(moving_mnist, "TEST_SHAPE", (3, 5, 7, 6))
    np.save(path, random_digits(3, 5, 7, 6))
    with pytest.raises(InputError) as caught:
        open_test_file(path)
    message = str(caught.value)
    assert "\n" not in message
    published = "c2a3e8d3939c001ab77bf543f130157424efa486bb4d0974d2cebb773b13f8b3"
    for word in (str(path), hashlib.sha256(path.read_bytes()).hexdigest(), published):
        assert word in message


def write_sparse(path, shape=(20, 10_000, 64, 64), dtype=np.uint8):
    """Zeros that take no room on the disk."""
    np.lib.format.open_memmap(path, "w+", dtype, shape)


def write_truncated(path):
    np.save(path, random_digits(20, 4, 64, 64))
    os.truncate(path, path.stat().st_size // 2)


def write_npz(path):
    with path.open("wb") as file:
        np.savez(file, random_digits(20, 4, 4, 4))


def write_long_header(path):
    content = b"\x93NUMPY\x01\x00\xff\xff" + b"{" + b" " * 100_000
    path.write_bytes(content)


BAD_TEST_FILES = {
    "missing": (lambda path: None, ["cannot read"]),
    "text": (lambda path: path.write_text("hello"), ["cannot read"]),
    "empty": (lambda path: path.touch(), ["cannot read"]),
    "folder": (lambda path: path.mkdir(), ["cannot read"]),
    "truncated": (write_truncated, ["cannot read"]),
    "pickled": (lambda path: np.save(path, np.array([{}])), ["cannot read"]),
    "long header": (write_long_header, ["cannot read"]),
    "zip": (write_npz, []),
    "shape": (
        lambda path: np.save(path, random_digits(20, 3, 64, 64)),
        ["uint8 [20, 3, 64, 64]", "wanted uint8 [20, 10000, 64, 64]"],
    ),
    "axes": (lambda path: write_sparse(path, (10_000, 20, 64, 64)), ["[10000, 20, 64, 64]", "frames first"]),
    "dtype": (lambda path: write_sparse(path, dtype=np.int8), ["int8 [20, 10000, 64, 64]", "wanted uint8"]),
}


@pytest.mark.parametrize(("write", "words"), BAD_TEST_FILES.values(), ids=BAD_TEST_FILES)
def test_bad_test_files_are_told_in_one_line(path, write, words):
    write(path)
    with pytest.raises(InputError) as caught:
        open_test_file(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in [str(path), *words]:
        assert word in message
