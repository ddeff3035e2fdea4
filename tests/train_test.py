"""The training loop: the optimiser, steps that are not finite, jumps and hangs, a batch split over devices."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.errors import DivergedError, InputError
from dfn_jax.guards import Watchdog
from dfn_jax.optimisers import make_optimiser
from dfn_jax.records import Records, read_records
from dfn_jax.tasks.task import Curriculum, Evaluation
from dfn_jax.train import restore, train
from dfn_jax.train_step import make_state
from tests.regression import config, regression

ROOT = Path(__file__).parents[1]


def adam_by_hand(task, w, steps, *, learning_rate, halve_every):
    """Adam (Kingma and Ba, 2015, Algorithm 1) in float64 on the same batches; after each step."""
    w, m, v, path = np.asarray(w, np.float64), np.zeros(3), np.zeros(3), []
    for t in range(1, steps + 1):
        batch = task.train_batch(t - 1)
        x, y = batch["inputs"].astype(np.float64), batch["targets"]
        g = 2 * x.T @ (x @ w - y) / len(y)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = learning_rate * 0.5 ** ((t - 1) // halve_every)
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        path.append(w)
    return path


def test_the_optimiser_is_adam_with_a_halved_rate(tmp_path):
    settings = config(**{"train.steps": 30, "optim.learning_rate": 0.05, "optim.halve_every": 7})
    task = regression()
    start = make_state(task, settings).params["w"]
    state = train(task, settings, tmp_path)
    *_, wanted = adam_by_hand(task, start, 30, learning_rate=0.05, halve_every=7)
    np.testing.assert_allclose(state.params["w"], wanted, rtol=1e-4)
    assert float(make_optimiser(settings.optim)[1](14)) == pytest.approx(0.0125)


def test_the_network_is_the_average_of_what_the_optimiser_moves_where_it_is_asked_for(tmp_path):
    settings, task = config(**{"train.steps": 10, "optim.learning_rate": 0.05, "optim.ema_decay": 0.8}), regression()
    average = np.asarray(make_state(task, settings).params["w"], np.float64)
    path = adam_by_hand(task, average, 60, learning_rate=0.05, halve_every=settings.optim.halve_every)
    train(task, settings, tmp_path)
    settings.train.steps = 60  # A run that goes on has the average, too.
    state = train(task, settings, tmp_path)
    for step, moved in enumerate(path):
        weight = min(0.8, (1 + step) / (10 + step))
        average = weight * average + (1 - weight) * moved
    np.testing.assert_allclose(state.params["w"], average, rtol=1e-4)
    np.testing.assert_allclose(state.optimiser[1]["w"], path[-1], rtol=1e-4)
    np.testing.assert_array_equal(restore(task, settings, tmp_path).params["w"], state.params["w"])


def test_a_curriculum_trains_on_parts_and_they_do_not_decide_which_checkpoint_is_best(tmp_path):
    def shown(batch, step):
        return batch if step >= 3 else {name: one[:2] for name, one in batch.items()}

    settings, task = config(), regression()  # checkpoints at steps 2, 4 and 6
    in_parts = task._replace(train_batch=lambda step, indices=None: shown(task.train_batch(step), step))
    start = make_state(task, settings).params["w"]
    settings.train.steps, settings.eval.best = 4, True  # Of the last two, one is on a part.
    with pytest.raises(InputError, match="shows those from step 3 on, of 4; leave it out"):
        train(task._replace(curriculum=Curriculum(shown, 3)), settings, tmp_path)
    settings.eval.best = False
    train(task._replace(curriculum=Curriculum(shown, 3)), settings, tmp_path)
    assert not (tmp_path / "best_checkpoint.json").exists()
    settings.train.steps = 6
    state = train(task._replace(curriculum=Curriculum(shown, 3)), settings, tmp_path)
    rates = {"learning_rate": settings.optim.learning_rate, "halve_every": settings.optim.halve_every}
    np.testing.assert_allclose(state.params["w"], adam_by_hand(in_parts, start, 6, **rates)[-1], rtol=1e-4)
    assert json.loads((tmp_path / "best_checkpoint.json").read_text())["step"] == 6


def test_a_run_that_ends_within_its_curriculum_is_told_of(tmp_path, capsys):
    task = regression()._replace(curriculum=Curriculum(lambda batch, step: batch, 4))
    told = "no step of the 4 is on whole examples, as the curriculum shows those from step 4 on"
    for steps in (4, 5):
        train(task, config(**{"train.steps": steps}), tmp_path / str(steps))
        assert (told in capsys.readouterr().err) == (steps == 4)


def test_a_run_shorter_than_from_checkpoint_to_checkpoint_has_a_best_one(tmp_path):
    train(regression(), config(**{"train.steps": 1}), tmp_path)
    assert json.loads((tmp_path / "best_checkpoint.json").read_text())["step"] == 1


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(DivergedError, match="at step 5"):
        train(regression(spoil_at=4), config(**{"train.log_every": 100}), tmp_path)
    state = restore(regression(), config(), tmp_path)
    assert int(state.step) == 4
    assert np.isfinite(state.params["w"]).all()


def test_a_last_step_that_leaves_parameters_beyond_float32_is_not_saved(tmp_path):
    with pytest.raises(DivergedError, match="the norm of the parameters is inf after step 1"):
        train(regression(), config(**{"train.steps": 1, "optim.learning_rate": 1e30}), tmp_path)
    with pytest.raises(InputError, match="holds no checkpoint"):
        restore(regression(), config(), tmp_path)


def test_eight_devices_train_as_one(tmp_path):
    """In a process of its own, because the number of devices is fixed when JAX starts."""
    code = f"""
