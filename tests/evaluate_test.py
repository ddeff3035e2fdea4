"""Where results go, and which commit they are said to be of."""

import errno
import fcntl
import itertools
import json
import subprocess
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from dfn_jax import evaluate, provenance
from dfn_jax.config import differing
from dfn_jax.errors import InputError
from dfn_jax.tasks.task import Evaluation, Task
from dfn_jax.train_step import TrainState
from dfn_jax.workdir import EXAMPLES_FILE, check_workdir, claim_workdir, results_folder
from experiments import stereo


@pytest.mark.parametrize(
    ("own", "asked", "folder"),
    [
        ({}, {}, ""),
        ({"eval.best": True, "eval.name": "pairs", "eval.dir": "/a"}, {}, ""),
        ({}, {"eval.best": True}, "evaluations/best-True"),
        ({"eval.best": True}, {"eval.best": False}, "evaluations/best-False"),
        ({}, {"eval.examples": 3, "precision": "bfloat16"}, "evaluations/examples-3_bfloat16"),
        ({}, {"eval.name": "pairs"}, "evaluations/pairs"),
        ({"eval.name": "pairs", "eval.dir": "/a"}, {"eval.name": "", "eval.dir": ""}, "evaluations/highway"),
        ({}, {"eval.name": "pairs", "eval.dir": "/a/test"}, "evaluations/test-"),
    ],
)
def test_an_evaluation_on_the_runs_own_terms_is_the_runs_own(own, asked, folder, tmp_path):
    config = stereo.get_config("smoke")
    config.update_from_flattened_dict(own)
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    config.update_from_flattened_dict(asked)
    found = str(results_folder(tmp_path, config))
    assert found.startswith(folder) if folder.endswith("-") else found == (folder or ".")


def test_an_entry_that_came_later_and_asks_for_nothing_does_not_make_other_terms(tmp_path):
    config = stereo.get_config("smoke")
    recorded = config.to_dict()
    del recorded["eval"]["best"]
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    assert results_folder(tmp_path, config) == Path()
    config.eval.best = True
    assert results_folder(tmp_path, config) == Path("evaluations", "best-True")


def test_entries_are_compared_as_json_has_them_and_by_their_whole_names(tmp_path):
    assert differing({"size": [3, 4]}, {"size": (3, 4)}) == {}
    config = stereo.get_config("smoke")
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    config.train.steps += 1
    check_workdir(tmp_path, config)
    with config.unlocked():
        config.train.steps_of_warming_up = 5
    with pytest.raises(InputError, match=r"train\.steps_of_warming_up \(None there, 5 here\)"):
        check_workdir(tmp_path, config)


@pytest.mark.parametrize(
    ("starts", "steps", "told"),
    [
        ([(0, "a")], 4, "a"),
        ([(0, "a"), (2, "b"), (3, "a")], 4, "a and b"),
        ([(0, "a"), (4, "b")], 4, "a"),  # the steps of the best checkpoint, or of one before a damaged one
        ([(2, "b")], 4, "unknown and b"),  # begun before starts were recorded
        ([], 4, "unknown"),
        ([(0, None)], 4, "unknown"),
        ([], 0, None),
    ],
)
def test_results_name_the_code_that_made_the_steps(starts, steps, told):
    records = [{"step": step, "commit": commit} for step, commit in starts]
    assert evaluate.of_training("commit", records, steps) == told


def test_the_commit_is_that_of_this_code_and_of_no_repository_around_it(tmp_path, monkeypatch):
    settings = ("user.name=a", "user.email=a@b", "commit.gpgsign=false")
    git = ["git", *(word for one in settings for word in ("-c", one)), "-C", str(tmp_path)]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    for folder, commit in (("lib/dfn_jax", None), ("dfn_jax", head[:12])):
        (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / folder / "provenance.py"))
        assert provenance.commit.__wrapped__() == commit


