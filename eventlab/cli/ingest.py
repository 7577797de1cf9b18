"""`eventlab ingest`: appends files with any feed."""

from __future__ import annotations

import sys
import time as clocks
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eventlab.runtime import terminal

if TYPE_CHECKING:
    from eventlab.feeds.api import Feed
    from eventlab.lab.ingest import IngestReceipt

FeedName = Literal[
    "binance-trades", "binance-agg-trades", "binance-klines", "binance-capture", "tardis-trades", "tardis-quotes",
    "tardis-book", "coinbase-capture", "bars", "exported", "simulate",
]  # fmt: skip
_NEED_SYMBOL = ("binance-trades", "binance-agg-trades", "binance-klines", "bars")
_BARS, _SIMULATION = "Feed: bars", "Feed: simulate"
_ColumnName = Annotated[str | None, typer.Option(help="Name of this column.", rich_help_panel=_BARS)]


def ingest(
    lab: Annotated[
        Path, typer.Argument(metavar="LAB", help="The lab's directory; created if missing.", show_default=False)
    ],
    feed: Annotated[
        FeedName, typer.Argument(help="The format of the files; simulate takes no files.", show_default=False)
    ],
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Plain, gzip or zip.", show_default=False)
    ] = None,
    *,
    symbol: Annotated[
        str | None, typer.Option(help="The symbol of files without one; otherwise only this symbol.")
    ] = None,
    aggregate_id: Annotated[str | None, typer.Option(help="Template of aggregate ids, e.g. 'market/{symbol}'.")] = None,
    late: Annotated[
        Literal["reject", "clamp", "accept"],
        typer.Option(help="If a time goes back: refuse the file, raise the time, or keep it."),
    ] = "reject",
    time: Annotated[str | None, typer.Option(help="Name of the time column.", rich_help_panel=_BARS)] = None,
    open: _ColumnName = None,  # noqa: A002
    high: _ColumnName = None,
    low: _ColumnName = None,
    close: _ColumnName = None,
    volume: _ColumnName = None,
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"] | None, typer.Option(help="Unit of numeric times.", rich_help_panel=_BARS)
    ] = None,
    interval: Annotated[str | None, typer.Option(help="Length of a bar, e.g. 1m.", rich_help_panel=_BARS)] = None,
    stamped: Annotated[
        Literal["end", "start"] | None,
        typer.Option(help="Whether times are bar ends or starts.", rich_help_panel=_BARS),
    ] = None,
    symbols: Annotated[str | None, typer.Option(help="Comma-separated symbols.", rich_help_panel=_SIMULATION)] = None,
    trades: Annotated[int | None, typer.Option(help="Trades of all symbols.", rich_help_panel=_SIMULATION)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Equal seeds give equal events.", rich_help_panel=_SIMULATION)
    ] = None,
    start: Annotated[str | None, typer.Option(help="Event time of the start.", rich_help_panel=_SIMULATION)] = None,
    rate: Annotated[int | None, typer.Option(help="Trades per second.", rich_help_panel=_SIMULATION)] = None,
    books: Annotated[
        bool | None, typer.Option("--books", help="Also order books.", rich_help_panel=_SIMULATION)
    ] = None,
    bars: Annotated[
        str | None, typer.Option(help="Also bars of this length, e.g. 1m.", rich_help_panel=_SIMULATION)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")] = False,
) -> None:
    """Append files. A rerun adds nothing, and resumes an interrupted ingest."""
    of_bars = {"time": time, "open": open, "high": high, "low": low, "close": close, "volume": volume,
               "time_unit": time_unit, "interval": interval, "stamped": stamped}  # fmt: skip
    of_simulate = {"symbols": symbols, "trades": trades, "seed": seed, "start": start, "rate": rate,
                   "books": books, "bars": bars}  # fmt: skip
    common = _given({"symbol": symbol, "aggregate_id": aggregate_id})
    _only_for(feed, "bars", _given(of_bars))
    _only_for(feed, "simulate", _given(of_simulate))
    feeds = _feeds(feed, files or [], common, _given(of_bars), _given(of_simulate))
    made = list[dict[str, Any]]()
    from eventlab.lab.open import open as open_lab

    with open_lab(lab) as opened:
        for one in feeds:
            began = clocks.perf_counter()
            receipt = opened.ingest(one, late=late, progress=not quiet and sys.stderr.isatty())
            made.append(_row(one, receipt))
            if not as_json:
                _print_receipt(one, receipt, clocks.perf_counter() - began)
    if as_json:
        terminal.document({"lab": str(lab), "sources": made})
    else:
        terminal.say(f"eventlab info {lab}  shows the lab")


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _only_for(feed: str, owner: str, given: Mapping[str, Any]) -> None:
    if given and feed != owner:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"{names}: only for the feed {owner}, not for {feed}")


def _feeds(
    name: str, files: list[Path], common: dict[str, Any], of_bars: dict[str, Any], of_simulate: dict[str, Any]
) -> list[Feed]:
    """All feeds. Created before any ingest, so that a missing file is an error before the first append."""
    from eventlab import feeds
    from eventlab.cli.resolve import comma_separated

    make = getattr(feeds, name.replace("-", "_"))
    if name == "simulate":
        if files or "symbol" in common:
            raise typer.BadParameter("simulate takes no file and no --symbol; it has --symbols, --trades, --seed")
        if "symbols" in of_simulate:
            of_simulate["symbols"] = comma_separated(of_simulate["symbols"])
        return [make(**common, **of_simulate)]
    if not files:
        raise typer.BadParameter(f"{name} needs at least one FILE")
    if name == "exported" and common:
        raise typer.BadParameter("exported events have symbols and aggregates: omit --symbol and --aggregate-id")
    if name in _NEED_SYMBOL and "symbol" not in common:
        raise typer.BadParameter(f"{name} needs --symbol: its files do not have it")
    return [make(path, **common, **of_bars) for path in files]


def _row(feed: Feed, receipt: IngestReceipt) -> dict[str, Any]:
    report = receipt.report
    return {
        "feed": feed.name, "name": feed.source, "source": receipt.source, "events": receipt.count,
        "added": receipt.added, "already": receipt.already, "first_position": receipt.first_position,
        "position": receipt.position, "clamped": receipt.clamped, "backdated": receipt.backdated, "rows": report.rows,
        "dropped": dict(report.dropped), "gaps": report.gaps, "warnings": list(report.warnings),
    }  # fmt: skip


def _print_receipt(feed: Feed, receipt: IngestReceipt, seconds: float) -> None:
    notes = []
    if receipt.already:
        notes.append("already ingested; nothing added")
    else:
        notes.append(f"{seconds:.1f} s")
        if receipt.added < receipt.count:
            notes.append(f"{receipt.added:,} of them new: resumed an earlier ingest")
    notes += [f"{count:,} rows dropped: {reason}" for reason, count in receipt.report.dropped.items()]
    if receipt.report.gaps:
        notes.append(f"{receipt.report.gaps:,} gaps in ids")
    if receipt.clamped:
        notes.append(f"{receipt.clamped:,} times raised")
    if receipt.backdated:
        notes.append(f"{receipt.backdated:,} events back-dated")
    terminal.say(f"{feed.source}: {receipt.count:,} events ({'; '.join(notes)})", *receipt.report.warnings)
