"""What training minimises: how far a prediction is from its target."""

import jax
import jax.numpy as jnp

from dfn_jax.ops.arguments import at_least_float32

PROBABILITY_EPSILON = float(jnp.finfo(jnp.float32).eps)


def mean_squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Squared error, mean over everything: images, frames, pixels and channels.

    Args:
        prediction: any shape and real dtype.
        target: same shape as `prediction`.

    Returns:
        A scalar, float32 (float64 where an input is float64).

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(prediction, target)
    return jnp.mean((as_float(prediction) - as_float(target)) ** 2)


def binary_cross_entropy_mean(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy in nats, mean over everything: sequences, frames, pixels and channels.

    Args:
        prediction: probabilities of any shape and real dtype; clipped to [eps, 1 - eps] of float32.
        target: same shape as `prediction`, in [0, 1]; grey values count as probabilities.

    Returns:
        A scalar, float32 (float64 where an input is float64).

    Raises:
        ValueError: the shapes differ.

    Source:
        Section 4.2, "average binary cross-entropy over the 10 frames".
    """
    return jnp.mean(binary_cross_entropy_per_pixel(prediction, target))


def binary_cross_entropy_per_pixel(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy in nats of every pixel by itself.

    Args:
        prediction: probabilities of any shape and real dtype; clipped to [eps, 1 - eps] of float32.
        target: same shape as `prediction`, in [0, 1].

    Returns:
        An array of that shape, float32 (float64 where an input is float64).

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(prediction, target)
    target = as_float(target)
    probability = jnp.clip(as_float(prediction), PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    return -(target * jnp.log(probability) + (1 - target) * jnp.log1p(-probability))


def as_float(values: jax.Array) -> jax.Array:
    """Values as float32, so that bfloat16 is not summed in bfloat16; float64 stays for gradient checks.

    Args:
        values: any shape and real dtype.

    Returns:
        The same values, float32 or float64.
    """
    values = jnp.asarray(values)
    return values.astype(at_least_float32(values))


def check_same_shape(prediction: jax.Array, target: jax.Array) -> None:
    """Refuses what broadcasting would accept in silence.

    Args:
        prediction: any array.
        target: any array.

    Raises:
        ValueError: the shapes differ.
    """
    if jnp.shape(prediction) != jnp.shape(target):
        raise ValueError(
            f"prediction has shape {jnp.shape(prediction)}, target {jnp.shape(target)}; they must be equal"
        )
