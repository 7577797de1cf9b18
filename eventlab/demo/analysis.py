"""The demo's results: past states, a trace of causes, and equity."""

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
class PastState:
    """A past state that several ways of reaching it gave with the same bits."""

    aggregate_id: str
    as_of: str
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
    """The causes of a position: fill, signal and market event; and the position after the fill."""

    fill: Link
    signal: Link
    market: Link
    holding: dict[str, Any]
    gained: float


def past_states(lab: Lab, market: Market, history: pl.DataFrame) -> list[PastState]:
    """States at past times and versions, checked to be the same by version, by time and in the history.

    Raises
    ------
    EventlabError
        Two ways give different states, which is a bug.
    """
    times = [history["at"].to_physical()[int(len(history) * part)] for part in (0.2, 0.4, 0.6, 0.8)]
    made = [_past_state(lab, reducers.Trades, market.aggregate_id, AsOf(time=time), format_ns(time)) for time in times]
    versions = [max(1, int(market.events * part)) for part in (0.1, 0.5, 1.0)]
    made += [
        _past_state(lab, reducers.Trades, market.aggregate_id, AsOf(version=v), f"version {v:,}") for v in versions
    ]
    made.append(_past_state(lab, reducers.Portfolio, PORTFOLIO, AsOf(time=times[2]), format_ns(times[2])))
    return made


def _past_state(lab: Lab, reducer: ReducerLike, aggregate_id: str, moment: AsOf, as_of: str) -> PastState:
    began = perf_counter()
    state = lab.state(reducer, aggregate_id, moment)
    taken = perf_counter() - began
    by_version = lab.state(reducer, aggregate_id, state.version)
    row = lab.history(reducer, aggregate_id, at=[moment])
    if by_version.digest != state.digest or not equals_row(state, row):
        raise EventlabError(
            f"the state of {aggregate_id!r} at {as_of} depends on how it is reached",
            hint="This is a bug in eventlab; please report it.",
        )
    name, value = ("last", state.last) if reducer is reducers.Trades else ("equity", state.equity)
    shown = f"{name} {value:,.2f}"
    return PastState(aggregate_id, as_of, state.version, state.timestamp, shown, state.digest, taken * 1e3)


def equals_row(state: State, row: pl.DataFrame) -> bool:
    """Whether a state and a row of a history have the same version and bit-identical fields."""
    fields = row.row(0, named=True)
    if fields["version"] != state.version:
        return False
    return all(_same(getattr(state, name), value) for name, value in fields.items() if name not in _MARKS)


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("<d", one) == struct.pack("<d", other) or (math.isnan(one) and math.isnan(other))
    return one == other


def trace(lab: Lab, history: pl.DataFrame) -> Trace | None:
    """Follow the causes of the most profitable fill back to the market; None without fills.

    Parameters
    ----------
    history : polars.DataFrame
        The portfolio's history, one row per event.
    """
    gains = history.with_columns(gained=pl.col("realized_pnl").diff().fill_null(0.0)).filter(pl.col("fills") > 0)
    if not len(gains):
        return None
    best = gains.sort("gained", descending=True).row(0, named=True)
    fill = _event(lab, PortfolioChange, best["position"])
    signal = _event(lab, TradingSignal, fill["cause"])
    market = _event(lab, MarketData, signal["cause"])
    after = lab.state(reducers.Portfolio, PORTFOLIO, AsOf(position=best["position"]))
    holding = after.positions.filter(pl.col("symbol") == fill["symbol"]).row(0, named=True)
    return Trace(Link("fill", fill), Link("signal", signal), Link("market event", market), holding, best["gained"])


def _event(lab: Lab, of: type, position: int) -> dict[str, Any]:
    frame = lab.scan(of).filter(pl.col("position") == position).collect()
    return frame.with_columns(timestamp=pl.col("timestamp").to_physical()).row(0, named=True)


def equity(portfolio: pl.DataFrame, closes: dict[str, pl.DataFrame], at: pl.Series) -> pl.DataFrame:
    """Equity at given times, with positions valued at the last trade instead of the last fill.

    Parameters
    ----------
    portfolio : polars.DataFrame
        History with tables at the times `at`.
    closes : mapping of str to polars.DataFrame
        The market's history at the same times, by symbol.
    """
    cash = portfolio.select(pl.Series("at", at), "cash", "positions")
    positions = cash.drop("cash").filter(pl.col("positions").list.len() > 0).explode("positions").unnest("positions")
    prices = pl.concat([frame.select("at", "last", symbol=pl.lit(name)) for name, frame in closes.items()])
    # A flat position is worth zero, even before its market has a price.
    worth = pl.when(pl.col("quantity") == 0.0).then(0.0).otherwise(pl.col("quantity") * pl.col("last"))
    valued = positions.join(prices, on=["at", "symbol"], how="left").group_by("at").agg(value=worth.sum())
    return cash.join(valued, on="at", how="left", maintain_order="left").select(
        "at", "cash", equity=pl.col("cash") + pl.col("value").fill_null(0.0)
    )


def bar_times(market: Market, start: int, stop: int) -> pl.Series:
    """The end times of bars between two times in ns."""
    step = duration_ns(market.bar)
    times = range(-(-start // step) * step, -(-stop // step) * step + 1, step)
    return pl.Series("at", list(times), pl.Int64).cast(pl.Datetime("ns", "UTC"))
