"""The training loop: exact resuming, divergence that stops the run, whole records, a batch split over devices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.checkpoint import fingerprint
from dfn_jax.config import check_workdir, claim_workdir
from dfn_jax.errors import DivergedError, InputError, PreemptedError
from dfn_jax.parallel import make_mesh
from dfn_jax.records import Records, read_records
from dfn_jax.tasks import make_task
from dfn_jax.tasks.task import Task
from dfn_jax.train import _mean_loss, make_optimiser, make_state, restore, train
from experiments.steerable import get_config

ROOT = Path(__file__).parents[1]


def config(**changes):
    result = get_config("smoke")
    result.train.steps, result.train.checkpoint_every = 6, 2
    result.update_from_flattened_dict(changes)
    return result


def regression(spoil_at: int | None = None) -> Task:
    """A small task whose optimum is known: weights [1, 2, 3] behind noisy batches."""

    def batch(step, rows=None):
        inputs = np.random.default_rng(step).standard_normal((8, 3)).astype(np.float32)
        targets = inputs @ np.array([1.0, 2.0, 3.0], np.float32)
        inputs = inputs * (np.nan if step == spoil_at else 1)
        part = slice(rows.start, rows.stop) if rows else slice(None)
        return {"inputs": inputs[part], "targets": targets[part]}

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


def test_a_last_step_that_leaves_parameters_beyond_float32_is_not_saved(tmp_path):
    with pytest.raises(DivergedError, match="the norm of the parameters is inf after step 1"):
        train(regression(), config(**{"train.steps": 1, "optim.learning_rate": 1e30}), tmp_path)
    with pytest.raises(InputError, match="holds no checkpoint"):
        restore(regression(), config(), tmp_path)


def test_the_code_that_made_the_steps_is_recorded(tmp_path, monkeypatch):
    for steps, commit in ((2, "first"), (4, "second"), (4, "idle"), (6, "second")):
        monkeypatch.setattr("dfn_jax.train.commit", lambda commit=commit: commit)
        train(regression(), config(**{"train.steps": steps}), tmp_path)
    starts = read_records(tmp_path / "starts.jsonl")
    assert [(start["step"], start["commit"]) for start in starts] == [(0, "first"), (2, "second"), (4, "second")]
    with Records(tmp_path) as records:
        records.drop_after(2)  # What began at step 2 made nothing that was saved.
    assert [start["step"] for start in read_records(tmp_path / "starts.jsonl")] == [0]


def test_nothing_to_restore_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        restore(regression(), config(), tmp_path)


def test_a_checkpoint_of_another_network_is_an_error(tmp_path):
    train(regression(), config(), tmp_path)
    other = regression()._replace(init=lambda key: {"w": jnp.zeros(4), "b": jnp.zeros(1)})
    with pytest.raises(InputError, match="cannot be read"):
        restore(other, config(), tmp_path)


def damage(folder, how):
    """Damages a checkpoint on disk."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    if how == "truncated":
        for path in files:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "a bit flipped":
        # Any bit of the numbers themselves, which lie in the largest file; Orbax compresses what it can.
        content = bytearray(files[-1].read_bytes())
        content[len(content) // 2] ^= 1
        files[-1].write_bytes(content)
    elif how == "no metadata of Orbax's kind":
        for path in folder.glob("state/**/*"):
            if path.name in ("_METADATA", "process_0"):
                path.write_text("null")
    elif how == "other numbers than were saved":
        # Seen from the other side, for bytes that still decode cannot be made at will: the fingerprint is another.
        path = folder / "fingerprint" / "metadata"
        path.write_text(json.dumps([number + 1 for number in json.loads(path.read_text())]))
    else:
        shutil.rmtree(folder)
        if how == "an empty folder":
            folder.mkdir()


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "a bit flipped",
        "no metadata of Orbax's kind",
        "other numbers than were saved",
        "an empty folder",
        "missing",
    ],
)
def test_a_damaged_checkpoint_is_skipped_and_the_run_is_the_same(how, tmp_path, capsys):
    settings = config(**{"train.log_every": 1})
    whole = train(regression(), settings, tmp_path)
    damage(tmp_path / "checkpoints" / "6", how)
    assert int(restore(regression(), settings, tmp_path).step) == 4
    again = train(regression(), settings, tmp_path)
    np.testing.assert_array_equal(whole.params["w"], again.params["w"])
    assert int(restore(regression(spoil_at=0), settings, tmp_path).step) == 6
    assert len(read_records(tmp_path / "metrics.jsonl")) == 6
    named = f"{tmp_path}/checkpoints/6 cannot be read"
    assert (named in capsys.readouterr().err) == (how != "missing")
    assert (tmp_path / "damaged_checkpoints" / "6-0").is_dir() == (how != "missing")


