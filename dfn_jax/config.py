"""Configs are data: what every experiment's config has, and the checks that give a one-line error."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from dfn_jax.errors import InputError
from dfn_jax.files import check_text, expanded

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
POLICIES = ("stop", "skip")  # what to do about a loss or gradient that is not finite
# Beside the whole numbers that `check` looks at.
EVERY_CONFIG_HAS = (
    "experiment",
    "preset",
    "task",
    "precision",
    "data.name",
    "data.dir",
    "train.non_finite",
    "optim.name",
    "optim.learning_rate",
    "optim.clip_norm",
    "mesh.data",
    "mesh.height",
    "mesh.split_state",
    "eval.name",
    "eval.dir",
    "eval.best",
)


def choose(kind: str, name: str, known: Any) -> Any:
    """Looks up a name in a mapping, or checks it against a tuple of names.

    Args:
        kind: what the name stands for, as the error calls it.
        name: the name that the config gives.
        known: mapping from names, or the names.

    Returns:
        The mapping's value, or the name itself.

    Raises:
        InputError: the name is not known; lists those that are.
    """
    if name not in known:
        raise InputError(f"unknown {kind} {name!r}; choose one of: {', '.join(known)}")
    return known[name] if isinstance(known, dict) else name


def with_preset(config: ConfigDict, preset: str, presets: dict[str, dict[str, Any]]) -> ConfigDict:
    """Fills in a preset.

    Args:
        config: the config of the preset `paper`.
        preset: the name after the colon of `--config=experiments/<name>.py:<preset>`.
        presets: by name, what each changes, by dotted names; a dictionary takes the place of a whole group.

    Returns:
        The config, with `preset` set.

    Raises:
        InputError: the preset is not known, or changes an entry that the config has not.
    """
    for name, value in choose("preset", preset, presets).items():
        *groups, entry = name.split(".")
        group = functools.reduce(lambda inner, key: inner.get(key, {}), groups, config)
        if entry not in group:
            raise InputError(f"the preset {preset!r} changes {name}, which the config does not have")
        group[entry] = ConfigDict(value) if isinstance(value, dict) else value
    config.preset = preset
    return config


def check(config: ConfigDict) -> None:
    """Checks what every config has.

    Raises:
        InputError: an entry is missing, or a number is out of range; names it, its value and what was wanted.
    """
    for name in EVERY_CONFIG_HAS:
        entry(config, name)
    check_whole_numbers(
        config,
        {
            "train.steps": 0,
            "train.batch_size": 1,
            "train.checkpoint_every": 1,
            "train.log_every": 1,
            "train.evaluate_every": 0,
            "eval.examples": 1,
            "seed": 0,
            "data.image_size": 1,
        },
    )
    check_whole_numbers(config, {"optim.halve_every": 1}, bits=31)  # Optax counts steps by signed numbers.
    for name, value in flatten_dict(config.to_dict(), sep=".").items():
        if isinstance(value, str):
            check_text(f"config.{name}", value)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"config.{name} is {value}; it must be finite")
    size = config.data.image_size
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise InputError(f"config.data.image_size is {size}; it must be (height, width) in pixels")
    rate, norm, decay = config.optim.learning_rate, config.optim.clip_norm, ema_decay(config)
    if not isinstance(rate, int | float) or rate <= 0:
        raise InputError(f"config.optim.learning_rate is {rate!r}; it must be a positive number")
    if not isinstance(norm, int | float) or norm < 0:
        raise InputError(f"config.optim.clip_norm is {norm!r}; it must be 0, for none, or more")
    if not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise InputError(f"config.optim.ema_decay is {decay!r}; it must be 0, for no average, or more, and below 1")
    choose("precision", config.precision, PRECISIONS)
    choose("config.train.non_finite", config.train.non_finite, POLICIES)


def check_whole_numbers(config: ConfigDict, least: dict[str, int], *, bits: int = 32) -> None:
    """Checks entries that must be whole numbers, or several of them.

    Args:
        config: an experiment's config.
        least: by dotted names, the smallest that an entry may be.
        bits: an entry must be below 2**bits.

    Raises:
        InputError: one is not, is smaller or is too large; names the entry, its value and what was wanted.
    """
    for name, minimum in least.items():
        values = entry(config, name)
        for value in values if isinstance(values, tuple | list) else (values,):
            if not isinstance(value, int) or not minimum <= value < 2**bits:
                raise InputError(
                    f"config.{name} is {value!r}; it must be a whole number of at least {minimum}, below 2**{bits}"
                )


def ema_decay(config: ConfigDict) -> float:
    """`config.optim.ema_decay`; 0.0 for older configs, which have none."""
    return config.optim.get("ema_decay", 0.0)


def entry(config: ConfigDict, name: str) -> Any:
    """The value of a dotted name.

    Raises:
        InputError: there is none.
    """
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, ConfigDict) or part not in found:
            raise InputError(f"the config has no {name}; add it to the recipe, as the other experiments have it")
        found = found[part]
    return found


def check_filter_size(config: ConfigDict, name: str) -> None:
    """Checks the side of a filter in pixels, `config.model.NAME`.

    Raises:
        InputError: it is missing, is not odd, so that the filter has no centre, or is too large.
    """
    size = entry(config, f"model.{name}")
    if not isinstance(size, int) or not 0 < size < 2**16 or size % 2 == 0:
        raise InputError(
            f"config.model.{name} is {size}; it must be odd, so that a filter has a centre, and below 2**16"
        )


def check_data(config: ConfigDict, reads_folder: dict[str, bool]) -> None:
    """Checks which data a config trains and evaluates on.

    Args:
        config: an experiment's config.
        reads_folder: by the names of the data that there are, whether they lie in a folder.

    Raises:
        InputError: a name is unknown, or a folder is given for data that would never read it.
    """
    names = {"data": config.data.name, "eval": tested_name(config)}
    for group, name in names.items():
        reads = choose(f"config.{group}.name", name, reads_folder)
        if config[group].dir and not reads:
            others = " or ".join(other for other, reads in reads_folder.items() if reads)
            raise InputError(
                f"config.{group}.dir is {config[group].dir!r}, but {name} reads no folder; "
                f"give --config.{group}.name={others} too"
            )


def tested_name(config: ConfigDict) -> str:
    """The name of the data that is tested on: by default that of training."""
    return config.eval.name or config.data.name


def tested_folder(config: ConfigDict) -> str:
    """The folder of the data that is tested on, which may be empty: by default that of training."""
    return config.eval.dir or config.data.dir


def data_folder(named: str, what: str) -> str:
    """The folder of the data that the config names.

    Args:
        named: by the config; may be empty.
        what: is read from it, as the error calls it.

    Returns:
        The folder.

    Raises:
        InputError: none is named.
    """
    if not named:
        raise InputError(
            f"{what} need a folder: give --config.data.dir=FOLDER (to evaluate on others, --config.eval.dir=FOLDER)"
        )
    check_text("the data folder", str(expanded(named).resolve()))
    return named


def seen_in_training(config: ConfigDict) -> str:
    """What to say of a test set where `config.eval.dir` is, or is in, the folder that training read, or the reverse.

    Args:
        config: an experiment's config, after `check_data`.

    Returns:
        Words to append; none where the folders have nothing to do with each other.
    """
    if not (config.eval.dir and config.data.dir):
        return ""
    ours, theirs = (expanded(folder).resolve() for folder in (config.eval.dir, config.data.dir))
    return ", which training read too" if ours.is_relative_to(theirs) or theirs.is_relative_to(ours) else ""


def with_tuples(config: dict[str, Any]) -> dict[str, Any]:
    """A config as it was before it became JSON, which knows no tuples; configs have no lists."""
    return {
        name: with_tuples(value) if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value
        for name, value in config.items()
    }


def differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two configs, or groups of them, do not agree on.

    What one has no entry for, from before there was one or after, it does without: as where the entry is 0, False or
    empty. Tuples are lists, as in JSON.

    Args:
        theirs: nested dicts, as from JSON.
        ours: likewise.

    Returns:
        Dotted names, sorted -> value in theirs, value in ours; None where there is none.
    """

    def by_dotted_names(config: Mapping[str, Any]) -> dict[str, Any]:
        flat = flatten_dict(dict(config), sep=".")
        return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}

    theirs, ours = by_dotted_names(theirs), by_dotted_names(ours)

    def agree(name: str) -> bool:
        if name in theirs and name in ours:
            return theirs[name] == ours[name]
        return not (theirs.get(name) or ours.get(name))

    return {name: (theirs.get(name), ours.get(name)) for name in sorted(theirs.keys() | ours.keys()) if not agree(name)}
