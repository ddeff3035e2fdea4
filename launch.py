"""Trains and evaluates an experiment: python launch.py --config=experiments/stereo.py:quick [--workdir=DIR]."""

import logging
import os
import time
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from dfn_jax.errors import InputError, preempt_on_sigterm, told_in_one_line
from dfn_jax.huge_pages import restart_with_huge_pages

CONFIG = config_flags.DEFINE_config_file("config", None, "experiments/<name>.py[:preset]", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; a run begun there goes on. Default: a new one")
CACHE = flags.DEFINE_bool("compilation_cache", True, "keep compiled programs in ~/.cache/dfn_jax for the next run")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "join the other processes that the cluster started with this one")
COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, where no cluster says it")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "number of processes, with --coordinator")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0, with --coordinator")
PRETRAINED = flags.DEFINE_string("pretrained", None, "with --mode=evaluate: a network of dfn_jax/pretrained/")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "train (and then evaluate), or evaluate alone")


def main(_: list[str]) -> None:
    """Runs what the flags say."""
    # Libraries log a failure once per thread, with tracebacks, before they raise it; what is raised is told in `run`.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # that a GPU is there, but cannot be used
    from dfn_jax import experiment, processes
    from dfn_jax.config import check_text
    from dfn_jax.files import keep_compiled_programs
    from dfn_jax.provenance import hardware

    if CACHE.value:
        keep_compiled_programs()
    explicit = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if DISTRIBUTED.value or explicit != (None, None, None):
        if not WORKDIR.value:
            raise InputError("of many processes each needs the same --workdir, on a disk that all see")
        processes.join(*explicit)
    config, training, name = CONFIG.value, MODE.value == "train", PRETRAINED.value
    if not (training or name or WORKDIR.value):
        raise InputError("--mode=evaluate needs --workdir, the folder of the run that is to be evaluated")
    title = f"pretrained-{name}" if name else f"{config.experiment}-{config.preset}"
    workdir = Path(WORKDIR.value or time.strftime(f"workdirs/{title}-%Y%m%d-%H%M%S"))
    check_text("--workdir", str(workdir.absolute()))
    _check_devices()
    if processes.is_first():
        print(f"workdir: {workdir}\ndevices: {hardware()}", flush=True)
    if name:
        found = experiment.evaluate_pretrained(name, workdir, config)
    else:
        found = experiment.run(config, workdir, training=training)
    if found:
        folder, evaluation = found
        print(
            f"{evaluation.headline}\n\nreport: {folder / 'report' / 'index.html'}\nresults: {folder / 'results.json'}"
        )


def _check_devices() -> None:
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second where a GPU is asked for and there is none
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX finds no device with JAX_PLATFORMS={asked!r} ({str(error) or 'none of these is there'}); unset it, "
            "or name one that is there, such as cpu"
        ) from error


def _as_one_word(arguments: list[str]) -> list[str]:
    """Flags that name a recipe as --name=value, however they were written."""
    words, rest = [], iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if name.lstrip("-") in ("config", "pretrained") and name.startswith("-"):
            word = f"--{name.lstrip('-')}={value if equals else next(rest, '')}"
        words.append(word)
    return words


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags, the config file among them; what is wrong with them becomes an InputError."""
    # In place: the flags of a config's entries look for the config's file there.
    arguments[:] = _as_one_word(arguments)
    given = dict(word.split("=", 1) for word in arguments if word.startswith(("--config=", "--pretrained=")))
    if "--config" not in given and "--pretrained" in given:
        from dfn_jax.pretrained import recipe

        arguments.insert(1, f"--config={recipe.__file__}:{given['--pretrained']}")
    elif "--config" in given and not Path(file := given["--config"].partition(":")[0]).is_file():
        raise InputError(f"there is no file {file}; wanted a config, such as experiments/stereo.py:quick")
    try:
        rest = flags.FLAGS(arguments)
        config = CONFIG.value
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        if isinstance(error, KeyError | AttributeError):  # of an entry that the config has not
            which = " ".join(str(error.args[0]).split())
            if "get_config" in which:
                raise InputError(f"{given['--config']} is no config: it has no `get_config`") from error
            raise InputError(f"the config has no entry {which}; its file's `get_config` has all") from error
        # An error inside a config file comes with its traceback as text, of which the last line says what it is.
        reason = str(error).strip().splitlines()[-1].removeprefix("dfn_jax.errors.InputError: ")
        raise InputError(f"{reason}; see --help") from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; flags look like --config=experiments/stereo.py:quick")
    if PRETRAINED.value and (MODE.value != "evaluate" or DISTRIBUTED.value or COORDINATOR.value):
        raise InputError("--pretrained goes with --mode=evaluate, in one process")
    if config is None:
        raise InputError("no --config; for example --config=experiments/stereo.py:quick")
    return rest


def run() -> None:
    """Runs the program."""
    preempt_on_sigterm()
    with told_in_one_line("launch.py"):
        app.run(main, flags_parser=parse)


if __name__ == "__main__":
    restart_with_huge_pages()
    run()
