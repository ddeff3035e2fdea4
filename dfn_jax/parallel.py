"""Devices: one mesh with the axes `data` and `height`; who holds which part of the batch and of the state."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from dfn_jax.errors import InputError


def check_jax() -> None:
    """Checks that JAX finds a device, of the kind that the environment asks for, and that a seed draws what it should.

    Raises:
        InputError: it does not.
    """
    wanted = {"jax_enable_x64": False, "jax_default_prng_impl": "threefry2x32", "jax_threefry_partitionable": True}
    for name, value in wanted.items():
        if (found := getattr(jax.config, name, value)) != value:
            raise InputError(
                f"{name.upper()} is {found}, with which the same seed draws other data and weights; wanted {value}, "
                "the default: unset it"
            )
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second where a GPU is asked for and there is none
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX finds no device with JAX_PLATFORMS={asked!r} ({str(error) or 'none of these is there'}); unset it, "
            "or name one that is there, such as cpu"
        ) from error


def make_mesh(shape: ConfigDict, *, batch_size: int, image_size: tuple[int, int]) -> Mesh:
    """Lays out the devices of all processes.

    Args:
        shape: `config.mesh`: `data`, groups of devices that share the batch, -1 for all or, in one process, the largest
            number that divides both all and the batch; `height`, devices of a group, which share its images' rows.
        batch_size: examples in a batch, over all devices.
        image_size: (H, W) in pixels.

    Returns:
        A mesh with the axes `data` and `height`.

    Raises:
        InputError: there are not so many devices, or the batch or the images do not divide among them.
    """
    there, height = jax.device_count(), shape.height
    if not 1 <= height <= there:
        raise InputError(f"config.mesh.height is {height}, but there are {there} devices; 1 leaves images whole")
    groups = there // height if shape.data == -1 else shape.data
    if shape.data == -1 and jax.process_count() == 1:
        groups = math.gcd(groups, batch_size)
    if not 1 <= groups * height <= there:
        raise InputError(
            f"config.mesh.data is {shape.data} and config.mesh.height {height}, but there are {there} devices; "
            "data = -1 takes all"
        )
    if jax.process_count() > 1 and groups * height < there:
        raise InputError(
            f"config.mesh takes {groups * height} of {there} devices, but each of {jax.process_count()} processes "
            "needs its share; config.mesh.data = -1 takes all"
        )
    if batch_size % groups:
        raise InputError(
            f"a batch of {batch_size} does not divide among {groups} devices; "
            "change config.train.batch_size or config.mesh.data"
        )
    if image_size[0] % height:
        raise InputError(
            f"images of {image_size[0]} rows do not divide among {height} devices; "
            "change config.data.image_size or config.mesh.height"
        )
    devices = jax.devices()[: groups * height]
    try:  # Where a TPU's axes are longer than `height`, they are split.
        laid_out = mesh_utils.create_device_mesh((groups, height), devices, allow_split_physical_axes=True)
    except AssertionError:  # TPU chips that are no box, or of several slices, are taken as they come.
        laid_out = np.array(devices).reshape(groups, height)
    return Mesh(laid_out, ("data", "height"), axis_types=(AxisType.Auto, AxisType.Auto))


def mean_over_devices(loss: Callable[[Any, Mapping], Array], mesh: Mesh) -> Callable[[Any, Mapping], Array]:
    """A loss over a batch that is split over `data`: the mean of the groups' losses, each over its own examples.

    So everything that the network does, kernels of our own included, is local to a group, and the gradient's sum over
    the groups is all that they exchange. Within a group the compiler splits the rows of the images and exchanges what
    the filters reach beyond them.

    Args:
        loss: (parameters, batch) -> scalar, a mean over the examples.
        mesh: of `make_mesh`.

    Returns:
        (parameters, batch) -> scalar, the same on every device.
    """

    def mean(params: Any, batch: Mapping) -> Array:
        return lax.pmean(loss(params, batch), "data")

    return jax.shard_map(
        mean,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
        axis_names={"data"},
        check_vma=False,  # It wants loops over examples to start from values that are known to differ by device.
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, state: Any, *, split: bool) -> Any:
    """The shardings of parameters and optimiser state.

    Args:
        mesh: of `make_mesh`.
        state: pytree of arrays or shapes.
        split: over `data`, each array along the last axis that divides; otherwise every device holds all.

    Returns:
        Pytree of shardings.
    """
    groups = mesh.shape["data"]

    def of(leaf: Any) -> NamedSharding:
        dividing = [axis for axis, size in enumerate(leaf.shape) if size % groups == 0] if split else []
        if not dividing:
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*(None,) * dividing[-1], "data"))

    return jax.tree.map(of, state)


def to_host(state: Any) -> Any:
    """Fetches a state whole, wherever its parts are; all processes take part.

    Args:
        state: pytree of arrays on one mesh.

    Returns:
        Pytree of NumPy arrays.
    """
    return jax.tree.map(_to_host, state)


def _to_host(array: Array) -> np.ndarray:
    """One array at a time: no device may have room for all of them whole."""
    if not (array.is_fully_addressable or array.is_fully_replicated):
        array = _gather(replicated(array.sharding.mesh))(array)
    return jax.device_get(array)


@functools.cache  # so that it is compiled once for each shape
def _gather(sharding: NamedSharding) -> Callable[[Array], Array]:
    return jax.jit(lambda parts: parts, out_shardings=sharding)


def local_indices(mesh: Mesh, batch_size: int) -> range | None:
    """The examples of a batch that this process has to make, for its devices hold them; None for all."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    held = [index[0].indices(batch_size) for index in sharding.addressable_devices_indices_map((batch_size,)).values()]
    indices = range(min(start for start, _, _ in held), max(stop for _, stop, _ in held))
    return indices if len(indices) < batch_size else None


