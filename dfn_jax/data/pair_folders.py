"""Finding rectified stereo pairs in a folder, in the layouts of KITTI or as left/ and right/."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dfn_jax import files
from dfn_jax.data.folders import cannot_be_read, existing_folder, hidden, list_images, natural_key, tell_of_dead_link
from dfn_jax.errors import InputError


@dataclass(frozen=True)
class Pair:
    """The files of one rectified stereo pair; `disparity` is on the grid of the left view, or None."""

    left: Path
    right: Path
    disparity: Path | None

    @property
    def files(self) -> list[Path]:
        """Those that are there."""
        return [path for path in (self.left, self.right, self.disparity) if path]


@dataclass(frozen=True)
class StereoSequence:
    """Pairs in order of time, named by their folder's path relative to the data folder."""

    name: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class _Layout:
    """Where the two views and the ground truth lie under a sequence's folder.

    Of KITTI's ground truth `noc` (points that both views see) comes before `occ` (all points): what only the left
    view sees has no place in the right view.
    """

    left: str
    right: str
    disparity: tuple[str, ...] = ()
    colour: bool = True

    def disparity_folder(self, folder: Path) -> Path | None:
        return next((folder / name for name in self.disparity if (folder / name).is_dir()), None)


_LAYOUTS = (
    _Layout("image_2", "image_3", ("disp_noc_0", "disp_occ_0")),  # KITTI 2015; KITTI odometry in colour
    _Layout("image_0", "image_1", ("disp_noc", "disp_occ"), colour=False),  # KITTI 2012; KITTI odometry in grey
    _Layout("colored_0", "colored_1", ("disp_noc", "disp_occ")),  # KITTI 2012 in colour
    _Layout("image_02/data", "image_03/data"),  # KITTI raw in colour
    _Layout("image_00/data", "image_01/data", colour=False),  # KITTI raw in grey
    _Layout("left", "right", ("disparity",)),
)
# Source: development kits of KITTI stereo 2012 and 2015, odometry and raw data, cvlibs.net/datasets/kitti.


def find_sequences(data_dir: str | Path, *, channels: int) -> list[StereoSequence]:
    """Finds every stereo sequence under a folder.

    Where a folder holds several pairs of views, the pair with ground truth is taken, then the one in colour for 3
    channels or in grey for 1.

    Args:
        data_dir: A sequence's folder or any folder above some.
        channels: 1 or 3.

    Returns:
        Sequences in natural order of their names, each with at least one pair.

    Raises:
        InputError: No folder, no pairs, a view without its partner, or a disparity map without its image.
    """
    root = existing_folder(data_dir)
    sequences = []
    for folder in _walk(root):
        layouts = [layout for layout in _LAYOUTS if (folder / layout.left).is_dir()]
        complete = [layout for layout in layouts if (folder / layout.right).is_dir()]
        if complete:
            best = max(
                complete,
                key=lambda layout: (layout.disparity_folder(folder) is not None, layout.colour == (channels == 3)),
            )
            pairs = _pair_files(folder, best)
            sequences += [StereoSequence(folder.relative_to(root).as_posix(), pairs)] if pairs else []
        elif layouts:
            raise InputError(
                f"found {folder / layouts[0].left} without its partner {layouts[0].right}; add the other view, or move "
                f"this one out of {root}"
            )
    if not sequences:
        wanted = ", ".join(f"{layout.left} + {layout.right}" for layout in _LAYOUTS)
        raise InputError(
            f"no stereo pairs under {root}: found none of the known folders with images; wanted {wanted}: check "
            "data.dir"
        )
    return sorted(sequences, key=lambda sequence: natural_key(sequence.name))


def fingerprint(data_dir: str | Path, *, channels: int) -> str:
    """Identifies the pairs of a folder, wherever it lies.

    Args:
        data_dir: As in `find_sequences`.
        channels: As in `find_sequences`.

    Raises:
        InputError: As in `find_sequences`.
    """
    sequences = find_sequences(data_dir, channels=channels)
    return files.fingerprint(
        existing_folder(data_dir), (path for one in sequences for pair in one.pairs for path in pair.files)
    )


def _walk(root: Path) -> Iterator[Path]:
    """Yields folders that may hold views, through links but no folder twice, and never a view's own folder."""
    views = {name.split("/")[0] for layout in _LAYOUTS for name in (layout.left, layout.right, *layout.disparity)}
    seen = set()
    for path, folders, names in os.walk(root, onerror=cannot_be_read, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:  # such as that of a sequence on a disk that is not there
            if not hidden(name):
                tell_of_dead_link(Path(path, name))
        folders[:] = [name for name in folders if name not in views and not hidden(name)]
        yield Path(path)


def _pair_files(folder: Path, layout: _Layout) -> tuple[Pair, ...]:
    left = {path.name: path for path in list_images(folder / layout.left)}
    right = {path.name: path for path in list_images(folder / layout.right)}
    for here, there, partner in ((left, right, layout.right), (right, left, layout.left)):
        lone = next((path for name, path in here.items() if name not in there), None)
        if lone:
            raise InputError(
                f"{lone} has no partner {folder / partner / lone.name}; both views need files of the same names: "
                "add the missing one or remove this one"
            )
    truth = _disparity_files(layout.disparity_folder(folder), {path.stem for path in left.values()})
    return tuple(Pair(path, right[name], truth.get(path.stem)) for name, path in left.items())


def _disparity_files(folder: Path | None, stems: set[str]) -> dict[str, Path]:
    """Lists ground truth by the stem of its image's name; images without any are no error, the reverse is."""
    found = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."] if folder else []
    for path in sorted(found):
        if path.suffix.lower() != ".png" or path.stem not in stems:
            raise InputError(
                f"disparity {path} belongs to no left image; wanted a 16-bit PNG named like its image: "
                "rename it or remove it"
            )
    return {path.stem: path for path in found}
