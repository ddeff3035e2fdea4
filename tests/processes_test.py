"""Runs of two real processes on this machine: as one process, after the loss of one, and as SLURM starts them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dfn_jax import experiment
from dfn_jax.errors import InputError
from dfn_jax.processes import end_with_the_others, join
from dfn_jax.records import read_records
from dfn_jax.train import train
from dfn_jax.workdir import newest_checkpoint
from experiments import steerable
from tests.regression import config, regression

ROOT = Path(__file__).parents[1]
# Arguments: workdir, steps, seconds a step, and what `join` takes, as JSON.
PROGRAM = """
import json, sys, time
from pathlib import Path
from dfn_jax import parallel, processes
workdir, steps, pause, joining = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4])
processes.join(*joining)
import jax
import numpy as np
from tests.regression import config, regression
from dfn_jax.errors import InputError
from dfn_jax.preemption import PreemptedError
from dfn_jax.tasks.task import Evaluation
from dfn_jax.train import train
assert jax.process_count() == 2 and jax.device_count() == 2
task = regression()
def batch(step, indices):
    assert len(indices) == 4
    time.sleep(pause)
    return task.train_batch(step, indices)
def evaluate(params):
    assert jax.process_index() == 0  # The others wait.
    return Evaluation("", "", {"first_weight": float(params["w"][0])}, list, "first_weight", "first weight")
settings = config(**{"train.steps": steps, "train.log_every": 1, "train.evaluate_every": 10})
mesh = parallel.make_mesh(settings.mesh, batch_size=8, image_size=(1, 1))
# Tables that are drawn by each process may differ in the last bits, and end nothing.
table = np.arange(1, 9) + 100 * jax.process_index()
drawn = parallel.drawn(mesh, lambda table, step, indices: {"x": table[indices] * step}, table, 8)(10)
(part,) = drawn["x"].addressable_shards
assert part.data.tolist() == [10 * (104 * jax.process_index() + row) for row in (1, 2, 3, 4)]
# Where devices share the rows of images, each process makes whole images, and keeps its rows.
tall = parallel.make_mesh(config(**{"mesh.data": 1, "mesh.height": 2}).mesh, batch_size=8, image_size=(4, 4))
assert parallel.local_indices(tall, 8) is None
clips = np.arange(8 * 3 * 4 * 2).reshape(8, 3, 4, 2, 1)
(rows,) = parallel.place(tall, {"frames": clips}, None, 8)["frames"].addressable_shards
np.testing.assert_array_equal(rows.data, clips[:, :, 2 * jax.process_index() :][:, :, :2])
try:
    with processes.together():
        if jax.process_index() == 1:
            raise InputError("mine")
except InputError as error:
    told = "mine" if jax.process_index() == 1 else "another process of this run could not go on; its message says why"
    assert str(error) == told
else:
    raise AssertionError("one goes on without the other")
try:
    with processes.end_with_the_others():
        state = train(task._replace(train_batch=batch, evaluate=evaluate), settings, workdir)
except PreemptedError as error:
    print(error)
    sys.exit(75)
print(json.dumps(state.params["w"].tolist()))
"""

# Each saves and reads one half of an array; what one saved second is seen late, and then lost.
PROGRAM_WITH_A_LOSS = """
import json, sys
from pathlib import Path
from dfn_jax import processes
workdir, joining = Path(sys.argv[1]), json.loads(sys.argv[4])
processes.join(*joining)
import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from dfn_jax.checkpoint import Checkpoints
halves = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec("data"))
like = {"w": jax.ShapeDtypeStruct((4096,), "float32", sharding=halves)}  # A few numbers would be kept elsewhere.
with Checkpoints(workdir) as checkpoints:
    for step in (1, 2):
        checkpoints.save(step, {"w": jax.jit(lambda: step * jax.numpy.arange(4096.0), out_shardings=halves)()}, None)
