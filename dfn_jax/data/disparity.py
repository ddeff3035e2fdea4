"""Ground-truth disparity: from the left view's grid to the right view's, and to another image size."""

import numpy as np

_KNOWN_SHARE = 0.05


def to_right_grid(disparity: np.ndarray) -> np.ndarray:
    """Carries disparity from the grid of the left view over to the grid of the right view.

    A point at left[y, x] with disparity d is at right[y, x - d]; where several points meet there, the nearest one
    (the largest disparity) is what the right view sees.

    Args:
        disparity: [H, W] float32 on the left grid, in pixels, 0 where unknown.

    Returns:
        [H, W] float32 on the right grid, in pixels, 0 where no known point lands: there left[y, x + result[y, x]]
        shows what right[y, x] shows.
    """
    rows, columns = np.nonzero(disparity > 0)
    values = disparity[rows, columns]
    targets = np.rint(columns - values).astype(np.int64)
    inside = targets >= 0
    result = np.zeros_like(disparity)
    np.maximum.at(result, (rows[inside], targets[inside]), values[inside])
    return result


def resize_disparity(disparity: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes sparse disparity; every value is one that was measured, scaled by new width / old width.

    Each new pixel takes the median of the known values whose pixel centres it covers, so that it shows one surface,
    the one that covers most of it, and never a mean of two. It is known where at least a twentieth of the pixels
    that it covers are, which laser ground truth reaches and a stray point or an occlusion's rim does not.

    Args:
        disparity: [H, W] float32, in pixels, 0 where unknown.
        size: New (height, width).

    Returns:
        [height, width] float32, in new pixels, 0 where unknown.
    """
    new_height, new_width = size
    scale = np.float32(new_width / disparity.shape[1])
    # Repeated where the image grows, so that every new pixel covers at least one centre.
    for axis in (0, 1):
        disparity = np.repeat(disparity, -(-size[axis] // disparity.shape[axis]), axis)
    height, width = disparity.shape
    rows, columns = np.nonzero(disparity > 0)
    values = disparity[rows, columns]
    cells = (2 * rows + 1) * new_height // (2 * height) * new_width + (2 * columns + 1) * new_width // (2 * width)
    order = np.lexsort((values, cells))
    known, first, count = np.unique(cells[order], return_index=True, return_counts=True)
    medians = values[order][first + count // 2]
    enough = count >= _KNOWN_SHARE * (height * width) / (new_height * new_width)
    result = np.zeros(new_height * new_width, np.float32)
    result[known[enough]] = medians[enough] * scale
    return result.reshape(size)
