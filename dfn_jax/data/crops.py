"""Random crops of a folder of images, on which steerable filters are learned."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dfn_jax import files
from dfn_jax.data.folders import existing_folder, find_images, list_images
from dfn_jax.data.image_files import header_size, read_pixels, unit_range
from dfn_jax.errors import InputError

if TYPE_CHECKING:
    import grain

_DECODED_BYTES = 2**30


def crops(data_dir: str | Path, *, image_size: tuple[int, int], seed: int) -> "grain.MapDataset":
    """Cuts random crops from a folder of images, without end; `epochs.batch` makes batches of them.

    Every epoch visits all images in a new order. The headers of all files are checked at the door; pixels are
    decoded when first used and kept in memory up to 1 GiB.

    Args:
        data_dir: Folder searched recursively for 8-bit grey or RGB images, which are made grey (Rec. 601).
        image_size: (H, W) of a crop in pixels.
        seed: Non-negative integer; an item is a pure function of seed and position.

    Returns:
        Random-access data set of {"image": [H, W, 1] float32 in [0, 1]}.

    Raises:
        InputError: The folder is missing or has no images, or an image is unreadable, not 8-bit or too small.
    """
    from dfn_jax.data.epochs import shuffled_epochs

    folder = existing_folder(data_dir)
    paths = find_images(folder)
    sizes = [header_size(path) for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        if size[0] < image_size[0] or size[1] < image_size[1]:
            raise InputError(
                f"{path} is {size[0]} x {size[1]}, smaller than the crop of {image_size[0]} x {image_size[1]} "
                "(height x width); remove it or ask for a smaller image_size"
            )
    largest = max(height * width for height, width in sizes)
    pixels = functools.lru_cache(maxsize=max(1, _DECODED_BYTES // largest))(read_pixels)
    order = shuffled_epochs(len(paths), seed=seed)

    def crop(position: int, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, position])
        return {"image": _crop(pixels(paths[index], 1), image_size, rng)}

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
