"""Checkpoints: Orbax writes them in the background, and a run that is started again goes on from the newest whole one.

Every checkpoint carries a fingerprint of its arrays: Orbax reads overwritten bytes as wrong numbers, without an error.
"""

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from dfn_jax import processes
from dfn_jax.errors import InputError, in_one_line, out_of_memory
from dfn_jax.files import write_whole

KEEP = 3  # newest checkpoints that stay, beside the one of the lowest loss
_PAUSES_S = (0, 1)  # seconds before each attempt to read a checkpoint, after which it counts as damaged


def check_path(workdir: Path) -> None:
    """Checks that checkpoints in a workdir could be read again.

    Raises:
        InputError: its path is another one to Orbax, which reads a bracket as a pattern, and a backslash as a slash.
    """
    if wrong := [sign for sign in "[\\" if sign in str(workdir.absolute())]:
        raise InputError(
            f"checkpoints in {workdir.absolute()} could not be read again, because of {' and '.join(wrong)} in the "
            "path; choose a --workdir without"
        )


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Not its business: JAX agrees on one number of all that ask, and training counts otherwise than by steps."""
        del step
        return False


class Checkpoints:
    """The checkpoints of one workdir; a context, on whose end all are on disk."""

    def __init__(self, workdir: Path, *, read_only: bool = False):
        self._folder = workdir.absolute() / "checkpoints"
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"{self._folder} is not a folder; move it away, or choose another --workdir")
        self._best = _Best(workdir / "best_checkpoint.json", writing=not read_only and processes.is_first())
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(KEEP), self._best]),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        try:
            self._manager = _Manager(self._folder, options=options)
        except (ValueError, TypeError, AttributeError) as error:  # of a damaged _CHECKPOINT_METADATA
            reason = in_one_line(error, 200)
            raise InputError(
                f"the checkpoints in {self._folder} cannot be listed ({reason}); move away the one whose "
                "_CHECKPOINT_METADATA is damaged"
            ) from error
        self._best.forget_unless(self._manager.all_steps())

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
        except jax.errors.JaxRuntimeError:
            raise  # of a device, or of another process that was lost
        except (OSError, RuntimeError, ValueError) as error:
            reason = in_one_line(error, 300)
            raise OSError(
                f"a checkpoint could not be written to {self._folder} ({reason}); earlier checkpoints are whole: make "
                "room and run the same command again"
            ) from error

    def save(self, step: int, state: Any, loss: float | None) -> None:
        """Begins to write a state; returns as soon as it is copied from the device.

        Args:
            step: number of steps taken so far.
            state: pytree of arrays.
            loss: by which the best is chosen; None where it is not to be compared with others.

        Raises:
            OSError: this checkpoint, or the one before in the background, could not be written.
        """
        if processes.broadcast(step not in self._manager.all_steps()):
            prints = jax.device_get(fingerprint(state)).tolist()
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), fingerprint=ocp.args.JsonSave(prints))
            with self._reported():
                if loss is not None:
                    self._manager.wait_until_finished()  # It falls back on the best one before, which must be whole.
                    self._best.offer(step, loss)
                self._manager.save(step, args=items)

    def any(self) -> bool:
        """Whether there is a checkpoint, whole or damaged; all processes must ask."""
        return processes.broadcast(bool(self._manager.all_steps()))

    def restore(self, like: Any, *, best: bool = False) -> Any:
        """Reads the newest checkpoint that is whole; those that are not are named on the standard error output.

        Args:
            like: arrays, or `jax.ShapeDtypeStruct`s, with the shapes, dtypes and shardings that are wanted.
            best: begin with the checkpoint of the lowest loss instead.

        Returns:
            The state.

        Raises:
            InputError: there is none, or none can be read into such a state.
        """
        damages = []
        # All processes must read the same ones, in the same order.
        steps, lowest = processes.broadcast((sorted(self._manager.all_steps(), reverse=True), self._best.step))
        if best and steps and lowest is None:
            raise InputError(f"it is not known which checkpoint in {self._folder} is the best; leave out eval.best")
        if best:
            steps.sort(key=lambda step: step != lowest)
        for step in steps:
            state, saved = None, None
            processes.wait_for_file(self._folder / str(step) / "_CHECKPOINT_METADATA")
            for pause in _PAUSES_S:  # A network disk may fail once.
                time.sleep(pause)
                reason = "another process could not"
                try:
                    state, saved = self._read(step, like)
                    break
                except Exception as error:  # Orbax raises whatever the lost bytes happen to lead to.
                    if isinstance(error, jax.errors.JaxRuntimeError) or out_of_memory(error):
                        raise
                    reason = f"{type(error).__name__}: {in_one_line(error, 200)}"
            # Processes may share the arrays: only where all have their part can any be looked at.
            if processes.all_gather(state is not None).all():
                if processes.all_gather(jax.device_get(fingerprint(state)).tolist() == saved).all():
                    for damage in damages:
                        print(f"{damage}; going on from that of step {step}", file=sys.stderr)
                    return state
                reason = "its numbers are not those that were saved"
            damages.append(f"checkpoint {self._folder / str(step)} cannot be read ({reason})")
        if damages:
            raise InputError(f"{'; '.join(damages)}; there is no other one. Start again with another --workdir")
        raise InputError(f"{self._folder} holds no checkpoint; train first, with the same --workdir")

    def _read(self, step: int, like: Any) -> tuple[Any, list[int]]:
        """This process's part of a state, and the fingerprint that was saved with the whole."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), fingerprint=ocp.args.JsonRestore())
        # By itself: otherwise one that can read would wait within Orbax for one that cannot.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        options = ocp.CheckpointManagerOptions(read_only=True, create=False, multiprocessing_options=alone)
        with ocp.CheckpointManager(self._folder, options=options) as manager:
            found = manager.restore(step, args=items)
        return found.state, found.fingerprint

    def set_aside_after(self, step: int) -> None:
        """Moves checkpoints after a step, which could not be read, to `damaged_checkpoints`, beside the folder."""
        later = processes.broadcast([newer for newer in self._manager.all_steps() if newer > step])
        for newer in later:
            aside = self._folder.with_name("damaged_checkpoints")
            aside.mkdir(exist_ok=True)
            number = sum(1 for _ in aside.glob(f"{newer}-*"))
            if processes.is_first():
                shutil.move(self._folder / str(newer), aside / f"{newer}-{number}")  # `checkpoints` may be a link
        if later:
            processes.barrier("damaged checkpoints are set aside")
            self._manager.reload()
            self._best.forget_unless(self._manager.all_steps())


