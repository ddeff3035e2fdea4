"""The right view of a left one of which nothing else is known, and its disparity."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dfn_jax import visualize
from dfn_jax.data.image_files import find_images, read_image, shrunk, unit_range
from dfn_jax.tasks.stereo_evaluation import Predict, in_batches
from dfn_jax.tasks.task import TEST_BATCH, Prediction


def predict_stereo(
    source: Path, predict: Predict, *, image_size: tuple[int, int], channels: int, largest_shift: int
) -> Iterator[Prediction]:
    """Applies a stereo network to images.

    Args:
        source: a left view, or a folder that is searched for them with its subfolders.
        predict: see `evaluate_stereo`.
        image_size: (H, W) in pixels that the network is for; images are resized to it, whatever their shape.
        channels: C, 1 for grey or 3 for RGB.
        largest_shift: pixels, the disparity that is drawn brightest.

    Yields:
        For each image left, right [H, W, C] in [0, 1], and disparity [H, W] where the network has one, in pixels of the
        resized image on the grid of the right view: left[y, x + disparity[y, x]] shows what right[y, x] shows.

    Raises:
        InputError: there is no image, or one cannot be read.
    """
    paths = find_images(source)
    for start in range(0, len(paths), TEST_BATCH):
        batch = paths[start : start + TEST_BATCH]
        left = unit_range(np.stack([shrunk(read_image(path, channels), image_size) for path in batch]))
        right, disparity = in_batches(predict, left)
        arrays = {"left": left, "right": right} | ({} if disparity is None else {"disparity": disparity})
        for index, path in enumerate(batch):
            found = {name: values[index] for name, values in arrays.items()}
            yield Prediction(path.relative_to(source.parent).with_suffix(""), found, _picture(found, largest_shift))


def _picture(found: dict[str, np.ndarray], largest_shift: int) -> np.ndarray:
    columns = {"left view (given)": visualize.images_to_rgb(found["left"])}
    if "disparity" in found:
        brightest = f"disparity: {largest_shift} px is brightest"
        columns[brightest] = visualize.disparity_to_rgb(found["disparity"], largest_shift)
    columns["right view, predicted"] = visualize.images_to_rgb(found["right"])
    return visualize.panel([list(columns.values())], column_titles=list(columns))
