import os
import platform
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from dfn_jax import provenance


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin processes")
def test_hardware_tells_the_cores_that_a_process_may_use():
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    command = f"{pinned}; from dfn_jax.provenance import hardware; print(hardware())"
    found = subprocess.run(
        [sys.executable, "-c", command], env={**os.environ, "JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, check=True
    )
    name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    told = " ".join(name.group(1).split()) if name else platform.machine()
    assert found.stdout.decode().strip() == f"1 x cpu ({told}, 1 core)"


def test_hardware_other_than_cpus_tells_how_precisely_it_multiplies():
    device = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    with jax.default_matmul_precision(None):
        assert provenance.hardware([device] * 2) == "2 x NVIDIA H200 (default matmul precision)"
    with jax.default_matmul_precision("highest"):
        assert provenance.hardware([device]) == "1 x NVIDIA H200 (highest matmul precision)"


def test_code_that_no_commit_has_is_told(tmp_path, monkeypatch):
    (tmp_path / "dfn_jax").mkdir()
    (tmp_path / "dfn_jax" / "errors.py").write_text("one = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "dfn_jax" / "provenance.py"))

    def git(*words):
        settings = ("user.name=test", "user.email=test@test", "commit.gpgsign=false")
        command = ["git", *(word for one in settings for word in ("-c", one)), *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    def committed():
        git("add", ".")
        git("commit", "-qm", "all")
        return git("rev-parse", "--short=12", "HEAD")

    commit = provenance.commit.__wrapped__  # as in another process
    git("init", "-q")
    clean = committed()
    (tmp_path / "notes.txt").write_text("of no matter")
    assert commit() == clean
    (tmp_path / "dfn_jax" / "mine.py").write_text("")
    assert commit() == f"{clean}-dirty"
    clean = committed()
    assert commit() == clean
    (tmp_path / "dfn_jax" / "errors.py").write_text("")
    assert commit() == f"{clean}-dirty"