import jax, jax.numpy as jnp, numpy as np, pytest
from pathlib import Path
from tests.regression import config, regression
from dfn_jax import parallel
from dfn_jax.train import train
from dfn_jax.errors import InputError
assert jax.device_count() == 8
of_weights = regression()
def init(key):
    return of_weights.init(key) | {{"offsets": jnp.zeros(8)}}
def loss(params, batch):
    return of_weights.loss(params, batch | {{"targets": batch["targets"] + params["offsets"].sum()}})
held = []
def to_host(state, to_host=parallel.to_host):
    held.append({{leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(state)}})
    return to_host(state)
parallel.to_host = to_host
def run(name, **changes):
    task = of_weights._replace(init=init, loss=loss)
    settings = config(**{{"optim.ema_decay": 0.5, **changes}})
    return jnp.concatenate(jax.tree.leaves(train(task, settings, Path({str(tmp_path)!r}) / name).params))
alone = run("one", **{{"mesh.data": 1}})
np.testing.assert_allclose(run("eight", **{{"mesh.data": 8}}), alone, rtol=1e-5)
# Begun on eight, in parts, and gone on with on two. Of three weights, which do not divide, each device has all.
run("both", **{{"mesh.data": 8, "mesh.split_state": True, "train.steps": 4}})
np.testing.assert_allclose(run("both", **{{"mesh.data": 2}}), alone, rtol=1e-5)
whole = {{(), (3,), (8,)}}
assert held == [whole, whole, {{(), (3,), (1,)}}, whole]
with pytest.raises(InputError, match="a batch of 9 does not divide among 8 devices"):
    parallel.make_mesh(config(**{{"mesh.data": 8}}).mesh, batch_size=9, image_size=(8, 8))
for batch_size, height, wanted in ((12, 1, (4, 1)), (12, 2, (4, 2)), (9, 1, (1, 1)), (16, 1, (8, 1))):
    mesh = parallel.make_mesh(config(**{{"mesh.height": height}}).mesh, batch_size=batch_size, image_size=(8, 8))
    assert mesh.devices.shape == wanted
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=300)


