"""A network written as a program does the same in a process that does not know this code."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from dfn_jax import ops, pretrained, recorded
from dfn_jax.models.stereo import StereoDFN
from dfn_jax.stablehlo import PLATFORMS, exported
from dfn_jax.tasks import make_task_without_data
from dfn_jax.tasks.video_networks import make_network
from experiments import stereo
from tests.programs import ROOT, succeed

ALONE = """
import pathlib, sys
import jax, numpy as np
program, inputs, outputs = map(pathlib.Path, sys.argv[1:])
network = jax.export.deserialize(bytearray(program.read_bytes()))
for count in (1, 3):
    found = network.call(np.load(inputs)[:count])
    np.savez(outputs / f"{count}.npz", **found)
assert "dfn_jax" not in sys.modules
"""


def write(*words):
    command = [sys.executable, "-m", "dfn_jax.stablehlo", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def called_alone(program, inputs, folder):
    """What a program makes of one and of three inputs, in a process of its own."""
    np.save(folder / "inputs.npy", inputs)
    words = [sys.executable, "-c", ALONE, str(program), str(folder / "inputs.npy"), str(folder)]
    subprocess.run(words, cwd=folder, env=os.environ | {"PYTHONPATH": ""}, check=True, timeout=300)
    return [dict(np.load(folder / f"{count}.npz")) for count in (1, 3)]


def test_stereo(tmp_path):
    file = tmp_path / "new" / "stereo.stablehlo"
    done = write("--pretrained=stereo", f"--file={file}")
    assert (done.returncode, done.stdout) == (0, f"{file}\n"), done.stderr
    left = np.random.default_rng(0).random((3, 64, 64, 1), np.float32)
    config, params, _ = pretrained.load("stereo")
    right, filters, _ = jax.jit(StereoDFN(taps=config.model.taps).apply)(params, left)
    disparity = ops.expected_displacement(filters, (1, config.model.taps))[..., 0]
    for found in called_alone(file, left, tmp_path):
        count = len(found["right"])
        np.testing.assert_allclose(found["right"], np.clip(right, 0, 1)[:count], atol=1e-4)
        np.testing.assert_allclose(found["disparity"], disparity[:count], atol=1e-3)
    assert count == 3


def test_video(tmp_path):
    config, params, _ = pretrained.load("highway")
    frames = np.random.default_rng(0).random((3, 3, 64, 64, 1), np.float32)
    program = exported(make_task_without_data(config), params)
    assert set(program.platforms) == set(PLATFORMS)
    (tmp_path / "highway").write_bytes(program.serialize())
    network = make_network(config)
    wanted = jax.jit(lambda frames: network.rollout(params, frames, 3))(frames)
    for found in called_alone(tmp_path / "highway", frames, tmp_path):
        count = len(found["predicted"])
        np.testing.assert_allclose(found["predicted"], np.clip(wanted.frame, 0, 1)[:count], atol=1e-4)
        np.testing.assert_allclose(found["flow"], network.flow(wanted.filters)[:count], atol=1e-3)


def test_of_a_run(tmp_path):
    succeed("--config=experiments/stereo.py:smoke", "--config.model.name=twin", f"--workdir={tmp_path / 'run'}")
    done = write(f"--workdir={tmp_path / 'run'}", f"--file={tmp_path / 'twin'}")
    assert done.returncode == 0, done.stderr
    config = recorded.get_config(tmp_path / "run")
    assert json.loads(config.to_json_best_effort())["model"] == stereo.get_config("twin").model.to_dict()
    (one, _) = called_alone(tmp_path / "twin", np.zeros((3, 16, 16, 1), np.float32), tmp_path)
    assert one.keys() == {"right"}
    assert one["right"].shape == (1, 16, 16, 1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--pretrained=stereo", "--workdir=x"), "wanted --pretrained=NAME or --workdir=DIR, one of the two"),
        (("--pretrained=steerable",), "makes nothing of images alone"),
        (("--workdir=nothing",), "nothing has no config.json"),
    ],
)
def test_mistakes_are_told_in_one_line(words, wanted, tmp_path):
    done = write(*words, f"--file={tmp_path / 'program'}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("stablehlo: error: ")
    assert wanted in line
    assert not (tmp_path / "program").exists()
