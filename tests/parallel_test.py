"""Many devices against one: the same loss and gradient, and nothing exchanged but their sums."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from dfn_jax import parallel
from dfn_jax.errors import InputError
from dfn_jax.tasks import make_task
from experiments import highway, moving_mnist, steerable, stereo
from tests.regression import config

ROOT = Path(__file__).parents[1]

FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
# In a process of its own, because the number of devices is fixed when JAX starts.
PROGRAM = """
import collections, re
import jax, numpy as np
from dfn_jax import parallel
from dfn_jax.errors import InputError
from dfn_jax.models.lstm import EncoderForecaster
from dfn_jax.models.stereo import StereoDFN
from dfn_jax.optimisers import make_optimiser
from dfn_jax.tasks import make_task
from dfn_jax.train_step import make_state, make_train_step
from experiments import moving_mnist, stereo
from experiments.highway import get_config
from tests.models_test import random_parameters

# Batches that are drawn: each group its own examples, with nothing exchanged, and together those of one device.
exchanges = r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast)"
for module, options in ((moving_mnist, {"data.digits": "drawn", "train.double_horizon_every": 4}), (stereo, {})):
    config = module.get_config("smoke")
    config.update_from_flattened_dict({**options, "train.batch_size": 8, "mesh.data": 4, "mesh.height": 2})
    task = make_task(config)
    mesh = parallel.make_mesh(config.mesh, batch_size=8, image_size=(16, 16))
    batches = parallel.drawn(mesh, task.train_batch.draw, task.train_batch.tables(), 8)
    compiled = jax.jit(batches).lower(3).compile()
    assert not re.findall(exchanges, compiled.as_text())
    whole = task.curriculum.shown(jax.device_get(task.train_batch(3)), 3)
    found = task.curriculum.shown(compiled(3), 3)
    shown = jax.jit(lambda batch: task.curriculum.shown(batch, 3)).lower(compiled(3)).compile()
    assert not re.findall(exchanges, shown.as_text())
    for name, field in found.items():
        split = field.sharding.shard_shape(field.shape)
        assert (split[0], split[-3]) == (2, 8)
        np.testing.assert_array_equal(field, whole[name])
config = get_config("smoke")
config.update_from_flattened_dict({"data.input_frames": 2, "data.target_frames": 1, "model.window": 1})
task = make_task(config)
state = make_state(task, config)
batch = {"frames": np.random.default_rng(0).random((8, 3, 16, 16, 1), np.float32)}
# Evaluation: each device takes its examples, of as many as there are.
factor = parallel.on_all_local_devices(np.float32(2))
sums = parallel.over_examples(lambda factor, frames: (factor * frames.sum((1, 2, 3, 4)), None))
assert sums(factor, batch["frames"])[0].sharding.shard_shape((8,)) == (1,)
for count in (8, 6, 3):
    found, _ = sums(factor, batch["frames"][:count])
    np.testing.assert_allclose(found, 2 * batch["frames"][:count].sum((1, 2, 3, 4)), rtol=1e-5)
named = parallel.over_examples(lambda factor, batch: {"sums": factor * batch["frames"].sum((1, 2, 3, 4))})
np.testing.assert_allclose(named(factor, batch)["sums"], sums(factor, batch["frames"])[0], rtol=1e-5)
config.mesh.height = 2
try:
    parallel.make_mesh(config.mesh, batch_size=8, image_size=(15, 16))
except InputError as error:
    assert "images of 15 rows do not divide among 2 devices" in str(error)
else:
    raise AssertionError("15 rows are split in two")
try:
    parallel.drawn(mesh, lambda tables, step, indices: batch, {}, 8)(0)
except InputError as error:
    assert "asked for 2 examples by their indices, the task drew {'frames': 8}" in str(error)
else:
    raise AssertionError("each of four groups has drawn the whole batch")
