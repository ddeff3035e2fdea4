"""Where the stereo task takes its examples from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from dfn_jax import config as configs
from dfn_jax.errors import InputError
from dfn_jax.models.spatial_transformer import Warped
from dfn_jax.models.stereo import Filtered, StereoDFN
from dfn_jax.tasks import make_task, stereo
from dfn_jax.tasks.stereo_data import SOURCES
from dfn_jax.tasks.task import TEST_SEED
from experiments.stereo import get_config
from tests.stereo_folders import write_disparity, write_pairs


def what_is_tested(config):
    return SOURCES[configs.tested_name(config)].bind(config).test_set()


def test_training_minimises_the_squared_error_of_the_right_view():
    config = get_config("smoke")
    task = make_task(config)
    batch, params = task.train_batch(0), task.init(jax.random.key(0))
    network = StereoDFN(**{name: entry for name, entry in config.model.items() if name != "name"})
    right = np.asarray(network.apply(params, batch["left"]).prediction, np.float64)
    wanted = np.mean((right - np.asarray(batch["right"], np.float64)) ** 2)
    assert float(task.loss(params, batch)) == pytest.approx(wanted, rel=1e-5)


def test_training_on_real_pairs_leaves_those_that_are_tested_on(folder, cache):
    """The last fifth; results on pairs of one recording have no interval of confidence."""
    written = write_pairs(folder, count=10, size=(16, 16))
    for index in range(10):
        write_disparity(folder / "disparity" / f"{index:06d}_10.png", np.full((16, 16), 1.0))
    config = get_config("smoke")
    config.data.name, config.data.dir, config.data.image_size = "pairs", str(folder), (16, 16)
    config.train.batch_size = 4
    task = make_task(config)
    shown = set()
    for step in range(4):
        batch = task.train_batch(step)
        for left, right in zip(batch["left"], batch["right"], strict=True):
            (index,) = (i for i, (view, _) in enumerate(written) if np.allclose(view / 255, left[..., 0], atol=1e-6))
            np.testing.assert_allclose(right[..., 0], written[index][1] / 255, atol=1e-6)
            shown.add(index)
    assert shown == set(range(8))
    np.testing.assert_array_equal(what_is_tested(config)[1]["left"][..., 0] * 255, [left for left, _ in written[8:]])
    found = task.evaluate(task.init(jax.random.key(0)))
    assert not found.examples
    assert found.metrics["baseline_copy_disparity_epe"] == 1
    first, config.seed = task.train_batch(0)["left"], 1
    assert not np.array_equal(make_task(config).train_batch(0)["left"], first)


def test_disparity_is_the_horizontal_part_of_how_far_pixels_were_fetched():
    image, taps = np.zeros((1, 2, 2, 1)), 5
    filters = np.zeros((1, 2, 2, taps))
    filters[..., 1], filters[..., 4] = 0.25, 0.75  # from 1 px to the left, and from 2 px to the right
    displacement = np.stack([np.full((1, 2, 2), 3.0), np.full((1, 2, 2), -7.0)], axis=-1)
    for output, wanted in (
        (Filtered(image, filters, image), 1.25),
        (Warped(image, displacement), 3.0),
    ):
        np.testing.assert_allclose(stereo._disparity(output, taps), np.full((1, 2, 2), wanted))


def test_training_draws_other_scenes_by_every_seed_and_none_that_is_tested_on():
    config = get_config("smoke")
    config.train.batch_size = config.eval.examples = 16
    drawn = [what_is_tested(config)[1]["left"]]
    for seed in (0, 1, TEST_SEED):
        config.seed = seed
        drawn.append(np.asarray(make_task(config).train_batch(0)["left"]))
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 64


def test_another_folder_is_evaluated_whole_whatever_the_training_split(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for view in ("left", "right"):
        folder = tmp_path / "other" / view
        folder.mkdir(parents=True)
        for frame in range(3):
            Image.fromarray(np.full((16, 16), 50 * frame, np.uint8)).save(folder / f"{frame}.png")
    config = get_config("smoke")
    config.data.name, config.data.dir, config.data.test_sequences = "pairs", "unused", ("elsewhere",)
    config.eval.name, config.eval.dir = "pairs", str(tmp_path / "other")
    words, examples = what_is_tested(config)
    assert words == "3 of the 3 real pairs of other (all)"
    assert examples["left"].shape == (3, 16, 16, 1)
    np.testing.assert_allclose(examples["right"].mean((1, 2, 3)), [0, 50 / 255, 100 / 255], atol=1e-6)
    config.eval.examples = 2
    words, examples = what_is_tested(config)
    assert words == "2 of the 3 real pairs of other (all), evenly spaced"
    np.testing.assert_allclose(examples["right"].mean((1, 2, 3)), [0, 100 / 255], atol=1e-6)
    config.data.dir, config.data.test_sequences = str(tmp_path / "other" / ".." / "other"), ()
    assert what_is_tested(config)[0].endswith(", which training read too, evenly spaced")


class Mine(nn.Module):
    """A network of somebody else's, with nothing to train, which returns what it is told to."""

    returns: str
    taps: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, left):
        filters = jnp.ones((*left.shape[:3], 9)) / 9
        return Filtered(left, filters, left) if self.returns == "filters of 3x3" else (left, filters)


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("filters of 3x3", "the network's filters have 9 taps, config.model.taps is 5"),
        ("a pair", "the network returns a tuple; wanted an image"),
    ],
)
def test_what_a_network_returns_is_not_misread(returns, message, monkeypatch):
    monkeypatch.setitem(stereo.NETWORKS, "mine", Mine)
    config = get_config("smoke")
    config.eval.examples = 1
    config.model = {"name": "mine", "returns": returns, "taps": 5}
    task = make_task(config)
    with pytest.raises(InputError, match=message):
        task.evaluate(task.init(jax.random.key(0)))
    config.model = {"name": "mine", "taps": 5, "rows": 3}
    with pytest.raises(InputError, match=r"does not fit the network 'mine': .*rows"):
        make_task(config)
    for group, entries, lacking in (
        ("model", {"name": "dfn"}, r"model\.taps"),
        ("model", {"taps": 5}, r"model\.name"),
        ("data", {"name": "highway", "dir": "", "image_size": (16, 16)}, r"data\.channels"),
    ):
        config = get_config("smoke")
        config[group] = entries
        with pytest.raises(InputError, match=f"the config has no {lacking}"):
            make_task(config)
