"""Huge pages: memory of 2 MB at a time, where Linux gives it 4 kB at a time otherwise."""

import os
import sys

TUNABLES = "GLIBC_TUNABLES"


def restart_with_huge_pages() -> None:
    """Begins this program anew, once, with glibc asking Linux for huge pages, which it can only be told when it starts.

    A training step on a CPU takes gigabytes and gives them back, and the first touch of each page costs a fault:
    docs/performance.md has what this saves. It is for the very beginning of a program. Nothing happens in a debugger,
    outside Linux, or where the user has set `GLIBC_TUNABLES`; without glibc 2.35, or huge pages, it has no effect.
    """
    if sys.platform != "linux" or TUNABLES in os.environ or _debugged():
        return
    os.environ[TUNABLES] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _debugged() -> bool:
    monitoring = getattr(sys, "monitoring", None)  # since Python 3.12
    return bool(sys.gettrace() or (monitoring and monitoring.get_tool(monitoring.DEBUGGER_ID)))
