"""`eventlab demo`: the whole line once, on made-up or real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eventlab.runtime import terminal

_OUT = Path("data/demo")


def demo(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE...]", help="More files, as with --data.", show_default=False),
    ] = None,
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="FILE", help="Real data instead: files are told apart by their content."),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="What is traded, where neither the file nor its name says so.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where report and lab go; those left by a demo are replaced.")] = _OUT,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = 7,
    trades: Annotated[int, typer.Option(min=1_000, help="How many trades to simulate.")] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of text.")] = False,
) -> None:
    """Run the whole line: ingest, trade, replay, travel in time, compare snapshots, verify; and write a report."""
    from eventlab.demo.run import Plan, run

    plan = Plan(data=(*(data or ()), *(files or ())), symbol=symbol, out=out, seed=seed, trades=trades)
    outcome = run(plan, quiet=as_json)
    if as_json:
        terminal.document(outcome)
