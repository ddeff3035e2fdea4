"""The recipes: their networks have exactly the published numbers of parameters, and every preset is whole."""

import importlib
import math

import jax
import pytest

from dfn_jax.config import check
from dfn_jax.errors import InputError
from dfn_jax.tasks import make_task

EXPERIMENTS = ("steerable", "stereo", "moving_mnist", "highway")


def get_config(experiment, *preset):
    return importlib.import_module(f"experiments.{experiment}").get_config(*preset)


@pytest.mark.parametrize(
    ("experiment", "model", "published"),
    [
        ("moving_mnist", "dfn", 637_361),
        ("moving_mnist", "twin", 637_443),
        ("highway", "dfn", 368_122),
        ("highway", "twin", 368_245),
        ("stereo", "dfn", 464_494),
        ("stereo", "twin", 464_509),
    ],
)
def test_the_paper_recipe_has_the_published_parameters(experiment, model, published, monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    config = get_config(experiment)
    config.model.name = model
    shapes = jax.eval_shape(make_task(config).init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == published


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_presets(experiment):
    for preset in ("paper", "quick", "smoke"):
        config = get_config(experiment, preset)
        check(config)
        assert (config.experiment, config.preset) == (experiment, preset)
    assert get_config(experiment) == get_config(experiment, "paper")
    with pytest.raises(InputError, match="paper, quick, smoke"):
        get_config(experiment, "fast")
