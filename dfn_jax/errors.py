"""The one exception that a person's input may cause."""


class InputError(ValueError):
    """A command, config, file or folder that cannot be used.

    The message is one line: what was found, what was wanted, what to do. `launch.py` prints it and exits with 1.
    """
