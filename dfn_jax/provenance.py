"""Where figures come from: devices, versions and the commit of the code."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import jax

CODE = ("launch.py", "dfn_jax/*.py", "experiments/*.py")  # * also stands for folders
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def hardware(devices: Iterable[jax.Device] | None = None) -> str:
    """Devices, by default all, in words, such as '1 x cpu (AMD EPYC, 2 cores)': cores that this process may use.

    Of others than CPUs, in which precision they multiply float32, as JAX_DEFAULT_MATMUL_PRECISION says it.
    """
    devices = list(devices or jax.devices())
    precision = jax.config.jax_default_matmul_precision or "default"
    on_cpu = devices[0].platform == "cpu"
    more = f"{_processor()}, {_cores()}" if on_cpu else f"{precision} matmul precision"
    return f"{len(devices)} x {devices[0].device_kind} ({more})"


def _processor() -> str:
    """Its name where Linux tells it, else the architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return " ".join(next(names, platform.machine()).split())


def _cores() -> str:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "1 core" if count == 1 else f"{count} cores"


def versions() -> dict[str, str]:
    """Python's version and those of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache  # of the code that runs: another may be checked out before it ends
def commit() -> str | None:
    """The commit of the code when it is first asked for; None outside a checkout.

    It ends in '-dirty' where code that a run may use differs from it, or is not in it.
    """

    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        options = {"capture_output": True, "text": True, "check": True, "timeout": 10}
        return subprocess.run(["git", *arguments], cwd=root, **options).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None  # The package is installed somewhere inside a repository of its user's.
        described = git("rev-parse", "--short=12", "HEAD")
        changed = git("--no-optional-locks", "status", "--porcelain", "--untracked-files=all", "--", *CODE)
    except (OSError, subprocess.SubprocessError, ValueError):  # the last where a path is not UTF-8
        return None
    return f"{described}-dirty" if changed else described