def test_the_seed_decides_the_first_weights():
    one, again, other = (make_state(regression(), config(seed=seed)).params["w"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.fixture
def written(monkeypatch):
    """When the loss of each step was recorded, by step."""
    times, write = {}, Records.write

    def noted(self, step, values):
        if "loss" in values:
            times[step] = time.monotonic()
        write(self, step, values)

    monkeypatch.setattr(Records, "write", noted)
    return times


def test_the_rate_is_told_in_steps_a_second(tmp_path, written):
    task, drawn = regression(), {}

    def batch(step, indices):
        drawn[step] = time.monotonic()
        time.sleep(0.1)
        return task.train_batch(step, indices)

    settings = config(**{"train.steps": 10, "train.log_every": 5, "train.checkpoint_every": 10})
    train(task._replace(train_batch=batch), settings, tmp_path)
    *_, last = read_records(tmp_path / "metrics.jsonl")
    assert 0.5 <= 5 / last["steps_per_second"] <= written[10] - drawn[4]


def test_looks_at_the_test_set_are_of_the_network_of_that_step_and_change_nothing(tmp_path, written):
    looked = []

    def distance(w):
        return float(np.linalg.norm(np.asarray(w, np.float64) - [1, 2, 3]))

    def cut_short(params):
        raise OSError("no test set")

    def never_drawn():
        raise AssertionError("pictures are for reports")

    def evaluate(params):
        time.sleep(0.2)
        looked.append(time.monotonic())
        found = {"distance": distance(params["w"]), "distance_curve": [1.0], "baseline_distance": 1.0, "none": math.nan}
        return Evaluation("", "", found, never_drawn, "distance", "distance")

    settings = config(**{"train.evaluate_every": 2, "train.log_every": 5, "train.checkpoint_every": 6})
    task, spoilt = (regression(spoil_at=step)._replace(evaluate=evaluate) for step in (None, 4))
    settings.train.steps = 4
    with pytest.raises(OSError, match="no test set"):
        train(task._replace(evaluate=cut_short), settings, tmp_path / "watched")
    assert (tmp_path / "watched" / "checkpoints" / "2").exists()
    train(task, settings, tmp_path / "watched")
    longest = written[4] - looked[0]
    settings.train.steps = 6
    with pytest.raises(DivergedError):  # just after a look that the run of four steps had no reason to take
        train(spoilt, settings, tmp_path / "watched")
    watched = train(task, settings, tmp_path / "watched")  # It goes on from before that look.
    without = {n: train(regression(), config(**{"train.steps": n}), tmp_path / str(n)).params["w"] for n in (2, 4, 6)}
    records = read_records(tmp_path / "watched" / "metrics.jsonl")
    (rate,) = (record["steps_per_second"] for record in records if record["step"] == 4 and "loss" in record)
    assert 2 / rate <= longest  # The time that the look at step 2 took is not counted.
    looks = [record for record in records if "loss" not in record]
    assert looks == [{"step": steps, "test_distance": distance(without[steps])} for steps in (2, 4)]
    np.testing.assert_array_equal(watched.params["w"], without[6])


@pytest.mark.parametrize(("name", "ema_decay"), [("adam", 0.0), ("muon", 0.0), ("muon", 0.9)])
def test_steps_that_are_not_finite_are_skipped_if_asked(name, ema_decay, tmp_path, capsys):
    """As if the step had not been: a run over the other batches alone ends at the same weights."""
    settings = config(**{"train.non_finite": "skip", "train.log_every": 3, "optim.halve_every": 3})
    settings.optim.name, settings.optim.ema_decay = name, ema_decay
    skipping = train(regression(spoil_at=3), settings, tmp_path / "skipping")
    finite = regression()
    others = finite._replace(train_batch=lambda step, indices: finite.train_batch(step + (step >= 3), indices))
    settings.train.steps = 5
    np.testing.assert_array_equal(skipping.params["w"], train(others, settings, tmp_path / "others").params["w"])
    assert int(skipping.step) == 6
    records = read_records(tmp_path / "skipping" / "metrics.jsonl")
    assert [record["skipped_steps"] for record in records] == [0, 0, 1, 0]
    # Three updates by the first rate, of which steps 2 and 3 tell; step 4 makes none; 5 and 6 are by half of it.
    assert [record["learning_rate"] for record in records] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4])
    (event,) = read_records(tmp_path / "skipping" / "events.jsonl")
    assert event["step"] == 4
    assert "task.train_batch(3) with config.seed=0" in event["event"]
    assert event["event"] in capsys.readouterr().err


def test_no_finite_step_at_all_is_an_error(tmp_path):
    settings = config(
        **{"train.non_finite": "skip", "train.log_every": 2, "train.steps": 30, "train.checkpoint_every": 30}
    )
    task = regression()._replace(loss=lambda params, batch: jnp.nan * params["w"].sum())
    with pytest.raises(DivergedError, match="the last 20 steps up to 20"):
        train(task, settings, tmp_path)


def test_clipped_gradients_have_the_norm_asked_for(tmp_path):
    """Adam divides by the gradient's size, all but its 1e-8: of gradients that small, only the clipped norm is left."""
    gradient = {"w": jnp.array([3e-6, 4e-6])}
    for norm, wanted in ((0.0, gradient["w"]), (5e-9, jnp.array([3e-9, 4e-9]))):
        optimiser, _ = make_optimiser(config(**{"optim.clip_norm": norm}).optim)
        update, _ = optimiser.update(gradient, optimiser.init(gradient), gradient)
        np.testing.assert_allclose(update["w"], -1e-3 * wanted / (wanted + 1e-8), rtol=1e-4)


def test_a_jump_of_the_loss_is_told_with_its_batch(tmp_path):
    def batch(step, indices=None):
        batch = regression().train_batch(step)
        return batch | {"targets": batch["targets"] * (100 if step == 15 else 1)}

    settings = config(**{"train.steps": 20, "seed": 7})
    train(regression()._replace(train_batch=batch), settings, tmp_path)
    (event,) = read_records(tmp_path / "events.jsonl")
    assert event["step"] == 16
    assert event["event"].startswith("the loss jumped to ")
    assert event["event"].endswith("task.train_batch(15) with config.seed=7 draws its batch again")


def test_a_step_that_hangs_is_told_while_it_hangs(tmp_path, capsys):
    task = regression()

    def batch(step, indices):
        if step == 15:
            time.sleep(2.5)
            assert "step 16: this step has taken" in capsys.readouterr().err
        return task.train_batch(step, indices)

    train(task._replace(train_batch=batch), config(**{"train.steps": 17, "train.checkpoint_every": 17}), tmp_path)
    assert [event["step"] for event in read_records(tmp_path / "events.jsonl")] == [16]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_step_that_is_compiled_anew_does_not_hang(forgotten):
    told = []
    with Watchdog(lambda step, message: told.append(step)) as watchdog:
        for step in range(15):
            watchdog.begin(step)
            watchdog.end()
        watchdog.begin(15)
        if forgotten:
            watchdog.forget()
        time.sleep(1.5)
        watchdog.end()
    assert told == ([] if forgotten else [15])
