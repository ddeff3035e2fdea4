"""Where the stereo task takes its examples from."""

import numpy as np
from PIL import Image

from dfn_jax.tasks import make_task
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
