"""Where tables go: `results/`, and between their marks in the README, by one command at a time."""

import contextlib
import os
import sys
from collections.abc import Iterator

from dfn_jax.errors import InputError
from dfn_jax.files import take_lock
from reproduce.runs import ROOT

RESULTS, README = ROOT / "results", ROOT / "README.md"


def figure(value: float) -> str:
    """A number as the tables show it."""
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}"


def with_tables(readme: str, tables: dict[str, str]) -> str:
    """Puts tables between their marks, `<!-- table NAME -->` and `<!-- end NAME -->`.

    Raises:
        InputError: the text has no marks for one of them.
    """
    for name, text in tables.items():
        begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        if readme.count(begin) != 1 or readme.count(end) != 1 or readme.index(begin) > readme.index(end):
            raise InputError(
                f"the README must have the marks {begin} and {end}, once each, in this order; put them back"
            )
        before, rest = readme.split(begin)
        _, after = rest.split(end)
        readme = f"{before}{begin}\n{text}\n{end}{after}"
    return readme


def print_table(text: str) -> None:
    """Prints a table, with escapes for what the terminal's encoding does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Waits until no other command writes records or the README."""
    folder = os.open(RESULTS, os.O_RDONLY)
    try:
        take_lock(folder, wait=True)
        yield
    finally:
        os.close(folder)
