"""Networks that are trained already: parameters as safetensors, each beside a card that says what they are.

`python -m dfn_jax.pretrained.export` adds one; `python launch.py --pretrained=NAME` measures one again by
--mode=evaluate, and by --mode=predict applies it to files of yours; --config.train.init_from=NAME trains from its
weights. To apply one to arrays:

    config, params, card = pretrained.load("stereo")
    right, filters, bias = StereoDFN(taps=config.model.taps).apply(params, left)  # left: [N, 64, 64, 1] in [0, 1]
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from dfn_jax.config import with_tuples
from dfn_jax.errors import InputError
from dfn_jax.files import write_whole

FOLDER = Path(__file__).parent
SEPARATOR = "."  # between the names of nested groups of parameters


def names() -> list[str]:
    """The networks that are there."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load(name: str) -> tuple[ConfigDict, Any, dict[str, Any]]:
    """Reads a network.

    Args:
        name: one of `names()`.

    Returns:
        The config that it was trained with, its parameters (a pytree of float32 NumPy arrays, as the network's `apply`
        takes them), and its card.

    Raises:
        InputError: there is no such network, its files cannot be read, or they do not belong to each other.
    """
    from safetensors.numpy import load as deserialise

    if name not in names():
        known = ", ".join(names()) or "none is there yet"
        raise InputError(f"unknown pretrained network {name!r}; choose one of: {known}")
    try:
        card = json.loads((FOLDER / f"{name}.json").read_text())
        config, wanted = ConfigDict(with_tuples(card["config"])), card.get("sha256")
        content = (FOLDER / f"{name}.safetensors").read_bytes()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the pretrained network {name} cannot be read ({error}); take its files anew") from error
    if not wanted:
        raise InputError(f"the card {name}.json has no sha256 of its network; export it again, with --overwrite")
    if (found := hashlib.sha256(content).hexdigest()) != wanted:
        raise InputError(
            f"{name}.safetensors in {FOLDER} is not the file that {name}.json describes (SHA-256 {found[:8]}…, wanted "
            f"{wanted[:8]}…); take both anew"
        )
    return config, traverse_util.unflatten_dict(deserialise(content), sep=SEPARATOR), card


def check_fits(name: str, params: Any, shapes: Any) -> None:
    """Checks that a network's parameters are those that a config describes.

    Args:
        name: of the pretrained network.
        params: of it.
        shapes: pytree of the shapes that the config's network has.

    Raises:
        InputError: they are others; names the first that differs.
    """
    ours, theirs = (
        {name: tuple(leaf.shape) for name, leaf in traverse_util.flatten_dict(tree, sep=SEPARATOR).items()}
        for tree in (params, shapes)
    )
    differ = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if differ:
        raise InputError(
            f"the pretrained network {name} has {differ[0]} of shape {ours.get(differ[0])}, the config's network "
            f"{theirs.get(differ[0])}; give a config with the same model and image size"
        )


def save(name: str, params: Any, card: dict[str, Any]) -> None:
    """Writes a network and its card.

    Args:
        name: of the files.
        params: pytree of dictionaries of arrays.
        card: what `load` gives back, but for the checksum; its `config` is the config as a dictionary.
    """
    from safetensors.numpy import save as serialise

    flat = traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep=SEPARATOR)
    content = serialise(flat)
    # Where only one of the two is written, the checksum tells.
    write_whole(FOLDER / f"{name}.safetensors", content)
    card = {**card, "sha256": hashlib.sha256(content).hexdigest()}
    write_whole(FOLDER / f"{name}.json", json.dumps(card, indent=2) + "\n")
