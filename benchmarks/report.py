"""What the benchmarks have in common: options, progress, Markdown tables, pages."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def options(about: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="measure little, in half a minute")
    add("--out", type=Path, default=RESULTS, help="folder for the JSON and the PNG")
    add("--redraw", action="store_true", help="measure nothing, take the JSON there is")
    add("--page", type=Path, help="page to put the tables into, between its markers")
    return parser


def report(line: str) -> None:
    """Say how far it is, out of the way of the tables."""
    print(line, file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table that is aligned as plain text as well."""
    cells = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *rest = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def put_into_page(page: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace the text between the markers of a page."""
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}{end}{after}")


def rounded(x: Any) -> Any:
    """Keep six digits of every number: more would only make the file long."""
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [rounded(value) for value in x]
    return float(f"{x:.6g}") if isinstance(x, float) else x
