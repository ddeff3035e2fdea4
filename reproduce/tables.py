"""Runs the rows of a table under one protocol; writes results/TABLE.json and the README's tables.

    python -m reproduce.tables stereo --short
    python -m reproduce.tables moving_mnist --full --rows=paper,twin --seeds=0,1,2

Rows are named by their presets, `paper` being the DFN. A row that was stopped goes on where it was; one that is done is
not run again (remove its folder below `workdirs/tables/` for that). Rows that are not run keep what results/TABLE.json
has of them. results/TABLE_examples.npz has the table's metric for each test example of a run, where examples are
independent.

On one CPU core, `--short` takes 5 minutes for highway, 10 for stereo and up to two hours for moving_mnist; one row by
`--medium` takes 20 minutes to an hour for stereo, one to two and a half hours for highway and, on a slow day, four for
the DFN and its twin of moving_mnist.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from dfn_jax.errors import InputError, told_in_one_line
from dfn_jax.files import read_arrays, write_arrays, write_whole
from dfn_jax.preemption import preempt_on_sigterm
from dfn_jax.workdir import EXAMPLES_FILE
from reproduce.comparison import key
from reproduce.markdown import markdown
from reproduce.protocols import TABLES, Row, Table
from reproduce.readme import README, RESULTS, alone, print_table, with_tables
from reproduce.runs import ROOT, Record, outcome, read, recipe

FLAGS = {
    "full": "the published recipes; from a minute (steerable) on two CPU cores to hours and days, which want a GPU",
    "medium": "the published networks and images, fewer and smaller steps; from 20 minutes (stereo) to hours a row",
    "short": "smaller images or fewer steps; from seconds (steerable) to two hours (moving_mnist) in all",
}
# What further arguments may change: where data are and how they are computed, not what.
ALLOWED = ("--config.data.dir=", "--config.data.digits=", "--config.mesh.", "--config.train.checkpoint_every=")


def arguments(name: str, row: Row, protocol: str, seed: int) -> list[str]:
    """The arguments of `launch.py` for one run of a table's row.

    Args:
        name: of the table.
        row: of it.
        protocol: one of the table's; 'full' is the published recipe.
        seed: of the run.

    Returns:
        The arguments, workdir excepted.
    """
    changes = {**TABLES[name].protocols[protocol].changes, **row.exceptions.get(protocol, {})}
    if seed:
        changes["seed"] = seed
    options = [f"--config.{entry}={str(value).replace(' ', '')}" for entry, value in changes.items()]
    return [f"--config=experiments/{name}.py:{row.preset}", *options]


def workdir(name: str, row: Row, protocol: str, seed: int) -> Path:
    """Where a run of a table's row is, or will be; arguments as in `arguments`."""
    return ROOT / "workdirs" / "tables" / f"{name}-{row.preset}-{protocol}-{seed}"


def run_row(name: str, row: Row, protocol: str, seed: int, extra: list[str]) -> tuple[Record, np.ndarray | None]:
    """Runs one row, or reads what it reached before.

    Args:
        name: of the table.
        row: of it.
        protocol: one of the table's.
        seed: of the run.
        extra: further arguments of `launch.py`, such as where the data are; they stand in the record's command.

    Returns:
        The record, and its table's metric for each test example [N]; None where they are not independent.

    Raises:
        InputError: the run failed, or its folder is of another run.
    """
    words, folder = [*arguments(name, row, protocol, seed), *extra], workdir(name, row, protocol, seed)
    found = outcome(words, folder)
    record = {"row": row.preset, "protocol": protocol, "command": shlex.join(["python", "launch.py", *words]), **found}
    return record, read_arrays(folder / EXAMPLES_FILE).get(TABLES[name].metric)


def merged(before: list[Record], new: Record) -> list[Record]:
    """The records of a table after a run, which takes the place of that of the same row, protocol and seed.

    Raises:
        InputError: rows of one protocol would not be measured on the same.
    """

    together = {key(record): record for record in [*before, new]}
    others = {one["data"] for one in together.values() if one["protocol"] == new["protocol"]} - {new["data"]}
    if others:
        theirs = " and ".join(sorted(others))
        raise InputError(
            f"{new['row']} was measured on {new['data']}, the other rows on {theirs}. With the same data (for Moving "
            "MNIST, with `mnist_test_seq.npy` beside the digits or without), remove results.json from the row's folder "
            "below workdirs/tables to measure it again, or the folder to train it again; or take the records of the "
            f"protocol {new['protocol']} out of results/"
        )
    return list(together.values())


def records(name: str) -> list[Record]:
    """What `results/` has of a table.

    Raises:
        InputError: it cannot be read.
    """
    path = RESULTS / f"{name}.json"
    found = read(path) if path.exists() else []
    if not isinstance(found, list) or not all(_is_record(one, TABLES[name]) for one in found):
        raise InputError(f"{path} is damaged: wanted a list of records; take it from the history")
    return found


