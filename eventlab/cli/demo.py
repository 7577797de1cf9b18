"""`eventlab demo`: all steps once, on simulated or real data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eventlab.runtime import terminal

_OUT = Path("data/demo")


def demo(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="More files, as with --data.", show_default=False)
    ] = None,
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="FILE", help="Real data instead of a simulation; the content decides the feed."),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="The symbol, if neither the file nor its name has it.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of report and lab; replaces those of an earlier demo.")] = _OUT,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 7,
    trades: Annotated[int, typer.Option(min=1_000, help="Number of trades to simulate.")] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of text.")] = False,
) -> None:
    """Ingest, trade, replay, travel in time, compare snapshots and verify; writes a report."""
    from eventlab.demo.run import Plan, run

    plan = Plan(data=(*(data or ()), *(files or ())), symbol=symbol, out=out, seed=seed, trades=trades)
    outcome = run(plan, quiet=as_json)
    if as_json:
        terminal.document(outcome)
