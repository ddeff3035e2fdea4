"""What prediction scores without learning to see: a given image copied, blurred or shifted by fixed amounts.

Of the right view: the left view itself, the left view shifted by one disparity for all images and pixels, and by one
disparity for each image row. Of the next frames: the last frame through a Gaussian. Shifts and widths are fitted on the
very test set that they are scored on, and so are a high bar for a network: shifts by squared error for all metrics of
stereo images and by absolute error for all of disparity, widths for each metric of frames by itself.

Fitting streams over batches. Shifts: add up `shift_errors` (or `disparity_shift_errors`) of all batches in float64,
then read off the best ones with `best_shift` and `best_shift_per_row`. Widths: measure what `blurred`
makes of each of them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dfn_jax.losses import as_float, check_same_shape

BLURS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)  # standard deviations in pixels; 0: no blur


@jax.jit
def blurred(images: jax.Array) -> jax.Array:
    """Images through Gaussians of the widths `BLURS`; beyond the edge they repeat the edge.

    Args:
        images: [..., H, W, C].

    Returns:
        [len(BLURS), ..., H, W, C] float32.

    Raises:
        ValueError: these are no images.
    """
    if jnp.ndim(images) < 3:
        raise ValueError(f"images must have shape [..., H, W, C], got {jnp.shape(images)}")
    rows, columns = (np.stack([_gaussian(size, width) for width in BLURS]) for size in jnp.shape(images)[-3:-1])
    return jnp.einsum("sih,...hwc,sjw->s...ijc", rows, as_float(images), columns, precision="highest")


def _gaussian(size: int, width: float) -> np.ndarray:
    """The matrix [size, size] float32 from pixels to pixels seen through a Gaussian."""
    if width == 0:
        return np.eye(size, dtype=np.float32)
    reach = int(4 * width + 1)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * width**2))
    matrix = np.zeros((size, size))
    for pixel in range(size):
        np.add.at(matrix[pixel], np.clip(pixel + np.arange(-reach, reach + 1), 0, size - 1), weights / weights.sum())
    return matrix.astype(np.float32)


def candidate_shifts(maximum: int) -> np.ndarray:
    """Disparities among which the best is looked for.

    Args:
        maximum: the largest one, pixels.

    Returns:
        [S] float32: 0, 0.25, 0.5, ... up to it.
    """
    return np.arange(0, maximum + 0.25, 0.25, np.float32)


@jax.jit
def shift_images(left: jax.Array, disparity: jax.Array) -> jax.Array:
    """The right view if every row were a plane at one depth: prediction[y, x] = left[y, x + disparity[y]].

    Args:
        left: [..., H, W, C].
        disparity: scalar or [H], pixels; between pixels it interpolates linearly, beyond the edge it repeats the edge.

    Returns:
        Same shape as `left`, float32.

    Raises:
        ValueError: `left` is no image, or `disparity` neither scalar nor [H].
    """
    if jnp.ndim(left) < 3:
        raise ValueError(f"images must have shape [..., H, W, C], got {jnp.shape(left)}")
    height = jnp.shape(left)[-3]
    if jnp.shape(disparity) not in ((), (height,)):
        raise ValueError(f"disparity must be a scalar or have shape ({height},), got {jnp.shape(disparity)}")
    padded = _pad_columns(jnp.swapaxes(as_float(left), -1, -2))
    disparity = jnp.asarray(disparity, jnp.float32)
    if disparity.ndim == 0:
        shifted = _shift_columns(padded, disparity)
    else:
        shifted = jax.vmap(_shift_columns, in_axes=(-3, 0), out_axes=-3)(padded, disparity)
    return jnp.swapaxes(shifted, -1, -2)


@jax.jit
def shift_errors(left: jax.Array, right: jax.Array, shifts: jax.Array) -> jax.Array:
    """Squared error of every candidate shift in every row.

    Args:
        left: [N, H, W, C] in [0, 1].
        right: same shape.
        shifts: [S], pixels.

    Returns:
        [S, H], summed over images, columns and channels.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_same_shape(left, right)
    if jnp.ndim(left) != 4:
        raise ValueError(f"images must have shape [N, H, W, C], got {jnp.shape(left)}")
    # Rows first and columns last: several times faster on a CPU than in the order of the images.
    left, right = (jnp.transpose(as_float(images), (1, 0, 3, 2)) for images in (left, right))
    padded = _pad_columns(left)
    return jax.lax.map(
        lambda shift: jnp.sum((_shift_columns(padded, shift) - right) ** 2, axis=(1, 2, 3)), as_float(shifts)
    )


@jax.jit
def disparity_shift_errors(truth: jax.Array, mask: jax.Array, shifts: jax.Array) -> jax.Array:
    """Absolute disparity error of every candidate shift in every row.

    Args:
        truth: [N, H, W], pixels; invalid pixels may hold anything, NaN included.
        mask: [N, H, W], true (or non-zero) where `truth` counts.
        shifts: [S], pixels.

    Returns:
        [S, H], summed over the valid pixels of all images and columns.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_same_shape(truth, mask)
    if jnp.ndim(truth) != 3:
        raise ValueError(f"disparities must have shape [N, H, W], got {jnp.shape(truth)}")
    truth, valid = as_float(truth), jnp.asarray(mask).astype(bool)
    return jax.lax.map(
        lambda shift: jnp.sum(jnp.where(valid, jnp.abs(shift - truth), 0), axis=(0, 2)), as_float(shifts)
    )


def best_shift(errors: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """The one disparity with the least error over the whole test set.

    Args:
        errors: [S, H], the sum over all batches.
        shifts: [S], pixels.

    Returns:
        A scalar, pixels; the smallest of equally good ones.
    """
    return np.asarray(shifts)[np.argmin(np.sum(errors, axis=1))]


def best_shift_per_row(errors: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """For each row the disparity with the least error over the whole test set.

    Args:
        errors: [S, H], the sum over all batches.
        shifts: [S], pixels.

    Returns:
        [H], pixels; the smallest of equally good ones, so 0 in rows without a valid pixel.
    """
    return np.asarray(shifts)[np.argmin(errors, axis=0)]


def _pad_columns(rows: jax.Array) -> jax.Array:
    width = rows.shape[-1]
    first, last = rows[..., :1], rows[..., -1:]
    return jnp.concatenate([jnp.repeat(first, width, -1), rows, jnp.repeat(last, width + 1, -1)], axis=-1)


def _shift_columns(padded: jax.Array, shift: jax.Array) -> jax.Array:
    width = (padded.shape[-1] - 1) // 3
    whole = jnp.clip(jnp.floor(shift), -width, width)
    start = width + whole.astype(jnp.int32)
    near = jax.lax.dynamic_slice_in_dim(padded, start, width, axis=-1)
    far = jax.lax.dynamic_slice_in_dim(padded, start + 1, width, axis=-1)
    return near + (shift - jnp.floor(shift)) * (far - near)
