"""What may go wrong for reasons outside the code; `launch.py` prints the one-line message and exits with 1."""

import signal
import threading

PREEMPTED = 75  # exit code of a run that saved its state because SIGTERM asked it to end: start it again


class InputError(ValueError):
    """A command, config, file or folder that cannot be used: what was found, what was wanted, what to do."""


class DivergedError(RuntimeError):
    """Training that reached a number that is not finite."""


class PreemptedError(RuntimeError):
    """A run that was asked to end early, and has saved what it trained; `launch.py` exits with 75."""


def preempt_on_sigterm() -> None:
    """From now on SIGTERM raises PreemptedError; training itself listens in its own way, and saves first."""

    def raise_error(*_: object) -> None:
        raise PreemptedError("asked to end; the same command goes on from what is saved")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, raise_error)
