"""What a run must survive, many times over: kills, damaged checkpoints, senseless configs, other numbers of devices.

    python -m tests.torture [--kills=50] [--checkpoints=200] [--configs=500] [--seed=0]

Prints one line for each part and exits with 1 where one failed. `torture_test.py` runs a short form of each.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent import futures
from pathlib import Path

import numpy as np
from absl import app, flags

from dfn_jax.workdir import newest_checkpoint

ROOT = Path(__file__).parents[1]
STEPS = 60  # of the training that is killed, with a checkpoint every third
SENSELESS = (
    "-1", "0", "1", "2", "3", "7", "1000000007", "1099511627776", "-5", "1.5", "1e-30", "1e300", "nan", "inf", "-inf",
    "", "nope", "é", "None", "True", "()", "(1,)", "(0, 0)", "(3, 5)", "(64, 64, 64)", "(-1, 8)", "('a',)", "[8, 8]",
    "/", "/nowhere", ".", "\x00", "' '", "{}", "0x10", "1_000", "highway", "video", "pairs", "mnist", "adam",
    "bfloat16",
)  # fmt: skip
SMALL_ONLY = ("train.steps", "eval.examples", "data.digit_count")  # where a large number is sensible, and only slow


def train_and_kill(kills: int, seed: int, folder: Path, *, launch: bool = True) -> str:
    """Kills a training after random steps and starts it again; at the end it must be bit for bit the uninterrupted one.

    Args:
        kills: how many.
        seed: of the steps.
        folder: to work in.
        launch: the program as a person runs it, steerable filters at the size of `smoke`; otherwise the loop alone.

    Returns:
        What was done, in words.

    Raises:
        AssertionError: the run ended otherwise.
    """

    def command(workdir: Path) -> list[str]:
        if launch:
            options = [f"--config.train.steps={STEPS}", "--config.train.checkpoint_every=3"]
            return ["launch.py", "--config=experiments/steerable.py:smoke", f"--workdir={workdir}", *options]
        code = f"""
