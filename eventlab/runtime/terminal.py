"""Output of commands: one JSON document, or text and tables with control characters escaped."""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import polars as pl

LONGEST_CELL = 60
_GAP = 2
_PIPED_WIDTH = 10_000  # without a terminal the width is unlimited


def printable(text: str, most: int | None = None) -> str:
    r"""Text with all unprintable characters escaped, so that no control sequence in data reaches a terminal.

    Examples
    --------
    >>> print(printable("BTC\x1b[31m\u202eUSD"))
    BTC\x1b[31m\u202eUSD
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def document(content: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout, in ASCII, so that no text in it controls a terminal."""
    sys.stdout.write(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Iterable):
        return [_plain(part) for part in value]
    return str(value)


def iso(ns: int | None) -> str | None:
    """Nanoseconds since the epoch as an ISO string."""
    from eventlab.events.clock import format_ns

    return None if ns is None else format_ns(ns)


def with_iso_times(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame with its times as ISO strings in nanosecond precision."""
    import polars as pl

    times = pl.selectors.datetime().dt.cast_time_unit("ns").to_physical()
    return frame.with_columns(times.map_elements(iso, return_dtype=pl.String))


def cell(value: Any) -> str:
    """The text of a table cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list | tuple):
        return f"{len(value)} rows" if not value or isinstance(value[0], dict) else printable(str(value), LONGEST_CELL)
    return printable(str(value), LONGEST_CELL)


def say(*lines: str) -> None:
    """Write escaped lines to stdout."""
    for line in lines:
        typer.echo(printable(line))


def grid(rows: Iterable[tuple[str, str]], indent: int = 2) -> None:
    """Write labels and their values, one pair per line."""
    pairs = [(printable(label), printable(value, 4 * LONGEST_CELL)) for label, value in rows]
    width = max((len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        typer.echo(f"{' ' * indent}{typer.style(label.ljust(width), dim=True)}  {value}")


def table(columns: Mapping[str, Sequence[Any]], *, indent: int = 0) -> list[str]:
    """Write columns as a table; returns the names of columns that do not fit the terminal.

    Omits columns from the right instead of shortening all of them.
    """
    from rich.cells import cell_len  # some characters take two terminal columns

    texts = {name: [printable(name), *map(cell, values)] for name, values in columns.items()}
    widths = {name: max(map(cell_len, values)) for name, values in texts.items()}
    width_of_all = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPED_WIDTH
    room, shown = width_of_all - indent, list[str]()
    for name, width in widths.items():
        if shown and width > room:
            break
        room -= width + _GAP
        shown.append(name)
    numeric = {
        name for name in shown if any(isinstance(v, int | float) and not isinstance(v, bool) for v in columns[name])
    }
    for number, row in enumerate(zip(*(texts[name] for name in shown), strict=True)):
        line = " " * indent
        for name, text in zip(shown, row, strict=True):
            gap = " " * (widths[name] - cell_len(text))
            line += (gap + text if name in numeric else text + gap) + " " * _GAP
        line = line.rstrip()
        typer.echo(line if number else typer.style(line, dim=True))
    return [name for name in texts if name not in shown]


def frame_table(frame: pl.DataFrame, *, more: bool, last: bool = False, choose: str = "") -> None:
    """Write a frame as a table, with notes on rows and columns that are not shown."""
    if not len(frame):
        say("no rows")
        return
    hidden = table(with_iso_times(frame).to_dict(as_series=False))
    if more:
        typer.secho(f"the {'last' if last else 'first'} {len(frame):,} rows; --limit 0 shows all", dim=True)
    if hidden:
        names = printable(", ".join(hidden))
        typer.secho(f"not shown: {names} ({choose}a wider terminal or --json shows them)", dim=True)