class _Best(policies.PreservationPolicy):
    """The step of the lowest loss, in a file of its own: Orbax does not open at all where its own book is damaged."""

    def __init__(self, path: Path, *, writing: bool):
        self._path, self._writing = path, writing
        self._noted: list[tuple[int, float]] = []  # step and loss of the best, and of what was the best before it
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
            found = json.loads(path.read_text())
            self._noted.append((int(found["step"]), float(found["loss"])))
            self._noted.append((int(found["before"]["step"]), float(found["before"]["loss"])))

    @property
    def step(self) -> int | None:
        """Of the best; None where none is known."""
        return self._noted[0][0] if self._noted else None

    def offer(self, step: int, loss: float) -> None:
        """Takes note of a checkpoint that is about to be written."""
        lowest = self._noted[0][1] if self._noted else float("inf")
        # The same step again: a run that goes on from before it writes it anew.
        if loss < lowest or step == self.step:
            self._note([(step, loss), *(one for one in self._noted if one[0] != step)])

    def forget_unless(self, steps: Sequence[int]) -> None:
        """Forgets a checkpoint that is not there: one that is not finished, or never was, or that was set aside."""
        if self.step not in steps:
            self._note([one for one in self._noted if one[0] in steps])

    def _note(self, noted: list[tuple[int, float]]) -> None:
        self._noted = noted[:2]
        if self._noted and self._writing:
            best, *before = ({"step": step, "loss": loss} for step, loss in self._noted)
            write_whole(self._path, json.dumps(best | ({"before": before[0]} if before else {})) + "\n")

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which checkpoints stay."""
        return [checkpoint.step == self.step for checkpoint in checkpoints]


@jax.jit
def fingerprint(state: Any) -> jax.Array:
    """One number for each array, which changes with any of its bits; the same on any number of devices.

    Args:
        state: pytree of arrays.

    Returns:
        [arrays] uint32: sums of the arrays' bits, modulo 2**32, each word times an odd number of its own.
    """

    def of(array: jax.Array) -> jax.Array:
        word = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
        bits = array.astype(word) if array.dtype == bool else jax.lax.bitcast_convert_type(array, word)
        bits = bits.reshape(-1).astype(jnp.uint32)
        return jnp.sum(bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1), dtype=jnp.uint32)

    return jnp.stack([of(leaf) for leaf in jax.tree.leaves(state)])
