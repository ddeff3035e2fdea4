"""What the README and docs/results.md are compared with: records of runs, in the words of these pages."""

import math

import numpy as np
import scipy.stats

from dfn_jax.files import read_arrays
from reproduce import tables
from reproduce.markdown import COMPARED
from reproduce.protocols import TABLES
from reproduce.readme import README
from reproduce.runs import ROOT
from tests.recipes import get_config

RESULTS_PAGE = ROOT / "docs" / "results.md"


def errors(table, row, protocol):
    """By seed."""
    found = [r for r in tables.records(table) if (r["row"], r["protocol"]) == (row, protocol)]
    return {record["seed"]: record[TABLES[table].metric] for record in found}


def mean(table, row, protocol):
    found = errors(table, row, protocol)
    return sum(found.values()) / len(found)


def saved(table, protocol):
    """How much less error with the filter, in words: the mean, and with each seed."""
    dfn, twin = (errors(table, row, protocol) for row in COMPARED)
    by_seed = [100 * (1 - dfn[seed] / twin[seed]) for seed in sorted(dfn.keys() & twin.keys())]
    *others, last = (f"{one:.0f}" for one in by_seed)
    return f"**{np.mean(by_seed):.0f} %** ({', '.join(others)} and {last})"


def saved_by_one_seed(table, protocol, rows=COMPARED):
    """The same of seed 0 in words, with the interval over the test examples."""
    ours, theirs = (errors(table, row, protocol)[0] for row in rows)
    examples = read_arrays(tables.examples_file(table))
    found = scipy.stats.bootstrap(
        [examples[f"{row}-{protocol}-0"].astype(float) for row in rows],
        lambda a, b, axis: 1 - a.mean(axis) / b.mean(axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    shares = (1 - ours / theirs, *found.confidence_interval)
    return "**{:.0f} %** ({:.0f} to {:.0f})".format(*(100 * share for share in shares))


def in_one_line(text):
    """Words that may be wrapped anywhere."""
    return " ".join(text.split())


def cells(row):
    """Of the row of the README's first table that begins with these words."""
    section = README.read_text().split("## What is reproduced\n")[1].split("\n## ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith(f"| {row}")]
    return line.strip("| ").split(" | ")[1:]


def examples_seen(table):
    """In training, by the published recipe."""
    return math.prod(get_config(table, "paper").train[entry] for entry in ("steps", "batch_size"))
