"""What the demo found, step by step: measured and compared, ready to be shown or written as JSON."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import polars as pl

from eventlab import reducers
from eventlab.demo.market import Market
from eventlab.demo.trader import PORTFOLIO
from eventlab.errors import EventlabError
from eventlab.events.builtin import MarketData, PortfolioChange, TradingSignal
from eventlab.events.clock import duration_ns, format_ns
from eventlab.timetravel.asof import AsOf

if TYPE_CHECKING:
    from eventlab.fold.declare.reducer import ReducerLike
    from eventlab.lab.lab import Lab
    from eventlab.timetravel.state import State

_MARKS = ("at", "version", "position", "timestamp")


@dataclass(frozen=True, slots=True)
class Visit:
    """A past state, reached in several ways that all gave the same bits."""

    aggregate_id: str
    asked: str
    version: int
    timestamp: int | None
    shown: str
    digest: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Link:
    """One event of a trace."""

    what: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """A position's thread of causes: fill, signal, market event; and the position it left."""

    fill: Link
    signal: Link
    market: Link
    held: dict[str, Any]
    gained: float


def visits(lab: Lab, market: Market, history: pl.DataFrame) -> list[Visit]:
    """Go to past moments by time and by version, and prove that every way gives the same state.

    Raises
    ------
    EventlabError
        Two ways differ, which the laws of the lab forbid.
    """
    times = [history["at"].to_physical()[int(len(history) * part)] for part in (0.2, 0.4, 0.6, 0.8)]
    made = [_visit(lab, reducers.Trades, market.aggregate_id, AsOf(time=time), format_ns(time)) for time in times]
    versions = [max(1, int(market.events * part)) for part in (0.1, 0.5, 1.0)]
    made += [_visit(lab, reducers.Trades, market.aggregate_id, AsOf(version=v), f"version {v:,}") for v in versions]
    made.append(_visit(lab, reducers.Portfolio, PORTFOLIO, AsOf(time=times[2]), format_ns(times[2])))
    return made


def _visit(lab: Lab, reducer: ReducerLike, aggregate_id: str, moment: AsOf, asked: str) -> Visit:
    began = perf_counter()
    state = lab.state(reducer, aggregate_id, moment)
    taken = perf_counter() - began
    by_version = lab.state(reducer, aggregate_id, state.version)
    row = lab.history(reducer, aggregate_id, at=[moment])
    if by_version.digest != state.digest or not equals_row(state, row):
        raise EventlabError(
            f"the state of {aggregate_id!r} at {asked} depends on how it is reached",
            hint="No correct lab does that: please report it.",
        )
    name, value = ("last", state.last) if reducer is reducers.Trades else ("equity", state.equity)
    shown = f"{name} {value:,.2f}"
    return Visit(aggregate_id, asked, state.version, state.timestamp, shown, state.digest, taken * 1e3)


def equals_row(state: State, row: pl.DataFrame) -> bool:
    """Whether a state and a history's row have the same version and, bit for bit, the same fields."""
    kept = row.row(0, named=True)
    if kept["version"] != state.version:
        return False
    return all(_same(getattr(state, name), value) for name, value in kept.items() if name not in _MARKS)


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("<d", one) == struct.pack("<d", other) or (math.isnan(one) and math.isnan(other))
    return one == other


def trace(lab: Lab, history: pl.DataFrame) -> Trace | None:
    """Follow the causes of the most profitable fill back to the market; None where nothing was filled.

    Parameters
    ----------
    history : polars.DataFrame
        Of the portfolio, a row an event.
    """
    gains = history.with_columns(gained=pl.col("realized_pnl").diff().fill_null(0.0)).filter(pl.col("fills") > 0)
    if not len(gains):
        return None
    best = gains.sort("gained", descending=True).row(0, named=True)
    fill = _event(lab, PortfolioChange, best["position"])
    signal = _event(lab, TradingSignal, fill["cause"])
    market = _event(lab, MarketData, signal["cause"])
    after = lab.state(reducers.Portfolio, PORTFOLIO, AsOf(position=best["position"]))
    held = after.positions.filter(pl.col("symbol") == fill["symbol"]).row(0, named=True)
    return Trace(Link("fill", fill), Link("signal", signal), Link("market event", market), held, best["gained"])


def _event(lab: Lab, of: type, position: int) -> dict[str, Any]:
    frame = lab.scan(of).filter(pl.col("position") == position).collect()
    return frame.with_columns(timestamp=pl.col("timestamp").to_physical()).row(0, named=True)


def equity(portfolio: pl.DataFrame, closes: dict[str, pl.DataFrame], at: pl.Series) -> pl.DataFrame:
    """Equity at moments, positions valued at the last trade instead of the last fill.

    Parameters
    ----------
    portfolio : polars.DataFrame
        History with tables at the moments `at`.
    closes : mapping of str to polars.DataFrame
        By symbol, the market's history at the same moments.
    """
    cash = portfolio.select(pl.Series("at", at), "cash", "positions")
    held = cash.drop("cash").filter(pl.col("positions").list.len() > 0).explode("positions").unnest("positions")
    prices = pl.concat([frame.select("at", "last", symbol=pl.lit(name)) for name, frame in closes.items()])
    # A flat position is worth nothing, also where its market has no price yet.
    worth = pl.when(pl.col("quantity") == 0.0).then(0.0).otherwise(pl.col("quantity") * pl.col("last"))
    valued = held.join(prices, on=["at", "symbol"], how="left").group_by("at").agg(value=worth.sum())
    return cash.join(valued, on="at", how="left", maintain_order="left").select(
        "at", "cash", equity=pl.col("cash") + pl.col("value").fill_null(0.0)
    )


def bar_times(market: Market, start: int, stop: int) -> pl.Series:
    """The ends of bars from one time to another, in ns."""
    step = duration_ns(market.bar)
    times = range(-(-start // step) * step, -(-stop // step) * step + 1, step)
    return pl.Series("at", list(times), pl.Int64).cast(pl.Datetime("ns", "UTC"))
