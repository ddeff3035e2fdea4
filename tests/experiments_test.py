"""The recipes: every preset is whole, and trains what it says, in the precision and colours that it says."""

import functools
import importlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dfn_jax import recorded
from dfn_jax.config import check
from dfn_jax.errors import InputError
from dfn_jax.experiment import run
from dfn_jax.optimisers import make_optimiser
from dfn_jax.tasks import make_task
from dfn_jax.tasks.task import TEST_SEED
from dfn_jax.train_step import make_state, make_train_step
from tests.recipes import EXPERIMENTS, get_config

OPTIONAL = {"train.init_from", "optim.ema_decay"}  # entries that a recipe may lack


@pytest.mark.parametrize(
    ("experiment", "preset"), [*((experiment, "smoke") for experiment in EXPERIMENTS), ("moving_mnist", "conv_lstm")]
)
def test_networks_compute_in_the_precision_asked_for(experiment, preset, monkeypatch):
    monkeypatch.delenv("DFN_DATA", raising=False)
    config = get_config(experiment, preset)
    for precision, halves in (("float32", False), ("bfloat16", True)):
        config.precision = precision
        task = make_task(config)
        params = jax.eval_shape(task.init, jax.random.key(0))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
        batch = jax.eval_shape(task.train_batch.draw, task.train_batch.tables(), 0, jnp.arange(1))
        assert (":bf16[" in str(jax.make_jaxpr(task.loss)(params, batch))) == halves


def test_runs_and_recipes_may_be_older_than_an_optional_entry(tmp_path):
    config = get_config("steerable", "smoke")
    with config.unlocked():
        del config.train.init_from, config.optim.ema_decay
    run(config, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["initial_weights"] == "drawn by seed 0"
    run(recorded.get_config(str(tmp_path)), tmp_path, training=False)


@pytest.mark.parametrize("name", sorted(flatten_dict(get_config("steerable").to_dict(), sep=".").keys() - OPTIONAL))
def test_a_recipe_that_lacks_an_entry_is_told_which(name):
    """Of the entries of a recipe that has none but those that every one has."""
    config = get_config("steerable")
    *groups, entry = name.split(".")
    with config.unlocked():
        del functools.reduce(getattr, groups, config)[entry]
    with pytest.raises(InputError, match=f"the config has no {re.escape(name)}; add it to the recipe"):
        check(config)


def test_a_recipe_with_one_number_for_both_sides_of_an_image_is_told():
    config = get_config("steerable")
    with config.ignore_type():
        config.data.image_size = 64
    with pytest.raises(InputError, match=r"config.data.image_size is 64; it must be \(height, width\)"):
        check(config)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_second_evaluation_compiles_nothing(experiment, monkeypatch, caplog):
    """Training may look at the test set often."""
    monkeypatch.delenv("DFN_DATA", raising=False)
    task = make_task(get_config(experiment, "smoke"))
    params = jax.jit(task.init)(jax.random.key(0))
    task.evaluate(params)
    with jax.log_compiles():
        task.evaluate(params)
        assert not [message for message in caplog.messages if message.startswith("Compiling")]
        jax.jit(lambda: 2016)()
    assert [message for message in caplog.messages if message.startswith("Compiling")]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_presets(experiment, monkeypatch):
    """Each is whole, and its network fits the data; a recipe may be copied under another name."""
    monkeypatch.delenv("DFN_DATA", raising=False)
    presets = importlib.import_module(f"experiments.{experiment}").PRESETS
    assert {"paper", "quick", "smoke"} <= presets.keys()
    small = get_config(experiment, "smoke")
    small.experiment = "mine"
    batch = make_task(small).train_batch(0)
    for preset in presets:
        config = get_config(experiment, preset)
        check(config)
        assert (config.experiment, config.preset) == (experiment, preset)
        if "model" in config:
            small.model = config.model
        task = make_task(small)
        params = jax.eval_shape(task.init, jax.random.key(0))
        assert jax.eval_shape(task.loss, params, batch).shape == ()
    assert get_config(experiment) == get_config(experiment, "paper")
    with pytest.raises(InputError, match="paper, quick, smoke"):
        get_config(experiment, "fast")


def test_steerable_training_draws_others_by_every_seed_and_cannot_draw_the_images_that_are_tested_on():
    config = get_config("steerable", "smoke")
    drawn = make_task(config).train_batch(0)
    config.seed = 1
    for one, other in zip(drawn.values(), make_task(config).train_batch(0).values(), strict=True):
        assert not np.array_equal(one, other)
    config.seed = TEST_SEED
    with pytest.raises(InputError, match="seed is 2016, by which the test images are drawn"):
        make_task(config)


def test_networks_of_colour_fit_colour():
    for experiment, name, fields in (("stereo", "pairs", ("left", "right")), ("highway", "video", ("frames",))):
        config = get_config(experiment, "smoke")
        config.data.name, config.data.dir, config.data.channels = name, "unused", 3
        config.model.name = "twin"  # which paints all channels by itself
        task = make_task(config)
        frames = () if experiment == "stereo" else (config.data.input_frames + config.data.target_frames,)
        one = jax.ShapeDtypeStruct((2, *frames, *config.data.image_size, 3), jnp.float32)
        params = jax.eval_shape(task.init, jax.random.key(0))
        assert jax.eval_shape(task.loss, params, dict.fromkeys(fields, one)).shape == ()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_training_steps_are_programs_for_gpus_and_tpus_too(experiment, monkeypatch):
    """As far as can be seen without one: they are lowered, and call nothing that XLA does not have everywhere."""
    monkeypatch.delenv("DFN_DATA", raising=False)
    config = get_config(experiment, "smoke")
    task = make_task(config)
    step = make_train_step(task.loss, make_optimiser(config.optim)[0])
    traced = jax.jit(step).trace(make_state(task, config), task.train_batch(0))
    for platform in ("cuda", "tpu"):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.dot_general" in program or "stablehlo.convolution" in program
        assert "custom_call" not in program
