"""Steerable filters (Section 4.1): which filter belongs to an angle, learned from images and filtered images.

    python launch.py --config=experiments/steerable.py:quick
    python launch.py --config=experiments/steerable.py:quick --config.eval.name=images --config.eval.dir=FOLDER

Presets: `paper` (5,000 steps of 64 images, Adam 1e-3 halved every 1,000; a minute on two CPU cores),
`quick` (a quarter of a minute), `smoke` (four steps, for tests). The paper shows the filters and gives no figure;
`paper` comes to a relative error of 0.0104, `quick` to 0.0042.
"""

from ml_collections import ConfigDict

from dfn_jax.config import with_preset

PRESETS = {
    "paper": {},
    "quick": {
        "data.image_size": (24, 24),
        "train.steps": 6000,
        "train.log_every": 100,
        "optim.learning_rate": 1e-2,
        "optim.halve_every": 900,
    },
    "smoke": {
        "data.image_size": (16, 16),
        "train.steps": 4,
        "train.batch_size": 8,
        "train.checkpoint_every": 2,
        "train.log_every": 1,
    },
}


def get_config(preset: str = "paper") -> ConfigDict:
    """The recipe.

    Args:
        preset: 'paper', 'quick' or 'smoke'.

    Returns:
        The config.

    Raises:
        InputError: the preset is not known.
    """
    config = ConfigDict({
        "experiment": "steerable",
        "task": "steerable",
        "seed": 0,
        "data": {
            "name": "texture",  # procedural; or 'images': crops of those in data.dir
            "dir": "",
            "image_size": (64, 64),
        },
        "train": {
            "steps": 5000,
            "batch_size": 64,
            "checkpoint_every": 1000,
            "log_every": 50,
            "evaluate_every": 0,  # steps between looks at the test set; 0: only at the end
            "init_from": "",  # a pretrained network, to begin with its weights; empty: they are drawn
            "non_finite": "stop",
        },
        "optim": {
            "name": "adam",  # or 'muon'
            "learning_rate": 1e-3,
            "halve_every": 1000,
            "clip_norm": 0.0,  # the largest norm of the whole gradient; 0: any
            "ema_decay": 0.0,  # the network is a running average of the weights, with this decay; 0: no average
        },
        "precision": "float32",
        "mesh": {"data": -1, "height": 1, "split_state": False},  # devices along the batch (-1: all), along image rows
        "eval": {"examples": 64, "best": False, "name": "", "dir": ""},  # name, dir: other images to evaluate on
    })  # fmt: skip
    return with_preset(config, preset, PRESETS)
