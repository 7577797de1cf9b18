"""`eventlab ingest`: appends files with any feed."""

from __future__ import annotations

import sys
import time as clocks
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eventlab.cli import resolve
from eventlab.cli.reading import Json, Quiet
from eventlab.runtime import terminal

if TYPE_CHECKING:
    from eventlab.feeds.api import Feed
    from eventlab.lab.ingest import IngestReceipt

FeedName = Literal[
    "binance-trades", "binance-agg-trades", "binance-klines", "binance-capture", "tardis-trades", "tardis-quotes",
    "tardis-book", "coinbase-capture", "bars", "exported", "simulate",
]  # fmt: skip
_NEED_SYMBOL = ("binance-trades", "binance-agg-trades", "binance-klines", "bars")


def _bar_option(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Feed: bars")


def _simulation_option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Feed: simulate")


_ColumnName = Annotated[str | None, _bar_option("Name of this column.")]


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
    time: Annotated[str | None, _bar_option("Name of the time column.")] = None,
    open: _ColumnName = None,  # noqa: A002
    high: _ColumnName = None,
    low: _ColumnName = None,
    close: _ColumnName = None,
    volume: _ColumnName = None,
    time_unit: Annotated[Literal["s", "ms", "us", "ns"] | None, _bar_option("Unit of numeric times.")] = None,
    interval: Annotated[str | None, _bar_option("Length of a bar, e.g. 1m.")] = None,
    stamped: Annotated[Literal["end", "start"] | None, _bar_option("Whether times are bar ends or starts.")] = None,
    symbols: Annotated[str | None, _simulation_option("Comma-separated symbols.")] = None,
    trades: Annotated[int | None, _simulation_option("Trades of all symbols.")] = None,
    seed: Annotated[int | None, _simulation_option("Equal seeds give equal events.")] = None,
    start: Annotated[str | None, _simulation_option("Event time of the start.")] = None,
    rate: Annotated[int | None, _simulation_option("Trades per second.")] = None,
    books: Annotated[bool | None, _simulation_option("Also order books.", "--books")] = None,
    bars: Annotated[str | None, _simulation_option("Also bars of this length, e.g. 1m.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Append files. A rerun adds nothing, and resumes an interrupted ingest."""
    own_options: dict[str, dict[str, Any]] = {
        "bars": {"time": time, "open": open, "high": high, "low": low, "close": close, "volume": volume,
                 "time_unit": time_unit, "interval": interval, "stamped": stamped},
        "simulate": {"symbols": resolve.comma_separated(symbols), "trades": trades, "seed": seed, "start": start,
                     "rate": rate, "books": books, "bars": bars},
    }  # fmt: skip
    feeds = _feeds(feed, files or [], {"symbol": symbol, "aggregate_id": aggregate_id}, own_options)
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


def _feeds(
    name: str, files: list[Path], common: Mapping[str, Any], own_options: Mapping[str, Mapping[str, Any]]
) -> list[Feed]:
    """All feeds. Created before any ingest, so that a missing file is an error before the first append."""
    from eventlab import feeds

    options = {option: value for option, value in common.items() if value is not None}
    own = {
        owner: {option: value for option, value in given.items() if value is not None}
        for owner, given in own_options.items()
    }
    for owner, given in own.items():
        if given and name != owner:
            words = ", ".join(f"--{option.replace('_', '-')}" for option in given)
            raise typer.BadParameter(f"{words}: only for the feed {owner}, not for {name}")
    make = getattr(feeds, name.replace("-", "_"))
    if name == "simulate":
        if files or "symbol" in options:
            raise typer.BadParameter("simulate takes no file and no --symbol; it has --symbols, --trades, --seed")
        return [make(**options, **own[name])]
    if not files:
        raise typer.BadParameter(f"{name} needs at least one FILE")
    if name == "exported" and options:
        raise typer.BadParameter("exported events have symbols and aggregates: omit --symbol and --aggregate-id")
    if name in _NEED_SYMBOL and "symbol" not in options:
        raise typer.BadParameter(f"{name} needs --symbol: its files do not have it")
    return [make(path, **options, **own.get(name, {})) for path in files]


def _row(feed: Feed, receipt: IngestReceipt) -> dict[str, Any]:
    report = receipt.report
    return {
        "feed": feed.name, "name": feed.source, "source": receipt.source, "events": receipt.count,
        "added": receipt.added, "already": receipt.already, "first_position": receipt.first_position,
        "position": receipt.position, "clamped": receipt.clamped, "backdated": receipt.backdated, "rows": report.rows,
        "dropped": dict(report.dropped), "gaps": report.gaps, "warnings": list(report.warnings),
    }  # fmt: skip


def _print_receipt(feed: Feed, receipt: IngestReceipt, seconds: float) -> None:
    report = receipt.report
    notes = ["already ingested; nothing added" if receipt.already else f"{seconds:.1f} s"]
    if receipt.added < receipt.count and not receipt.already:
        notes.append(f"{receipt.added:,} of them new: resumed an earlier ingest")
    notes += [f"{count:,} rows dropped: {reason}" for reason, count in report.dropped.items()]
    counts = {"gaps in ids": report.gaps, "times raised": receipt.clamped, "events back-dated": receipt.backdated}
    notes += [f"{count:,} {what}" for what, count in counts.items() if count]
    terminal.say(f"{feed.source}: {receipt.count:,} events ({'; '.join(notes)})", *report.warnings)