def _is_record(one: object, table: Table) -> bool:
    """Whether it has what its table shows."""
    if not isinstance(one, dict) or not {"protocol", "seed", "data"} <= one.keys():
        return False
    interval = one.get(f"{table.metric}_ci95", [])
    known = one.get("row") in [row.preset for row in table.rows] and isinstance(interval, list)
    return known and all(isinstance(number, int | float) for number in (one.get(table.metric), *interval))


def recorded_tables() -> dict[str, str]:
    """Each table for the README, from the records in `results/`."""
    return {name: markdown(table, records(name), read_arrays(examples_file(name))) for name, table in TABLES.items()}


def examples_file(name: str) -> Path:
    """Where `results/` has the metric of a table for each test example of its runs."""
    return RESULTS / f"{name}_examples.npz"


def keep(name: str, record: Record, values: np.ndarray | None) -> None:
    """Puts what a run reached into `results/` and the README.

    Args:
        name: of its table.
        record: of `run_row`.
        values: of `run_row`.

    Raises:
        InputError: rows of one protocol would not be measured on the same, a figure is not finite, or a file there is
            damaged.
    """
    if not _is_record(record, TABLES[name]):
        metric = TABLES[name].metric
        raise InputError(f"its {metric} is {record.get(metric)}, which no table can hold; results/ stays as it was")
    with alone():
        together = merged(records(name), record)
        known = read_arrays(examples_file(name)) | {key(record): values}
        examples = {run: known.get(run) for run in map(key, together)}
        write_arrays(examples_file(name), {run: found for run, found in examples.items() if found is not None})
        write_whole(RESULTS / f"{name}.json", json.dumps(together, indent=2) + "\n")
        write_whole(README, with_tables(README.read_text(encoding="utf-8"), recorded_tables()))


def check_digits(config: ConfigDict) -> None:
    """Checks before hours of training that they would not be spent on digits of which nothing is published.

    Raises:
        InputError: there are no MNIST digits.
    """
    if config.data.get("digits") == "drawn":
        raise InputError(
            "this table is of MNIST's digits, and there are none; give --option=--config.data.dir=FOLDER with its IDX "
            "files, or set the environment variable DFN_DATA to a folder that holds them in `mnist`"
        )


def main(words: list[str]) -> None:
    """Runs what the flags say; exit code 1 where a row failed, 75 where SIGTERM ended one."""
    preempt_on_sigterm()
    with told_in_one_line("tables"):
        _main(words[1:], flags.FLAGS)


def define_flags() -> None:
    """Defines the flags that `chosen` reads."""
    for flag, said in FLAGS.items():
        flags.DEFINE_bool(flag, False, said)
    flags.DEFINE_list("rows", None, "presets of the rows; all by default")


def chosen(names: list[str], options: flags.FlagValues, tables: Sequence[str]) -> tuple[str, str, list[Row]]:
    """Of which rows a command is.

    Args:
        names: its words that are no flags.
        options: its flags, of `define_flags`.
        tables: that it may name.

    Returns:
        The table's name, the protocol's flag and the rows, in the order of the table.

    Raises:
        InputError: there are no such rows.
    """
    if len(names) != 1 or names[0] not in tables:
        raise InputError(f"wanted one table of {', '.join(tables)}; got {' '.join(names) or 'none'}")
    table = TABLES[names[0]]
    asked = [flag for flag in FLAGS if options[flag].value]
    if len(asked) != 1 or asked[0] not in table.protocols:
        raise InputError(
            f"wanted one protocol of {names[0]}, {' or '.join(f'--{flag}' for flag in table.protocols)}; "
            f"got {' '.join(f'--{flag}' for flag in asked) or 'none'}"
        )
    known = [row.preset for row in table.rows]
    wanted = known if options.rows is None else options.rows
    if not wanted:
        raise InputError("--rows is empty; name at least one, or leave it out")
    if unknown := set(wanted) - set(known):
        raise InputError(f"no row {', '.join(sorted(unknown))} in {names[0]}; it has {', '.join(known)}")
    return names[0], asked[0], [row for row in table.rows if row.preset in wanted]


def _main(names: list[str], options: flags.FlagValues) -> None:
    name, protocol, rows = chosen(names, options, list(TABLES))
    if not options.seeds or not all(seed.isdecimal() for seed in options.seeds):
        raise InputError(f"--seeds is {','.join(options.seeds) or 'empty'}; wanted whole numbers")
    if wrong := [option for option in options.option if not option.startswith(ALLOWED)]:
        raise InputError(f"--option={wrong[0]} would change the protocol; it may be {', '.join(ALLOWED)}")
    # What cannot be written later is told now.
    with_tables(README.read_text(encoding="utf-8"), recorded_tables())
    check_digits(recipe([*arguments(name, rows[0], protocol, 0), *options.option]))
    failed = []
    for row in rows:
        for seed in map(int, options.seeds):
            try:
                keep(name, *run_row(name, row, protocol, seed, options.option))
            except InputError as error:
                failed.append(f"{row.preset}, seed {seed}: {error}")
    print_table(recorded_tables()[name])
    if failed:
        raise InputError("; ".join(failed))


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_list("seeds", ["0"], "to run each row with")
    flags.DEFINE_multi_string("option", [], "further argument of launch.py, such as --config.data.dir=FOLDER")
    app.run(main)
