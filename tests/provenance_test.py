import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin processes")
def test_hardware_tells_the_cores_that_a_process_may_use():
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    command = f"{pinned}; from dfn_jax.provenance import hardware; print(hardware())"
    found = subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, "JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, check=True
    )
    assert found.stdout.decode().strip().endswith(", 1 core)")
