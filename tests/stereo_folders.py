"""Folders of stereo pairs as people have them, for tests: random pixels, written to PNG."""

import numpy as np
from PIL import Image

SIZE = (6, 10)
GREY = {"image_size": SIZE, "channels": 1}
TOLERANCE = 1.01 / 255  # PIL resizes in two passes and rounds to 8 bit after each


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def random_pixels(rng, mode="L", size=(12, 20)):
    return rng.integers(0, 256, size if mode == "L" else (*size, 3), dtype=np.uint8)


def write_pairs(folder, left="left", right="right", count=3, mode="L", size=(12, 20)):
    """Writes random pairs and returns them as a list of (left, right) pixels."""
    rng = np.random.default_rng(count)
    written = []
    for index in range(count):
        views = random_pixels(rng, mode, size), random_pixels(rng, mode, size)
        save(folder / left / f"{index:06d}_10.png", views[0])
        save(folder / right / f"{index:06d}_10.png", views[1])
        written.append(views)
    return written


def write_sequence(folder, length, first_value):
    """Writes a sequence whose frames are told apart by their one grey value."""
    for index in range(length):
        for view in ("left", "right"):
            save(folder / view / f"{index}.png", np.full((4, 4), first_value + index, np.uint8))


def write_disparity(path, disparity):
    save(path, np.round(np.asarray(disparity) * 256).astype(np.uint16))


def halved(pixels):
    """The mean of each 2 x 2 block, in [0, 1], with a channel axis."""
    pixels = pixels.reshape(*pixels.shape[:2], -1).astype(np.float64)
    height, width, channels = pixels.shape
    return pixels.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3)) / 255


def values(dataset):
    return [round(float(example["left"].mean()) * 255) for example in dataset]


def assert_batches_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
