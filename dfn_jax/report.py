"""A page that shows what a run reached: one HTML file that needs nothing beside it and no network."""

import base64
import html
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from dfn_jax.files import write_whole

SIGNIFICANT_DIGITS = 4


class Picture(NamedTuple):
    """A picture of a report.

    Attributes:
        name: of its file beside the page, without suffix; letters, digits, `_` and `-`.
        title: its heading.
        content: the file's bytes, a PNG or a GIF.
        caption: what to look at; also what a screen reader says.
    """

    name: str
    title: str
    content: bytes
    caption: str = ""

    @property
    def kind(self) -> str:
        """'png' or 'gif', by the file's first bytes."""
        return "gif" if self.content.startswith(b"GIF8") else "png"


class Row(NamedTuple):
    """A measure, and what each of the compared reached.

    Attributes:
        label: the measure, with its unit.
        values: one for each column; None or NaN where there is none.
        better: 'lower' or 'higher', by which the best of several is marked.
    """

    label: str
    values: Sequence[float | None]
    better: str = "lower"


class Table(NamedTuple):
    """A table of a report.

    Attributes:
        title: its heading.
        columns: who is compared.
        rows: the measures.
        caption: on what they were measured.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""


def comparison_table(
    results: Mapping[str, float],
    measures: Mapping[str, tuple[str, str]],
    baselines: Mapping[str, str],
    *,
    title: str,
    caption: str = "",
) -> Table:
    """The table of flat results: this network beside trivial predictors, whose results bear a prefix.

    Args:
        results: as in `results.json`, for example `psnr` and `baseline_copy_psnr`.
        measures: label and better direction of each measure, by name; those that `results` lacks are left out.
        baselines: prefix of each of them, by the title of its column.
        title: of the table.
        caption: on what was measured.

    Returns:
        A table with a row for each measure and the columns "this network" and theirs.
    """
    rows = [
        Row(label, [results.get(prefix + name) for prefix in ("", *baselines.values())], better)
        for name, (label, better) in measures.items()
        if name in results
    ]
    return Table(title, ["this network", *baselines], rows, caption)


def write_report(
    folder: str | os.PathLike,
    *,
    title: str,
    introduction: str,
    sections: Sequence[Picture | Table],
    details: Mapping[str, Mapping[str, object]],
) -> Path:
    """Writes `index.html` with its pictures inside, and the same pictures as files beside it.

    Each file is written whole or not at all: a reader never meets half a page.

    Args:
        folder: where to; made if it is missing.
        title: of the page.
        introduction: plain text, paragraphs parted by empty lines; the first, the result in a sentence, stands out.
        sections: pictures and tables in the order in which to show them.
        details: what goes folded to the end (configuration, hardware, versions), by heading and name.

    Returns:
        The path of the page.

    Raises:
        ValueError: a picture's name is no plain file name or used twice, or a table's row does not fit its columns.
        OSError: the files cannot be written.
    """
    pictures = [section for section in sections if isinstance(section, Picture)]
    _check_names([picture.name for picture in pictures])
    page = _page(title, introduction, sections, details)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        write_whole(folder / f"{picture.name}.{picture.kind}", picture.content)
    write_whole(folder / "index.html", page.encode())
    return folder / "index.html"


def _page(
    title: str,
    introduction: str,
    sections: Sequence[Picture | Table],
    details: Mapping[str, Mapping[str, object]],
) -> str:
    paragraphs = [f"<p>{html.escape(text)}</p>" for text in re.split(r"\n\s*\n", introduction.strip())]
    body = [_table(section) if isinstance(section, Table) else _picture(section) for section in sections]
    folded = [_details(heading, values) for heading, values in details.items()]
    return _PAGE.substitute(
        title=html.escape(title), introduction="\n".join(paragraphs), body="\n".join(body), details="\n".join(folded)
    )


def _picture(picture: Picture) -> str:
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    data = base64.b64encode(picture.content).decode()
    image = f'<img alt="{caption or title}" src="data:image/{picture.kind};base64,{data}">'
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<section><h2>{title}</h2>\n<figure><div>{image}</div>{below}</figure></section>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in table.columns)
    rows = []
    for row in table.rows:
        if len(row.values) != len(table.columns):
            raise ValueError(f"row {row.label!r} has {len(row.values)} values for {len(table.columns)} columns")
        cells = "".join(f"<td>{text}</td>" for text in _cells(row))
        rows.append(f'<tr><th scope="row">{html.escape(row.label)}</th>{cells}</tr>')
    below = f'<p class="caption">{html.escape(table.caption)}</p>' if table.caption else ""
    body = "\n".join(rows)
    return (
        f'<section><h2>{html.escape(table.title)}</h2>\n<div class="scroll">'
        f"<table><thead><tr><td></td>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{below}</section>"
    )


def _cells(row: Row) -> Iterator[str]:
    known = [value for value in row.values if value is not None and math.isfinite(value)]
    largest = max(map(abs, known), default=0)
    decimals = max(0, SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(largest))) if largest else 0
    compared = sum(value is not None and not math.isnan(value) for value in row.values) > 1
    best = {"lower": min, "higher": max}[row.better](known) if known and compared else None
    for value in row.values:
        if value is None or math.isnan(value):
            yield "–"
        elif value == best:
            yield f"<strong>{value:.{decimals}f}</strong>"
        else:
            yield f"{value:.{decimals}f}"


def _details(heading: str, values: Mapping[str, object]) -> str:
    rows = "\n".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in values.items()
    )
    return (
        f"<details><summary>{html.escape(heading)}</summary>\n"
        f'<div class="scroll"><table class="facts">{rows}</table></div></details>'
    )


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"a picture's name may have letters, digits, _ and -, got {name!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"pictures need different names, got {names}")


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --page: #fbfbf9; --card: #ffffff; --ink: #1c1e21; --soft: #5d6268; --line: #e1e1dc; --accent: #0b5c8a;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --card: #1e2125; --ink: #e4e4e0; --soft: #9fa4aa; --line: #33373c; --accent: #7cc4f0; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .75rem; }
header p { max-width: 46rem; color: var(--soft); margin: .6rem 0; }
header p:first-of-type { font-size: 1.2rem; line-height: 1.45; color: var(--ink); }
figure { margin: 0; }
figure div { background: #fff; padding: .5rem; }
figure div, .scroll { border: 1px solid var(--line); border-radius: .5rem; overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption, .caption { max-width: 46rem; color: var(--soft); font-size: .92rem; margin: .6rem 0 0; }
.scroll { background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .9rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
tbody tr:first-child > * { border-top: 1px solid var(--line); }
th { font-weight: 500; }
thead th { color: var(--soft); font-size: .88rem; vertical-align: bottom; white-space: normal; }
th:first-child { text-align: left; }
strong { color: var(--accent); font-weight: 700; }
details { margin-top: 1rem; }
section + details { margin-top: 2.75rem; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
.facts { font-size: .88rem; }
.facts th { color: var(--soft); }
.facts td { text-align: left; width: 100%; white-space: normal; overflow-wrap: anywhere; }
.facts tr:first-child > * { border-top: 0; }
@media (max-width: 44rem) {
  figure img { max-width: none; width: 46rem; }
  table { font-size: .88rem; }
  th, td { padding: .4rem .5rem; }
  tbody th:first-child { white-space: normal; min-width: 7.5rem; }
  .facts th:first-child { min-width: 0; }
}
</style>
</head>
<body>
<main>
<header>
<h1>$title</h1>
$introduction
</header>
$body
$details
</main>
</body>
</html>
""")