def test_the_best_checkpoint_stays_beside_the_newest(tmp_path):
    def forgetful(step, rows=None):
        batch = regression().train_batch(step)
        return batch | {"targets": batch["targets"] * (1 if step < 4 else 50)}

    settings = config(**{"train.steps": 12, "train.log_every": 1, "optim.learning_rate": 0.1})
    task = regression()._replace(train_batch=forgetful)
    train(task, settings, tmp_path)
    losses = {record["step"]: record["loss"] for record in read_records(tmp_path / "metrics.jsonl")}
    best = min((step for step in losses if step % 2 == 0), key=lambda step: losses[step] + losses[step - 1])
    assert best < 6
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {str(best), "8", "10", "12"}
    settings.eval.best = True
    assert int(restore(task, settings, tmp_path).step) == best
    damage(tmp_path / "checkpoints" / str(best), "truncated")
    assert int(restore(task, settings, tmp_path).step) == 12
    # Of a checkpoint that a kill kept from being written.
    (tmp_path / "best_checkpoint.json").write_text('{"step": 5, "loss": 0.0}')
    with pytest.raises(InputError, match=r"which checkpoint .* is the best is not known"):
        restore(task, settings, tmp_path)


def test_no_whole_checkpoint_is_an_error_that_names_all(tmp_path):
    train(regression(), config(), tmp_path)
    for step in ("2", "4", "6"):
        damage(tmp_path / "checkpoints" / step, "truncated")
    with pytest.raises(InputError, match=r"checkpoints/6 cannot.*checkpoints/4 cannot.*checkpoints/2 cannot"):
        train(regression(), config(), tmp_path)


def test_checkpoints_that_cannot_be_listed_are_told(tmp_path):
    train(regression(), config(), tmp_path)
    (tmp_path / "checkpoints" / "6" / "_CHECKPOINT_METADATA").write_text("1")
    with pytest.raises(InputError, match=r"checkpoints cannot be listed .* move away the one whose"):
        restore(regression(), config(), tmp_path)


def test_the_fingerprint_changes_with_every_bit():
    values = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    untouched = fingerprint({"w": values})
    assert fingerprint({"w": values[::-1].copy()}) != untouched
    for place in (0, 17, 49):
        for bit in range(32):
            other = values.copy()
            other.view(np.uint32)[place] ^= np.uint32(1 << bit)
            assert fingerprint({"w": other}) != untouched


def asked_to_end_at(last):
    """The regression, to which SIGTERM comes while it makes a batch."""

    def batch(step, rows):
        if step == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return regression().train_batch(step, rows)

    return regression()._replace(train_batch=batch)


