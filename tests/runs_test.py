"""Runs whose results are kept: what counts as done, and what does not."""

import json

import pytest

from dfn_jax.errors import InputError
from experiments import quick, reproduce, runs
from experiments.tables import TABLES
from tests.experiments_test import get_config

SMOKE = ["--config=experiments/steerable.py:smoke"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of `launch.py` itself, at a few steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    runs.outcome(SMOKE, folder)
    return folder


def test_a_run_is_done_once(workdir, capsys):
    before = (workdir / "results.json").stat().st_mtime_ns
    found = runs.outcome(SMOKE, workdir)
    assert (found["steps"], found["preset"]) == (4, "smoke")
    assert "done before" in capsys.readouterr().out
    assert (workdir / "results.json").stat().st_mtime_ns == before
    runs.outcome([*SMOKE, "--config.train.checkpoint_every=3"], workdir)
    assert (workdir / "results.json").stat().st_mtime_ns == before, "how often to save is no other run"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("--config.optim.learning_rate=5e-3", "optim.learning_rate"),
        ("--config.train.steps=5", "train.steps"),
        ("--config.eval.examples=3", "eval.examples"),
        ("--config.precision=bfloat16", "precision"),
    ],
)
def test_a_run_of_another_recipe_is_not_taken_for_this_one(workdir, change, told):
    with pytest.raises(InputError, match=f"belongs to a run with another config: {told} "):
        runs.outcome([*SMOKE, change], workdir)


def test_an_evaluation_of_a_run_has_results_of_its_own(workdir):
    evaluation = [*SMOKE, "--mode=evaluate", "--config.eval.examples=3"]
    found = runs.outcome(evaluation, workdir)
    assert found == json.loads((workdir / "evaluations" / "examples-3" / "results.json").read_text())
    other = [*SMOKE, "--mode=evaluate", "--config.eval.examples=5"]
    assert runs.outcome(other, workdir)["filter_relative_error"] != found["filter_relative_error"]
    assert runs.outcome(evaluation, workdir) == found


def test_results_of_fewer_steps_are_not_the_end(workdir):
    """Somebody may have evaluated a run that was stopped."""
    path = workdir / "results.json"
    whole = path.read_text()
    path.write_text(whole.replace('"steps": 4', '"steps": 2'))
    assert runs.outcome(SMOKE, workdir)["steps"] == 4


def test_a_run_that_fails_or_is_killed_is_told(workdir, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="exit code 1"):
        runs.outcome([*SMOKE, "--config.train.batch_size=-1"], tmp_path / "other")
    (tmp_path / "launch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    with pytest.raises(InputError, match="killed by signal 9"):
        runs.outcome(SMOKE, tmp_path / "other")
    with pytest.raises(InputError, match=r"--config.train.steps=many describe no config"):
        runs.outcome([*SMOKE, "--config.train.steps=many"], tmp_path / "other")


@pytest.mark.parametrize("name", TABLES)
def test_arguments_describe_the_recipe_of_a_row(name):
    for row in TABLES[name].rows:
        short = runs.recipe(reproduce.arguments(name, row, "short", 2))
        wanted = get_config(name, row.preset)
        wanted.update_from_flattened_dict({**TABLES[name].short, "seed": 2})
        assert short == wanted
        assert runs.recipe(reproduce.arguments(name, row, "full", 0)) == get_config(name, row.preset)


def test_arguments_of_quick_runs_describe_configs():
    config = runs.recipe(quick.RUNS["stereo_kitti_odometry"].arguments)
    assert config.data.test_sequences == ("seq2",)
    assert config.data.dir.endswith("/kitti_odometry")
