"""What may go wrong for reasons outside the code: programs tell it in one line, and exit with 1."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

PREEMPTED = 75  # exit code of a run that saved its state because SIGTERM asked it to end: start it again
_ASKED = "asked to end; what was saved is whole: give the same command again"
# SIGTERM came, and PreemptedError is on its way. No Event: its lock could be held by the very thread that a second
# signal interrupts.
_ending = False
_RAISED_AGAIN_AFTER = 0.1  # seconds
_tell_dropped = sys.unraisablehook


class InputError(ValueError):
    """A command, config, file or folder that cannot be used: what was found, what was wanted, what to do."""


class DivergedError(RuntimeError):
    """Training that reached a number that is not finite."""


class PreemptedError(BaseException):
    """A run that was asked to end early, and has saved what it trained; `launch.py` exits with 75.

    A signal raises it anywhere: like KeyboardInterrupt it is no Exception, so that whoever tells of a library's errors
    does not take it for one.
    """


def in_one_line(error: object, most: int | None = None) -> str:
    """What an error says, without line breaks, cut to `most` characters."""
    return " ".join(str(error).split())[:most]


def preempt_on_sigterm() -> None:
    """From now on SIGTERM raises PreemptedError, once; training itself listens in its own way, and saves first."""
    if threading.current_thread() is not threading.main_thread():
        return
    global _ending
    _ending = False
    signal.signal(signal.SIGTERM, _raise_preempted)
    sys.unraisablehook = _raise_again


def _raise_preempted(*_: object) -> None:
    global _ending
    if not _ending:  # What is done from then on is not to be cut short.
        _ending = True
        raise PreemptedError(_ASKED)


def _raise_again(dropped: Any) -> None:
    """Takes errors that Python drops, as those in callbacks of its garbage collector, where a signal may come too."""
    if not issubclass(dropped.exc_type, PreemptedError):
        _tell_dropped(dropped)
        return

    def send() -> None:
        global _ending
        _ending = False
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(_RAISED_AGAIN_AFTER, send)  # Raised at once, it would be dropped again.
    timer.daemon = True
    timer.start()


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
    except PreemptedError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(PREEMPTED)
    except Exception as error:
        if _ending:  # A library took the one for another, as where a signal comes while it is imported.
            print(f"{program}: {_ASKED}", file=sys.stderr)
            sys.exit(PREEMPTED)
        reason = in_one_line(error, 1000)
        if out_of_memory(error):
            reason = f"not enough memory ({reason[:200]}); make the batch, the images or the network smaller"
        elif not isinstance(error, InputError | DivergedError | OSError):
            raise
        sys.exit(f"{program}: error: {reason}")
