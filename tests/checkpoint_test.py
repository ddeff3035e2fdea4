"""Checkpoints: exact resuming, after a damage, a full disk or SIGTERM too, and the best one's choice."""

import concurrent.futures
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax.checkpoint import Checkpoints, fingerprint
from dfn_jax.errors import InputError
from dfn_jax.preemption import PreemptedError
from dfn_jax.records import mean_loss, read_records
from dfn_jax.tasks import make_task
from dfn_jax.train import restore, train
from dfn_jax.workdir import check_workdir, claim_workdir
from tests.regression import config, regression

ROOT = Path(__file__).parents[1]


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


def test_so_is_one_by_muon_which_has_other_states_for_kernels_than_for_biases(tmp_path):
    of_weights = regression()

    def loss(params, batch):
        outputs = jnp.tanh(batch["inputs"] @ params["kernel"]) @ params["w"] + params["bias"]
        return jnp.mean((outputs - batch["targets"]) ** 2)

    def init(key):
        return of_weights.init(key) | {"kernel": jnp.eye(3), "bias": jnp.zeros(1)}

    task, settings = of_weights._replace(init=init, loss=loss), config(**{"optim.name": "muon"})
    whole = train(task, settings, tmp_path / "whole")
    train(task, config(**{"optim.name": "muon", "train.steps": 3}), tmp_path / "parts")
    parts = train(task, settings, tmp_path / "parts")
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_finished_run_is_restored_without_a_step(tmp_path):
    settings = config()
    state = train(regression(), settings, tmp_path)
    again = train(regression()._replace(train_batch=None), settings, tmp_path)
    np.testing.assert_array_equal(state.params["w"], again.params["w"])
    assert int(again.step) == 6


