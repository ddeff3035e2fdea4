"""Writes a trained network as a program of its own: python -m dfn_jax.stablehlo --pretrained=NAME --file=FILE.

Parameters included, for any number of examples, on CPUs, GPUs and TPUs. Of a run: --workdir=DIR. To apply it, with
the packages `jax` and `flatbuffers` alone:

    network = jax.export.deserialize(bytearray(Path(FILE).read_bytes()))
    found = network.call(left)  # of stereo: {"right": [N, 64, 64, 1], "disparity": [N, 64, 64]}
"""

import jax
import jax.numpy as jnp
from absl import app, flags
from absl import logging as absl_logging
from jax import export
from ml_collections import ConfigDict

from dfn_jax import parallel, pretrained, recorded
from dfn_jax.config import check
from dfn_jax.errors import InputError, told_in_one_line
from dfn_jax.files import check_writable_file, expanded, write_whole
from dfn_jax.tasks import make_task_without_data
from dfn_jax.tasks.task import Params, Task
from dfn_jax.train import restore

PLATFORMS = ("cpu", "cuda", "tpu")


def exported(task: Task, params: Params) -> export.Exported:
    """Lowers a task's network.

    Args:
        task: what was trained.
        params: of its network; they become constants.

    Returns:
        The program: inputs [N, ...] -> arrays by name, as `Task.program` has them.

    Raises:
        InputError: the task's network makes nothing of images alone.
    """
    if task.program is None:
        raise InputError("this network makes nothing of images alone; there is no program to write")
    apply, shape = task.program
    (samples,) = export.symbolic_shape("N")
    inputs = jax.ShapeDtypeStruct((samples, *shape), jnp.float32)
    return export.export(jax.jit(lambda inputs: apply(params, inputs)), platforms=PLATFORMS)(inputs)


def _opened(name: str | None, workdir: str | None) -> tuple[ConfigDict, Params | None]:
    """The config and, of a pretrained network, the parameters."""
    if (name is None) == (workdir is None):
        raise InputError("wanted --pretrained=NAME or --workdir=DIR, one of the two")
    if name is not None:
        config, params, _ = pretrained.load(name)
        return config, params
    return recorded.get_config(workdir), None


def main(words: list[str]) -> None:
    """Runs what the flags say."""
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax tells of each step; what fails is told below.
    options = flags.FLAGS
    with told_in_one_line("stablehlo", interrupted="nothing is written"):
        if len(words) > 1:
            raise InputError(f"unexpected argument {words[1]!r}; wanted --pretrained=NAME --file=FILE")
        parallel.check_jax()
        file = expanded(options.file)
        check_writable_file(file)
        config, params = _opened(options.pretrained, options.workdir)
        check(config)
        task = make_task_without_data(config)
        params = restore(task, config, expanded(options.workdir)).params if params is None else params
        write_whole(file, bytes(exported(task, params).serialize()))
        print(file)


if __name__ == "__main__":
    flags.DEFINE_string("pretrained", None, "a network of dfn_jax/pretrained/")
    flags.DEFINE_string("workdir", None, "folder of a run")
    flags.DEFINE_string("file", None, "to write", required=True)
    app.run(main)
