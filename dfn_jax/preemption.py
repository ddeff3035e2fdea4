"""SIGTERM, which schedulers send before they take a machine away: what is saved stays whole, and the program ends."""

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

PREEMPTED = 75  # exit code of a run that saved its state because SIGTERM asked it to end: start it again
ASKED = "asked to end; what was saved is whole: give the same command again"
# SIGTERM came, and PreemptedError is on its way. No Event: its lock could be held by the very thread that a second
# signal interrupts.
_ending = False
_RAISED_AGAIN_AFTER = 0.1  # seconds
_tell_dropped = sys.unraisablehook
_CALLS = itertools.count(1)  # of a process, over all its runs


class PreemptedError(BaseException):
    """A run that was asked to end early, and has saved what it trained; `launch.py` exits with 75.

    A signal raises it anywhere: like KeyboardInterrupt it is no Exception, so that whoever tells of a library's errors
    does not take it for one.
    """


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
        raise PreemptedError(ASKED)


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


def ending() -> bool:
    """Whether SIGTERM came, and the program is about to end."""
    return _ending


@contextlib.contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Whether to end now: schedulers send SIGTERM before they take a machine away.

    Of many processes, which must ask equally often, all end at the same time; JAX itself then listens and agrees on the
    call at which it says so, the one after the last that any has made.
    """
    import jax  # Programs that only look at their flags do without.

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield lambda: multihost_utils.reached_preemption_sync_point(next(_CALLS))
        return
    asked: list[bool] = []  # No Event: its lock could be held by the very thread that a second signal interrupts.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Only the main thread may listen to signals.
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield lambda: bool(asked)
    finally:
        # A program that ends on the first signal is not to be cut short by a second.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if asked and callable(before) else before)
