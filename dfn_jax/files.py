"""Where files go, and writing them so that nothing half-written is ever taken for whole."""

import errno
import fcntl
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from dfn_jax.errors import InputError

SAMPLED, SAMPLED_BYTES = 64, 2**16  # files, and bytes of each, that a fingerprint reads


def cache_folder() -> Path:
    """The folder for what can be made again: `$XDG_CACHE_HOME/dfn_jax`, or `~/.cache/dfn_jax`.

    Raises:
        InputError: there is no home folder, and no other is named.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dfn_jax"
    except RuntimeError as error:
        raise InputError(
            "there is no home folder; set HOME, or XDG_CACHE_HOME to a folder for what can be made again"
        ) from error


def expanded(path: str | Path) -> Path:
    """A path with its `~` replaced by the home folder.

    Raises:
        InputError: there is no such user, or it is the address of a bucket, which would be a folder here.
    """
    if re.match(r"\w{2,}:/", str(path)):  # a `Path` has dropped a slash
        raise InputError(f"{path} is an address, not a folder; mount the bucket, and give the folder where it is")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: there is no such user; give the folder without ~") from error


def check_text(what: str, value: str) -> None:
    """Checks that reports can hold a name: that of a file may be of any bytes, which Python keeps as surrogates.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is {value!r}, which is not UTF-8; rename it") from error


def fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """Identifies the files of a folder, wherever it lies.

    Args:
        folder: absolute, or relative as the files are.
        files: in it.

    Returns:
        Their number, and a checksum of their names, sizes and, of up to SAMPLED of them, first bytes.
    """
    paths = sorted(files)
    sums = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in paths]
    for path in paths[:: -(-len(paths) // SAMPLED) or 1]:
        with path.open("rb") as file:
            sums.append(str(zlib.crc32(file.read(SAMPLED_BYTES))))
    return f"{len(paths)} files {zlib.crc32(json.dumps(sums).encode()):08x}"


def name_and_checksum(path: Path) -> str:
    """What a folder below a workdir is called that is about a path: many folders are called 'test'."""
    return f"{path.name}-{zlib.crc32(str(path).encode()):08x}"


def make_writable_folder(folder: Path) -> None:
    """Makes a folder where there is none, and tells before any work is done whether its results could be written.

    Raises:
        OSError: it cannot be made, or nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def check_writable_file(path: Path) -> None:
    """Tells before any work is done whether its result could be written to a file; makes the folder.

    Raises:
        InputError: the path is no file's.
        OSError: as in `make_writable_folder`.
    """
    if not path.name or (path.exists() and not path.is_file()):
        raise InputError(f"{path} is no file that can be written; give the name of one")
    make_writable_folder(path.parent)


def take_lock(file: int | IO[str], *, wait: bool) -> str:
    """Locks an open file or folder against other processes, until it is closed.

    Args:
        file: the file, or its descriptor.
        wait: for another process that holds it.

    Returns:
        Why the disk has no locks, as some network disks are mounted; empty where the lock is taken.

    Raises:
        BlockingIOError: another process holds it, and is not to be waited for.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        return error.strerror
    return ""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote; nothing where there is no such file.

    Raises:
        InputError: the file is damaged.
        OSError: it may not be read.
    """
    try:
        with np.load(path) as file:
            return dict(file)
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise
    except Exception as error:  # NumPy and its zip files raise whatever the lost bytes happen to lead to.
        raise InputError(f"{path} is damaged ({error}); remove it, or take it from the history") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces a file of arrays by name, kept as float32, as `write_whole` does."""
    content = io.BytesIO()
    np.savez_compressed(content, **{name: np.asarray(values, np.float32) for name, values in arrays.items()})
    write_whole(path, content.getvalue())


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces a file in one step: a reader finds the old content or the new, never a part, also after a crash.

    Args:
        path: of the file; its folder must exist.
        content: text, written as UTF-8, or bytes.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # else, after a loss of power, some disks have the new name with nothing in it
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
