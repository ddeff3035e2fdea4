"""The flags of `launch.py`, read and checked: what is wrong with them is told in one line."""

import traceback
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from dfn_jax.errors import InputError, in_one_line

_NAMING = ("config", "pretrained", "workdir")  # the flags that name a recipe


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags, the config file among them.

    Args:
        arguments: of the program, its name first; how they are written may be changed.

    Returns:
        The program's name.

    Raises:
        InputError: a flag, an entry of the config or its value cannot be used, or flags do not go together.
    """
    # In place: the flags of a config's entries look for the config's file there.
    arguments[:] = _as_one_word(arguments)
    given = dict(word.split("=", 1) for word in arguments if word.startswith(tuple(f"--{name}=" for name in _NAMING)))
    in_file = any(word.startswith(("--flagfile", "-flagfile")) for word in arguments)
    if given.get("--workdir") == "":
        raise InputError("--workdir is empty; give a folder, or leave it out")
    here = Path(__file__).parent
    if "--config" not in given and "--pretrained" in given:
        arguments.insert(1, f"--config={here / 'pretrained' / 'recipe.py'}:{given['--pretrained']}")
    elif "--config" not in given and "--workdir" in given and not in_file:
        arguments.insert(1, f"--config={here / 'recorded.py'}:{given['--workdir']}")
    elif "--config" in given:
        file = Path(given["--config"].partition(":")[0])
        if not file.is_file() or file.suffix != ".py":
            what = f"{file} is no Python file" if file.is_file() else f"there is no file {file}"
            raise InputError(f"{what}; wanted a config, such as experiments/stereo.py:quick")
    try:
        rest = flags.FLAGS(arguments)
        config = flags.FLAGS.config
        getattr(config, "keys", None)  # One whose file could not be read says so when it is used.
    except Exception as error:  # A config file may raise anything.
        if where := _line_in(given.get("--config", ""), error):
            raise InputError(f"{where}: {type(error).__name__}: {in_one_line(error)}") from error
        if isinstance(error, KeyError | AttributeError):  # of an entry that the config does not have
            which = in_one_line(error.args[0]).strip("'\"")
            if "get_config" in which:
                raise InputError(f"{given['--config']} is no config: it has no `get_config`") from error
            raise InputError(f"the config has no entry {which!r}; `get_config` in its file lists them all") from error
        if isinstance(error, IndexError):
            raise InputError(f"{in_one_line(error)}; give the whole tuple, in quotes") from error
        # An error inside a config file comes with its traceback as text, of which the last line says what it is.
        reason = str(error).strip().splitlines()[-1].removeprefix("dfn_jax.errors.InputError: ")
        raise InputError(f"{reason}; see --help") from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; flags look like --config=experiments/stereo.py:quick")
    if "--config" in given and not isinstance(config, ConfigDict):
        raise InputError(f"`get_config` in {given['--config']} returns {type(config).__name__}; wanted a ConfigDict")
    if config is None:
        other = "" if flags.FLAGS.mode == "train" else ", or --pretrained=stereo"
        raise InputError(f"no --config; for example --config=experiments/stereo.py:quick{other}")
    _check_together(flags.FLAGS)
    return rest


def _line_in(config: str, error: Exception) -> str:
    """Where in the file of a config an error was raised, as FILE, line N; empty where it was not raised there."""
    file = Path(config.partition(":")[0])
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file.absolute()
    ]
    if isinstance(error, SyntaxError) and Path(error.filename or "") == file.absolute():
        lines = [error.lineno]
    return f"{file}, line {lines[-1]}" if lines else ""


def _as_one_word(arguments: list[str]) -> list[str]:
    """Flags of `_NAMING` as --name=value, however they were written."""
    words, rest = [], iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if name.lstrip("-") in _NAMING and name.startswith("-"):
            word = f"--{name.lstrip('-')}={value if equals else next(rest, '')}"
        words.append(word)
    return words


def many_processes(given: flags.FlagValues) -> bool:
    """Whether this process is to join others."""
    return given.distributed or (given.coordinator, given.num_processes, given.process_id) != (None, None, None)


def _check_together(given: flags.FlagValues) -> None:
    """Checks that flags go with the mode, and with each other."""
    many = many_processes(given)
    if given.pretrained and (given.mode == "train" or many):
        further = "" if many else f"; to train from its weights, give --config.train.init_from={given.pretrained}"
        raise InputError(f"--pretrained goes with --mode=evaluate or --mode=predict, in one process{further}")
    if given.mode == "predict" and many:
        raise InputError("--mode=predict runs in one process")
    if many and not given.workdir:
        raise InputError("of many processes each needs the same --workdir, on a disk that all see")
    if not (given.mode == "train" or given.pretrained or given.workdir):
        raise InputError(f"--mode={given.mode} needs --workdir, the folder of the run whose network it is")
    if (given.mode == "predict") != bool(given.input):
        raise InputError("--mode=predict and --input=PATH, what to predict from, go together")