from pathlib import Path
from dfn_jax.train import train
from tests.regression import config, regression
train(regression(), config(**{{"train.steps": {STEPS}}}), Path({str(workdir)!r}))
"""
        return ["-c", code]

    def start(workdir: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *command(workdir)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def finish(process: subprocess.Popen) -> None:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]

    chance = random.Random(seed)
    finish(start(folder / "whole"))
    killed = had_saved = 0
    while killed < kills:
        workdir = folder / f"killed-{killed}"
        # One run is killed several times, until it happens to end: so checkpoints are made and read in all states.
        while killed < kills:
            step = chance.randint(newest_checkpoint(workdir), STEPS)
            process = start(workdir)
            while process.poll() is None and newest_checkpoint(workdir) < step:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.05))
            process.kill()
            process.communicate()
            if process.returncode != -signal.SIGKILL:
                assert process.returncode == 0
                break
            killed += 1
            had_saved += newest_checkpoint(workdir) > 0
        finish(start(workdir))
        _assert_same_end(folder / "whole", workdir)
    return (
        f"{killed} kills, {had_saved} of them after a checkpoint: every run ended bit for bit as the uninterrupted one"
    )


def _assert_same_end(one: Path, other: Path) -> None:
    ends = [_saved_state(workdir, STEPS) for workdir in (one, other)]
    for ours, theirs in zip(*ends, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def _saved_state(workdir: Path, step: int) -> list[np.ndarray]:
    import jax
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.leaves(checkpointer.restore((workdir / "checkpoints" / str(step) / "state").absolute()))


def damage_checkpoints(count: int, seed: int, folder: Path) -> str:
    """Damages checkpoints at random; what is restored must be whole, and the newest that is.

    Args:
        count: how many.
        seed: of the damages.
        folder: to work in.

    Returns:
        What was done, in words.

    Raises:
        AssertionError: a damaged checkpoint was used, or a whole one was not.
    """
    import jax

    from dfn_jax.errors import InputError
    from dfn_jax.train import restore, train
    from tests.regression import config, regression

    settings, chance = config(**{"train.steps": 8}), random.Random(seed)
    train(regression(), settings, folder / "whole")
    steps = sorted(int(path.name) for path in (folder / "whole" / "checkpoints").iterdir())
    truth = {}
    for step in steps:
        settings.train.steps = step
        truth[step] = train(regression(), settings, folder / f"to-{step}")
    outcomes = Counter()
    for trial in range(count):
        workdir = folder / "damaged"
        shutil.copytree(folder / "whole", workdir)
        damaged = chance.sample(steps, chance.randint(1, len(steps)))
        for step in damaged:
            how = chance.choice(sorted(DAMAGES))
            DAMAGES[how](workdir / "checkpoints" / str(step), chance)
            outcomes[how] += 1
        newest_whole = max(set(steps) - set(damaged), default=0)
        try:
            state = restore(regression(), settings, workdir)
        except InputError as error:
            assert not newest_whole, f"trial {trial}: {damaged} damaged, but not restored: {error}"
            assert "\n" not in str(error)
        else:
            # Some bytes, such as those of names and dates, do not matter: then the checkpoint is whole after all.
            assert int(state.step) >= newest_whole, f"trial {trial}: {damaged} damaged, restored {state.step}"
            jax.tree.map(np.testing.assert_array_equal, state, truth[int(state.step)])
        shutil.rmtree(workdir)
    return f"{count} times damaged checkpoints ({dict(outcomes)}): none was used, the newest whole one was found"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _truncate(folder: Path, chance: random.Random) -> None:
    path = chance.choice(_files(folder))
    os.truncate(path, chance.randint(0, max(0, path.stat().st_size - 1)))


def _overwrite(folder: Path, chance: random.Random) -> None:
    path = chance.choice(_files(folder))
    content = bytearray(path.read_bytes())
    for _ in range(min(len(content), chance.choice([1, 16, 1000]))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)


def _delete(folder: Path, chance: random.Random) -> None:
    chance.choice(_files(folder)).unlink()


def _empty(folder: Path, _: random.Random) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = {"truncated": _truncate, "overwritten": _overwrite, "a file deleted": _delete, "emptied": _empty}


def run_senseless_configs(count: int, seed: int, folder: Path) -> str:
    """Runs senseless configs: each must train, or end with one line and exit code 1, within two minutes.

    Args:
        count: how many.
        seed: of the configs.
        folder: to work in.

    Returns:
        What was done, in words.

    Raises:
        AssertionError: one ended otherwise; says the command.
    """
    chance = random.Random(seed)
    commands = [_senseless_command(chance) for _ in range(count)]
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        ends = list(pool.map(_run_senseless, commands, (folder / f"run-{trial}" for trial in range(count))))
    failures = [
        f"{outcome}: {' '.join(command)}: {errors[-300:]!r}"
        for command, (outcome, errors) in zip(commands, ends, strict=True)
        if outcome not in ("trained", "told in one line")
    ]
    assert not failures, f"{len(failures)} of {count}: " + "\n".join(failures)
    return f"{count} senseless configs: {dict(Counter(outcome for outcome, _ in ends))}"


def _run_senseless(command: list[str], workdir: Path) -> tuple[str, str]:
    """Runs `launch.py` for at most two minutes: how it ended, in words, and what it wrote to the standard error."""
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0", "DFN_DATA": ""}
    # Memory is limited so that a batch of a thousand million images fails at once, not when the machine is out of it.
    limited = ["bash", "-c", 'ulimit -v 12582912; exec "$@"', "limited", sys.executable, "launch.py"]
    try:
        done = subprocess.run(
            [*limited, f"--workdir={workdir}", *command],
            cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", timeout=120, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return "no end within two minutes", str(error.stderr)
    outcome = _outcome(done.returncode, done.stderr, workdir)
    shutil.rmtree(workdir, ignore_errors=True)
    return outcome, done.stderr


def _senseless_command(chance: random.Random) -> list[str]:
    import importlib

    name = chance.choice(["stereo", "steerable", "steerable", "moving_mnist", "highway"])
    entries = _entries(importlib.import_module(f"experiments.{name}").get_config("smoke").to_dict())
    command = [f"--config=experiments/{name}.py:smoke"]
    for entry in chance.sample(entries, chance.randint(1, 2)):
        values = [v for v in SENSELESS if len(v) < 4] if entry in SMALL_ONLY else SENSELESS
        command.append(f"--config.{entry}={chance.choice(values)}".replace("\x00", "%00"))
    return command


def _entries(config: dict, prefix: str = "") -> list[str]:
    return [
        entry
        for name, value in config.items()
        for entry in (_entries(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"])
    ]


def _outcome(code: int, errors: str, workdir: Path) -> str:
    if "Traceback" in errors:
        return "a traceback"
    if code == 0:
        return "trained" if (workdir / "results.json").exists() else "no results"
    lines = [line for line in errors.splitlines() if line.startswith("launch.py: error: ")]
    return "told in one line" if code == 1 and len(lines) == 1 else f"exit code {code}"


# Trains one experiment in three layouts and prints how far the parameters are apart, beside the largest. The networks
# compute in float64 if asked to; data and initial parameters are drawn in float32 all the same.
COMPARISON = """
import importlib, sys
from pathlib import Path
import jax, numpy as np
from dfn_jax import config as configs
from dfn_jax.tasks import make_task
from dfn_jax.train import train
name, steps, folder, precision = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
if precision == "float64":
    jax.config.update("jax_enable_x64", True)
    configs.PRECISIONS["float32"] = np.float64
