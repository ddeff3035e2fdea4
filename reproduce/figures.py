"""Draws the pictures of docs/figures.md by the networks in `dfn_jax/pretrained/`; `side_by_side` draws the other one.

    python -m reproduce.figures

Wants MNIST's digits, in the folder `mnist` of the environment variable DFN_DATA. Minutes on two CPU cores.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import app

from dfn_jax import experiment, pretrained
from dfn_jax.errors import InputError, told_in_one_line
from dfn_jax.files import write_whole
from dfn_jax.preemption import preempt_on_sigterm
from reproduce.runs import ROOT

FIGURES = ROOT / "docs" / "figures"
NETWORKS = FIGURES / "networks.json"  # of which networks the pictures are


class Shown(NamedTuple):
    """Pictures of one evaluation.

    Attributes:
        network: one of `dfn_jax.pretrained.names()`.
        pictures: which of its report's files are kept, and as which files in docs/figures/.
        changes: what they change of the network's own config, by dotted names.
    """

    network: str
    pictures: Mapping[str, str]
    changes: Mapping[str, Any] = {}


FEW = {"eval.examples": 16}  # of video a report shows the first
DIGITS = {**FEW, "data.digits": "mnist"}
SHOWN = (
    Shown(
        "steerable",
        {"filters.png": "steerable_filters.png", "examples.png": "steerable_images.png"},
        {"eval.examples": 5},
    ),
    Shown("moving_mnist", {"strips.png": "moving_mnist.png", "flow.png": "moving_mnist_filters.png"}, DIGITS),
    Shown("moving_mnist", {"strips.png": "moving_mnist_one_digit.png"}, {**DIGITS, "eval.digit_count": 1}),
    Shown("moving_mnist", {"strips.png": "moving_mnist_three_digits.png"}, {**DIGITS, "eval.digit_count": 3}),
    Shown("highway", {"strips.png": "highway.png", "flow.png": "highway_flow.png"}, FEW),
    Shown("stereo", {"examples.png": "stereo.png"}, {"eval.examples": 3}),
)


def draw(shown: Shown) -> dict[str, bytes]:
    """Evaluates a network, and takes what is shown out of its report.

    Args:
        shown: what to evaluate, and which pictures.

    Returns:
        PNG files by their names in docs/figures/.

    Raises:
        InputError: the data cannot be used.
    """
    config, _, _ = pretrained.load(shown.network)
    config.update_from_flattened_dict(shown.changes)
    with tempfile.TemporaryDirectory() as folder:
        evaluated, _ = experiment.evaluate_pretrained(shown.network, Path(folder) / shown.network, config)
        return {name: (evaluated / "report" / file).read_bytes() for file, name in shown.pictures.items()}


def networks() -> dict[str, str]:
    """The checksum of each network that is shown, by its name."""
    return {shown.network: pretrained.load(shown.network)[2]["sha256"] for shown in SHOWN}


def main(words: list[str]) -> None:
    """Draws all; exit code 1 where one cannot be drawn, and then none is changed."""
    preempt_on_sigterm()
    with told_in_one_line("figures"):
        if len(words) > 1:
            raise InputError(f"unexpected argument {words[1]!r}; there are none")
        for name, picture in [one for shown in SHOWN for one in draw(shown).items()]:
            write_whole(FIGURES / name, picture)
            print(FIGURES / name)
        write_whole(NETWORKS, json.dumps(networks(), indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
