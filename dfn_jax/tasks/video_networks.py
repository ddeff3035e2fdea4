"""Which network a config of video prediction names: those of the paper, their twins, and the rivals of Table 1."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax import ops
from dfn_jax.errors import InputError
from dfn_jax.models.cdna import VideoCDNA, VideoDNA
from dfn_jax.models.lstm import EncoderForecaster
from dfn_jax.models.twins import VideoTwin
from dfn_jax.models.video import Predicted, VideoDFN, rollout
from dfn_jax.tasks.task import Params


class VideoNetwork(NamedTuple):
    """What the task needs of a network.

    Attributes:
        init: key -> parameters.
        rollout: (parameters, frames [N, T, H, W, C], horizon) -> Predicted, that many frames.
        flow: filters [..., K] -> [..., 2] in pixels; None where no motion can be read off.
        reach: pixels, each way, that its filters can fetch from, or those of the network that it is a twin of; None
            where it fetches nothing.
    """

    init: Callable[[Array], Params]
    rollout: Callable[[Params, Array, int], Predicted]
    flow: Callable[[Array], Array] | None = None
    reach: int | None = None


def make_network(config: ConfigDict) -> VideoNetwork:
    """Binds the network that `config.model` names.

    Args:
        config: of `experiments/moving_mnist.py` or `experiments/highway.py`.

    Returns:
        The network.

    Raises:
        InputError: the name is unknown, or an entry of `config.model` is missing or cannot be used.
    """
    return configs.choose("config.model.name", configs.entry(config, "model.name"), NETWORKS)(config)


def recurrent(config: ConfigDict, network_class: type[VideoDFN] = VideoDFN, **options: Any) -> VideoNetwork:
    """Binds a `VideoDFN`, or a network of a class derived from it.

    Args:
        config: as in `make_network`; `config.model` has the fields of `VideoDFN`, and `rematerialise`.
        network_class: of the network.
        **options: its further fields.

    Returns:
        The network.

    Raises:
        InputError: as in `make_network`.
    """
    model, channels = config.model, config.data.channels
    _check_recurrent(config)
    network = network_class(
        encoder=tuple(model.encoder),
        coarse=tuple(model.coarse),
        fine=tuple(model.fine),
        features=model.features,
        kernel_size=model.kernel_size,
        channels=channels,
        window=model.window,
        dynamic_bias=model.dynamic_bias,
        position_bias=model.position_bias,
        refinement=model.refinement,
        dtype=configs.PRECISIONS[config.precision],
        **options,
    )
    return VideoNetwork(
        lambda key: network.init(key, jnp.zeros((1, model.window, *config.data.image_size, channels))),
        lambda params, frames, horizon: rollout(
            network, params, frames, horizon=horizon, rematerialise=model.rematerialise
        ),
        lambda filters: ops.expected_displacement(filters, model.kernel_size),
        model.kernel_size // 2,
    )


def _blended(config: ConfigDict) -> VideoNetwork:
    _check_entries(config, ("masks",), "the preset cdna")
    configs.check_whole_numbers(config, {"model.masks": 1})
    return recurrent(config, VideoCDNA, masks=config.model.masks)


def _encoder_forecaster(config: ConfigDict) -> VideoNetwork:
    model, size = config.model, tuple(config.data.image_size)
    _check_entries(config, ("features", "kernel_size", "patch", "read_all"), "the presets fc_lstm and conv_lstm")
    configs.check_whole_numbers(config, {"model.patch": 0})
    _check_widths(config, "features", 1)
    configs.check_filter_size(config, "kernel_size")
    if model.patch and any(side % model.patch for side in size):
        raise InputError(
            f"config.model.patch is {model.patch}, which does not divide config.data.image_size, {size}; 0 takes the "
            "whole frame"
        )
    network = EncoderForecaster(
        features=tuple(model.features),
        kernel_size=model.kernel_size,
        patch=model.patch,
        read_all=model.read_all,
        dtype=configs.PRECISIONS[config.precision],
    )
    return VideoNetwork(
        lambda key: network.init(key, jnp.zeros((1, 1, *size, config.data.channels))),
        lambda params, frames, horizon: network.apply(params, frames, horizon),
    )


NETWORKS: dict[str, Callable[[ConfigDict], VideoNetwork]] = {
    "dfn": recurrent,
    "twin": functools.partial(recurrent, network_class=VideoTwin),
    "dna": functools.partial(recurrent, network_class=VideoDNA),
    "cdna": _blended,
    "lstm": _encoder_forecaster,
}


def _check_entries(config: ConfigDict, names: tuple[str, ...], presets: str) -> None:
    missing = [name for name in names if name not in config.model]
    if missing:
        raise InputError(
            f"config.model.name is {config.model.name!r}, but config.model has no {missing[0]!r}; take {presets}"
        )


def _check_widths(config: ConfigDict, name: str, least: int) -> None:
    widths = config.model[name]
    if (
        not isinstance(widths, tuple | list)
        or len(widths) < least
        or not all(isinstance(width, int) and width > 0 for width in widths)
    ):
        raise InputError(
            f"config.model.{name} is {widths}; it must be at least {least} whole numbers, channels of layers"
        )


def _check_recurrent(config: ConfigDict) -> None:
    layers = {"encoder": 2, "coarse": 0, "fine": 1}
    others = ("features", "kernel_size", "window", "dynamic_bias", "position_bias", "refinement", "rematerialise")
    _check_entries(config, (*layers, *others), "another preset, such as paper")
    for name, least in layers.items():
        _check_widths(config, name, least)
    configs.check_whole_numbers(
        config,
        {
            "model.features": 1,
            "model.window": 1,
            "model.refinement": 0,
            "data.input_frames": config.model.window,
        },
    )
    if config.model.name == "twin" and config.model.refinement:
        raise InputError(
            f"config.model.refinement is {config.model.refinement}, but the twin has no filtered frame; it must be 0"
        )
    configs.check_filter_size(config, "kernel_size")
