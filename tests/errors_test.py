"""What programs tell of what goes wrong outside the code."""

import subprocess
import sys

import pytest

from dfn_jax.errors import told_in_one_line


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: 3 GB"), "not enough memory (RESOURCE_EXHAUSTED: 3 GB); make the batch"),
        (MemoryError("3 GB"), "not enough memory (3 GB)"),
        # So Orbax calls a full disk.
        (OSError("not written (RESOURCE_EXHAUSTED); make room"), "error: not written (RESOURCE_EXHAUSTED); make room"),
    ],
)
def test_memory_and_disks_are_told_apart(error, told):
    with pytest.raises(SystemExit, match="p: error: ") as ended, told_in_one_line("p"):
        raise error
    assert told in str(ended.value)


def test_a_second_sigterm_does_not_cut_the_end_short():
    code = """
import atexit, os, signal
from dfn_jax.errors import told_in_one_line
from dfn_jax.preemption import preempt_on_sigterm
def late():
    os.kill(os.getpid(), signal.SIGTERM)
    print("saved")
atexit.register(late)
preempt_on_sigterm()
with told_in_one_line("p"):
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (75, "saved\n"), done.stderr
    assert done.stderr.startswith("p: asked to end")
    assert len(done.stderr.splitlines()) == 1


BEGINNING = """
import os, signal, time
from dfn_jax.errors import told_in_one_line
from dfn_jax.preemption import preempt_on_sigterm
preempt_on_sigterm()
"""
IN_A_FINALISER = """
class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
with told_in_one_line("p"):
    Finalised()
    time.sleep(30)
"""
TAKEN_FOR_ANOTHER = """
with told_in_one_line("p"):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    except BaseException as error:
        raise ImportError("an extension cannot be initialised") from error
"""


@pytest.mark.parametrize("code", [IN_A_FINALISER, TAKEN_FOR_ANOTHER], ids=["finaliser", "import"])
def test_a_sigterm_is_not_lost_where_its_error_is(code):
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 75, done.stderr
    assert done.stderr == "p: asked to end; what was saved is whole: give the same command again\n"
