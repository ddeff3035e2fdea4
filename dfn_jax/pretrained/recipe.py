"""What a pretrained network was trained with, as a config file: --config=dfn_jax/pretrained/recipe.py:NAME."""

from ml_collections import ConfigDict

from dfn_jax import pretrained


def get_config(name: str) -> ConfigDict:
    """The config that a pretrained network was trained with.

    Args:
        name: one of `pretrained.names()`.

    Returns:
        The config.

    Raises:
        InputError: there is no such network, or its files cannot be read.
    """
    return pretrained.load(name)[0]
