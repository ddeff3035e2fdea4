"""Every notebook runs from its first cell to its last, in a fresh process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dfn_jax import pretrained
from dfn_jax.tasks import make_task

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
# What a notebook brings along by itself.
BEFORE = """
import sys, types
display = types.ModuleType("IPython.display")
display.HTML, display.display = str, lambda page: print(len(page))
notebook = types.ModuleType("IPython")
notebook.get_ipython, notebook.version_info = lambda: None, (9, 0)
sys.modules["IPython"], sys.modules["IPython.display"] = notebook, display
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)  # outputs belong on the screen, not into the repository
    code = BEFORE + "\n".join("".join(cell["source"]) for cell in cells)
    environment = os.environ | {"MPLBACKEND": "agg", "XLA_FLAGS": ""}  # compiled as for people, not as for tests
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=path.parent, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    error, disparity = re.search(r"Squared error (\S+) .* it applies is off by (\S+) px", done.stdout).groups()
    config, params, _ = pretrained.load("stereo")
    config.eval.examples = 32
    wanted = make_task(config).evaluate(params).metrics
    assert float(error) == pytest.approx(wanted["mse_per_image"], abs=0.006)
    assert float(disparity) == pytest.approx(wanted["disparity_epe_noc"], abs=0.006)
