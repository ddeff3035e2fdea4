"""Programs of the project as a person runs them, each in a process forked from one that has imported everything."""

import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Importing takes three seconds, every time; drawing a first picture one more.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["launch", "dfn_jax.experiment", "matplotlib.figure", "PIL.Image", "tensorboardX.event_file_writer"]
    + [f"dfn_jax.tasks.{task}" for task in ("stereo", "steerable", "video")]
)


def _run(name, arguments, environment, folder):
    for descriptor, output in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [name, *arguments]
    if name == "launch":
        importlib.import_module("launch").run()
    else:
        runpy.run_module(name, run_name="__main__")


def run(name, *arguments):
    """Runs a module; JAX's own variables are those that the tests began with."""
    with tempfile.TemporaryDirectory() as folder:
        words = [str(argument) for argument in arguments]
        process = FORKS.Process(target=_run, args=(name, words, dict(os.environ), Path(folder)))
        process.start()
        process.join(400)
        process.kill()
        process.join()
        outputs = [Path(folder, output).read_text() for output in ("stdout", "stderr")]
        assert process.exitcode >= 0, outputs
        return subprocess.CompletedProcess(arguments, process.exitcode, *outputs)


def succeed(*arguments):
    """Runs `launch.py`."""
    done = run("launch", *arguments)
    assert done.returncode == 0, done.stderr
    return done


def fail(*arguments, name="launch"):
    """The one line that a failing command prints."""
    done = run(name, *arguments)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    told = "launch.py: error: " if name == "launch" else f"{name.removeprefix('reproduce.')}: error: "
    lines = [line for line in done.stderr.splitlines() if line.startswith(told)]
    assert len(lines) == 1
    if name != "launch":  # which tells of the workdir and devices, and of what it is about
        assert done.stderr.splitlines() == lines
    return lines[0]
