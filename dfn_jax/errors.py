"""What may go wrong for reasons outside the code: programs tell it in one line, and exit with 1."""

import contextlib
import sys
from collections.abc import Iterator

from dfn_jax import preemption


class InputError(ValueError):
    """A command, config, file or folder that cannot be used: what was found, what was wanted, what to do."""


class DivergedError(RuntimeError):
    """Training that reached a number that is not finite."""


def in_one_line(error: object, most: int | None = None) -> str:
    """What an error says, without line breaks, cut to `most` characters."""
    return " ".join(str(error).split())[:most]


def out_of_memory(error: Exception) -> bool:
    """Whether memory was too small, of the host or of a device."""
    words = ("RESOURCE_EXHAUSTED", "Out of memory")  # the first also of a full disk, in Orbax's words
    said = not isinstance(error, OSError) and any(word in str(error) for word in words)
    return isinstance(error, MemoryError) or said


@contextlib.contextmanager
def told_in_one_line(
    program: str, *, interrupted: str = "what was saved is whole: give the same command (with the same --workdir) again"
) -> Iterator[None]:
    """What goes wrong outside the code ends the program with one line and exit code 1, or 75 where it was preempted.

    Args:
        program: its name.
        interrupted: what holds when it was interrupted by Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(f"{program}: interrupted; {interrupted}")
    except preemption.PreemptedError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(preemption.PREEMPTED)
    except Exception as error:
        if preemption.ending():  # A library took the one for another, as where a signal comes while it is imported.
            print(f"{program}: {preemption.ASKED}", file=sys.stderr)
            sys.exit(preemption.PREEMPTED)
        reason = in_one_line(error, 1000)
        if out_of_memory(error):
            reason = f"not enough memory ({reason[:200]}); make the batch, the images or the network smaller"
        elif not isinstance(error, InputError | DivergedError | OSError):
            raise
        sys.exit(f"{program}: error: {reason}")
