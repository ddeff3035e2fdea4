"""Making a batch beside a training step on it, and Moving MNIST beside the same in vectorised NumPy.

    python -m benchmarks.data [--json=FILE]

All batches are the paper's 16. NumPy gets our digits and corners, and must arrive at our frames.
"""

import math

import jax
import numpy as np

from benchmarks.timing import interleaved, options, write_rows
from benchmarks.training import EXPERIMENTS, prepare
from dfn_jax import parallel
from dfn_jax.data import moving_mnist
from dfn_jax.train import make_batches


def numpy_corners(random: np.random.Generator, samples: int, count: int, frames: int, free: int) -> np.ndarray:
    """Corners [N, D, T, 2] of digits that bounce, one step of all at a time."""
    position = random.uniform(size=(samples, count, 2))
    direction = random.uniform(0, 2 * math.pi, (samples, count))
    velocity = moving_mnist.STEP * np.stack([np.sin(direction), np.cos(direction)], -1)
    corners = np.empty((samples, count, frames, 2), np.int32)
    for time in range(frames):
        position = position + velocity
        velocity = np.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = position.clip(0, 1)
        corners[:, :, time] = position * free
    return corners


def numpy_frames(digits: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """Frames [N, T, size, size] float32 of digits [N, D, h, w] uint8 at corners [N, D, T, 2], all at once."""
    samples, count, frames = corners.shape[:3]
    canvas = np.zeros((samples, frames, size, size), np.uint8)
    sample, time = np.arange(samples)[:, None, None, None], np.arange(frames)[None, :, None, None]
    for digit in range(count):
        rows = corners[:, digit, :, 0, None, None] + np.arange(digits.shape[2])[:, None]
        columns = corners[:, digit, :, 1, None, None] + np.arange(digits.shape[3])
        places = (sample, time, rows, columns)
        canvas[places] = np.maximum(canvas[places], digits[:, digit, None])
    return canvas.astype(np.float32) / 255


def numpy_frames_by_slices(digits: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """The same frame by frame: more Python, but no index arrays."""
    samples, count, frames = corners.shape[:3]
    canvas = np.zeros((samples, frames, size, size), np.uint8)
    for sample in range(samples):
        for digit in range(count):
            picture = digits[sample, digit]
            for time, (row, column) in enumerate(corners[sample, digit].tolist()):
                part = canvas[sample, time, row : row + picture.shape[0], column : column + picture.shape[1]]
                np.maximum(part, picture, out=part)
    return canvas.astype(np.float32) / 255


def in_numpy(config, draw):
    """Moving MNIST in NumPy: a function that makes a batch by `draw`, after checking that it draws what we draw."""
    digits = np.random.default_rng(1).integers(0, 256, (1000, 28, 28), dtype=np.uint8)
    size, frames = config.data.image_size[0], config.data.input_frames + config.data.target_frames
    samples, count, random = config.train.batch_size, config.data.digit_count, np.random.default_rng(0)

    def batch() -> np.ndarray:
        corners = numpy_corners(random, samples, count, frames, size - digits.shape[1])
        return draw(digits[random.integers(0, len(digits), (samples, count))], corners, size)

    corners, chosen = numpy_corners(random, samples, count, frames, size - 28), digits[: samples * count]
    chosen = chosen.reshape(samples, count, 28, 28)
    ours = moving_mnist.draw_sequences(chosen, corners.transpose(2, 0, 1, 3), image_size=(size, size))
    np.testing.assert_allclose(ours[..., 0], draw(chosen, corners, size), atol=1e-6)
    return batch


def measure(experiment: str, *, rounds: int) -> list[dict]:
    """The rows of one experiment."""
    config, task, state, batch, step = prepare(experiment)
    size, states = config.train.batch_size, [state]
    mesh = parallel.make_mesh(config.mesh, batch_size=size, image_size=tuple(config.data.image_size))
    batches = make_batches(task, mesh, size)
    numbers = iter(range(1, 10**6))

    def train() -> None:
        states[0], values = step(states[0], batch)
        jax.block_until_ready((states[0], values))

    competitors = {"batch": lambda: jax.block_until_ready(batches(next(numbers)))}
    if experiment == "moving_mnist":
        competitors["batch in NumPy, vectorised"] = in_numpy(config, numpy_frames)
        competitors["batch in NumPy, slice by slice"] = in_numpy(config, numpy_frames_by_slices)
    # Apart, for what runs after a training step finds no memory in the cache.
    times = interleaved(competitors, rounds=5 * rounds) | interleaved({"training step": train}, rounds=rounds)
    return [
        {
            "case": f"{experiment}, batch {size}",
            "implementation": name,
            "device": jax.default_backend(),
            "milliseconds": milliseconds,
            "ratio_to_training_step": milliseconds / times["training step"],
            "ratio_to_batch": milliseconds / times["batch"],
        }
        for name, milliseconds in times.items()
    ]


def main() -> None:
    """Runs the benchmark."""
    arguments = options(__doc__, rounds=(3, "of training steps; batches have five times as many")).parse_args()
    rows = []
    for experiment in EXPERIMENTS:
        rows += measure(experiment, rounds=arguments.rounds)
    write_rows(rows, arguments.json)


if __name__ == "__main__":
    main()
