"""Processes: how those of one run find each other, and what they must agree on."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from dfn_jax.errors import InputError

SILENCE_S = 20  # seconds without a sign of life after which a process counts as dead
START_S = 300  # seconds to wait for all processes to come


def join(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Joins the other processes of the run, before any array is made.

    Args:
        coordinator: host:port of process 0; None, with the other two, where the cluster says it itself: TPU pods,
            SLURM, Open MPI, Kubernetes.
        count: number of processes.
        index: of this process, from 0.

    Raises:
        InputError: the flags are incomplete, the cluster says nothing, or not all processes came.
    """
    given = [value is not None for value in (coordinator, count, index)]
    if any(given) and not all(given):
        raise InputError("--coordinator, --num_processes and --process_id go together; give all three or none")
    if all(given) and not 0 <= index < count:
        raise InputError(f"--process_id is {index}; it must be at least 0 and below --num_processes, {count}")
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            heartbeat_timeout_seconds=SILENCE_S,
            initialization_timeout=START_S,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"the processes did not find each other ({reason}); outside TPU pods, SLURM, Open MPI and Kubernetes give "
            "--coordinator=HOST:PORT --num_processes=N --process_id=I to each"
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes logs and reports."""
    return jax.process_index() == 0


def gathered(value: Any) -> np.ndarray:
    """A number of each process, [processes]; all must ask."""
    if jax.process_count() == 1:
        return np.asarray([value])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(value))).reshape(-1)


@contextlib.contextmanager
def end_with_the_others() -> Iterator[None]:
    """Ends this process, with one line and exit code 1, where another one is lost in the middle of a computation."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = " ".join(str(error).split())[:200]
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} lost another one ({reason}); start all "
            "again with the same --workdir: they go on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # An orderly end waits for the lost process, and then aborts.


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What all must have done before any goes on: an error in one ends all.

    Raises:
        InputError: another process could not do its part.
    """
    try:
        yield
    except Exception:
        gathered(False)
        raise
    if not gathered(True).all():
        raise InputError("another process of this run could not go on; its message says why")


def wait(name: str) -> None:
    """Waits until all processes are at the same place."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