wanted = jax.jit(jax.value_and_grad(task.loss))(state.params, batch)
largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted[1]))
for data, height, split in ((8, 1, False), (4, 2, False), (2, 2, True)):
    config.mesh.data, config.mesh.height = data, height
    mesh = parallel.make_mesh(config.mesh, batch_size=8, image_size=(16, 16))
    indices = parallel.local_indices(mesh, 8)
    placed = parallel.place(mesh, batch, indices, 8)
    assert placed["frames"].sharding.shard_shape(placed["frames"].shape) == (8 // data, 3, 16 // height, 16, 1)
    shardings = parallel.state_shardings(mesh, state, split=split)
    on_mesh = jax.device_put(state, shardings)
    loss = parallel.mean_over_devices(task.loss, mesh)
    found = jax.jit(jax.value_and_grad(loss))(on_mesh.params, placed)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    for ours, theirs in zip(*map(jax.tree.leaves, (found[1], wanted[1])), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * largest)
    if split:
        held = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(on_mesh.params))
        assert held < 0.6 * sum(leaf.size for leaf in jax.tree.leaves(on_mesh.params))
    if height == 1:
        # As a user would: JAX checks which values differ by device, and sums up the gradients of those that do not.
        whole, parts = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data")
        mean = lambda params, batch: jax.lax.pmean(task.loss(params, batch), "data")
        checked = jax.shard_map(mean, mesh=mesh, in_specs=(whole, parts), out_specs=whole, axis_names={"data"})
        for ours, theirs in zip(*map(jax.tree.leaves, (jax.jit(jax.grad(checked))(on_mesh.params, placed), wanted[1]))):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * largest)
        step = jax.jit(make_train_step(loss, make_optimiser(config.optim)[0]), out_shardings=None)
        compiled = step.lower(on_mesh, placed).compile().as_text()
        exchanged = collections.Counter(re.findall(exchanges + r"(?:-start)?\\(", compiled))
        # Of the loss, and of all gradients together.
        assert set(exchanged) == {"all-reduce"} and exchanged["all-reduce"] <= 2, exchanged

# The other kinds of networks, as a user would: JAX checks which values differ by device, and sums up gradients.
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
whole, parts = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data")
random = np.random.default_rng(1)
left, clips = random.random((8, 8, 16, 1), np.float32), random.random((8, 3, 8, 8, 1), np.float32)
lstm = EncoderForecaster((4,), 3, 4, read_all=True)
for network, inputs, predict in (
    (StereoDFN(taps=5), left, StereoDFN(taps=5).apply),
    (lstm, clips, lambda params, frames: lstm.apply(params, frames, 2)),
):
    params = random_parameters(network, inputs)
    loss = lambda params, inputs: jax.numpy.mean(predict(params, inputs)[0] ** 2)
    mean = lambda params, inputs: jax.lax.pmean(loss(params, inputs), "data")
    mapped = jax.shard_map(mean, mesh=mesh, in_specs=(whole, parts), out_specs=whole)
    gradients = [jax.tree.leaves(jax.jit(jax.grad(function))(params, inputs)) for function in (mapped, loss)]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
"""


def test_layouts_of_devices_agree_and_exchange_sums_alone():
    environment = os.environ | {"XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"}
    arguments = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def real(tmp_path, monkeypatch):
    """A folder with a clip and with stereo pairs, of noise."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for folder in ("clip", "pairs/left", "pairs/right"):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(12):
            Image.fromarray(random.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / folder / f"{index:02d}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("experiment", "source", "folder"),
    [
        (steerable, "texture", ""),
        (steerable, "images", "clip"),
        (stereo, "highway", ""),
        (stereo, "pairs", "pairs"),
        (highway, "highway", ""),
        (highway, "video", "clip"),
        (moving_mnist, "moving_mnist", ""),
    ],
)
def test_a_part_of_a_batch_is_that_part_of_the_whole(experiment, source, folder, real):
    config = experiment.get_config("smoke")
    config.data.name, config.data.image_size = source, (16, 16)
    if folder:
        config.data.dir = str(real / folder)
    if experiment is moving_mnist:
        config.data.digits = "drawn"
    batch = make_task(config).train_batch
    whole, part = jax.device_get(batch(2)), jax.device_get(batch(2, range(3, 5)))
    assert whole.keys() == part.keys()
    for name, field in whole.items():
        np.testing.assert_allclose(part[name], field[3:5], atol=1e-6)
        assert np.abs(field[3] - field[4]).max() > 0.01


def test_devices_that_are_no_box_of_chips_are_taken_as_they_come(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr(parallel.mesh_utils, "create_device_mesh", refuse)
    mesh = parallel.make_mesh(config().mesh, batch_size=8, image_size=(8, 8))
    assert (list(mesh.devices.flat), mesh.axis_names) == (jax.devices()[: mesh.size], ("data", "height"))


def test_more_devices_than_there_are_names_the_numbers():
    there = jax.device_count()
    settings = config(**{"mesh.data": there + 1})
    with pytest.raises(InputError, match=f"data is {there + 1} .* but there are {there} devices"):
        parallel.make_mesh(settings.mesh, batch_size=8, image_size=(8, 8))
