"""Preparing stereo pairs once, as a TFDS data set of one size in a cache folder, without TensorFlow."""

import contextlib
import hashlib
import io
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from dfn_jax.data.disparity import resize_disparity, to_right_grid
from dfn_jax.data.image_files import header_size, read_disparity, read_image, shrunk
from dfn_jax.data.pair_folders import Pair, StereoSequence
from dfn_jax.errors import InputError, in_one_line
from dfn_jax.files import cache_folder
from dfn_jax.progress import progress

_FORMAT = 2  # raise it when what is stored changes: prepared data of another format is then left alone
_PART_BYTES = 2**28  # TFDS needs TensorFlow to write a split of more than 1000 MiB
_STAGING = ".preparing-"
_STALE_SECONDS = 24 * 3600


@dataclass
class PairsConfig(tfds.core.BuilderConfig):
    """Which pairs are prepared, and to what: `image_size` (height, width) and 1 or 3 channels."""

    pairs: tuple[Pair, ...] = field(kw_only=True, repr=False)
    image_size: tuple[int, int] = field(kw_only=True)
    channels: int = field(kw_only=True)

    @property
    def has_truth(self) -> bool:
        """Whether any of the pairs has ground truth."""
        return any(pair.disparity for pair in self.pairs)

    @property
    def pairs_per_part(self) -> int:
        """How many pairs a TFDS split holds."""
        example_bytes = self.image_size[0] * self.image_size[1] * (2 * self.channels + 4)
        return max(1, _PART_BYTES // example_bytes)

    @property
    def parts(self) -> list[str]:
        """Names of the TFDS splits that together hold the pairs in order."""
        return [f"part_{part:05d}" for part in range(-(-len(self.pairs) // self.pairs_per_part))]


class _LocalInfo(tfds.core.DatasetInfo):
    """Data set info that never asks a server for what it may know of the data set."""

    def initialize_from_bucket(self) -> None:
        pass


class StereoPairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Rectified stereo pairs of one size, in order of sequence and time."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        height, width = self.builder_config.image_size
        view = tfds.features.Tensor(
            shape=(height, width, self.builder_config.channels), dtype=np.uint8, encoding="bytes"
        )
        features = {"left": view, "right": view}
        if self.builder_config.has_truth:
            features["disparity"] = tfds.features.Tensor(shape=(height, width), dtype=np.float32, encoding="bytes")
        return _LocalInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        pairs = enumerate(progress(config.pairs, desc="preparing pairs", unit=" pairs", leave=False, disable=None))
        return {part: self._generate_examples(itertools.islice(pairs, config.pairs_per_part)) for part in config.parts}

    def _generate_examples(self, pairs: Iterator[tuple[int, Pair]]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        config = self.builder_config
        for index, pair in pairs:
            example = _resized_views(pair, config.image_size, config.channels)
            if config.has_truth:
                example["disparity"] = _resized_truth(pair, config.image_size)
            yield index, example


def _resized_views(pair: Pair, image_size: tuple[int, int], channels: int) -> dict[str, np.ndarray]:
    views = {"left": read_image(pair.left, channels), "right": read_image(pair.right, channels)}
    if views["left"].size != views["right"].size:
        raise InputError(
            f"{pair.left} is {_size(views['left'])} but {pair.right} is {_size(views['right'])} (width x height); "
            "the views of a pair need the same size: rectify them to one size"
        )
    return {name: shrunk(view, image_size) for name, view in views.items()}


def _resized_truth(pair: Pair, image_size: tuple[int, int]) -> np.ndarray:
    if pair.disparity is None:
        return np.zeros(image_size, np.float32)
    disparity = read_disparity(pair.disparity)
    height, width = header_size(pair.left)
    if (height, width) != disparity.shape:
        raise InputError(
            f"{pair.disparity} is {disparity.shape[1]} x {disparity.shape[0]} but {pair.left} is {width} x {height} "
            "(width x height); ground truth lies on the grid of the left image: use the one that belongs to it"
        )
    return resize_disparity(to_right_grid(disparity), image_size)


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"


class PreparedPairs:
    """Prepared pairs by index, which tells in one line of those that cannot be read."""

    def __init__(self, records: Sequence[dict[str, np.ndarray]], folder: Path):
        self._records, self._folder = records, folder

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        try:
            return self._records[index]
        except Exception as error:  # ArrayRecord and TFDS raise whatever the lost bytes happen to lead to
            raise _cannot_be_read(self._folder, error) from error


def _cannot_be_read(folder: Path, error: Exception) -> InputError:
    return InputError(
        f"the prepared pairs in {folder} cannot be read ({in_one_line(error, 100)}); delete that folder, and they are "
        "prepared again"
    )


def prepared_source(
    data_dir: Path, sequences: list[StereoSequence], *, image_size: tuple[int, int], channels: int
) -> PreparedPairs:
    """Opens the prepared pairs, after preparing them where the cache does not hold them yet.

    The cache is keyed by the names, sizes and times of all files, the image size and the number of channels, so
    that a folder that has changed is prepared anew. A preparation goes into a folder of its own that takes its
    final name only when every record in it has been read back: what is interrupted is never taken for whole.

    Args:
        data_dir: The folder in which the sequences were found; only read.
        sequences: The pairs, in the order in which they are stored.
        image_size: (H, W) in pixels.
        channels: C, 1 or 3.

    Returns:
        Random-access source of {"left", "right": uint8 [H, W, C]} and, where any pair has ground truth,
        "disparity": float32 [H, W] on the grid of the right view, 0 where unknown.

    Raises:
        InputError: An image or disparity map cannot be used, or the cache cannot be written.
    """
    pairs = tuple(pair for sequence in sequences for pair in sequence.pairs)
    name = f"{image_size[0]}x{image_size[1]}x{channels}_{_fingerprint(data_dir, pairs, image_size, channels)}"
    config = PairsConfig(name=name, pairs=pairs, image_size=image_size, channels=channels)
    cache = cache_folder() / "pairs"
    folder = cache / StereoPairs.name / name
    if not folder.is_dir():
        size = f"{image_size[0]} x {image_size[1]}"
        print(f"preparing {len(pairs)} pairs of {data_dir} at {size} in {cache}", flush=True)
        try:
            _prepare(config, cache)
        except (OSError, RuntimeError) as error:  # ArrayRecord's writer raises RuntimeError on a full disk
            reason = getattr(error, "strerror", None) or in_one_line(error).rpartition("failed: ")[2].partition(";")[0]
            raise InputError(
                f"cannot write prepared pairs to {cache} ({reason}); make room there or choose another folder by the "
                "environment variable XDG_CACHE_HOME"
            ) from error
    try:
        source = PreparedPairs(_open(config, cache), folder)
    except Exception as error:  # as when a record is read
        raise _cannot_be_read(folder, error) from error
    source[0]
    return source


def _fingerprint(data_dir: Path, pairs: tuple[Pair, ...], image_size: tuple[int, int], channels: int) -> str:
    root = data_dir.resolve()
    files = [path for pair in pairs for path in pair.files]
    stats = [(path.relative_to(data_dir).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    content = json.dumps([_FORMAT, str(root), stats, image_size, channels])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _open(config: PairsConfig, folder: Path) -> Sequence[dict[str, np.ndarray]]:
    with _quiet():
        return StereoPairs(data_dir=folder, config=config).as_data_source("+".join(config.parts))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from printing what it does, and from warning that this data set is not one of its own."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _prepare(config: PairsConfig, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    _remove_stale(cache)
    final = cache / StereoPairs.name / config.name
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=cache, ignore_cleanup_errors=True) as staging:
        with _quiet():
            StereoPairs(data_dir=staging, config=config).download_and_prepare(
                file_format="array_record", download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        _read_back(config, Path(staging))
        final.parent.mkdir(exist_ok=True)
        try:
            (Path(staging) / StereoPairs.name / config.name).rename(final)
        except OSError:
            if not final.is_dir():  # else another process has prepared the same meanwhile
                raise


def _remove_stale(cache: Path) -> None:
    """Removes what preparations that were killed have left, unless so new that one may still be running."""
    for folder in cache.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder)


def _read_back(config: PairsConfig, folder: Path) -> None:
    """Reads every record once, because a full disk need not show while writing."""
    source = _open(config, folder)
    if len(source) != len(config.pairs):
        raise OSError(f"{len(source)} of {len(config.pairs)} pairs could be read back")
    for index in range(len(source)):
        try:
            source[index]
        except Exception as error:  # ArrayRecord and TFDS raise whatever the lost bytes happen to lead to
            raise OSError(f"pair {index} could not be read back") from error
