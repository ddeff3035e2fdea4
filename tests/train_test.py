"""The training loop: exact resuming, divergence that stops the run, whole records, a batch split over devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.errors import DivergedError, InputError
from dfn_jax.parallel import make_mesh
from dfn_jax.records import Records, read_records
from dfn_jax.tasks.task import Task
from dfn_jax.train import make_optimiser, make_state, restore, train
from experiments.steerable import get_config

ROOT = Path(__file__).parents[1]


def config(**changes):
    result = get_config("smoke")
    result.train.steps, result.train.checkpoint_every = 6, 2
    result.update_from_flattened_dict(changes)
    return result


def regression(spoil_at: int | None = None) -> Task:
    """A small task whose optimum is known: weights [1, 2, 3] behind noisy batches."""

    def batch(step):
        inputs = np.random.default_rng(step).standard_normal((8, 3)).astype(np.float32)
        targets = inputs @ np.array([1.0, 2.0, 3.0], np.float32)
        return {"inputs": inputs * (np.nan if step == spoil_at else 1), "targets": targets}

    return Task(
        init=lambda key: {"w": jax.random.normal(key, (3,))},
        loss=lambda params, batch: jnp.mean((batch["inputs"] @ params["w"] - batch["targets"]) ** 2),
        train_batch=batch,
        evaluate=None,
        loss_name="squared error",
    )


def adam_by_hand(task, w, steps, *, learning_rate, halve_every):
    """Adam (Kingma and Ba, 2015, Algorithm 1) in float64 on the same batches."""
    w, m, v = np.asarray(w, np.float64), np.zeros(3), np.zeros(3)
    for t in range(1, steps + 1):
        batch = task.train_batch(t - 1)
        x, y = batch["inputs"].astype(np.float64), batch["targets"]
        g = 2 * x.T @ (x @ w - y) / len(y)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = learning_rate * 0.5 ** ((t - 1) // halve_every)
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def test_the_optimiser_is_adam_with_a_halved_rate(tmp_path):
    settings = config(**{"train.steps": 30, "optim.learning_rate": 0.05, "optim.halve_every": 7})
    task = regression()
    start = make_state(task, settings).params["w"]
    state = train(task, settings, tmp_path)
    np.testing.assert_allclose(
        state.params["w"], adam_by_hand(task, start, 30, learning_rate=0.05, halve_every=7), rtol=1e-4
    )
    assert float(make_optimiser(settings.optim)[1](14)) == pytest.approx(0.0125)


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(tmp_path):
    settings = config(**{"train.log_every": 1})
    whole = train(regression(), settings, tmp_path / "whole")
    train(regression(), config(**{"train.steps": 4, "train.log_every": 1}), tmp_path / "parts")
    parts = train(regression(), settings, tmp_path / "parts")
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    losses = [[r["loss"] for r in read_records(tmp_path / run / "metrics.jsonl")] for run in ("whole", "parts")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_a_finished_run_is_restored_without_a_step(tmp_path):
    settings = config()
    state = train(regression(), settings, tmp_path)
    again = restore(regression(spoil_at=0), settings, tmp_path)
    np.testing.assert_array_equal(state.params["w"], again.params["w"])
    assert int(again.step) == 6


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(DivergedError, match="at step 5"):
        train(regression(spoil_at=4), config(**{"train.log_every": 100}), tmp_path)
    state = restore(regression(), config(), tmp_path)
    assert int(state.step) == 4
    assert np.isfinite(state.params["w"]).all()


def test_nothing_to_restore_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        restore(regression(), config(), tmp_path)


def test_a_checkpoint_of_another_network_is_an_error(tmp_path):
    train(regression(), config(), tmp_path)
    other = regression()._replace(init=lambda key: {"w": jnp.zeros(4), "b": jnp.zeros(1)})
    with pytest.raises(InputError, match="cannot be read"):
        restore(other, config(), tmp_path)


def test_records_survive_a_kill_in_the_middle_of_a_line(tmp_path):
    with Records(tmp_path) as records:
        for step in (1, 2, 3):
            records.write(step, {"loss": 0.5})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')
    assert [record["step"] for record in read_records(path)] == [1, 2, 3]
    with Records(tmp_path) as records:
        records.drop_after(2)
        records.write(3, {"loss": 0.25})
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [0.5, 0.5, 0.25]


def test_a_batch_that_does_not_divide_names_the_numbers():
    settings = config(**{"mesh.data": 3})
    with pytest.raises(InputError, match=f"is 3, but there are {jax.device_count()} devices"):
        make_mesh(settings.mesh, 8)


def test_eight_devices_train_as_one(tmp_path):
    """In a process of its own, because the number of devices is fixed when JAX starts."""
    code = f"""
import jax, numpy as np, pytest
from pathlib import Path
from tests.train_test import config, regression
from dfn_jax.train import train
from dfn_jax.parallel import make_mesh
from dfn_jax.errors import InputError
assert jax.device_count() == 8
ws = [train(regression(), config(**{{"mesh.data": n}}), Path({str(tmp_path)!r}) / str(n)).params["w"] for n in (1, 8)]
np.testing.assert_allclose(*ws, rtol=1e-5)
assert len(ws[1].sharding.device_set) == 8
with pytest.raises(InputError, match="a batch of 9 does not divide among 8 devices"):
    make_mesh(config().mesh, 9)
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=300)
