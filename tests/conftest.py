"""Tests run on the CPU, by programs that, run once or twice, are not worth optimising: it saves a fifth of the time.

On a GPU: `JAX_PLATFORMS= XLA_FLAGS= JAX_DEFAULT_MATMUL_PRECISION=highest python -m pytest -n 0`.
"""

import functools
import os

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Programs that tests start need memory, too.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="session", autouse=True)
def once(tmp_path_factory):
    """What many tests need, in this process or in one that a test starts, is compiled and drawn once.

    And the user's own cache is left as it was.
    """
    import jax

    from dfn_jax.data import digits

    cache = tmp_path_factory.mktemp("cache")
    jax.config.update("jax_compilation_cache_dir", str(cache / "dfn_jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    draw = digits.drawn_digits

    @functools.cache
    def drawn(seed, count):
        found = draw(seed, count)
        found.flags.writeable = False
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "drawn_digits", drawn)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where stereo pairs are prepared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dfn_jax" / "pairs"


@pytest.fixture
def folder(tmp_path):
    """Where a test puts its data."""
    return tmp_path / "data"
