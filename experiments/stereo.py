"""Stereo prediction (Section 4.3): the right view from the left view alone, and depth that nobody labelled.

    python launch.py --config=experiments/stereo.py:quick
    python launch.py --config=experiments/stereo.py --config.data.name=pairs --config.data.dir=FOLDER

Presets: `paper` (the published recipe: 20,000 steps of 16 pairs, Adam 1e-3 halved every 4,000; eight hours on
one CPU core of slow days, two on two at their best; 1.20 summed over the image, where the best shift per row has 7.51),
`quick` (one to five minutes on two CPU cores: 2.86 summed over the image, where the best shift per row has 7.65),
`smoke` (four steps, for tests); by the published recipe `twin` (without the filter), and the relatives of Section 3.3,
`spatial_transformer` and `deep_stereo`.

Published, on the authors' own recordings, squared error summed over the image: 0.52 in the paper; 1.35 with their
released code, and 1.70 by its twin without the filter.
"""

from ml_collections import ConfigDict

from dfn_jax.config import with_preset

PRESETS = {
    "paper": {},
    "quick": {
        "train.steps": 700,
        "train.batch_size": 4,
        "train.checkpoint_every": 350,
        "optim.name": "muon",
        "optim.learning_rate": 3e-3,
        "optim.halve_every": 200,
        "eval.examples": 256,
    },
    "smoke": {
        "data.image_size": (16, 16),
        "train.steps": 4,
        "train.batch_size": 8,
        "train.checkpoint_every": 2,
        "train.log_every": 1,
        "eval.examples": 8,
    },
    "twin": {"model.name": "twin"},
    "deep_stereo": {"model.name": "deep_stereo"},
    "spatial_transformer": {"model.name": "spatial_transformer"},
}


def get_config(preset: str = "paper") -> ConfigDict:
    """The recipe.

    Args:
        preset: a name in `PRESETS`.

    Returns:
        The config.

    Raises:
        InputError: the preset is not known.
    """
    config = ConfigDict({
        "experiment": "stereo",
        "task": "stereo",
        "seed": 0,
        "data": {
            "name": "highway",  # or 'pairs': real ones, from data.dir
            "dir": "",
            "image_size": (64, 64),
            "channels": 1,
            "test_sequences": (),  # kept out of training, their end is tested on; none: the end of every one
            "test_fraction": 0.2,
        },
        "model": {"name": "dfn", "taps": 13, "position_bias": True},
        "train": {
            "steps": 20_000,
            "batch_size": 16,
            "checkpoint_every": 1000,
            "log_every": 20,
            "evaluate_every": 0,  # steps between looks at the test set; 0: only at the end
            "init_from": "",  # a pretrained network, to begin with its weights; empty: they are drawn
            "non_finite": "stop",
        },
        "optim": {
            "name": "adam",  # or 'muon'
            "learning_rate": 1e-3,
            "halve_every": 4000,
            "clip_norm": 0.0,  # the largest norm of the whole gradient; 0: any
            "ema_decay": 0.0,  # the network is a running average of the weights, with this decay; 0: no average
        },
        "precision": "float32",
        "mesh": {"data": -1, "height": 1, "split_state": False},  # devices along the batch (-1: all), along image rows
        "eval": {"examples": 512, "best": False, "name": "", "dir": ""},  # name, dir: other data to evaluate on
    })  # fmt: skip
    return with_preset(config, preset, PRESETS)
