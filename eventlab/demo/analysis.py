"""The demo's results: past states, a trace of causes, and equity."""

from __future__ import annotations

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


def past_states(lab: Lab, market: Market, history: pl.DataFrame) -> list[dict[str, Any]]:
    """States at past times and versions, checked to be the same by version, by time and in the history.

    Raises
    ------
    EventlabError
        Two ways give different states, which is a bug.
    """
    times = [history["at"].to_physical()[int(len(history) * part)] for part in (0.2, 0.4, 0.6, 0.8)]
    moments = [(AsOf(time=time), format_ns(time)) for time in times]
    versions = [max(1, int(market.events * part)) for part in (0.1, 0.5, 1.0)]
    moments += [(AsOf(version=version), f"version {version:,}") for version in versions]
    return [
        *(_past_state(lab, reducers.Trades, market.aggregate_id, *moment) for moment in moments),
        _past_state(lab, reducers.Portfolio, PORTFOLIO, *moments[2]),
    ]


def _past_state(lab: Lab, reducer: ReducerLike, aggregate_id: str, moment: AsOf, as_of: str) -> dict[str, Any]:
    began = perf_counter()
    state = lab.state(reducer, aggregate_id, moment)
    taken = perf_counter() - began
    by_version = lab.state(reducer, aggregate_id, state.version)
    row = lab.history(reducer, aggregate_id, at=[moment])
    if by_version.digest != state.digest or not _equals_row(state, row):
        raise EventlabError(
            f"the state of {aggregate_id!r} at {as_of} depends on how it is reached",
            hint="This is a bug in eventlab; please report it.",
        )
    name = "last" if reducer is reducers.Trades else "equity"
    return {
        "aggregate_id": aggregate_id, "as_of": as_of, "version": state.version,
        "timestamp": None if state.timestamp is None else format_ns(state.timestamp),
        "shown": f"{name} {getattr(state, name):,.2f}", "digest": state.digest, "milliseconds": taken * 1e3,
    }  # fmt: skip


def _equals_row(state: State, row: pl.DataFrame) -> bool:
    """Whether a state and a row of a history have the same version and bit-identical fields."""
    fields = row.drop("at", "position", "timestamp").row(0, named=True)
    # The text of a float has all its bits, equals itself for NaN, and tells -0.0 from 0.0.
    return all(repr(getattr(state, name)) == repr(value) for name, value in fields.items())


def trace(lab: Lab, history: pl.DataFrame) -> dict[str, Any] | None:
    """The most profitable fill, its causes back to the market, and the position after it; None without fills.

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
    bought = f"{'sold' if fill['quantity'] < 0 else 'bought'} {abs(fill['quantity']):,.6g} at {fill['price']:,.10g}"
    apart = f"{signal['action']}, averages differ by {signal['strength']:+.4%}"
    traded = f"{market['side'] or 'trade of'} {market['volume']:,.6g} at {market['price']:,.10g}"
    positions = lab.state(reducers.Portfolio, PORTFOLIO, AsOf(position=best["position"])).positions
    holding = positions.filter(pl.col("symbol") == fill["symbol"]).select("symbol", "quantity", "average_cost")
    return {
        "rows": [_row("fill", bought, fill), _row("signal", apart, signal), _row("market event", traded, market)],
        "gained": best["gained"],
        "holding": holding.row(0, named=True),
    }


def _event(lab: Lab, of: type, position: int) -> dict[str, Any]:
    frame = lab.scan(of).filter(pl.col("position") == position).collect()
    return frame.with_columns(timestamp=pl.col("timestamp").to_physical()).row(0, named=True)


def _row(event: str, content: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "event": event, "content": content, "position": found["position"], "caused by": found["cause"],
        "time": format_ns(found["timestamp"]), "aggregate": found["aggregate_id"], "version": found["version"],
    }  # fmt: skip


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
