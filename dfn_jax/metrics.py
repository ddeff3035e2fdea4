"""What a prediction is worth, image by image.

Every metric takes a batch and returns one value for each image, so that a test set may come in batches of any size:
collect the values of all batches and average them over images. Where pixels have to be averaged instead, because images
have different numbers of valid ones, the values are sums and counts, and `mean_over_valid` divides at the end.
Leading axes are free: [N, H, W, C] gives [N], video [N, T, H, W, C] gives [N, T].
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from dfn_jax.losses import as_float, binary_cross_entropy_per_pixel, check_same_shape

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1 = 0.01
SSIM_K2 = 0.03

_PIXELS_AND_CHANNELS = (-3, -2, -1)
_PIXELS = (-2, -1)


@jax.jit
def squared_error_per_image(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Squared error, summed over pixels and channels: `mse_per_image` (and `mse_per_frame`) once averaged over images.

    Args:
        prediction: [..., H, W, C] in [0, 1]; clip it first where the literature does (Moving MNIST).
        target: same shape.

    Returns:
        [...], one sum for each image.

    Raises:
        ValueError: the shapes differ or are not images.
    """
    _check_images(prediction, target)
    return jnp.sum((as_float(prediction) - as_float(target)) ** 2, axis=_PIXELS_AND_CHANNELS)


