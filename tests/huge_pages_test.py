"""Huge pages: fewer page faults, in the same process, with the same command line."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dfn_jax.huge_pages import TUNABLES

ROOT = Path(__file__).parents[1]
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import os, resource, sys
before = os.environ.get("STARTED")
os.environ["STARTED"] = str(os.getpid())
if "--trace" in sys.argv:
    sys.settrace(lambda *_: None)
from dfn_jax.huge_pages import restart_with_huge_pages
restart_with_huge_pages()
sys.settrace(None)
import jax, jax.numpy as jnp
values, double = jnp.ones(2**24), jax.jit(lambda values: 2 * values)
for _ in range(3):
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    double(values).block_until_ready()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
print(before == str(os.getpid()), faults, *sys.argv[1:], sys.flags.optimize)
"""


def started(*arguments, **environment):
    """Whether the program began anew, the page faults of a step that takes 64 MB, and its command line."""
    rest = {name: value for name, value in os.environ.items() if name not in (TUNABLES, "STARTED")}
    command = [sys.executable, "-O", "-c", PROGRAM, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=rest | environment, capture_output=True, text=True, check=True, timeout=120
    )
    again, faults, *line = done.stdout.split()
    return again == "True", int(faults), line


def has_huge_pages():
    library, version = platform.libc_ver()
    new = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return new and SWITCH.exists() and "[never]" not in SWITCH.read_text()


@pytest.mark.skipif(not has_huge_pages(), reason="needs Linux with huge pages and glibc 2.35")
def test_a_step_has_a_fault_for_many_pages():
    again, faults, line = started("--steps", "a b")
    assert again
    assert faults < 64 * 2**20 / 4096 / 20
    assert line == ["--steps", "a", "b", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="nothing begins anew outside Linux")
def test_a_debugger_and_what_the_user_set_are_left_alone():
    assert not started("--trace")[0]
    assert not started(**{TUNABLES: ""})[0]
