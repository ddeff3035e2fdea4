"""What the training loop needs to know of an experiment, and nothing more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax import Array

from dfn_jax.report import Picture, Table

Params = Any  # a pytree of float32 arrays
Batch = Mapping[str, Any]  # arrays whose first axis is the example

TEST_BATCH = 16  # examples that are measured at a time
TEST_SEED = 2016  # of the examples that every run is tested on, whatever its own seed
# What `stream` draws: the numbers of one task differ, so that nothing draws what another has drawn.
WEIGHTS, TRAINING, TEXTURE, STEREO_TEST, DIGITS_TEST, HIGHWAY_TEST = 0, 1, 2, 2, 3, 4
NOT_THE_NETWORKS = ("baseline_", "target_", "share_")  # prefixes of metrics of trivial predictors and of the data


def stream(seed: int, use: int) -> Array:
    """The key of one use of a seed, such as TRAINING."""
    return jax.random.fold_in(jax.random.key(seed), use)


class TrainBatch(Protocol):
    """The batches to train on, a pure function of the step (and of the config's seed)."""

    def __call__(self, step: int, indices: range | None = None) -> Batch:
        """Makes the examples `indices` of the step's batch, 0 being the first, or all."""


class DrawnBatch(NamedTuple):
    """A `TrainBatch` that no host needs to read: every device can draw its own examples.

    Attributes:
        draw: (tables, step [] int, indices [n] int or None for all) -> Batch, exactly these examples of the step's
            whole batch, as several devices each draw their own; pure, so that it can be compiled.
        tables: () -> pytree of NumPy arrays that `draw` looks things up in, such as digits.
    """

    draw: Callable[[Any, Any, Any], Batch]
    tables: Callable[[], Any] = dict

    def __call__(self, step: int, indices: range | None = None) -> Batch:
        """Draws the examples on the first device."""
        return self.draw(self.tables(), step, None if indices is None else np.array(indices))


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        data: what it was measured on, in words.
        headline: one or two sentences with the figures that matter most.
        metrics: numbers, and several for a name (curves by frame), by the names that results.json uses.
        sections: () -> pictures and tables for the report, in the order of reading; drawn when they are asked for.
        measure: the name of the metric that counts most, the lower the better.
        measure_in_words: the same for people, with its unit.
        examples: values [N] of the network's own metrics, for each example by itself; empty where the examples are not
            independent of each other, such as pieces of one recording.
    """

    data: str
    headline: str
    metrics: dict[str, float | Sequence[float]]
    sections: Callable[[], list[Picture | Table]]
    measure: str
    measure_in_words: str
    examples: Mapping[str, np.ndarray] = MappingProxyType({})


class Prediction(NamedTuple):
    """What a network makes of one input.

    Attributes:
        arrays: the input, what was predicted and what was read off the filters, by names.
        picture: of the same; [H', W', 3] uint8.
    """

    arrays: Mapping[str, np.ndarray]
    picture: np.ndarray


class Inputs(NamedTuple):
    """Images or clips of which nothing else is known, to predict from.

    Attributes:
        names: of each, a path without ending from the folder that was given.
        predict: parameters -> what the network makes of each, in the same order.
    """

    names: list[Path]
    predict: Callable[[Params], Iterator[Prediction]]


class Program(NamedTuple):
    """What a network makes of its inputs, by itself.

    Attributes:
        apply: parameters, inputs [N, *shape] float32 in [0, 1] -> arrays [N, ...] by the names that predictions have in
            files; pure.
        shape: of one input.
    """

    apply: Callable[[Params, Array], dict[str, Array]]
    shape: tuple[int, ...]


class Curriculum(NamedTuple):
    """Which part of each batch is trained on, where that is not all of it from the first step on.

    Attributes:
        shown: (batch, step from 0 on) -> what that step trains on: a pure function of arrays that lie on the devices
            already, which keeps all examples. For every shape of it the step is compiled anew.
        ends: the first step that trains on whole batches.
        words: what the loss is therefore of, for the learning curve.
    """

    shown: Callable[[Batch, int], Batch] = lambda batch, step: batch
    ends: int = 0
    words: str = ""


class Task(NamedTuple):
    """An experiment, bound to its data, network, loss, metrics and pictures.

    Attributes:
        init: key -> parameters.
        loss: (parameters, batch) -> scalar loss, float32, a mean over the examples, as several devices average theirs;
            pure, so that it can be compiled and differentiated.
        train_batch: what to train on; a `DrawnBatch` where it can be.
        evaluate: parameters -> Evaluation, on data that training never sees.
        loss_name: what the loss is, for the learning curve.
        check_test: opens the data of the evaluation, so that what is wrong with them is told before training.
        fingerprint: identifies the training data, wherever they lie; empty for data that the program
            itself makes.
        inputs: a file or folder of inputs -> what to predict from; None where nothing is predicted from images alone.
        program: the same for arrays; None likewise.
        curriculum: what of `train_batch` a step trains on; by default all.
    """

    init: Callable[[Array], Params]
    loss: Callable[[Params, Batch], Array]
    train_batch: TrainBatch
    evaluate: Callable[[Params], Evaluation]
    loss_name: str
    check_test: Callable[[], object] = lambda: None
    fingerprint: Callable[[], str] = lambda: ""
    inputs: Callable[[Path], Inputs] | None = None
    program: Program | None = None
    curriculum: Curriculum = Curriculum()


def open_train_data(task: Task) -> None:
    """Opens the data of training, so that what is wrong with them is told before."""
    if isinstance(task.train_batch, DrawnBatch):
        task.train_batch.tables()
    else:
        task.train_batch(0)
