"""What a network makes of inputs of which nothing else is known, for every task alike: arrays and a picture of each."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from dfn_jax import parallel, visualize
from dfn_jax.errors import InputError
from dfn_jax.files import check_text, expanded, make_writable_folder, name_and_checksum, write_arrays, write_whole
from dfn_jax.progress import progress
from dfn_jax.tasks.task import Inputs, Params, Task

RECORD = "predictions.json"
LONGEST_NAME = 230  # bytes; most disks take 255, and a file that is being written has some more


def open_inputs(task: Task, source: str | Path, workdir: Path) -> tuple[Inputs, Path]:
    """Opens inputs, so that what is wrong with them is told before anything is written.

    Args:
        task: what was trained.
        source: an input, or a folder of them.
        workdir: the predictions get a folder below it that is named after the source.

    Returns:
        The inputs, and the folder, which need not be there.

    Raises:
        InputError: the task predicts nothing from images alone, an input cannot be used, or it was predicted from.
    """
    source = Path(os.path.abspath(expanded(source)))  # noqa: PTH100  Links keep the names that the user gave them.
    check_text("the input", str(source))
    folder = workdir / "predictions" / name_and_checksum(source)
    if task.inputs is None:
        raise InputError("this network predicts nothing from images alone; measure it, by --mode=evaluate")
    if not source.exists():
        raise InputError(f"the input {source} does not exist; give an image or clip, or a folder of them")
    if folder.resolve().is_relative_to(source.resolve()):
        raise InputError(f"the input {source} contains {workdir}, where predictions go; give one that does not")
    if (folder / RECORD).exists():
        raise InputError(f"{folder} has the predictions from {source} already; remove or rename it to predict again")
    inputs = task.inputs(source)
    _check_names(inputs.names)
    return inputs, folder


def _check_names(names: list[Path]) -> None:
    """Checks that the files of no two inputs would be in each other's way."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"the predictions from {count} inputs would be called {name}; rename all but one")
    longest = max((name.name for name in names), key=lambda name: len(os.fsencode(name)))
    if len(os.fsencode(longest)) > LONGEST_NAME:
        raise InputError(
            f"the input {longest} has a name of more than {LONGEST_NAME} bytes; rename it to a shorter one"
        )
    files = {name.with_name(f"{name.name}.{ending}") for name in names for ending in ("png", "npz")}
    if clash := next((folder for name in names for folder in name.parents if folder in files), None):
        raise InputError(f"the input has a folder {clash}, as a prediction from it would be called; rename it")


def write_predictions(inputs: Inputs, params: Params, folder: Path, origin: dict[str, Any]) -> None:
    """Writes `NAME.npz`, what a network predicts from an input, and `NAME.png`, a picture of it, for each.

    Args:
        inputs: of `open_inputs`.
        params: of the network.
        folder: of `open_inputs`.
        origin: whose network it is; written last, to `predictions.json`, with the names of the inputs.

    Raises:
        OSError: the folder cannot be written.
    """
    make_writable_folder(folder)
    found = progress(inputs.predict(parallel.on_all_local_devices(params)), desc="predicting", total=len(inputs.names))
    for name, prediction in zip(inputs.names, found, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path.with_name(f"{path.name}.npz"), prediction.arrays)
        write_whole(path.with_name(f"{path.name}.png"), visualize.to_png(prediction.picture))
    names = [name.as_posix() for name in inputs.names]
    write_whole(folder / RECORD, json.dumps({**origin, "inputs": names}, indent=2) + "\n")
