"""Devices: one mesh, the batch split over its `data` axis, everything else on every device."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from dfn_jax.errors import InputError


def make_mesh(shape: ConfigDict, batch_size: int) -> Mesh:
    """Lays out the devices.

    Args:
        shape: `config.mesh`: devices along each axis; -1 for all that are there.
        batch_size: examples in a batch, over all devices.

    Returns:
        A mesh with the axis `data`.

    Raises:
        InputError: there are not so many devices, or the batch does not divide among them.
    """
    count = jax.device_count() if shape.data == -1 else shape.data
    if not 1 <= count <= jax.device_count():
        raise InputError(f"config.mesh.data is {shape.data}, but there are {jax.device_count()} devices; -1 takes all")
    if batch_size % count:
        raise InputError(
            f"a batch of {batch_size} does not divide among {count} devices; "
            "change config.train.batch_size or config.mesh.data"
        )
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole: parameters and optimiser state."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: the first axis split over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))