@jax.jit
def psnr(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio of each image, for a peak of 1.

    Args:
        prediction: [..., H, W, C] in [0, 1].
        target: same shape.

    Returns:
        [...], decibels; at most 100, so that a mean over images stays finite where two are equal.

    Raises:
        ValueError: the shapes differ or are not images.
    """
    _check_images(prediction, target)
    mean_square = jnp.mean((as_float(prediction) - as_float(target)) ** 2, axis=_PIXELS_AND_CHANNELS)
    return -10 * jnp.log10(jnp.maximum(mean_square, 1e-10))


@jax.jit
def ssim(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Structural similarity of each image, mean over channels and over all windows that lie inside the image.

    Args:
        prediction: [..., H, W, C] in [0, 1], H and W at least 11.
        target: same shape.

    Returns:
        [...], at most 1.

    Raises:
        ValueError: the shapes differ, are not images, or the images are smaller than the window.

    Source:
        Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
        2004: Gaussian window 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, here with data range 1.
    """
    _check_images(prediction, target)
    height, width = jnp.shape(prediction)[-3:-1]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, got {height}x{width}")
    x, y = as_float(prediction), as_float(target)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _gaussian_means(jnp.stack([x, y, x * x, y * y, x * y]))
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return jnp.mean(luminance * structure, axis=_PIXELS_AND_CHANNELS)


@jax.jit
def disparity_errors(disparity: jax.Array, truth: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Sums over the valid pixels of each image, from which the disparity metrics follow by `mean_over_valid`.

    Args:
        disparity: [..., H, W], pixels.
        truth: same shape, pixels; invalid pixels may hold anything, NaN included.
        mask: same shape, true (or non-zero) where `truth` is valid and counts.

    Returns:
        Arrays of shape [...]: `valid`, the number of pixels that count; `epe`, their summed absolute error; `bad1`, how
        many are off by more than 1 px; `d1`, how many by at least 3 px and at least 5 % of the truth (KITTI D1).

    Raises:
        ValueError: the shapes differ.
    """
    _check_maps(disparity, truth, mask, channels=0)
    truth = as_float(truth)
    error = jnp.abs(as_float(disparity) - truth)
    return _sums_over_valid(mask, epe=error, bad1=~(error <= 1), d1=_is_outlier(error, jnp.abs(truth)))


@jax.jit
def flow_errors(flow: jax.Array, truth: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Sums over the valid pixels of each image, from which the optical flow metrics follow by `mean_over_valid`.

    Args:
        flow: [..., H, W, 2], pixels, x to the right then y down.
        truth: same shape, pixels; invalid pixels may hold anything, NaN included.
        mask: [..., H, W], true (or non-zero) where `truth` is valid and counts.

    Returns:
        Arrays of shape [...]: `valid`, the number of pixels that count; `epe`, their summed Euclidean error; `fl_all`,
        how many are off by at least 3 px and at least 5 % of the true flow (KITTI Fl-all).

    Raises:
        ValueError: the shapes do not fit together.
    """
    _check_maps(flow, truth, mask, channels=2)
    truth = as_float(truth)
    error = jnp.linalg.norm(as_float(flow) - truth, axis=-1)
    return _sums_over_valid(mask, epe=error, fl_all=_is_outlier(error, jnp.linalg.norm(truth, axis=-1)))


def mean_over_valid(errors: Mapping[str, jax.Array]) -> dict[str, float]:
    """Exact averages over all valid pixels of a test set.

    Args:
        errors: what `disparity_errors` or `flow_errors` returned, the values of all batches concatenated.

    Returns:
        The mean of every quantity but `valid`, added up in float64; NaN where no pixel of the test set is valid.
    """
    totals = {name: float(np.sum(np.asarray(values), dtype=np.float64)) for name, values in errors.items()}
    valid = totals.pop("valid")
    return {name: total / valid if valid else float("nan") for name, total in totals.items()}


@jax.jit
def cross_entropy_nats_per_frame(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy in nats, summed over the pixels of each frame: `bce_nats_per_frame` once averaged.

    Args:
        prediction: probabilities [..., H, W, C]; clipped to [eps, 1 - eps] of float32.
        target: same shape, in [0, 1]; grey values count as probabilities.

    Returns:
        [...], one sum for each frame.

    Raises:
        ValueError: the shapes differ or are not images.
    """
    _check_images(prediction, target)
    return jnp.sum(binary_cross_entropy_per_pixel(prediction, target), axis=_PIXELS_AND_CHANNELS)


@jax.jit
def target_entropy_nats(target: jax.Array) -> jax.Array:
    """Entropy of the grey targets, summed over the pixels of each frame: the floor of the cross-entropy.

    Args:
        target: [..., H, W, C] in [0, 1].

    Returns:
        [...], nats for each frame.

    Raises:
        ValueError: the shape is not one of images.
    """
    _check_images(target, target)
    target = as_float(target)
    return jnp.sum(entr(target) + entr(1 - target), axis=_PIXELS_AND_CHANNELS)


def _gaussian_means(images: jax.Array) -> jax.Array:
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights = (weights / weights.sum()).tolist()
    for axis in (-3, -2):
        size = images.shape[axis] - SSIM_WINDOW + 1
        images = sum(w * jax.lax.slice_in_dim(images, i, i + size, axis=axis) for i, w in enumerate(weights))
    return images


def _is_outlier(error: jax.Array, magnitude: jax.Array) -> jax.Array:
    # 5 % as 1 / 20: whole numbers are exact in float32 where 0.05 is not. What is not a number is an outlier.
    return ~((error < 3) | (20 * error < magnitude))


def _sums_over_valid(mask: jax.Array, **values: jax.Array) -> dict[str, jax.Array]:
    valid = jnp.asarray(mask).astype(bool)
    sums = {name: jnp.sum(jnp.where(valid, value, 0), axis=_PIXELS) for name, value in values.items()}
    return {"valid": jnp.sum(valid, axis=_PIXELS), **sums}


def _check_images(prediction: jax.Array, target: jax.Array) -> None:
    check_same_shape(prediction, target)
    if jnp.ndim(prediction) < 3:
        raise ValueError(f"images must have shape [..., H, W, C], got {jnp.shape(prediction)}")


def _check_maps(estimate: jax.Array, truth: jax.Array, mask: jax.Array, *, channels: int) -> None:
    check_same_shape(estimate, truth)
    expected = (*jnp.shape(mask), channels) if channels else jnp.shape(mask)
    if jnp.ndim(mask) < 2 or jnp.shape(truth) != expected:
        wanted = f"[..., H, W, {channels}]" if channels else "[..., H, W]"
        raise ValueError(
            f"estimate and truth must have shape {wanted} and the mask [..., H, W],"
            f" got {jnp.shape(truth)} and {jnp.shape(mask)}"
        )
