"""Images, angles and the images filtered at those angles: what the steerable filter network learns from."""

import jax
import jax.numpy as jnp
from jax import Array

REACH = 4  # pixels from the centre of a filter to its edge


def steer(images: Array, angles: Array) -> Array:
    """Filters each image by the first derivative of a Gaussian, turned to an angle.

    With g(x) = exp(-x²/2) and g'(x) = -x g(x), Ix convolves with -g' along the columns and g along the rows, Iy the
    other way round, both with zero padding; the result is cos(angle) Ix + sin(angle) Iy.

    Args:
        images: [N, H, W, C] float32.
        angles: [N] float32, radians.

    Returns:
        [N, H, W, C] float32.

    Source:
        Freeman and Adelson, "The Design and Use of Steerable Filters", 1991; De Brabandere et al., Section 4.1.
    """
    smooth, derivative = _profiles()
    across = _along(_along(images, derivative, 2), smooth, 1)
    down = _along(_along(images, smooth, 2), derivative, 1)
    angles = angles[:, None, None, None]
    return jnp.cos(angles) * across + jnp.sin(angles) * down


def oriented_filters(angles: Array) -> Array:
    """The taps that do the same in one cross-correlation: what the network has to find.

    Args:
        angles: [N] float32, radians.

    Returns:
        [N, 81] float32, 9x9 taps in row-major order.
    """
    smooth, derivative = _profiles()
    across, down = jnp.outer(smooth, derivative), jnp.outer(derivative, smooth)
    turned = jnp.cos(angles)[:, None, None] * across + jnp.sin(angles)[:, None, None] * down
    return turned[:, ::-1, ::-1].reshape(len(angles), -1)  # A convolution flips its kernel, a cross-correlation not.


def centred(images: Array) -> Array:
    """Takes the mean off each image.

    Left in, it makes the error hundreds of times more sensitive to a filter's sum than to its shape.

    Args:
        images: [N, H, W, C] float32.

    Returns:
        The same shape, each image and channel of mean zero.
    """
    return images - images.mean((1, 2), keepdims=True)


def random_angles(key: Array, count: int) -> Array:
    """Draws angles [count] in [0, 2 pi) radians."""
    return jax.random.uniform(key, (count,), maxval=2 * jnp.pi)


def batch(images: Array, angles: Array) -> dict[str, Array]:
    """Centres images, and filters each at an angle.

    Args:
        images: [N, H, W, C] float32 in [0, 1].
        angles: [N] radians.

    Returns:
        images [N, H, W, C], centred; angles [N]; targets [N, H, W, C].
    """
    images = centred(images)
    return {"images": images, "angles": angles, "targets": steer(images, angles)}


def _profiles() -> tuple[Array, Array]:
    """The profiles g and -g' at the taps."""
    x = jnp.arange(-REACH, REACH + 1, dtype=jnp.float32)
    g = jnp.exp(-(x**2) / 2)
    return g, x * g


def _along(images: Array, kernel: Array, axis: int) -> Array:
    """Convolves along an axis, with zero padding."""
    margin = [(REACH, REACH) if a == axis else (0, 0) for a in range(images.ndim)]
    padded, size = jnp.pad(images, margin), images.shape[axis]
    parts = (
        kernel[2 * REACH - tap] * jax.lax.slice_in_dim(padded, tap, tap + size, axis=axis)
        for tap in range(2 * REACH + 1)
    )
    return sum(parts)
