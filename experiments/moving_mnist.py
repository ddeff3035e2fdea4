"""Moving MNIST (Section 4.2): ten frames of bouncing digits in, the next ten out.

    python launch.py --config=experiments/moving_mnist.py:quick
    python launch.py --config=experiments/moving_mnist.py --config.data.dir=FOLDER_WITH_MNIST
    python launch.py --mode=evaluate --pretrained=moving_mnist --config.data.dir=FOLDER_WITH_MNIST

Digits come from MNIST's IDX files where `data.dir`, or the folder `mnist` in DFN_DATA, has them; otherwise from a pen
that draws some, and the results say that they are not Moving MNIST.

Presets: `paper` (the published recipe: 20,000 steps of 16 sequences, Adam 1e-3 halved every 4,000; meant for a GPU:
by single steps one and a half to two and a half days on two CPU cores),
by the same recipe `twin` (without the filter, learning rate 1e-4), the rivals `conv_lstm` and `fc_lstm` of Table 1, and
`dna` and `cdna` (the filters of Finn et al. 2016);
`quick` (two to eight minutes on two CPU cores: one digit on 32x32, four frames in and four out; on drawn digits 53.5
nats where the blurred last frame has 89 and the entropy of the targets is 25.0), `smoke` (four steps, for tests).

Published, nats per frame on 64x64: 285.2 in the paper, 282.3 by the authors' released code, 434.8 by its twin without
the filter, 367.1 by the Conv-LSTM; the FC-LSTM of Table 1 has 341.2 there and 483.2 in Shi et al. (2015). Reached here
on CPU cores: 279.8 with 30 % of the sequences (docs/results.md); with 4 %, 378.0, and without the filter 414.3
(`python -m reproduce.tables`, `--medium`).
"""

from ml_collections import ConfigDict

from dfn_jax.config import with_preset

MODEL = {
    "name": "dfn",
    "encoder": (32, 32, 64, 64, 128),
    "coarse": (64, 64),
    "fine": (64, 64),
    "features": 128,
    "kernel_size": 9,
    "window": 1,
    "dynamic_bias": False,
    "position_bias": False,
    "refinement": 0,
    "rematerialise": False,
}
PRESETS = {
    "paper": {},
    "quick": {
        "data.image_size": (32, 32),
        "data.digit_size": 14,
        "data.digit_count": 1,
        "data.input_frames": 4,
        "data.target_frames": 4,
        "train.steps": 800,
        "train.batch_size": 4,
        "train.checkpoint_every": 400,
        "optim.name": "muon",
        "optim.learning_rate": 1e-3,
        "optim.halve_every": 220,
        "eval.examples": 512,
    },
    "smoke": {
        "data.image_size": (16, 16),
        "data.digit_size": 7,
        "data.input_frames": 2,
        "data.target_frames": 2,
        "model.encoder": (8, 8),
        "model.coarse": (),
        "model.fine": (8,),
        "model.features": 16,
        "model.kernel_size": 5,
        "train.steps": 4,
        "train.batch_size": 8,
        "train.checkpoint_every": 2,
        "train.log_every": 1,
        "eval.examples": 8,
    },
    "twin": {"model.name": "twin", "optim.learning_rate": 1e-4},
    "conv_lstm": {
        "model": {"name": "lstm", "features": (128, 64, 64), "kernel_size": 5, "patch": 4, "read_all": True},
    },
    "fc_lstm": {"model": {"name": "lstm", "features": (2048, 2048), "kernel_size": 1, "patch": 0, "read_all": False}},
    "dna": {"model.name": "dna"},
    "cdna": {"model": {**MODEL, "name": "cdna", "masks": 10}},
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
        "experiment": "moving_mnist",
        "task": "video",
        "seed": 0,
        "loss": "binary_cross_entropy",
        "data": {
            "name": "moving_mnist",
            "dir": "",  # of MNIST's IDX files
            "digits": "",  # 'mnist', 'tfds' or 'drawn'; empty: MNIST where there is one, otherwise drawn
            "image_size": (64, 64),
            "channels": 1,
            "digit_size": 28,  # pixels
            "digit_count": 2,
            "input_frames": 10,
            "target_frames": 10,
        },
        "model": MODEL,
        "train": {
            "steps": 20_000,
            "batch_size": 16,
            "checkpoint_every": 500,
            "log_every": 20,
            "evaluate_every": 0,  # steps between looks at the test set; 0: only at the end
            "double_horizon_every": 0,  # steps between doublings of the predicted frames, from 1 on; 0: all at once
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
        # digit_count, target_frames: 0 for as many as in training
        "eval": {"examples": 10_000, "best": False, "name": "", "dir": "", "digit_count": 0, "target_frames": 0},
    })  # fmt: skip
    return with_preset(config, preset, PRESETS)
