"""What a run was begun with, as a config file: --config=dfn_jax/recorded.py:WORKDIR, or --workdir=WORKDIR alone."""

from ml_collections import ConfigDict

from dfn_jax.config import with_tuples
from dfn_jax.errors import InputError
from dfn_jax.files import expanded
from dfn_jax.workdir import recorded_entries


def get_config(workdir: str) -> ConfigDict:
    """The config that a run was begun with, or went on with.

    Args:
        workdir: folder of the run.

    Returns:
        The config.

    Raises:
        InputError: there is no run in the folder, or its config cannot be read.
    """
    entries = recorded_entries(expanded(workdir))
    if name := entries.get("pretrained"):
        raise InputError(f"{workdir} is no run, but of the pretrained network {name}; give --pretrained={name}")
    return ConfigDict(with_tuples(entries))
