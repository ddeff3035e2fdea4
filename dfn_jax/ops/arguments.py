"""Checks of the arguments that several operations share."""

import operator

import jax
import jax.numpy as jnp

_LARGEST = 2**16  # pixels; beyond what any image has, and below what compilers take without overflow


def positive_pair(value, name: str) -> tuple[int, int]:
    """Reads an option that is one positive integer, or one for rows and one for columns.

    Args:
        value: int, or two ints (vertical, horizontal).
        name: The option's name, for the message.

    Returns:
        The two ints.

    Raises:
        ValueError: If `value` is anything else, or above 2**16.
    """
    try:
        vertical, horizontal = value if isinstance(value, (tuple, list)) else (value, value)
        vertical, horizontal = operator.index(vertical), operator.index(horizontal)
    except jax.errors.TracerIntegerConversionError as error:
        reason = f"{name}: got a traced value; give {name!r} to jax.jit in static_argnames, or close over it."
        raise ValueError(reason) from error
    except (TypeError, ValueError):
        vertical = horizontal = 0
    if not 1 <= min(vertical, horizontal) <= max(vertical, horizontal) <= _LARGEST:
        raise ValueError(f"{name}: got {value!r}, wanted a positive int, at most 2**16, or a pair of them.")
    return vertical, horizontal


def floating_array(array, name: str) -> jax.Array:
    """Reads an argument that must be an array of floating-point numbers.

    Args:
        array: Array of any shape.
        name: The argument's name, for the message.

    Returns:
        The array as a `jax.Array`.

    Raises:
        ValueError: If its numbers are not floating-point.
    """
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name}: got dtype {array.dtype}, wanted a floating-point dtype.")
    return array


def at_least_float32(*given: jax.Array | jnp.dtype) -> jnp.dtype:
    """Returns the dtype of sums, and of what a network says of pixels or taps, where all else is in half precision.

    Args:
        *given: Arrays of floating-point dtypes, or such dtypes.

    Returns:
        float32, or float64 if one of them has it.
    """
    return jnp.result_type(*given, jnp.float32)
