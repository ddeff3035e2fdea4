"""Where files go, and writing them so that nothing half-written is ever taken for whole."""

import os
import tempfile
from pathlib import Path

from dfn_jax.errors import InputError


def cache_folder() -> Path:
    """The folder for what can be made again: `$XDG_CACHE_HOME/dfn_jax`, or `~/.cache/dfn_jax`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dfn_jax"


def expanded(path: str | Path) -> Path:
    """A path with its `~` replaced by the home folder.

    Raises:
        InputError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: there is no such user; give the folder without ~") from error


def keep_compiled_programs() -> None:
    """Compiles a program once for all runs on this machine."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def make_writable_folder(folder: Path) -> None:
    """Makes a folder where there is none, and tells before any work is done whether its results could be written.

    Raises:
        OSError: it cannot be made, or nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces a file in one step: a reader finds the old content or the new, never a part.

    Args:
        path: of the file; its folder must exist.
        content: text, written as UTF-8, or bytes.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
