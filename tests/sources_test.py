"""Data by name: which are bound, how often, and what is told of names that there are not."""

import numpy as np
import pytest

from dfn_jax.errors import InputError
from dfn_jax.tasks import make_task
from dfn_jax.tasks.sources import Data, Source, bind
from tests.recipes import get_config


def numbered(number, bound):
    """A source that remembers when it is bound."""

    def make(config):
        bound.append(number)
        return Data(lambda step, indices=None: {"number": np.full(1, number)}, lambda: (f"set {number}", number))

    return make


def test_what_trains_and_what_tests_are_bound_by_their_names_and_once():
    bound = []
    sources = {
        "one": Source(numbered(1, bound)),
        "two": Source(numbered(2, bound), reads_folder=True, independent=False),
    }
    config = get_config("steerable", "smoke")
    config.data.name = "one"
    data = bind(config, sources)
    assert (data.trained, data.independent, bound) == (data.tested, True, [1])
    assert data.check_test() is None, "what is drawn needs no look before training"
    config.eval.name, config.eval.dir = "two", "folder"
    data = bind(config, sources)
    assert (int(data.trained.train_batch(0)["number"][0]), data.tested.test_set()) == (1, ("set 2", 2))
    assert (data.independent, bound) == (False, [1, 1, 2])
    assert data.check_test() == ("set 2", 2)


@pytest.mark.parametrize(
    ("experiment", "change", "told"),
    [
        ("stereo", {"data.name": "elsewhere"}, "config.data.name 'elsewhere'; choose one of: highway, pairs"),
        (
            "steerable",
            {"eval.name": "elsewhere"},
            "config.eval.name 'elsewhere'; choose one of: texture, images",
        ),
        (
            "highway",
            {"data.name": "moving_mnist"},
            "config.data.name 'moving_mnist'; choose one of: highway, video",
        ),
        ("moving_mnist", {"data.name": "highway"}, "config.data.name 'highway'; choose one of: moving_mnist$"),
        ("stereo", {"data.dir": "folder"}, "highway reads no folder; give --config.data.name=pairs too"),
    ],
)
def test_data_that_there_are_not_are_told(experiment, change, told):
    config = get_config(experiment, "smoke")
    config.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=told):
        make_task(config)
