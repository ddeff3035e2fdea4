"""The README's Python is run as it stands."""

import re

import jax
import jax.numpy as jnp

from tests.architecture_test import ROOT


def test_the_code_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names = {"left": jnp.full((2, 64, 64, 1), 0.5)}
    exec("\n".join(blocks), names)
    assert names["same"].shape == names["moved"].shape == (16, 64, 64, 3)
    assert float(abs(names["same"] - names["moved"]).max()) < 1e-5
    assert names["flow"].shape == (16, 64, 64, 2)
    layer = names["DynamicLocalFilterLayer"]()
    filtered, _ = layer.init_with_output(jax.random.key(0), names["images"], names["images"])
    assert filtered.shape == (16, 64, 64, 3)
    assert names["right"].shape == (2, 64, 64, 1)
    assert names["disparity"].shape == (2, 64, 64)
