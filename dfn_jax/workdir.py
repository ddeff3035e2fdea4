"""The folder of a run: which config it was begun with, who is at work there, and where results go."""

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from ml_collections import ConfigDict

from dfn_jax.config import differing, tested_name
from dfn_jax.errors import InputError
from dfn_jax.files import expanded, name_and_checksum, take_lock, write_whole

# What may change between two runs of one workdir without making it another experiment.
MAY_CHANGE = (
    "preset", "eval", "mesh", "precision", "train.steps", "train.log_every", "train.checkpoint_every",
    "train.evaluate_every", "train.non_finite",
)  # fmt: skip

EXAMPLES_FILE = "examples.npz"  # beside results.json: each metric, test example by test example
LOCK = ".lock"  # of a workdir, held by the process that trains there


def check_workdir(workdir: Path, config: ConfigDict, *, may_differ: tuple[str, ...] = MAY_CHANGE) -> None:
    """Checks that a workdir was begun with a config.

    Args:
        workdir: folder of the run.
        config: what the command asks for.
        may_differ: entries, or groups of them, that may differ.

    Raises:
        InputError: there is no run in the workdir, or it belongs to another config; names the entries that differ.
    """
    differ = [
        f"{name} ({there} there, {here} here)"
        for name, (there, here) in differing(
            recorded_entries(workdir), json.loads(config.to_json_best_effort())
        ).items()
        if not any(name == entry or name.startswith(f"{entry}.") for entry in may_differ)
    ]
    if differ:
        raise InputError(
            f"{workdir} belongs to a run with another config: {'; '.join(differ)}; "
            "choose another --workdir, or give the same config (preset included)"
        )


def recorded_entries(workdir: Path) -> dict[str, Any]:
    """The config of a run, as its folder has it: nested dictionaries, with lists for tuples.

    Raises:
        InputError: there is no run in the folder, or its config is damaged.
    """
    path = workdir / "config.json"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"{workdir} has no config.json: no run began there; give the --workdir of a run, or begin one by --config"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); choose another --workdir") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no entries by name; choose another --workdir")
    return found


def results_folder(workdir: Path, config: ConfigDict) -> Path:
    """Where results go: an evaluation on other terms must not replace the run's own.

    Args:
        workdir: of a run.
        config: of the evaluation.

    Returns:
        The folder's path from the workdir.
    """
    own = recorded_entries(workdir)
    differ = differing(own.get("eval", {}), config.eval.to_dict())
    changed = {name: value for name, value in config.eval.items() if name in differ}
    parts = []
    if changed.keys() & {"name", "dir"}:
        there = name_and_checksum(expanded(config.eval.dir).resolve())
        parts = [there if config.eval.dir else tested_name(config)]
    parts += [f"{name}-{value}" for name, value in changed.items() if name not in ("name", "dir")]
    if config.precision != own.get("precision"):
        parts.append(config.precision)
    return Path("evaluations", "_".join(parts)) if parts else Path()


def steps_measured(path: Path) -> int | None:
    """After how many steps the results in a file were measured; None where there are none."""
    try:
        return int(json.loads(path.read_text())["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_checkpoint(workdir: Path) -> int:
    """Its number of steps; 0 where there is none. An empty folder is none."""
    found = workdir.glob("checkpoints/*/_CHECKPOINT_METADATA")
    return max((int(path.parent.name) for path in found if path.parent.name.isdecimal()), default=0)


def _begun(name: str) -> bool:
    """Whether a file is what a start leaves that is killed before it has written the config."""
    return name == LOCK or (name.startswith(".config.json.") and name.endswith(".tmp"))


def claim_workdir(workdir: Path, config: ConfigDict, *, may_differ: tuple[str, ...] = MAY_CHANGE) -> IO[str]:
    """Writes the config into a new workdir, or checks that the workdir was begun with the same one.

    Args:
        workdir: folder of the run; made where it is missing.
        config: the run's config.
        may_differ: as in `check_workdir`.

    Returns:
        A file that must stay open while the workdir is written to: no other process can claim it until then.

    Raises:
        InputError: the workdir belongs to another config, of which the entries that differ are named; or it has more
            steps than are asked for; or another process is at work there.
    """
    _check_claimable(workdir, config, may_differ)
    workdir.mkdir(parents=True, exist_ok=True)
    lock = (workdir / LOCK).open("a+")
    try:
        if reason := take_lock(lock, wait=False):
            print(f"{workdir} cannot be locked ({reason}); let one run at a time work there", file=sys.stderr)
    except BlockingIOError as error:
        lock.seek(0)
        raise InputError(
            f"{workdir} is in use by process {lock.read().strip() or 'unknown'}; wait for it to end, or choose another "
            "--workdir"
        ) from error
    # Another process may have begun there, and ended, since it was looked at.
    _check_claimable(workdir, config, may_differ)
    lock.truncate(0)
    print(os.getpid(), file=lock, flush=True)
    write_whole(workdir / "config.json", json.dumps(_to_record(workdir, config), indent=2) + "\n")
    return lock


def _check_claimable(workdir: Path, config: ConfigDict, may_differ: tuple[str, ...]) -> None:
    if (workdir / "config.json").exists():
        check_workdir(workdir, config, may_differ=may_differ)
        if (there := newest_checkpoint(workdir)) > config.train.steps:
            raise InputError(
                f"the run in {workdir} has {there} steps, config.train.steps is {config.train.steps}; give no fewer, "
                "or choose another --workdir"
            )
    elif workdir.exists() and not all(_begun(file.name) for file in workdir.iterdir()):
        raise InputError(f"{workdir} is not empty and has no config.json; choose a new folder for --workdir")


def _to_record(workdir: Path, config: ConfigDict) -> dict[str, Any]:
    """The entries that a workdir's `config.json` gets.

    Where no step is left to train, what is there stays the run's own, with the terms on which it was measured.
    """
    entries = json.loads(config.to_json_best_effort())
    measured, steps = steps_measured(workdir / "results.json"), config.train.steps
    if measured is not None:
        before = recorded_entries(workdir)
        best = before.get("eval", {}).get("best") and newest_checkpoint(workdir) == steps
        if measured == steps or best:
            entries |= {name: before[name] for name in ("eval", "precision") if name in before}
    return entries
