"""Timing that others on the machine disturb little: competitors take turns, and the median of each counts."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from dfn_jax.evaluate import commit, hardware, versions

_SETTLING = 0.02  # seconds at the start of a turn that do not count, while threads of the competitor before still spin
_LONG = 1.0  # seconds, of calls that this does not disturb


def interleaved(competitors: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Times competitors in turn, after one call of each that does not count.

    Args:
        competitors: functions that return when their work is done, by name.
        rounds: how many turns each has; in each turn one call is timed, after others that are not.

    Returns:
        The median of each, in milliseconds.
    """
    is_long = {name: _seconds(work) > _LONG for name, work in competitors.items()}
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, work in competitors.items():
            settled = time.perf_counter() + _SETTLING
            while not is_long[name] and time.perf_counter() < settled:
                work()
            times[name].append(1e3 * _seconds(work))
    return {name: statistics.median(values) for name, values in times.items()}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def write_rows(rows: list[dict], path: str | None) -> None:
    """Prints rows as a table and, where a path is given, writes them as JSON with hardware, versions and commit.

    Args:
        rows: one for each competitor and case, with the same names in the same order.
        path: of the JSON file, or None.
    """
    texts = [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(list(rows[0]), *texts, strict=True)]
    for line in (list(rows[0]), *texts):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    if path:
        origin = {"hardware": hardware(), "versions": versions(), "commit": commit()}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps([row | origin for row in rows], indent=2) + "\n")