# The second process sees the first checkpoint alone, as on a disk that is late.
with Checkpoints(workdir) as checkpoints:
    if jax.process_index() == 1:
        checkpoints._manager.all_steps = lambda: [1]
    found = multihost_utils.process_allgather(checkpoints.restore(like)["w"], tiled=True)
    assert found[1] == 2, found
if jax.process_index() == 1:
    (path,) = (workdir / "checkpoints" / "2" / "state" / "ocdbt.process_1" / "d").iterdir()
    path.write_bytes(b"")
processes.barrier("lost")
with Checkpoints(workdir) as checkpoints:
    found = checkpoints.restore(like)
print(json.dumps(multihost_utils.process_allgather(found["w"], tiled=True)[::2048].tolist()))
"""


# The second one gets SIGTERM once: before the first step, after a checkpoint was begun, or while the last is written.
PROGRAM_ENDED_BETWEEN = PROGRAM.replace(
    "task = regression()\n",
    """task = regression()
import os, signal
from dfn_jax.checkpoint import Checkpoints
where = os.environ["SIGNALLED_AT"]
call = getattr(Checkpoints, where)
def signalled(self, *arguments):
    setattr(Checkpoints, where, call)
    if where == "save":
        call(self, *arguments)
    if jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(6)  # until JAX has told the other
    if where != "save":
        return call(self, *arguments)
