"""Trains, evaluates or applies an experiment's network: python launch.py --config=experiments/stereo.py:quick."""

import logging
import time

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from dfn_jax.command_line import many_processes, parse
from dfn_jax.errors import told_in_one_line
from dfn_jax.huge_pages import restart_with_huge_pages
from dfn_jax.preemption import preempt_on_sigterm

MODES = {
    "train": "train, or go on, and then evaluate",
    "evaluate": "measure a trained network",
    "predict": "apply one to images or clips of which only the network's input is known",
}
CONFIG = config_flags.DEFINE_config_file("config", None, "experiments/<name>.py[:preset]", lock_config=True)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run; a run begun there is resumed, without --config by its own. Default: a new one"
)
MODE = flags.DEFINE_enum("mode", "train", list(MODES), "; ".join(f"{name}: {said}" for name, said in MODES.items()))
PRETRAINED = flags.DEFINE_string("pretrained", None, "to evaluate or apply a network of dfn_jax/pretrained/")
INPUT = flags.DEFINE_string("input", None, "with --mode=predict: an image or clip, or a folder of them")
CACHE = flags.DEFINE_bool(
    "compilation_cache", True, "keep compiled programs in ~/.cache/dfn_jax for the next run, in one process"
)
flags.DEFINE_bool("distributed", False, "join the other processes that the cluster started with this one")
COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, if the cluster does not provide it")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "number of processes, with --coordinator")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0, with --coordinator")


def main(_: list[str]) -> None:
    """Runs what the flags say."""
    # Libraries log a failure once per thread, with tracebacks, before they raise it; what is raised is told in `run`.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # that a GPU is there, but cannot be used
    import jax

    from dfn_jax import experiment, parallel, processes
    from dfn_jax.files import cache_folder, check_text, expanded
    from dfn_jax.provenance import hardware

    if many_processes(flags.FLAGS):
        # Without the cache, which JAX writes for the first process alone: where that one found its programs and others
        # compiled, they would wait, on GPUs, for measurements that it does not make.
        processes.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    elif CACHE.value:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    config, name = CONFIG.value, PRETRAINED.value
    title = f"pretrained-{name}" if name else f"{config.get('experiment')}-{config.get('preset')}"
    workdir = expanded(WORKDIR.value or time.strftime(f"workdirs/{title}-%Y%m%d-%H%M%S"))
    check_text("--workdir", str(workdir.absolute()))
    parallel.check_jax()
    if processes.is_first():
        print(f"workdir: {workdir}\ndevices: {hardware()}", flush=True)
    if MODE.value == "predict":
        if name:
            folder = experiment.predict_by_pretrained(name, workdir, INPUT.value, config)
        else:
            folder = experiment.predict(config, workdir, INPUT.value)
        print(f"predictions, pictures (.png) and their arrays (.npz): {folder}")
        return
    if name:
        found = experiment.evaluate_pretrained(name, workdir, config)
    else:
        found = experiment.run(config, workdir, training=MODE.value == "train")
    if found:
        folder, evaluation = found
        print(
            f"{evaluation.headline}\n\nreport: {folder / 'report' / 'index.html'}\nresults: {folder / 'results.json'}"
        )


def run() -> None:
    """Runs the program."""
    preempt_on_sigterm()
    with told_in_one_line("launch.py"):
        app.run(main, flags_parser=parse)


if __name__ == "__main__":
    restart_with_huge_pages()
    run()
