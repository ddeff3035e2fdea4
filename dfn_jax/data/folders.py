"""Folders of images: which files they hold, in which order, and what is told where one cannot be read."""

import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from dfn_jax.errors import InputError
from dfn_jax.files import expanded

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp")


def existing_folder(path: str | Path) -> Path:
    """Returns `path` as a Path with `~` expanded, or raises InputError where it is no folder."""
    folder = expanded(path)
    if not folder.is_dir():
        found = "is a file, not a folder" if folder.exists() else "does not exist"
        raise InputError(
            f"data folder {folder} {found}; give the folder that holds the data as config.data.dir or config.eval.dir"
        )
    return folder


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Lists image files by their suffix, numbers in names in numeric order, hidden files and folders left out.

    Args:
        folder: An existing folder.
        recursive: Whether to look into its subfolders, but for those that are links.

    Returns:
        Paths in natural order of their path relative to `folder`.
    """

    found = below(folder) if recursive else (path for path in folder.iterdir() if not hidden(path.name))
    # A link that leads nowhere is one of them, so that what is missing is told.
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()]
    return sorted(images, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def below(folder: Path) -> Iterator[Path]:
    """Goes through all files and folders below one, but for hidden ones, and for what is in folders that are links.

    Raises:
        InputError: a folder may not be read.
    """
    for path, folders, names in os.walk(folder, onerror=cannot_be_read):
        folders[:] = [name for name in folders if not hidden(name)]
        for found in (Path(path, name) for name in (*folders, *names) if not hidden(name)):
            tell_of_dead_link(found)
            yield found


def hidden(name: str) -> bool:
    """Whether a file or folder of that name is none of the user's data."""
    return name.startswith(".") or name == "lost+found"


def cannot_be_read(error: OSError) -> None:
    """What `os.walk` is to do about a folder that it may not look into: what it has would be left out."""
    raise InputError(
        f"{error.filename} cannot be read ({error.strerror}); give access to it, or move the data to a folder of "
        "their own"
    ) from error


@functools.cache  # Data are looked for several times.
def tell_of_dead_link(path: Path) -> None:
    """Tells of a link to what may have been a folder of data; one to a file is found where that is read."""
    if path.is_symlink() and not path.suffix and not path.exists():
        print(f"{path} is a link that leads nowhere: what it stands for is left out", file=sys.stderr)


def find_images(source: Path) -> list[Path]:
    """The image that a path names, or all those in and below the folder that it names, in natural order.

    Raises:
        InputError: there is none.
    """
    found = list_images(source, recursive=True) if source.is_dir() else [source]
    if not found:
        raise InputError(f"no images under {source}; give a folder with files {', '.join(IMAGE_SUFFIXES)}, or one")
    return found


def natural_key(name: str) -> list:
    """Returns a sorting key that puts `frame_2` before `frame_10`, so that order by name is order in time."""
    parts = [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r"([0-9]+)", name))]
    return [parts, name]  # `1.png` and `01.png` have the same parts
