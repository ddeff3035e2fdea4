"""Checkpoints: Orbax writes them in the background, and a run that is started again goes on from the newest."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from dfn_jax.errors import InputError

KEEP = 3  # newest checkpoints that stay


class Checkpoints:
    """The checkpoints of one workdir; a context, on whose end all are on disk."""

    def __init__(self, workdir: Path):
        self._folder = workdir.absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(KEEP),
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError) if error else contextlib.nullcontext(), self._reported():
            self._manager.close()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turns what Orbax raises when it cannot write, from whichever thread, into one OSError."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise OSError(
                f"a checkpoint could not be written to {self._folder} ({reason}); earlier checkpoints are whole: make "
                "room and run the same command again"
            ) from error

    def save(self, step: int, state: Any) -> None:
        """Begins to write a state; returns as soon as it is copied from the device.

        Args:
            step: number of steps taken so far.
            state: pytree of arrays.

        Raises:
            OSError: this checkpoint, or the one before in the background, could not be written.
        """
        if step not in self._manager.all_steps():
            with self._reported():
                self._manager.save(step, args=ocp.args.StandardSave(state))

    def newest(self) -> int | None:
        """The newest checkpoint's step, or None."""
        return self._manager.latest_step()

    def restore(self, like: Any) -> Any:
        """Reads the newest checkpoint.

        Args:
            like: a state with the shapes, dtypes and shardings that are wanted.

        Returns:
            The state.

        Raises:
            InputError: there is none, or it cannot be read into such a state.
        """
        step = self.newest()
        if step is None:
            raise InputError(f"{self._folder} holds no checkpoint; train first, with the same --workdir")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"checkpoint {self._folder / str(step)} cannot be read ({reason}); delete that folder to go on from "
                "an older one"
            ) from error