def drawn(
    mesh: Mesh, draw: Callable[[Any, Any, Array], Mapping[str, Array]], tables: Any, batch_size: int
) -> Callable[[int], dict[str, Array]]:
    """Compiles batches that are drawn: each group of devices makes its own examples, and nothing is exchanged.

    Args:
        mesh: of `make_mesh`.
        draw: (tables, step [] int, indices [n] int) -> those examples of the step's batch, in arrays as in `place`.
        tables: pytree of NumPy arrays that it looks things up in; every device holds them whole.
        batch_size: examples in the whole batch.

    Returns:
        step -> the batch.
    """
    count = batch_size // mesh.shape["data"]

    def of_group(tables: Any, step: Array) -> dict[str, Array]:
        found = dict(draw(tables, step, lax.axis_index("data") * count + jnp.arange(count)))
        if wrong := {name: len(one) for name, one in found.items() if len(one) != count}:
            raise InputError(
                f"asked for {count} examples by their indices, the task drew {wrong}; it must draw these alone"
            )
        return found

    in_groups = jax.shard_map(
        of_group, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec("data"), check_vma=False
    )

    @jax.jit
    def batch(tables: Any, step: Array) -> dict[str, Array]:
        whole = in_groups(tables, step)
        return {name: lax.with_sharding_constraint(one, _batch_sharding(mesh, one.ndim)) for name, one in whole.items()}

    # Not `device_put`, which would compare the tables of all processes byte by byte, and end where one differs.
    on_devices = jax.tree.map(
        lambda table: jax.make_array_from_callback(table.shape, replicated(mesh), table.__getitem__), tables
    )
    return functools.partial(batch, on_devices)


def _batch_sharding(mesh: Mesh, dimensions: int) -> NamedSharding:
    spec = {4: PartitionSpec("data", "height"), 5: PartitionSpec("data", None, "height")}
    return NamedSharding(mesh, spec.get(dimensions, PartitionSpec("data")))


def place(mesh: Mesh, part: Mapping[str, Any], indices: range | None, batch_size: int) -> dict[str, Array]:
    """Makes a batch over all devices out of the part that this process has.

    Args:
        mesh: of `make_mesh`.
        part: arrays whose first axis is the example; images [N, H, W, C] and videos [N, T, H, W, C] are split along
            their rows too.
        indices: the examples that the part holds, None for all.
        batch_size: examples in the whole batch.

    Returns:
        The batch.
    """

    def place_one(local: Any) -> Array:
        sharding = _batch_sharding(mesh, local.ndim)
        if jax.process_count() == 1:
            return jax.device_put(local, sharding)
        first = indices.start if indices else 0

        def fetch(index: tuple[slice, ...]) -> Any:
            start, stop, _ = index[0].indices(batch_size)
            return local[(slice(start - first, stop - first), *index[1:])]

        return jax.make_array_from_callback((batch_size, *local.shape[1:]), sharding, fetch)

    return {name: place_one(local) for name, local in part.items()}


def pad_batch(batch: Any, count: int) -> Any:
    """Repeats the last example until there are `count`, where there are fewer: a pytree of arrays [N, ...]."""
    return jax.tree.map(lambda one: one[np.minimum(np.arange(max(count, len(one))), len(one) - 1)], batch)


def over_examples(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Compiles a function so that the devices of this process share the examples of each batch.

    Args:
        function: (parameters, batch: pytree of arrays [N, ...]) -> pytree of arrays [N, ...].

    Returns:
        The same, for any N: the last example is repeated until the devices have as many each.
    """

    @functools.cache
    def compiled() -> Callable:
        specs = {"in_specs": (PartitionSpec(), PartitionSpec("data")), "out_specs": PartitionSpec("data")}
        return jax.jit(jax.shard_map(function, mesh=_local_mesh(), check_vma=False, **specs))

    def shared(params: Any, batch: Any) -> Any:
        count, devices = len(jax.tree.leaves(batch)[0]), jax.local_device_count()
        found = compiled()(params, pad_batch(batch, -(-count // devices) * devices))
        return jax.tree.map(lambda values: values[:count], found)

    return shared


def on_all_local_devices(tree: Any) -> Any:
    """Copies arrays to every device of this process."""
    return jax.device_put(tree, replicated(_local_mesh()))


def _local_mesh() -> Mesh:
    devices = jax.local_devices()
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
