"""Draws measured rows as a picture beside them.

python -m benchmarks.plot results/benchmarks/ops_cpu.json
"""

import argparse
import json
from pathlib import Path


def draw(path: Path) -> Path:
    """Draws bars of time, one group for each case and pass, on a logarithmic axis.

    Args:
        path: of the JSON file that a benchmark wrote.

    Returns:
        Path of the PNG file.
    """
    from matplotlib.figure import Figure

    rows = json.loads(path.read_text())
    groups = list(dict.fromkeys((row["case"], row["dtype"], row["pass"]) for row in rows))
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    figure = Figure(figsize=(11, 1.2 + 0.42 * len(groups)), layout="constrained")
    axes = figure.subplots()
    thickness = 0.8 / len(names)
    for index, name in enumerate(names):
        bars = [(groups.index((row["case"], row["dtype"], row["pass"])), row["milliseconds"]) for row in rows
                if row["implementation"] == name]  # fmt: skip
        places, times = zip(*bars, strict=True)
        axes.barh(
            [place + (index - (len(names) - 1) / 2) * thickness for place in places], times, thickness, label=name
        )
    for place, group in enumerate(groups):
        copied = [row["copy_milliseconds"] for row in rows
                  if (row["case"], row["dtype"], row["pass"]) == group and "copy_milliseconds" in row]  # fmt: skip
        if copied:
            axes.vlines(copied[0], place - 0.45, place + 0.45, colors="black", label="copy" if place == 0 else None)
    axes.set_yticks(range(len(groups)), [f"{case}, {dtype}, {work}" for case, dtype, work in groups], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"milliseconds, median; {rows[0]['hardware']}")
    axes.legend(fontsize=8)
    target = path.with_suffix(".png")
    figure.savefig(target, dpi=110)
    return target


def main() -> None:
    """Draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the JSON file that a benchmark wrote")
    file = parser.parse_args().file
    try:
        print(draw(file))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        parser.error(f"{file} holds no rows of benchmarks.ops, convolutions or train_step ({error!r})")


if __name__ == "__main__":
    main()
