"""What may go wrong for reasons outside the code; `launch.py` prints the one-line message and exits with 1."""


class InputError(ValueError):
    """A command, config, file or folder that cannot be used: what was found, what was wanted, what to do."""


class DivergedError(RuntimeError):
    """Training that reached a number that is not finite."""


class PreemptedError(RuntimeError):
    """Training that was asked to end before its last step, and has saved its state; `launch.py` exits with 75."""
