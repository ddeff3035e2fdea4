"""Timing that others on the machine disturb little: competitors take turns, and the median of each counts."""

import argparse
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax

from dfn_jax.errors import InputError
from dfn_jax.files import check_writable_file, expanded, write_whole
from dfn_jax.provenance import commit, hardware, versions

CALLS = {"cpu": 1, "cuda": 20}  # in a row: to begin one on a GPU takes as long as a small one takes
_SETTLING = 0.02  # seconds


def options(description: str, **counts: tuple[int, str]) -> argparse.ArgumentParser:
    """What every benchmark's command line has: `--json`, a file that can be written, and numbers of at least one.

    Args:
        description: of the benchmark; its first line counts.
        **counts: default and meaning of each option.
    """
    result = argparse.ArgumentParser(description=description.splitlines()[0])
    result.add_argument("--json", metavar="FILE", type=_writable, help="write the rows there")
    for name, (default, meaning) in counts.items():
        result.add_argument(f"--{name}", metavar="N", type=_at_least_one, default=default, help=meaning)
    return result


def _writable(path: str) -> Path:
    try:
        check_writable_file(expanded(path))
    except (OSError, InputError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be written ({error})") from error
    return expanded(path)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


def torch_device() -> str:
    """What PyTorch calls the devices that JAX has found."""
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def tune_torch() -> None:
    """Makes PyTorch look for the fastest convolutions, as XLA does, and round their products on GPUs as JAX does."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = jax.config.jax_default_matmul_precision not in ("highest", "float32")


def interleaved(competitors: dict[str, Callable[[], object]], *, rounds: int, calls: int = 1) -> dict[str, float]:
    """Times competitors in turn.

    A turn begins with calls that do not count, one at least, so that what counts is as in a loop that does nothing
    else: threads of the competitor before still spin, and memory that it has left is slow at first.

    Args:
        competitors: functions that return what their work makes, arrays of either library, or that are done, by name.
        rounds: how many turns each has; in each turn the last `calls` calls count.
        calls: how many are begun in a row, before there is a look whether all is done.

    Returns:
        The median of each, in milliseconds for one call.
    """

    def in_a_row(work: Callable[[], object]) -> None:
        for _ in range(calls):
            made = work()
        jax.block_until_ready(made)
        if any(getattr(one, "is_cuda", False) for one in jax.tree.leaves(made)):
            import torch

            torch.cuda.synchronize()

    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, work in competitors.items():
            settled = time.perf_counter() + _SETTLING
            in_a_row(work)
            while time.perf_counter() < settled:
                in_a_row(work)
            began = time.perf_counter()
            in_a_row(work)
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) / calls for name, values in times.items()}


def write_rows(rows: list[dict], path: Path | None) -> None:
    """Prints rows as a table and, where a path is given, saves them.

    Args:
        rows: one for each competitor and case, with the same names in the same order.
        path: of the JSON file, or None.
    """
    texts = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(list(rows[0]), *texts, strict=True)]
    for line in (list(rows[0]), *texts):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    save_rows(rows, path)


def save_rows(rows: list[dict], path: Path | None) -> None:
    """Writes rows as JSON with hardware, versions and commit, where a path is given."""
    if path:
        rival = {"torch": importlib.metadata.version("torch")} if "torch" in sys.modules else {}
        origin = {"hardware": hardware(), "versions": versions() | rival, "commit": commit()}
        write_whole(path, json.dumps([row | origin for row in rows], indent=2) + "\n")
