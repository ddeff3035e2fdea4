"""Pictures of handwritten digits, 28x28: MNIST from its IDX files or from TFDS, or drawn ones that need no download."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dfn_jax.data.drawn_digits import SIZE, drawn_digits
from dfn_jax.data.folders import existing_folder
from dfn_jax.errors import InputError
from dfn_jax.files import expanded

IDX_FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
IDX_MAGIC = 0x00000803  # unsigned bytes in three dimensions
DRAWN = {"train": (0, 5_000), "test": (1, 1_000)}  # seed and number


def choose_source(named: str, folder: str) -> tuple[str, str]:
    """Decides where the digits come from.

    Args:
        named: 'mnist', 'tfds', 'drawn', or empty: MNIST where a folder is given or DFN_DATA has a folder `mnist`, and
            otherwise drawn ones.
        folder: that the config names; may be empty.

    Returns:
        The source's name, and its folder ('' for drawn digits, and for TFDS's own default).

    Raises:
        InputError: the source is unknown, or needs a folder that nothing names.
    """
    if named and named not in SOURCES:
        raise InputError(f"unknown config.data.digits {named!r}; choose one of: {', '.join(SOURCES)}")
    if named == "drawn" and folder:
        raise InputError(f"config.data.dir is {folder!r}, but drawn digits read no folder; leave out one of the two")
    common = os.environ.get("DFN_DATA", "")
    if not folder and named in ("", "mnist") and common and (mnist := expanded(common) / "mnist").is_dir():
        folder = str(mnist)
    if named == "mnist" and not folder:
        raise InputError(
            "MNIST digits need a folder: give --config.data.dir=FOLDER with its IDX files, or set the environment "
            "variable DFN_DATA to a folder that holds them in `mnist`"
        )
    return named or ("mnist" if folder else "drawn"), str(expanded(folder)) if folder else ""


def load_digits(source: str, folder: str, split: str) -> np.ndarray:
    """Loads all digits of a split.

    Args:
        source: 'mnist' (IDX files), 'tfds' or 'drawn'.
        folder: of the files; of TFDS's data sets, or empty for its default; not used for drawn digits.
        split: 'train' or 'test'.

    Returns:
        uint8 [D, 28, 28], white on black.

    Raises:
        InputError: the files are missing, damaged or of another kind.
    """
    return SOURCES[source](folder, split)


def _from_idx(folder: str, split: str) -> np.ndarray:
    found = [
        path
        for name in (IDX_FILES[split], IDX_FILES[split].replace("-idx", ".idx"))
        for path in (existing_folder(folder) / name, existing_folder(folder) / f"{name}.gz")
        if path.is_file()
    ]
    if not found:
        raise InputError(f"{folder} has no {IDX_FILES[split]} nor {IDX_FILES[split]}.gz; put MNIST's IDX files there")
    return read_idx(found[0])


def read_idx(path: Path) -> np.ndarray:
    """Reads images from an IDX file, gzip or plain.

    Args:
        path: the file.

    Returns:
        uint8 [D, 28, 28].

    Raises:
        InputError: the file cannot be read, has another magic number or size, or holds less or more than it says.

    Source:
        https://yann.lecun.com/exdb/mnist
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path} ({error}); get the file again") from error
    if len(content) < 16:
        raise InputError(f"{path} has {len(content)} bytes, less than an IDX header of 16; get the file again")
    magic, count, height, width = struct.unpack(">4I", content[:16])
    if magic != IDX_MAGIC:
        raise InputError(f"{path} begins with {magic:#010x}, where IDX images have {IDX_MAGIC:#010x}; is it of MNIST?")
    if (height, width) != (SIZE, SIZE) or not count:
        raise InputError(f"{path} has {count} images of {height}x{width}; wanted one or more of {SIZE}x{SIZE}")
    if len(content) != 16 + count * SIZE**2:
        raise InputError(
            f"{path} holds {len(content) - 16} bytes of pixels where {count} images need {count * SIZE**2}; "
            "get the file again"
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, SIZE, SIZE)


def _from_tfds(folder: str, split: str) -> np.ndarray:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder("mnist", data_dir=folder or None, file_format="array_record")
        prepared = bool(builder.info.splits)
    except ValueError:  # prepared in another format, such as TFDS's default, which needs TensorFlow
        prepared = False
    if not prepared:
        raise InputError(
            f"TFDS has no mnist prepared as array_record in {folder or 'its default folder'}; prepare it where "
            "there is a network, by tfds.builder('mnist', file_format='array_record').download_and_prepare(), "
            "or give the IDX files"
        )
    return np.stack([example["image"][..., 0] for example in builder.as_data_source(split)])


def _drawn(_: str, split: str) -> np.ndarray:
    seed, count = DRAWN[split]
    return drawn_digits(seed, count)


SOURCES: dict[str, Callable[[str, str], np.ndarray]] = {"mnist": _from_idx, "tfds": _from_tfds, "drawn": _drawn}
