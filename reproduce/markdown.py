"""A table of networks in Markdown, from the records of its runs."""

import statistics

from reproduce.comparison import Examples, saving
from reproduce.protocols import Table
from reproduce.readme import figure
from reproduce.runs import Record

COMPARED = ("paper", "twin")  # rows of a table whose errors are told beside each other, with and without the filter


def markdown(table: Table, records: list[Record], examples: Examples) -> str:
    """A table for the README.

    Args:
        table: its rows and metric.
        records: of runs.
        examples: of the same runs, as far as they are known.

    Returns:
        Markdown; a protocol in which a row was not run says so.
    """
    columns = [
        table.unit,
        "parameters of the full recipe",
        "published",
        *(one.name for one in table.protocols.values()),
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in table.rows:
        mine = [record for record in records if record["row"] == row.preset]
        cells = [
            _measured([r for r in mine if r["protocol"] == protocol], table.metric) for protocol in table.protocols
        ]
        lines.append(f"| {row.name} | {row.parameters:,} | {row.published or '–'} | {' | '.join(cells)} |")
    for line in table.cited:
        found = [
            next((r[line.metric] for r in records if r["protocol"] == protocol and line.metric in r), None)
            for protocol in table.protocols
        ]
        lines.append(
            f"| {line.name} | – | {line.published} | {' | '.join('–' if v is None else figure(v) for v in found)} |"
        )
    names = {row.preset: row.name for row in table.rows}
    for flag, protocol in table.protocols.items():
        if mine := [record for record in records if record["protocol"] == flag]:
            compared = _compared([[one for one in mine if one["row"] == row] for row in COMPARED], names, examples)
            lines += ["", f"{protocol.name.capitalize()}: {protocol.recipe}. {compared}{_on(mine, names)}"]
    return "\n".join(lines)


def _compared(rows: list[list[Record]], names: dict[str, str], examples: Examples) -> str:
    """The sentence on how much less error, or more, the first row has than the second."""
    if not (found := saving(*rows, examples)):
        return ""
    word, sign = ("less", 1) if found.mean >= 0 else ("more", -1)
    mean, *by_seed = (round(sign * 100 * share) for share in (found.mean, *found.by_seed))
    low, high = sorted(round(sign * 100 * share) for share in found.interval)
    if len(by_seed) > 1:
        how_sure = f"{', '.join(map(str, by_seed[:-1]))} and {by_seed[-1]} % with the seeds"
    else:
        how_sure = f"95 % interval over test examples: {low} to {high} %; one seed"
    ours, theirs = (names[row] for row in COMPARED)
    return f"{ours}: {mean} % {word} than {theirs} ({how_sure}). "


def _measured(records: list[Record], metric: str) -> str:
    """Mean over the seeds, with the spread, or with the interval of confidence where there is one seed."""
    values = [record[metric] for record in records]
    if not values:
        return "not run"
    text = figure(statistics.fmean(values))
    if len(values) > 1:
        places = len(text.partition(".")[2])
        return f"{text} ± {statistics.stdev(values):.{places}f} ({len(values)} seeds)"
    if interval := records[0].get(f"{metric}_ci95"):
        text += f" ({' to '.join(map(figure, interval))})"
    return text


def _on(records: list[Record], names: dict[str, str]) -> str:
    """What runs were measured on; and the notes of records that are not quite what their command says."""
    said = [f"Measured on {data}." for data in dict.fromkeys(record["data"] for record in records)]
    for note in dict.fromkeys(record["note"] for record in records if "note" in record):
        rows = dict.fromkeys(names[record["row"]] for record in records if record.get("note") == note)
        said.append(f"{', '.join(rows)}: {note}.")
    return " ".join(said)
