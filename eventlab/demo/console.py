"""Terminal output of the demo."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import typer

from eventlab.runtime import terminal


class Console:
    """Prints short sections to stdout; nothing if quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._began = perf_counter()

    @property
    def progress(self) -> bool:
        """Whether to show progress bars, which go to stderr."""
        return not self._quiet and sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        return perf_counter() - self._began

    def section(self, title: str) -> None:
        """Print the title of a section."""
        if not self._quiet:
            typer.secho(f"\n{title}", bold=True, fg="cyan")

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        if not self._quiet:
            terminal.grid(rows)

    def table(self, columns: Mapping[str, Sequence[Any]]) -> None:
        if not self._quiet:
            terminal.table(columns, indent=2)

    def note(self, text: str) -> None:
        if not self._quiet:
            typer.secho(f"  {terminal.printable(text)}", dim=True)


def milliseconds(value: float) -> str:
    """A duration with a unit."""
    if value < 1:
        return f"{value * 1_000:,.0f} µs"
    return f"{value:,.1f} ms" if value < 1_000 else f"{value / 1_000:,.2f} s"
