"""Runs whose results are kept: what counts as done, and what does not."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from dfn_jax import pretrained
from dfn_jax.errors import InputError
from dfn_jax.preemption import PreemptedError
from dfn_jax.tasks import make_task
from dfn_jax.workdir import claim_workdir
from reproduce import quick, runs, tables
from reproduce.protocols import TABLES
from tests.recipes import get_config

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
    for change in ("--config.train.checkpoint_every=3", "--config.train.log_every=3"):
        runs.outcome([*SMOKE, change], workdir)
        assert (workdir / "results.json").stat().st_mtime_ns == before, "how often to save or to log is no other run"


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


@pytest.mark.parametrize(("there", "instead"), [('"steps": 4', '"steps": 2'), ('"examples": 0,', "")])
def test_lesser_results_are_not_the_end(there, instead, workdir, tmp_path):
    """Somebody may have evaluated a run that was stopped, or before results told of how many examples they are."""
    shutil.copytree(workdir, tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    whole = path.read_text()
    assert there in whole
    path.write_text(whole.replace(there, instead))
    found = runs.outcome(SMOKE, tmp_path / "run")
    assert (found["steps"], found["examples"]) == (4, 0)


def test_the_data_of_a_run_may_move_but_not_be_others(tmp_path):
    def outcome(name):
        words = [*SMOKE, "--config.data.name=images", f"--config.data.dir={tmp_path / name}"]
        return runs.outcome(words, tmp_path / "run")

    for name, seed in (("one", 0), ("other", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.bmp")
    found = outcome("one")
    shutil.move(tmp_path / "one", tmp_path / "moved")
    again = outcome("moved")
    assert (again["data"], again["filter_relative_error"]) == (
        found["data"].replace("one", "moved"), found["filter_relative_error"]
    )  # fmt: skip
    with pytest.raises(InputError, match="exit code 1"):
        outcome("other")
    assert outcome("moved") == again


def test_a_run_that_began_with_another_network_of_that_name_is_not_done(tmp_path, monkeypatch):
    words, load = [*SMOKE, "--config.train.init_from=steerable"], pretrained.load
    found = runs.outcome(words, tmp_path / "run")
    assert runs.outcome(words, tmp_path / "run") == found
    config, params, card = load("steerable")
    monkeypatch.setattr(pretrained, "load", lambda name: (config, params, {**card, "sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"began with pretrained steerable of .* is another one now \(SHA-256 000"):
        runs.outcome(words, tmp_path / "run")


def test_a_run_that_fails_is_told(tmp_path):
    with pytest.raises(InputError, match="exit code 1"):
        runs.outcome([*SMOKE, "--config.train.batch_size=-1"], tmp_path)
    for wrong in ("--config.train.steps=many", "--config.optim.speed=1"):
        with pytest.raises(InputError, match=f"{wrong} describe no config"):
            runs.outcome([*SMOKE, wrong], tmp_path)


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", InputError, "killed by signal 9"),
        ("os.kill(os.getpid(), signal.SIGTERM)", PreemptedError, "asked to end"),
        ("sys.exit(75)", PreemptedError, "asked to end"),
        ("pass", InputError, "has no results after 4 steps"),
    ],
)
def test_how_a_run_ended_is_told(code, error, told, tmp_path, monkeypatch):
    config = runs.recipe(SMOKE)
    monkeypatch.setattr(runs, "recipe", lambda arguments: config)
    (tmp_path / "launch.py").write_text(f"import os, signal, sys\n{code}\n")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    with pytest.raises(error, match=told):
        runs.outcome(SMOKE, tmp_path / "other")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 1)])
def test_a_signal_is_passed_on_to_the_run_and_waits_for_it(number, code, tmp_path):
    """The run, a program that takes a second to save, is told once and by SIGTERM, however the harness was."""
    (tmp_path / "launch.py").write_text("""
import signal, sys, time
def save(*_):
    time.sleep(1)
    open("saved", "a").write("once ")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
open("ready", "w").close()
time.sleep(60)
""")
    harness = f"""
import signal
from pathlib import Path
from dfn_jax.errors import told_in_one_line
from dfn_jax.preemption import preempt_on_sigterm
from reproduce import runs
config = runs.recipe({SMOKE})
runs.recipe, runs.ROOT = lambda arguments: config, Path({str(tmp_path)!r})
preempt_on_sigterm()
signal.signal(signal.SIGINT, signal.default_int_handler)  # What is started in the background ignores it.
with told_in_one_line("harness"):
    runs.outcome({SMOKE}, runs.ROOT / "run")
"""
    process = subprocess.Popen([sys.executable, "-c", harness], cwd=runs.ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert (tmp_path / "saved").read_text() == "once "
    assert process.returncode == code, told
    assert len(told.splitlines()) == 1


def test_the_harness_leaves_the_accelerator_to_its_runs():
    code = f"""
import jax._src.xla_bridge as bridge
from reproduce import quick, runs, tables
for words in ({SMOKE}, ["--config=experiments/moving_mnist.py:smoke"]):
    runs.recipe(words)
assert not bridge._backends, bridge._backends
"""
    subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, check=True, timeout=100)


def test_a_run_on_other_digits_is_not_taken_for_this_one(tmp_path, monkeypatch):
    words = ["--config=experiments/moving_mnist.py:smoke"]
    monkeypatch.setenv("DFN_DATA", str(tmp_path / "none"))
    config = runs.recipe(words)
    assert config.data.digits == "drawn"
    with claim_workdir(tmp_path / "run", config):
        (tmp_path / "run" / "results.json").write_text(json.dumps({"steps": config.train.steps, "examples": 0}))
    assert runs.outcome(words, tmp_path / "run")["steps"] == config.train.steps
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("DFN_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"data.digits \(drawn there, mnist here\).*or remove .*run to run again"):
        runs.outcome(words, tmp_path / "run")


@pytest.mark.parametrize("name", TABLES)
def test_arguments_describe_the_recipe_of_a_row(name):
    for row in TABLES[name].rows:
        short = runs.recipe(tables.arguments(name, row, "short", 2))
        wanted = get_config(name, row.preset)
        changes = {**TABLES[name].protocols["short"].changes, **row.exceptions.get("short", {})}
        wanted.update_from_flattened_dict({**changes, "seed": 2})
        full = runs.recipe(tables.arguments(name, row, "full", 0))
        for config in (wanted, full, published := get_config(name, row.preset)):
            make_task(config)  # It finds the digits.
        assert [config.to_dict() for config in (short, full)] == [wanted.to_dict(), published.to_dict()]


def test_arguments_of_quick_runs_describe_configs():
    config = runs.recipe(quick.RUNS["stereo_kitti_odometry"].arguments)
    assert config.data.test_sequences == ("seq2",)
    assert config.data.dir.endswith("/kitti_odometry")
