"""Programs that run once or twice are not worth optimising, a fifth of the time; `XLA_FLAGS= pytest` does it."""

import os

import pytest

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where stereo pairs are prepared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dfn_jax" / "pairs"


@pytest.fixture
def folder(tmp_path):
    """Where a test puts its data."""
    return tmp_path / "data"
