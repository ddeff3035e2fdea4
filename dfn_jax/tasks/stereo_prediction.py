"""The right view of a left one of which nothing else is known, and its disparity."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from dfn_jax import visualize
from dfn_jax.data.folders import find_images
from dfn_jax.data.image_files import read_image, shrunk, unit_range
from dfn_jax.parallel import pad_batch
from dfn_jax.tasks.task import TEST_BATCH, Inputs, Params, Prediction


def stereo_inputs(
    source: Path,
    predict: Callable[[Params, np.ndarray], dict[str, jax.Array]],
    *,
    image_size: tuple[int, int],
    channels: int,
    largest_shift: int,
) -> Inputs:
    """Opens left views. Predictions are of each left and right [H, W, C] in [0, 1], and disparity [H, W].

    Disparity is in pixels of the resized image, on the grid of the right view: left[y, x + disparity[y, x]] shows what
    right[y, x] shows. Of a network that fetches nothing there is none.

    Args:
        source: an image, or a folder that is searched for them with its subfolders.
        predict: parameters, left [N, H, W, C] -> right and, where there is one, disparity, by name.
        image_size: (H, W) in pixels that the network is for; images are resized to it, whatever their shape.
        channels: C, 1 for grey or 3 for RGB.
        largest_shift: pixels, the disparity that is drawn brightest.

    Raises:
        InputError: there is no image, or one cannot be read.
    """
    paths = find_images(source)
    views = [shrunk(read_image(path, channels), image_size) for path in paths]

    def predictions(params: Params) -> Iterator[Prediction]:
        for start in range(0, len(views), TEST_BATCH):
            left = unit_range(np.stack(views[start : start + TEST_BATCH]))
            arrays = {"left": left} | jax.device_get(predict(params, pad_batch(left, TEST_BATCH)))
            for index in range(len(left)):
                found = {name: values[index] for name, values in arrays.items()}
                yield Prediction(found, _picture(found, largest_shift))

    root = source if source.is_dir() else source.parent
    return Inputs([path.relative_to(root).with_suffix("") for path in paths], predictions)


def _picture(found: dict[str, np.ndarray], largest_shift: int) -> np.ndarray:
    columns = {"left view (given)": visualize.images_to_rgb(found["left"])}
    if "disparity" in found:
        colours = f"disparity: black 0 px, brightest {largest_shift} px"
        columns[colours] = visualize.disparity_to_rgb(found["disparity"], largest_shift)
    columns["right view, predicted"] = visualize.images_to_rgb(found["right"])
    return visualize.panel([list(columns.values())], column_titles=list(columns))
