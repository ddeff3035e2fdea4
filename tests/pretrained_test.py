"""Every pretrained network is small, whole, and as good as its card says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dfn_jax import experiment, pretrained
from dfn_jax.config import check
from dfn_jax.errors import InputError
from dfn_jax.models.steerable import SteerableDFN
from dfn_jax.pretrained import export
from dfn_jax.tasks import make_task_without_data
from dfn_jax.train import restore
from tests.models_test import random_parameters
from tests.recipes import get_config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def no_networks(tmp_path, monkeypatch):
    """None is there yet."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "networks")
    pretrained.FOLDER.mkdir()


@pytest.mark.parametrize("name", pretrained.names())
def test_a_network_is_as_good_as_its_card_says(name, monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    config, params, card = pretrained.load(name)
    assert (pretrained.FOLDER / f"{name}.safetensors").stat().st_size < 3e6
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == card["parameters"]
    check(config)  # One can be trained by it again.
    wanted = card["check"]["metrics"]
    found = export.measure(config, params, tuple(wanted))
    for metric, value in wanted.items():
        assert abs(found[metric] - value) < 0.01 * abs(value), metric


def test_the_readme_says_of_each_network_what_its_card_does():
    """How long it was trained, on what size, and its errors, rounded as they are told."""
    lines = (ROOT / "README.md").read_text().splitlines()
    told = {
        "stereo": {"mse_per_image": "error {:.2f} an", "disparity_epe_noc": "disparity off by {:.2f} px"},
        "highway": {"mse_per_frame": "error {:.2f} a", "flow_epe_noc": "flow off by {:.2f} px"},
        "moving_mnist": {"bce_nats_per_frame": "| {:.0f} nats a"},
        "steerable": {"filter_relative_error": "relative error of the filters {:.4f}"},
    }
    assert sorted(told) == pretrained.names()
    for name, figures in told.items():
        config, _, card = pretrained.load(name)
        (line,) = [line for line in lines if line.startswith(f"| `{name}` | ")]
        height, width = config.data.image_size
        before = re.match(r"pretrained \w+ of (\d+) steps", card["initial_weights"])
        # A network that was trained further may have been so more than once, which the records tell, not the card.
        steps = rf"([0-9,]+ \+ )*{int(before[1]):,} \+ {card['steps']:,}" if before else f"{card['steps']:,}"
        assert re.search(rf", {height}x{width} \| {steps} steps of {config.train.batch_size} \|", line)
        for metric, words in figures.items():
            assert words.format(card["metrics"][metric]) in line


def test_what_is_exported_is_what_was_trained(tmp_path, no_networks):
    config = get_config("steerable", "smoke")
    folder, evaluation = experiment.run(config, tmp_path / "run")
    export.export(tmp_path / "run", "small")
    again, params, card = pretrained.load("small")
    assert again == config
    assert card["steps"] == 4
    assert card["metrics"]["filter_relative_error"] == evaluation.metrics["filter_relative_error"]
    _, measured = experiment.evaluate_pretrained("small", tmp_path / "again")
    assert measured.metrics == evaluation.metrics
    assert (tmp_path / "again" / "report" / "index.html").exists()
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    assert folder == tmp_path / "run"
    with pytest.raises(InputError, match="small already; choose another --name, or give --overwrite"):
        export.export(tmp_path / "run", "small")
    export.export(tmp_path / "run", "small", overwrite=True)
    asked = get_config("steerable", "quick")
    asked.data.image_size, asked.eval.examples = config.data.image_size, 3
    experiment.evaluate_pretrained("small", tmp_path / "other", asked)
    recorded = json.loads((tmp_path / "other" / "config.json").read_text())
    assert (recorded["preset"], recorded["train"]["steps"], recorded["eval"]["examples"]) == ("smoke", 4, 3)
    results = json.loads((tmp_path / "other" / "results.json").read_text())
    assert (results["commit"], results["hardware"]) == (card["commit"], card["hardware"]), "of training"
    with pytest.raises(InputError, match="leave out --config"):
        experiment.evaluate_pretrained("small", tmp_path / "third", get_config("stereo", "smoke"))
    assert not (tmp_path / "third").exists()


def test_training_begins_with_the_weights_of_a_pretrained_network(tmp_path, no_networks):
    config = get_config("steerable", "smoke")
    _, before = experiment.run(config, tmp_path / "run")
    export.export(tmp_path / "run", "small")
    _, params, card = pretrained.load("small")
    config.train.init_from, config.seed, config.train.steps, config.optim.ema_decay = "small", 5, 0, 0.5
    folder, at_first = experiment.run(config, tmp_path / "further")
    assert at_first.metrics == before.metrics
    begun_with = f"pretrained small of 4 steps (SHA-256 {card['sha256'][:12]})"
    assert json.loads((folder / "results.json").read_text())["initial_weights"] == begun_with
    assert f"<title>steerable, 0 steps, from {begun_with}</title>" in (folder / "report" / "index.html").read_text()
    config.train.steps = 1
    folder, _ = experiment.run(config, tmp_path / "further")
    state = restore(make_task_without_data(config), config, folder)
    moved = [np.abs(a - b) for a, b in zip(*map(jax.tree.leaves, (state.params, params)), strict=True)]
    # The first step of Adam is at most as long as the learning rate in each weight; drawn ones are farther apart.
    assert 0.5 * config.optim.learning_rate < max(map(np.max, moved)) < 1.01 * config.optim.learning_rate
    results = json.loads((folder / "results.json").read_text())
    assert results["initial_weights"] == begun_with
    assert card["initial_weights"] == "drawn by seed 0"
    export.export(folder, "small", overwrite=True)
    again, _, card = pretrained.load("small")
    assert (again.train.init_from, card["initial_weights"]) == ("", results["initial_weights"])
    # What has begun needs it no more.
    for file in pretrained.FOLDER.iterdir():
        file.unlink()
    config.train.steps = 2
    experiment.run(config, folder)
    assert "by training step, of the weights before averaging" in (folder / "report" / "index.html").read_text()
    with pytest.raises(InputError, match="unknown pretrained network 'small'"):
        experiment.run(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_network_without_its_card_and_an_unknown_one_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    params = random_parameters(SteerableDFN(), jnp.zeros((1, 9, 9, 1)), jnp.zeros(1))
    pretrained.save("half", params, {"config": {}})
    with pytest.raises(InputError, match="unknown pretrained network 'whole'; choose one of: half"):
        pretrained.load("whole")
    (tmp_path / "half.json").write_text('{"config": {}}')
    with pytest.raises(InputError, match="has no sha256 of its network; export it again"):
        pretrained.load("half")
    for card in ("{}", "[]", "null", '{"config": "x"}'):
        (tmp_path / "half.json").write_text(card)
        with pytest.raises(InputError, match="half cannot be read"):
            pretrained.load("half")
    (tmp_path / "half.json").unlink()
    with pytest.raises(InputError, match="half cannot be read"):
        pretrained.load("half")


@pytest.mark.parametrize("spoil", [lambda content: content[:1000], lambda content: content[:-400] + bytes(400)])
def test_a_damaged_network_is_told_and_not_evaluated(spoil, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    params = random_parameters(SteerableDFN(), jnp.zeros((1, 9, 9, 1)), jnp.zeros(1))
    pretrained.save("net", params, {"config": {}})
    pretrained.load("net")
    (tmp_path / "net.safetensors").write_bytes(spoil((tmp_path / "net.safetensors").read_bytes()))
    with pytest.raises(InputError, match=r"is not the file that net.json describes"):
        pretrained.load("net")


def test_a_network_is_launched_with_the_config_of_its_card():
    """Its run had other options than its preset."""
    words = ["launch.py", "-pretrained", "moving_mnist", "--mode=evaluate", "--config.eval.digit_count=3"]
    code = f"""
import sys, launch
sys.argv = {words}
launch.parse(sys.argv)
print(launch.CONFIG.value.to_json())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    wanted = json.loads((pretrained.FOLDER / "moving_mnist.json").read_text())["config"]
    wanted["eval"]["digit_count"] = 3
    assert json.loads(done.stdout) == wanted


def test_colour_networks_are_not_exported_and_folders_stay_at_home(tmp_path, no_networks):
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "0.png")
    config = get_config("steerable", "smoke")
    config.data.name, config.data.dir, config.eval.dir = "images", str(tmp_path / "images"), str(tmp_path / "images")
    _, evaluation = experiment.run(config, tmp_path / "run")
    assert evaluation.data.endswith("crops of images of images, which training read too")
    shutil.rmtree(tmp_path / "images")  # They are not needed any more.
    export.export(tmp_path / "run", "small")
    again, _, _ = pretrained.load("small")
    assert (again.data.name, again.data.dir, again.eval.dir) == ("images", "", "")
    recorded = tmp_path / "run" / "config.json"
    recorded.write_text(recorded.read_text().replace('"image_size"', '"channels": 3, "image_size"'))
    with pytest.raises(InputError, match="is for 3 channels; only grey ones"):
        export.export(tmp_path / "run", "colour")


def test_results_of_another_step_are_not_those_of_the_network(tmp_path):
    config = get_config("steerable", "smoke")
    experiment.run(config, tmp_path / "run")
    results = tmp_path / "run" / "results.json"
    results.write_text(results.read_text().replace('"steps": 4', '"steps": 2'))
    with pytest.raises(InputError, match="of step 4, its results are of step 2"):
        export.export(tmp_path / "run", "small")


def test_a_name_is_no_path(tmp_path):
    with pytest.raises(InputError, match="wanted letters, digits and underscores"):
        export.export(tmp_path, "../other")


def test_a_run_without_results_is_not_exported(tmp_path):
    with pytest.raises(InputError, match="run launch"):
        export.export(tmp_path, "none")
