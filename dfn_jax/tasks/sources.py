"""Data by their names: what a config trains and is tested on, of whichever task."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from dfn_jax import config as configs
from dfn_jax.tasks.task import TEST_BATCH, Batch, TrainBatch


class Data(NamedTuple):
    """What a task needs of a data set.

    Attributes:
        train_batch: see `Task`.
        test_set: () -> what it is, in words, and its examples, in the form that the task's evaluation takes; called
            once for each evaluation, and where a folder is read also before training.
        fingerprint: see `Task`.
    """

    train_batch: TrainBatch
    test_set: Callable[[], tuple[str, Any]]
    fingerprint: Callable[[], str] = lambda: ""


class Source(NamedTuple):
    """Where examples come from.

    Attributes:
        bind: config -> Data; raises InputError where they cannot be as the config says.
        reads_folder: whether they lie in `config.data.dir`, or `config.eval.dir`.
        independent: whether its test examples are independent of each other, as pieces of one recording are not.
    """

    bind: Callable[[ConfigDict], Data]
    reads_folder: bool = False
    independent: bool = True


class Bound(NamedTuple):
    """The data of a config.

    Attributes:
        trained: what to train on.
        tested: what to test on.
        independent: whether the test examples are.
        check_test: see `Task`; of test examples that are drawn there is nothing to be checked.
    """

    trained: Data
    tested: Data
    independent: bool
    check_test: Callable[[], object]


def bind(config: ConfigDict, sources: Mapping[str, Source]) -> Bound:
    """Binds data to a config.

    Args:
        config: an experiment's config.
        sources: that there are, by name.

    Returns:
        The data; where one source is for both, it is bound once.

    Raises:
        InputError: a name is unknown, a folder is given for data that read none, or a source cannot be used so.
    """
    configs.check_data(config, {name: source.reads_folder for name, source in sources.items()})
    names = config.data.name, configs.tested_name(config)
    bound = {name: sources[name].bind(config) for name in dict.fromkeys(names)}
    trained, tested = (bound[name] for name in names)
    source = sources[names[1]]
    check_test = tested.test_set if source.reads_folder else lambda: None
    return Bound(trained, tested, source.independent, check_test)


class Batches:
    """As many examples as asked for, in batches of TEST_BATCH that are made as one goes through them."""

    def __init__(self, examples: int, make: Callable[[int], Batch]):
        """Takes how many, and what makes the batch of an index, all of its TEST_BATCH examples."""
        self._examples, self._make = examples, make

    def __len__(self) -> int:
        return -(-self._examples // TEST_BATCH)

    def __iter__(self) -> Iterator[Batch]:
        for index in range(len(self)):
            batch = jax.device_get(self._make(index))  # whole, so that an example does not depend on their number
            yield {name: field[: self._examples - TEST_BATCH * index] for name, field in batch.items()}