setattr(Checkpoints, where, signalled)
""",
)


def free_port():
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return sock.getsockname()[1]


def start(workdir, *, program=PROGRAM, steps=6, pause=0.0, environments=({}, {}), explicit=True):
    """Starts two processes; XLA gives each one device."""
    port = free_port()
    processes = []
    for index, environment in enumerate(environments):
        joining = [f"localhost:{port}", 2, index] if explicit else [None, None, None]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, str(workdir), str(steps), str(pause), json.dumps(joining)],
                cwd=ROOT,
                env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def outputs_of(processes, seconds):
    """What each printed until its end; none is left behind."""
    try:
        return [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


def finish(processes):
    outputs = outputs_of(processes, 120)
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    weights = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    assert weights[0] == weights[1]
    return np.array(weights[0], np.float32)


def wait_for_checkpoint(workdir, step, processes):
    """Waits for one of that step or later."""
    for _ in range(600):
        if newest_checkpoint(workdir) >= step:
            return
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    raise AssertionError("no checkpoint within a minute")


def test_two_train_as_one_and_go_on_after_sigterm_and_after_the_loss_of_one(tmp_path):
    """First as SLURM starts them, with the variables that `srun --ntasks=2` sets on one node, then by hand."""
    whole = train(regression(), config(**{"train.steps": 40, "train.log_every": 1}), tmp_path / "one")
    shared = {"SLURM_JOB_ID": str(free_port()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    slurm = [{**shared, "SLURM_PROCID": str(index), "SLURM_LOCALID": "0"} for index in (0, 1)]
    processes = start(tmp_path / "run", steps=40, pause=0.3, environments=slurm, explicit=False)
    wait_for_checkpoint(tmp_path / "run", 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    outputs = outputs_of(processes, 60)
    assert [process.returncode for process in processes] == [75, 75], outputs
    ends = [output.splitlines()[-1] for output, _ in outputs]
    assert ends[0] == ends[1]
    ended = int(re.match("asked to end at step ([0-9]+), which is saved", ends[0])[1])

    processes = start(tmp_path / "run", steps=40, pause=0.3)
    wait_for_checkpoint(tmp_path / "run", ended + 1, processes)
    processes[1].kill()
    (_, errors), _ = outputs_of(processes, 60)
    # 1 where a computation fails first, an abort where JAX's own heartbeat does.
    assert processes[0].returncode in (1, -signal.SIGABRT), errors
    assert processes[0].returncode != 1 or "process 0 of 2 lost another one" in errors, errors[-900:]

    weights = finish(start(tmp_path / "run", steps=40))
    np.testing.assert_allclose(weights, whole.params["w"], rtol=1e-5)
    records = [read_records(tmp_path / name / "metrics.jsonl") for name in ("one", "run")]
    losses = [[record["loss"] for record in of_run if "loss" in record] for of_run in records]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert [record["step"] for record in records[1] if "test_first_weight" in record] == [10, 20, 30]


def test_sigterm_ends_all_whenever_it_comes(tmp_path):
    for steps, place, ended in ((6, "__exit__", 6), (9, "restore", 7), (30, "save", 9)):
        environments = [{"SIGNALLED_AT": place}] * 2
        processes = start(tmp_path, program=PROGRAM_ENDED_BETWEEN, steps=steps, environments=environments)
        outputs = outputs_of(processes, 120)
        assert [process.returncode for process in processes] == [75, 75], outputs
        assert all(f"asked to end at step {ended}, which is saved" in output for output, _ in outputs)


def test_all_go_on_from_the_checkpoint_before_one_that_a_single_process_cannot_read(tmp_path):
    assert finish(start(tmp_path, program=PROGRAM_WITH_A_LOSS)).tolist() == [0, 2048]


def test_an_interrupted_process_does_not_wait_for_the_others(monkeypatch, capsys):
    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(SystemExit), end_with_the_others():
        raise KeyboardInterrupt
    assert "process 0 of 2 cannot go on (KeyboardInterrupt)" in capsys.readouterr().err


def launch_two(workdir, *, learning_rates):
    """Two processes of `launch.py`, each with a learning rate: exit codes, and what each printed."""
    port, processes = free_port(), []
    for index, rate in enumerate(learning_rates):
        command = [sys.executable, "launch.py", "--config=experiments/steerable.py:smoke", f"--workdir={workdir}"]
        command += [f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={index}"]
        command += [f"--config.optim.learning_rate={rate}"]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes))
    outputs = outputs_of(processes, 120)
    return [process.returncode for process in processes], outputs


def test_processes_with_different_configs_do_not_train(tmp_path):
    codes, outputs = launch_two(tmp_path / "run", learning_rates=[1e-3, 1e-1])
    assert codes == [1, 1]
    assert all("different flags, configs or data" in errors for _, errors in outputs)
    assert not (tmp_path / "run").exists()


def test_the_program_of_two_processes_finds_what_that_of_one_does(tmp_path, monkeypatch):
    """The first alone tests the network and tells of it; neither keeps compiled programs."""
    settings = steerable.get_config("smoke")
    experiment.run(settings, tmp_path / "one")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    codes, outputs = launch_two(tmp_path / "two", learning_rates=[settings.optim.learning_rate] * 2)
    assert codes == [0, 0], outputs
    assert ["report:" in printed for printed, _ in outputs] == [True, False]
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert two["steps"] == settings.train.steps
    for name in ("filter_relative_error", "mse_per_image"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    assert not (tmp_path / "cache" / "dfn_jax").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1", None, None), "go together"),
        (("localhost:1", 2, 2), "--process_id is 2; it must be at least 0 and below --num_processes, 2"),
        (("localhost", 1, 0), "wanted HOST:PORT"),
    ],
)
def test_what_cannot_be_joined_is_told(arguments, message):
    with pytest.raises(InputError, match=message):
        join(*arguments)


def test_where_no_cluster_says_who_the_others_are_it_is_told():
    """In a process of its own, which knows of no cluster, and in which JAX has not begun."""
    clusters = ("SLURM_", "OMPI_", "PMI_", "KUBERNETES_", "TPU_", "CLOUD_TPU_", "MEGASCALE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(clusters)}
    environment["TPU_SKIP_MDS_QUERY"] = "1"  # as on a machine that is no TPU's
    code = "from dfn_jax.processes import join; join(None, None, None)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert "the processes did not find each other (coordinator_address should be defined" in done.stderr