def test_sigterm_saves_and_the_run_goes_on_as_if_never_ended(tmp_path):
    settings = config(**{"train.steps": 9, "train.checkpoint_every": 9, "train.log_every": 1})
    whole = train(regression(), settings, tmp_path / "whole")
    with pytest.raises(PreemptedError, match="at step 6"):
        train(asked_to_end_at(5), settings, tmp_path / "parts")
    parts = train(regression(), settings, tmp_path / "parts")
    np.testing.assert_array_equal(whole.params["w"], parts.params["w"])
    losses = [[r["loss"] for r in read_records(tmp_path / run / "metrics.jsonl")] for run in ("whole", "parts")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("ended_at", [7, 8])
def test_the_best_checkpoint_is_chosen_by_the_same_losses_after_an_interruption(ended_at, tmp_path):
    every = {"train.checkpoint_every": 4, "train.log_every": 4}
    settings = config(**{"train.steps": 10, "optim.learning_rate": 0.3, **every})
    train(regression(), settings, tmp_path / "whole")
    with pytest.raises(PreemptedError, match=f"at step {ended_at}"):
        train(asked_to_end_at(ended_at - 1), settings, tmp_path / "parts")
    settings.train.steps = 8
    train(regression(), settings, tmp_path / "parts")
    parts = json.loads((tmp_path / "parts" / "best_checkpoint.json").read_text())
    losses = {record["step"]: record["loss"] for record in read_records(tmp_path / "whole" / "metrics.jsonl")}
    assert parts == {"step": 8, "loss": pytest.approx(losses[8], rel=1e-6)}


def test_the_best_checkpoint_is_not_chosen_by_a_few_lucky_steps(tmp_path):
    def lucky_at_last(step, rows=None):
        return {name: values * [1, 2, 0][step // 4] for name, values in regression().train_batch(step).items()}

    settings = config(
        **{"train.steps": 9, "train.checkpoint_every": 4, "train.log_every": 2, "optim.learning_rate": 1e-6}
    )
    train(regression()._replace(train_batch=lucky_at_last), settings, tmp_path)
    losses = {record["step"]: record["loss"] for record in read_records(tmp_path / "metrics.jsonl")}
    assert losses[9] == 0 < (losses[2] + losses[4]) / 2 < (losses[6] + 2 * losses[8]) / 4
    best = json.loads((tmp_path / "best_checkpoint.json").read_text())
    assert best == {"step": 4, "loss": pytest.approx((losses[2] + losses[4]) / 2, rel=1e-6)}


def test_skipped_steps_do_not_count_in_the_loss_that_a_checkpoint_is_chosen_by():
    records = [
        {"step": 6, "loss": 2.0, "skipped_steps": 1},
        {"step": 8, "skipped_steps": 2},
        {"step": 9, "loss": 5.0, "skipped_steps": 0},
    ]
    assert _mean_loss(4, records) == 3.5
    assert _mean_loss(6, records[1:2]) == float("inf")
    assert _mean_loss(7, records[1:]) == 5.0


def test_sigterm_while_the_last_checkpoint_is_written_is_not_lost(tmp_path):
    settings = config(**{"train.steps": 3, "train.checkpoint_every": 9})
    with pytest.raises(PreemptedError, match="at step 3"):
        train(asked_to_end_at(2), settings, tmp_path)
    assert int(train(regression(), settings, tmp_path).step) == 3


@pytest.mark.parametrize("what", ["checkpoint", "record"])
def test_a_full_disk_is_one_line_and_earlier_checkpoints_stay_whole(what, tmp_path):
    """A limit on the size of files stands in for it: it fails the same writes, in Orbax's threads too."""
    code = f"""
import resource, sys, time
from pathlib import Path
import jax.numpy as jnp, numpy as np
from dfn_jax.train import train
from tests.train_test import config, regression
task, random, workdir = regression(), np.random.default_rng(0), Path({str(tmp_path)!r})
def batch(step, rows):
    if step == 5:
        for _ in range(300):  # until the checkpoint of step 4 is on the disk
            time.sleep(0 if (workdir / "checkpoints" / "4").exists() else 0.1)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({{"checkpoint": 100_000, "record": 300}}[{what!r}],) * 2)
    return task.train_batch(step, rows)
def init(key):
    return task.init(key) | {{"ballast": jnp.asarray(random.standard_normal(100_000), jnp.float32)}}
settings = config(**{{"train.steps": 8, "train.checkpoint_every": 4, "train.log_every": 1}})
try:
    train(task._replace(train_batch=batch, init=init), settings, workdir)
except OSError as error:
    print(error)
    sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert ("earlier checkpoints are whole" in done.stdout) == (what == "checkpoint")
    ballast = regression()._replace(init=lambda key: {"w": jnp.zeros(3), "ballast": jnp.zeros(100_000)})
    assert int(restore(ballast, config(), tmp_path).step) == 4


def test_a_run_in_single_precision_goes_on_in_half(tmp_path):
    settings = config(**{"train.steps": 2})
    claim_workdir(tmp_path, settings).close()
    begun = train(make_task(settings), settings, tmp_path)
    settings.update_from_flattened_dict({"train.steps": 3, "precision": "bfloat16"})
    check_workdir(tmp_path, settings)
    half = train(make_task(settings), settings, tmp_path)
    assert int(half.step) == 3
    for before, after in zip(jax.tree.leaves(begun.params), jax.tree.leaves(half.params), strict=True):
        assert after.dtype == np.float32
        assert 0 < np.abs(after - before).max() < 0.01


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
    with pytest.raises(InputError, match=f"data is 3 .* but there are {jax.device_count()} devices"):
        make_mesh(settings.mesh, batch_size=8, image_size=(8, 8))


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
def run(name, **changes):
    return train(regression(), config(**changes), Path({str(tmp_path)!r}) / name).params["w"]
alone = run("one", **{{"mesh.data": 1}})
np.testing.assert_allclose(run("eight", **{{"mesh.data": 8}}), alone, rtol=1e-5)
# Begun on eight, in parts, and gone on with on two.
run("both", **{{"mesh.data": 8, "mesh.split_state": True, "train.steps": 4}})
np.testing.assert_allclose(run("both", **{{"mesh.data": 2}}), alone, rtol=1e-5)
with pytest.raises(InputError, match="a batch of 9 does not divide among 8 devices"):
    make_mesh(config(**{{"mesh.data": 8}}).mesh, batch_size=9, image_size=(8, 8))
for batch_size, height, wanted in ((12, 1, (4, 1)), (12, 2, (4, 2)), (9, 1, (1, 1)), (16, 1, (8, 1))):
    mesh = make_mesh(config(**{{"mesh.height": height}}).mesh, batch_size=batch_size, image_size=(8, 8))
    assert mesh.devices.shape == wanted
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=300)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_steps_that_are_not_finite_are_skipped_if_asked(name, tmp_path, capsys):
    """As if the step had not been: a run over the other batches alone ends at the same weights."""
    settings = config(**{"train.non_finite": "skip", "train.log_every": 3, "optim.name": name})
    skipping = train(regression(spoil_at=3), settings, tmp_path / "skipping")
    finite = regression()
    others = finite._replace(train_batch=lambda step, rows: finite.train_batch(step + (step >= 3), rows))
    settings.train.steps = 5
    np.testing.assert_array_equal(skipping.params["w"], train(others, settings, tmp_path / "others").params["w"])
    assert int(skipping.step) == 6
    assert [record["skipped_steps"] for record in read_records(tmp_path / "skipping" / "metrics.jsonl")] == [0, 0, 1, 0]
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
    def batch(step, rows=None):
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

    def batch(step, rows):
        if step == 15:
            time.sleep(2.5)
            assert "step 16: this step has taken" in capsys.readouterr().err
        return task.train_batch(step, rows)

    train(task._replace(train_batch=batch), config(**{"train.steps": 17, "train.checkpoint_every": 17}), tmp_path)
    assert [event["step"] for event in read_records(tmp_path / "events.jsonl")] == [16]
