"""Processes: how those of one run find each other, and what they must agree on."""

import contextlib
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dfn_jax.errors import DivergedError, InputError, in_one_line, out_of_memory
from dfn_jax.preemption import PreemptedError

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
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise InputError(f"--coordinator is {coordinator!r}; wanted HOST:PORT of process 0")
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            heartbeat_timeout_seconds=SILENCE_S,
            initialization_timeout=START_S,
        )
        all_gather(0)  # The first exchange times out after 30 s, and reading data may take longer: do it now.
    except (RuntimeError, ValueError) as error:
        reason = in_one_line(error, 300)
        raise InputError(
            f"the processes did not find each other ({reason}); outside TPU pods, SLURM, Open MPI and Kubernetes give "
            "--coordinator=HOST:PORT --num_processes=N --process_id=I to each"
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes logs and reports."""
    return jax.process_index() == 0


def all_gather(value: Any) -> np.ndarray:
    """A number of each process, [processes]; all must ask."""
    if jax.process_count() == 1:
        return np.asarray([value])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(value))).reshape(-1)


def broadcast(value: Any) -> Any:
    """What the first process has, as JSON; all must ask. Files may be seen late, or not at all, by the others."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(all_gather(len(content))[0])
    sent = multihost_utils.broadcast_one_to_all(np.resize(content, size))
    return json.loads(np.asarray(sent, np.uint8).tobytes())


def alike(text: str) -> bool:
    """Whether all processes have the same text; all must ask."""
    return len(set(all_gather(zlib.crc32(text.encode())).tolist())) == 1


@contextlib.contextmanager
def end_with_the_others() -> Iterator[None]:
    """Ends this process, with one line and exit code 1, where it or another one cannot go on alone.

    An orderly end would wait for the others, which wait for this one. What all raise alike passes: errors of
    `together`, the request to end, a loss that is not finite.
    """
    try:
        yield
    except (PreemptedError, DivergedError):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if jax.process_count() == 1 or getattr(error, "agreed", False):
            raise
        reason = in_one_line(error, 300) or type(error).__name__
        # Of whichever type, what XLA raises begins with its status.
        by_xla = isinstance(error, jax.errors.JaxRuntimeError) or re.match(r"[A-Z_]+: ", reason)
        lost = by_xla and not out_of_memory(error)
        what = f"lost another one ({reason})" if lost else f"cannot go on ({reason})"
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} {what}; all end, and go on from the last "
            "checkpoint when they are started again with the same --workdir",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What all must have done before any goes on: an error in one ends all.

    Raises:
        InputError: another process could not do its part.
    """
    try:
        yield
    except (Exception, PreemptedError, KeyboardInterrupt) as error:
        all_gather(False)
        error.agreed = True
        raise
    if not all_gather(True).all():
        error = InputError("another process of this run could not go on; its message says why")
        error.agreed = True
        raise error


def barrier(name: str) -> None:
    """Waits until all processes are at the same place."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def wait_for_file(path: Path) -> None:
    """Gives a file that another process wrote some time to be seen here: network disks are late."""
    for _ in range(SILENCE_S if jax.process_count() > 1 else 0):
        if path.exists():
            return
        time.sleep(1)
