"""Draws what the networks of a table of video predict, side by side, by the runs that `reproduce.tables` has made.

    python -m reproduce.side_by_side moving_mnist --short --rows=paper,twin --png=FILE

Shows the first sequences of the test set, the frames that each network predicts below the true ones. Wants the data of
the runs, so for moving_mnist the folder `mnist` of the environment variable DFN_DATA.
"""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict

from dfn_jax import visualize
from dfn_jax.errors import InputError, told_in_one_line
from dfn_jax.files import check_writable_file, expanded, write_whole
from dfn_jax.records import read_records
from dfn_jax.tasks import make_task
from dfn_jax.tasks.video_data import SOURCES
from dfn_jax.train import restore
from dfn_jax.workdir import check_workdir
from reproduce.protocols import Row
from reproduce.runs import PLACES, SAME_RESULT, recipe
from reproduce.tables import arguments, check_digits, chosen, define_flags, workdir

TABLES_OF_VIDEO = ("moving_mnist", "highway")
GIVEN_SHOWN = 2  # frames before the first that is predicted


def first_sequences(config: ConfigDict, count: int) -> np.ndarray:
    """The first sequences of the test set: [count, T, H, W, C] float32 in [0, 1]."""
    _, batches = SOURCES[config.data.name].bind(config).test_set()
    return np.asarray(next(iter(batches))["frames"][:count])


def predicted(config: ConfigDict, folder: Path, frames: np.ndarray) -> np.ndarray:
    """What the network of a run predicts.

    Args:
        config: of the run.
        folder: its workdir.
        frames: [N, T, H, W, C] in [0, 1]; those that the network is given are read.

    Returns:
        [N, F, H, W, C] in [0, 1].

    Raises:
        InputError: it is not done, was trained on other data, or has no checkpoint that fits.
    """
    task = make_task(config)
    starts = read_records(folder / "starts.jsonl")
    if starts and (begun_with := starts[-1].get("data")) not in (None, task.fingerprint()):
        raise InputError(f"{folder} was trained on other data ({begun_with}); set DFN_DATA to the folder that has them")
    state = restore(task, config, folder)
    if state.step != config.train.steps:
        raise InputError(f"{folder} has done {state.step} of its {config.train.steps} steps; let it go on to the end")
    given = frames[:, : config.data.input_frames]
    return np.asarray(jax.jit(task.program.apply)(state.params, given)["predicted"])


def picture(frames: np.ndarray, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    """For each sequence a strip of true frames, and below it one of each network.

    Args:
        frames: [N, T, H, W, C] in [0, 1].
        predictions: [N, F, H, W, C] in [0, 1], by what the networks are called: of the last F frames.

    Returns:
        [H', W', 3] uint8.
    """
    horizon = next(iter(predictions.values())).shape[1]
    given = min(GIVEN_SHOWN, frames.shape[1] - horizon)
    true = visualize.images_to_rgb(frames[:, -horizon - given :])
    strips = {name: visualize.images_to_rgb(prediction) for name, prediction in predictions.items()}
    rows, titles = [], []
    for index, strip in enumerate(true):
        rows += [list(strip), *([*[None] * given, *found[index]] for found in strips.values())]
        titles += ["true", *strips]
    times = visualize.frame_titles(given, horizon)
    return visualize.panel(rows, column_titles=times, row_titles=titles, scale=max(1, 64 // true.shape[3]))


def draw(name: str, protocol: str, rows: list[Row], *, seed: int, count: int) -> np.ndarray:
    """Draws what rows of a table predict.

    Args:
        name: of the table, one of TABLES_OF_VIDEO.
        protocol: one of the table's.
        rows: of the table.
        seed: of the runs.
        count: how many sequences.

    Returns:
        [H', W', 3] uint8.

    Raises:
        InputError: a row has not been run, or was run on other data.
    """
    check_digits(recipe(arguments(name, rows[0], protocol, seed)))
    runs = {
        row.name: (recipe(arguments(name, row, protocol, seed)), workdir(name, row, protocol, seed)) for row in rows
    }
    for row, (config, folder) in zip(rows, runs.values(), strict=True):
        try:
            check_workdir(folder, config, may_differ=(*SAME_RESULT, *PLACES))
        except InputError as error:
            command = f"python -m reproduce.tables {name} --{protocol} --rows={row.preset} --seeds={seed}"
            raise InputError(f"there is no such run ({error}); make it, by `{command}`") from error
    (config, _), *_ = runs.values()
    frames = first_sequences(config, count)
    return picture(frames, {row: predicted(*run, frames) for row, run in runs.items()})


def main(words: list[str]) -> None:
    """Draws what the flags say; exit code 1 where it cannot be drawn."""
    logging.set_verbosity(logging.FATAL)  # Orbax tells of each step.
    options = flags.FLAGS
    with told_in_one_line("side_by_side"):
        name, protocol, rows = chosen(words[1:], options, TABLES_OF_VIDEO)
        if not options.png:
            raise InputError("wanted --png=FILE, the file to write")
        path = expanded(options.png)
        check_writable_file(path)
        drawn = draw(name, protocol, rows, seed=options.seed, count=options.sequences)
        write_whole(path, visualize.to_png(drawn))
        print(path)


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_integer("seed", 0, "of the runs", lower_bound=0)
    flags.DEFINE_integer("sequences", 3, "how many are shown, from the first on", lower_bound=1, upper_bound=16)
    flags.DEFINE_string("png", None, "the file to write")
    app.run(main)
