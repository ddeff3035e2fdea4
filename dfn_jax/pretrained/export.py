"""Adds the network of a run to the pretrained ones: python -m dfn_jax.pretrained.export --workdir=DIR --name=NAME.

The run must be evaluated already, on its own test set. What the card says of a few examples of the embedded data is
measured here; a test measures it again.
"""

import json
import re
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from dfn_jax import parallel, pretrained, recorded
from dfn_jax.config import check
from dfn_jax.errors import InputError, told_in_one_line
from dfn_jax.files import expanded
from dfn_jax.tasks import make_task, make_task_without_data
from dfn_jax.tasks.task import NOT_THE_NETWORKS
from dfn_jax.train import restore

EXAMPLES = 8  # for the check
# What takes the place of data that lie in a folder.
EMBEDDED = {"images": "texture", "pairs": "highway", "video": "highway"}
KEPT = (
    "experiment", "parameters", "steps", "seed", "data", "training_time_s", "hardware", "precision",
    "initial_weights", "versions", "commit",
)  # fmt: skip


def measure(config: ConfigDict, params: Any, metrics: tuple[str, ...]) -> dict[str, float]:
    """Metrics on a few examples of the embedded data.

    Args:
        config: of the network.
        params: its parameters.
        metrics: which of them.

    Returns:
        The metrics by name.
    """
    config = config.copy_and_resolve_references()
    config.eval.examples = EXAMPLES
    config.data.name, config.data.dir = EMBEDDED.get(config.data.name, config.data.name), ""
    config.eval.name = config.eval.dir = ""
    if "digits" in config.data:
        config.data.digits = "drawn"
    found = make_task(config).evaluate(params).metrics
    return {name: found[name] for name in metrics if name in found}  # In a few examples not everything happens.


def export(workdir: Path, name: str, *, overwrite: bool = False) -> None:
    """Writes the network of a workdir and its card.

    Args:
        workdir: of a run that was evaluated.
        name: of the pretrained network.
        overwrite: whether it may take the place of one of that name.

    Raises:
        InputError: the name cannot be that of a file or is taken, there is no such run, or its last state was not
            evaluated.
    """
    if not re.fullmatch(r"\w+", name):
        raise InputError(f"--name is {name!r}; wanted letters, digits and underscores")
    if name in pretrained.names() and not overwrite:
        raise InputError(f"there is a pretrained network {name} already; choose another --name, or give --overwrite")
    try:
        results = json.loads((workdir / "results.json").read_text())
        figures = {k: value for k, value in results.items() if isinstance(value, float) and not k.endswith("_time_s")}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{workdir} holds no run that was evaluated ({error}); run launch.py there first") from error
    config = recorded.get_config(workdir)
    check(config)
    state = restore(make_task_without_data(config), config, workdir)
    if int(state.step) != results.get("steps"):
        raise InputError(
            f"the newest checkpoint of {workdir} is of step {int(state.step)}, its results are of step "
            f"{results.get('steps')}; evaluate it again, by launch.py --mode=evaluate"
        )
    if config.data.get("channels", 1) != 1:
        raise InputError(
            f"the network of {workdir} is for {config.data.channels} channels; only grey ones can be exported, as the "
            "embedded data by which a card is checked are grey"
        )
    config.data.dir = config.eval.name = config.eval.dir = ""  # Folders are of one machine.
    if "init_from" in config.train:
        config.train.init_from = ""  # What has that name may become another one; `initial_weights` tells which it was.
    if "digits" in config.data:
        config.data.digits = ""
    own = tuple(key for key in figures if not key.startswith(NOT_THE_NETWORKS))
    card = {
        "name": name,
        **{key: results.get(key) for key in KEPT},
        "config": json.loads(config.to_json_best_effort()),
        "metrics": figures,
        "check": {"examples": EXAMPLES, "metrics": measure(config, state.params, own)},
    }
    pretrained.save(name, state.params, card)


def main(words: list[str]) -> None:
    """Runs what the flags say."""
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax tells of each step; what fails is told below.
    with told_in_one_line("export", interrupted="nothing is written"):
        if len(words) > 1:
            raise InputError(f"unexpected argument {words[1]!r}; wanted --workdir=DIR --name=NAME")
        parallel.check_jax()
        export(expanded(flags.FLAGS.workdir), flags.FLAGS.name, overwrite=flags.FLAGS.overwrite)
    print(f"{pretrained.FOLDER / flags.FLAGS.name}.safetensors and .json are written")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "of the run")
    flags.DEFINE_string("name", None, "of the pretrained network")
    flags.DEFINE_bool("overwrite", False, "put it in the place of one of that name")
    flags.mark_flags_as_required(["workdir", "name"])
    app.run(main)