def results_of(found, workdir, steps=0):
    """Of a run of so many steps whose evaluation finds this."""
    task = Task(init=None, loss=None, train_batch=None, evaluate=lambda params: found, loss_name="")
    state, config = TrainState(jnp.int32(steps), {"kernel": jnp.ones(3)}, ()), stereo.get_config()
    with claim_workdir(workdir, config):
        evaluate.evaluate(task, config, workdir, state, began=time.monotonic())
    return json.loads((workdir / "results.json").read_text())


@pytest.mark.parametrize(("steps", "parts", "stops"), [(0, 0, ()), (3, 3, (1, 2)), (400, 20, (33, 111, 205))])
def test_the_training_loss_is_kept_by_twentieths(steps, parts, stops, tmp_path):
    losses = np.random.default_rng(0).random(steps)
    ends = sorted({*range(20, steps + 1, 20), *stops, steps} - {0})
    records = [
        {"step": end, "loss": losses[begun:end].mean(), "steps_per_second": 2.0}
        for begun, end in itertools.pairwise([0, *ends])
    ]
    records[1:1] = [{"step": 20, "test_mse_per_image": 1.0}] if steps > 20 else []
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "config.json").write_text(stereo.get_config().to_json_best_effort())
    results = results_of(Evaluation("noise", "It is.", {}, list, "psnr", "PSNR, dB"), tmp_path, steps)
    found = results["training_loss_curve"]
    assert results["training_time_s"] == (steps / 2 if steps else None)
    assert f"<td>{found}</td>" in (tmp_path / "report" / "index.html").read_text()  # as results.json has it
    np.testing.assert_allclose(found, losses.reshape(parts, -1).mean(1) if parts else [], rtol=1e-6)


def test_steps_after_the_state_that_is_measured_do_not_count(tmp_path):
    """A kill leaves records of steps after the last checkpoint."""
    records = [{"step": end, "loss": end / 2, "steps_per_second": 2.0} for end in (15, 30, 45)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "config.json").write_text(stereo.get_config().to_json_best_effort())
    results = results_of(Evaluation("noise", "It is.", {}, list, "psnr", "PSNR, dB"), tmp_path, 30)
    assert results["training_time_s"] == 15
    assert results["training_loss_curve"] == [7.5, 15]


def test_a_run_of_skipped_steps_has_no_curve(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "skipped_steps": 1}\n{"step": 2, "skipped_steps": 1}\n')
    (tmp_path / "config.json").write_text(stereo.get_config().to_json_best_effort())
    found = Evaluation("noise", "It is.", {}, list, "psnr", "PSNR, dB")
    assert results_of(found, tmp_path, 2)["training_loss_curve"] == []


def test_a_workdir_that_cannot_be_locked_is_claimed_with_a_warning(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    claim_workdir(tmp_path / "run", stereo.get_config()).close()
    assert "run cannot be locked (Function not implemented)" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("count", [0, 19, 20])
def test_intervals_are_told_of_enough_independent_examples(count, tmp_path):
    values = np.linspace(1, 2, count)
    found = Evaluation("noise", "It is.", {"psnr": 1.5}, list, "psnr", "PSNR, dB", {"psnr": values} if count else {})
    results = results_of(found, tmp_path)
    assert results["examples"] == count
    assert ("psnr_ci95" in results) == (count == 20)
    if count == 20:
        low, high = results["psnr_ci95"]
        half = 1.96 * values.std() / np.sqrt(count)  # of the normal distribution
        np.testing.assert_allclose((low, high), (1.5 - half, 1.5 + half), atol=0.1 * half)
    assert (tmp_path / EXAMPLES_FILE).exists() == (count > 0)
    if count:
        np.testing.assert_array_equal(np.load(tmp_path / EXAMPLES_FILE)["psnr"], values.astype(np.float32))
    results_of(found._replace(examples={}), tmp_path)
    assert not (tmp_path / EXAMPLES_FILE).exists()  # It would be of what was measured before.
