"""The authors' recordings of highway driving as folders of images, which stereo and video read as they read any others.

    python -m dfn_jax.data.recordings --train=highwayDriving_train.h5 --test=highwayDriving_test.h5 --folder=FOLDER

The files are linked by the README of github.com/dbbert/dfn. Reading them takes h5py.
"""

import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from absl import app, flags

from dfn_jax.errors import InputError, told_in_one_line
from dfn_jax.files import expanded
from dfn_jax.progress import progress

VIEWS = {"left": "highway_L", "right": "highway_R"}  # names of their folders and of their arrays in the files


def write_folders(parts: dict[str, str | Path], folder: str | Path) -> None:
    """Writes FOLDER/PART/left/000000.png and so on, 8-bit grey images.

    Args:
        parts: paths of the HDF5 files, by the name of their part; each holds `highway_L` and `highway_R`, [T, 1, W, H],
            uint8, or floating-point in [0, 1], which is rounded to whole 255ths.
        folder: where to; it must not exist yet, and does not until all is written.

    Raises:
        InputError: h5py is missing, a file cannot be read, holds something else or is given twice, or the folder is
            there already; told before anything is written.
        OSError: the folder cannot be written.

    Source: the layout is that of the authors' `datasets/dataset_stereoPrediction.py`.
    """
    folder, paths = expanded(folder).resolve(), {part: expanded(path).resolve() for part, path in parts.items()}
    if folder.exists():
        raise InputError(f"{folder} is there already; give a folder that is not, or remove it")
    if len(set(paths.values())) < len(paths):
        raise InputError(f"{' and '.join(paths)} are the same file, {next(iter(paths.values()))}; give one for each")
    found = {part: _views(path) for part, path in paths.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        written = Path(temporary, folder.name)
        for part, views in found.items():
            for view, frames in views.items():
                _write_images(written / part / view, frames)
        written.replace(folder)


def _views(path: Path) -> dict[str, np.ndarray]:
    """Both views, uint8 [T, H, W]."""
    try:
        import h5py
    except ImportError as error:
        raise InputError("reading HDF5 files takes h5py, which is not installed; pip install h5py") from error
    try:
        with h5py.File(path) as file:
            found = {view: np.asarray(file[name]) for view, name in VIEWS.items()}
    except (OSError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read {' and '.join(VIEWS.values())} from {path} ({error}); give the authors' HDF5 file"
        ) from error
    for name, frames in zip(VIEWS.values(), found.values(), strict=True):
        _check(f"{name} of {path}", frames)
    if len({frames.shape for frames in found.values()}) > 1:
        raise InputError(f"the two views of {path} differ in shape, {[frames.shape for frames in found.values()]}")
    return {view: _as_bytes(frames)[:, 0].swapaxes(1, 2) for view, frames in found.items()}


def _check(name: str, frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[1] != 1 or 0 in frames.shape:
        raise InputError(f"{name} has the shape {frames.shape}; wanted [T, 1, W, H]")
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise InputError(f"{name} has the type {frames.dtype}; wanted uint8, or floating-point numbers from 0 to 1")
    if frames.dtype != np.uint8 and not (frames.min() >= 0 and frames.max() <= 1):
        raise InputError(f"{name} goes from {frames.min()} to {frames.max()}; wanted numbers from 0 to 1")


def _as_bytes(frames: np.ndarray) -> np.ndarray:
    return frames if frames.dtype == np.uint8 else np.rint(255 * frames).astype(np.uint8)


def _write_images(folder: Path, frames: np.ndarray) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for index, frame in enumerate(progress(frames, desc="/".join(folder.parts[-2:]), unit="image", leave=False)):
        Image.fromarray(frame).save(folder / f"{index:06}.png")


def main(words: list[str]) -> None:
    """Runs what the flags say."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # What is half-written goes.
    with told_in_one_line("recordings", interrupted="nothing is written"):
        if len(words) > 1:
            raise InputError(f"unexpected argument {words[1]!r}; wanted --train=FILE --test=FILE --folder=FOLDER")
        write_folders({"train": flags.FLAGS.train, "test": flags.FLAGS.test}, flags.FLAGS.folder)
    print(f"{flags.FLAGS.folder} is written")


if __name__ == "__main__":
    flags.DEFINE_string("train", None, "highwayDriving_train.h5")
    flags.DEFINE_string("test", None, "highwayDriving_test.h5")
    flags.DEFINE_string("folder", None, "to be made")
    flags.mark_flags_as_required(["train", "test", "folder"])
    app.run(main)