def cast(make):
    def made(*arguments):
        with jax.enable_x64(False):
            values = make(*arguments)
        return jax.tree.map(lambda x: x.astype(precision) if x.dtype == np.float32 else x, values)
    return made
params = []
for layout in ({"mesh.data": 1}, {"mesh.data": 8}, {"mesh.data": 4, "mesh.height": 2, "mesh.split_state": True}):
    config = importlib.import_module(f"experiments.{name}").get_config("smoke")
    config.update_from_flattened_dict({"train.steps": steps, "train.checkpoint_every": steps, **layout})
    if name == "moving_mnist":
        config.data.digits = "drawn"
    task = make_task(config)
    task = task._replace(init=cast(task.init), train_batch=cast(task.train_batch))
    params.append(train(task, config, folder / f"{name}-{precision}-{len(params)}").params)
assert all(leaf.dtype == precision for leaf in jax.tree.leaves(params))
largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(params[0]))
worst = [
    max(float(np.abs(a - b).max()) for a, b in zip(jax.tree.leaves(params[0]), jax.tree.leaves(other), strict=True))
    for other in params[1:]
]
print(max(worst) / largest)
"""


def compare_devices(names: tuple[str, ...], steps: int, folder: Path) -> str:
    """Trains on eight virtual devices, in two layouts, and on one: the parameters must agree.

    In float64 they must agree; in float32 the same is measured and told. There a sum in another order is another
    number, and where a gradient is near zero Adam makes steps of the learning rate's size of what is left.

    Args:
        names: experiments.
        steps: of each training.
        folder: to work in.

    Returns:
        What was done, in words.

    Raises:
        AssertionError: they differ by more than 1e-5 of the largest in float64.
    """
    # On a busy machine eight devices on two cores may wait for each other longer than XLA finds natural.
    options = "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=600"
    environment = os.environ | {"XLA_FLAGS": options, "JAX_PLATFORMS": "cpu"}
    found = []
    for name in names:
        differences = {}
        for precision in ("float64", "float32"):
            arguments = [sys.executable, "-c", COMPARISON, name, str(steps), str(folder), precision]
            done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, done.stderr[-2000:]
            differences[precision] = float(done.stdout.splitlines()[-1])
        told = f"{name} {differences['float64']:.1e} (float32: {differences['float32']:.1e})"
        assert differences["float64"] < 1e-5, f"after {steps} steps parameters differ by {told} of the largest"
        found.append(told)
    return f"8 devices, 4 x 2 devices and one after {steps} steps differ by at most: {', '.join(found)} of the largest"


def main(_: list[str]) -> None:
    """Runs all parts."""
    seed, failed = flags.FLAGS.seed, False
    parts = (
        lambda folder: compare_devices(("stereo", "steerable", "moving_mnist", "highway"), 20, folder),
        lambda folder: damage_checkpoints(flags.FLAGS.checkpoints, seed, folder),
        lambda folder: train_and_kill(flags.FLAGS.kills, seed, folder),
        lambda folder: run_senseless_configs(flags.FLAGS.configs, seed, folder),
    )
    for part in parts:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                said = part(Path(folder))
            except AssertionError as error:
                said, failed = f"FAILED: {error}", True
        print(f"{said} [{time.monotonic() - began:.0f} s]", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 50, "of a training")
    flags.DEFINE_integer("checkpoints", 200, "times that checkpoints are damaged")
    flags.DEFINE_integer("configs", 500, "senseless configs")
    flags.DEFINE_integer("seed", 0, "of all that is random")
    app.run(main)