@pytest.mark.parametrize("measured", [False, True])
def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(measured, tmp_path, capsys):
    """Where there may have been none yet, it does."""
    settings = config()  # with a checkpoint after every other of six steps
    train(regression(), settings, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    if measured:
        settings.train.checkpoint_every = 6
        (tmp_path / "results.json").write_text("{}")
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(InputError, match="recorded 6 steps, but its checkpoints are gone"):
        train(regression(), settings, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before
    settings.train.checkpoint_every = 2  # Not of these steps: a kill at the fifth left no checkpoint.
    start = read_records(tmp_path / "starts.jsonl")[0] | {"checkpoint_every": 6}
    (tmp_path / "starts.jsonl").write_text(json.dumps(start) + "\n")
    (tmp_path / "results.json").unlink(missing_ok=True)
    assert int(train(regression(), settings, tmp_path).step) == 6
    assert "no checkpoint was saved: training begins anew" in capsys.readouterr().err


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
    assert int(restore(regression(), settings, tmp_path).step) == 6
    assert len(read_records(tmp_path / "metrics.jsonl")) == 6
    named = f"{tmp_path}/checkpoints/6 cannot be read"
    assert (named in capsys.readouterr().err) == (how != "missing")
    assert (tmp_path / "damaged_checkpoints" / "6-0").is_dir() == (how != "missing")


def test_a_checkpoint_that_a_disk_fails_to_give_once_is_not_damaged(tmp_path, monkeypatch, capsys):
    state, read, failures = train(regression(), config(), tmp_path), Checkpoints._read, [OSError("stale handle")]

    def once(self, step, like):
        if failures:
            raise failures.pop()
        return read(self, step, like)

    monkeypatch.setattr(Checkpoints, "_read", once)
    again = train(regression()._replace(train_batch=None), config(), tmp_path)
    np.testing.assert_array_equal(state.params["w"], again.params["w"])
    assert not failures
    assert not (tmp_path / "damaged_checkpoints").exists()
    assert "cannot be read" not in capsys.readouterr().err


def test_a_damaged_checkpoint_on_another_disk_is_set_aside_too(tmp_path, monkeypatch):
    """Where `checkpoints` is a link to it; nothing can be renamed from one disk to another."""
    settings, rename = config(), os.rename
    train(regression(), settings, tmp_path)
    (tmp_path / "checkpoints").rename(tmp_path / "disk")
    (tmp_path / "checkpoints").symlink_to(tmp_path / "disk")
    damage(tmp_path / "disk" / "6", "truncated")
    held = {path.name for path in (tmp_path / "disk" / "6").rglob("*")}

    def between_disks(source, target):
        if "damaged_checkpoints" in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", between_disks)
    train(regression(), settings, tmp_path)
    assert {path.name for path in (tmp_path / "damaged_checkpoints" / "6-0").rglob("*")} == held
    assert int(restore(regression(), settings, tmp_path).step) == 6


def test_the_best_checkpoint_stays_beside_the_newest(tmp_path):
    def forgetful(step, indices=None):
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
    # While a better one is being written, or if a kill keeps it from being so, it is the one before.
    (tmp_path / "best_checkpoint.json").write_text(
        json.dumps({"step": 14, "loss": 0.0, "before": {"step": best, "loss": losses[best]}})
    )
    assert int(restore(task, settings, tmp_path).step) == best
    damage(tmp_path / "checkpoints" / str(best), "truncated")
    assert int(restore(task, settings, tmp_path).step) == 12
    # Of a checkpoint that a kill kept from being written.
    (tmp_path / "best_checkpoint.json").write_text('{"step": 5, "loss": 0.0}')
    with pytest.raises(InputError, match=r"it is not known which checkpoint .* is the best"):
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

    def batch(step, indices):
        if step == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return regression().train_batch(step, indices)

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
    before = {"step": 4, "loss": pytest.approx(losses[4], rel=1e-6)}
    assert parts == {"step": 8, "loss": pytest.approx(losses[8], rel=1e-6), "before": before}


def test_the_best_checkpoint_is_not_chosen_by_a_few_lucky_steps(tmp_path):
    def lucky_at_last(step, indices=None):
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
    assert mean_loss(4, records) == 3.5
    assert mean_loss(6, records[1:2]) == float("inf")
    assert mean_loss(7, records[1:]) == 5.0


def test_sigterm_while_the_last_checkpoint_is_written_is_not_lost(tmp_path):
    settings = config(**{"train.steps": 3, "train.checkpoint_every": 9})
    with pytest.raises(PreemptedError, match="at step 3"):
        train(asked_to_end_at(2), settings, tmp_path)
    assert int(train(regression(), settings, tmp_path).step) == 3


def test_what_listened_to_sigterm_before_listens_again_unless_it_came(tmp_path):
    """What follows the end that was asked for is not cut short by another signal."""

    def mine(*_):
        raise AssertionError("the run listens itself")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        train(regression(), config(), tmp_path / "whole")
        assert signal.getsignal(signal.SIGTERM) is mine
        with pytest.raises(PreemptedError):
            train(asked_to_end_at(2), config(), tmp_path / "ended")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_may_be_in_any_thread(tmp_path):
    """But only in the main one may it listen to signals."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert int(pool.submit(train, regression(), config(), tmp_path).result().step) == config().train.steps


@pytest.mark.parametrize("what", ["checkpoint", "record"])
def test_a_full_disk_is_one_line_and_earlier_checkpoints_stay_whole(what, tmp_path):
    """A limit on the size of files stands in for it: it fails the same writes, in Orbax's threads too."""
    code = f"""
import resource, sys, time
from pathlib import Path
import jax.numpy as jnp, numpy as np
from dfn_jax.train import train
from tests.regression import config, regression
task, random, workdir = regression(), np.random.default_rng(0), Path({str(tmp_path)!r})
def batch(step, indices):
    if step == 5:
        for _ in range(300):  # until the checkpoint of step 4 is on the disk
            time.sleep(0 if (workdir / "checkpoints" / "4").exists() else 0.1)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({{"checkpoint": 100_000, "record": 300}}[{what!r}],) * 2)
    return task.train_batch(step, indices)
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


def test_a_run_from_before_there_was_an_entry_did_without_it(tmp_path):
    settings = config()
    claim_workdir(tmp_path, settings).close()
    recorded = json.loads((tmp_path / "config.json").read_text())
    with settings.unlocked():
        settings.train.later = 0
    check_workdir(tmp_path, settings)
    settings.train.later = 5
    with pytest.raises(InputError, match=r"train\.later \(None there, 5 here\)"):
        check_workdir(tmp_path, settings)
    recorded["train"]["later"] = 4
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    settings.train.later = 0
    with pytest.raises(InputError, match=r"train\.later \(4 there, 0 here\)"):
        check_workdir(tmp_path, settings)
    recorded["train"] |= {"later": 0, "earlier": 0}  # Nor does it matter that there is none any more.
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    check_workdir(tmp_path, settings)
