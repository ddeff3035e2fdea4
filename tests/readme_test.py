"""The Python of the README, and of docs/extending.md, is run as it stands; links lead somewhere."""

import contextlib
import json
import re
from unittest import mock

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dfn_jax import recorded, tasks
from dfn_jax.pretrained import names
from dfn_jax.tasks import make_task_without_data, video_data, video_networks
from dfn_jax.tasks import stereo as stereo_task
from dfn_jax.train import restore
from experiments import stereo as stereo_recipe
from reproduce import runs
from tests.architecture_test import ROOT
from tests.recipes import EXPERIMENTS, get_config


def test_the_code_of_the_readme_runs(tmp_path):
    text = "".join((ROOT / page).read_text() for page in ("README.md", "docs/extending.md"))
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 12
    names = {"workdir": tmp_path}
    with contextlib.ExitStack() as tables:  # What is added to them is taken out again.
        of_stereo = (stereo_task.NETWORKS, stereo_recipe.PRESETS)
        for table in (video_networks.NETWORKS, video_data.SOURCES, tasks.TASKS, *of_stereo):
            tables.enter_context(mock.patch.dict(table))
        exec("\n".join(blocks), names)
        assert tasks.make_task(names["get_config"]("smoke")).train_batch(0)["frames"].shape == (8, 5, 16, 16, 1)
        # As the README reads the parameters of a run.
        config = recorded.get_config(tmp_path / "one_layer")
        params = restore(make_task_without_data(config), config, tmp_path / "one_layer").params
    assert names["rows"].shape == names["wide"].shape == (16, 64, 64, 3)
    assert names["half"].shape == (16, 32, 32, 3)
    np.testing.assert_array_equal(names["half"], names["moved"][:, ::2, ::2])
    assert names["convolved"].shape == (16, 64, 64, 8)
    assert names["on_scenes"].metrics["disparity_epe"] > 0
    assert names["on_forgetting"].metrics["flow_epe_noc"] > 0
    assert names["same"].shape == names["moved"].shape == (16, 64, 64, 3)
    assert float(abs(names["same"] - names["moved"]).max()) < 1e-5
    assert names["predicted"].frame.shape == (1, 3, 64, 64, 1)
    assert names["flow"].shape == (1, 3, 64, 64, 2)
    layer = names["DynamicLocalFilterLayer"]()
    filtered, _ = layer.init_with_output(jax.random.key(0), names["images"], names["images"])
    assert filtered.shape == (16, 64, 64, 3)
    assert names["right"].shape == (2, 64, 64, 1)
    assert names["disparity"].shape == (2, 64, 64)
    evaluation = names["evaluation"]
    assert 0 < evaluation.metrics["mse_per_frame"] < 256
    assert "mse_per_frame_within_reach" in evaluation.metrics
    assert not any("flow" in name for name in evaluation.metrics)
    assert names["on_squares"].data == "8 moving squares"
    assert 0.08 < names["on_squares"].metrics["baseline_last_frame_mse_per_frame"] / 8 < 3
    assert names["on_file"].data == "the last 8 sequences of a file"
    assert np.isfinite(names["on_file"].metrics["mse_per_frame"])
    assert names["on_moves"].metrics["mse"] < 0.03, "where moving nothing has 0.148"
    counted = json.loads((tmp_path / "one_layer" / "results.json").read_text())["parameters"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == counted


def anchors(text):
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), link
        assert not anchor or anchor in anchors(other.read_text()), link


def commands(page):
    """The commands of `launch.py` in a page, as words; what is in brackets may be left out, and is not."""
    text = re.sub(r"[\[\]\\]", " ", page.read_text())
    for command in re.findall(r"python launch\.py((?:\s+\"?--[^\s`\"]+(?:\([^)]*\))?\"?)+)", text):
        yield [word.strip('"') for word in command.split()]


def test_the_commands_that_are_shown_have_flags_and_entries_that_there_are(monkeypatch):
    monkeypatch.setattr(runs, "choose_source", lambda digits, folder: (digits, folder))
    flags = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', (ROOT / "launch.py").read_text())) | {"config"}
    configs = [get_config(experiment) for experiment in EXPERIMENTS]
    entries_that_there_are = {name for config in configs for name in flatten_dict(config.to_dict(), sep=".")}
    found = 0
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert set(re.findall(r"--config\.([a-z_.]+)=", page.read_text())) <= entries_that_there_are, page.name
        for words in commands(page):
            given = [word.removeprefix("--").partition("=")[0] for word in words]
            assert {name.partition(".")[0] for name in given} <= flags, words
            file = next((word for word in words if word.startswith("--config=experiments/")), "")
            pretrained = next((word.partition("=")[2] for word in words if word.startswith("--pretrained=")), "")
            if not file and pretrained in names():
                file = f"--config=experiments/{pretrained}.py"
            if file and "NAME" not in file:
                entries = [word for word in words if word.startswith("--config.")]
                runs.recipe([file, *entries])
                found += 1
    assert found > 15
