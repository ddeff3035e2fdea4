"""Where the stereo task takes its examples from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from dfn_jax.errors import InputError
from dfn_jax.models.stereo import Filtered
from dfn_jax.tasks import make_task, stereo
from dfn_jax.tasks.stereo import _test_examples
from experiments.stereo import get_config


def test_training_draws_other_scenes_by_every_seed_and_none_that_is_tested_on():
    config = get_config("smoke")
    config.train.batch_size = config.eval.examples = 16
    drawn = [_test_examples(config)[1]["left"]]
    for seed in (0, 1):
        config.seed = seed
        drawn.append(np.asarray(make_task(config).train_batch(0)["left"]))
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 48


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
    words, examples = _test_examples(config)
    assert words == "3 of the 3 real pairs of other (all)"
    assert examples["left"].shape == (3, 16, 16, 1)
    np.testing.assert_allclose(examples["right"].mean((1, 2, 3)), [0, 50 / 255, 100 / 255], atol=1e-6)
    config.eval.examples = 2
    words, examples = _test_examples(config)
    assert words == "2 of the 3 real pairs of other (all), evenly spaced"
    np.testing.assert_allclose(examples["right"].mean((1, 2, 3)), [0, 100 / 255], atol=1e-6)
    config.data.dir, config.data.test_sequences = str(tmp_path / "other" / ".." / "other"), ()
    assert _test_examples(config)[0].endswith(", which training read too, evenly spaced")


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
    config.model = {"name": "dfn"}
    with pytest.raises(InputError, match=r"the config has no model\.taps"):
        make_task(config)
