"""A simple trader that follows the crossing of two moving averages. It demonstrates traces, not profit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from eventlab.demo.market import Market
from eventlab.events.builtin import MarketData, PortfolioChange, TradingSignal
from eventlab.events.clock import duration_ns
from eventlab.events.types import Symbol

if TYPE_CHECKING:
    from eventlab.lab.lab import Lab

SIGNALS, PORTFOLIO = "signals/crossover", "portfolio/crossover"
_SIGNIFICANT = 3
_TIME = pl.Datetime("ns", "UTC")


@dataclass(frozen=True, slots=True)
class Crossover:
    """Long while the fast average of bar closes is above the slow one, short below.

    Attributes
    ----------
    fast, slow : int
        Bars in each average.
    cash : float
        Initial cash of the portfolio.
    stake : float
        Value of a position in each market, at the price of the first decision.
    fee : float
        Fraction of a fill's value.
    """

    fast: int = 5
    slow: int = 20
    cash: float = 100_000.0
    stake: float = 25_000.0
    fee: float = 0.0004

    def decisions(self, trades: pl.DataFrame, bar: str) -> pl.DataFrame:
        """The decisions on one market's trades, and the trades that fill them.

        Each decision uses the closes up to the end of a bar, and the first trade after it is the fill. A bar counts
        only after a later trade, so that more trades never change an earlier decision.

        Parameters
        ----------
        trades : polars.DataFrame
            `position`, `timestamp` (Datetime ns), `price`, in version order.
        bar : str
            Length of a bar; the bar that ends at t has the trades of (t - bar, t].

        Returns
        -------
        polars.DataFrame
            timestamp, cause (position of the last trade of the bar), action, strength (fast over slow average, less 1),
            quantity (signed), fill_timestamp, fill_price.
        """
        step = duration_ns(bar)
        ns, price = trades["timestamp"].to_physical().to_numpy(), trades["price"].to_numpy()
        end = -(-ns // step) * step
        last = np.flatnonzero(np.append(end[1:] != end[:-1], False))  # the last bar may be incomplete
        closes = pl.Series(price[last])
        ratio = (closes.rolling_mean(self.fast) / closes.rolling_mean(self.slow)).to_numpy() - 1.0
        side = np.sign(ratio)
        chosen = np.flatnonzero(np.isfinite(ratio) & (side != 0))
        turned = chosen[np.append(True, side[chosen][1:] != side[chosen][:-1])] if len(chosen) else chosen
        filled = last[turned] + 1
        target = side[turned] * self._size(price[last[turned[:1]]])
        return pl.DataFrame({
            "timestamp": pl.Series(end[last[turned]]).cast(_TIME),
            "cause": trades["position"].to_numpy()[last[turned]],
            "action": pl.Series(np.where(side[turned] > 0, "buy", "sell"), dtype=pl.String),
            "strength": ratio[turned],
            "quantity": np.diff(target, prepend=0.0),
            "fill_timestamp": pl.Series(ns[filled]).cast(_TIME),
            "fill_price": price[filled],
        })  # fmt: skip

    def _size(self, price: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(f"{self.stake / price[0]:.{_SIGNIFICANT}g}") if len(price) and price[0] > 0 else 0.0


@dataclass(frozen=True, slots=True)
class TraderResult:
    """Numbers of signals and fills that the trader appended."""

    signals: int
    fills: int


def run_trader(lab: Lab, markets: Sequence[Market], trader: Crossover) -> TraderResult:
    """Append the trader's signals, caused by trades, and its fills, caused by signals."""
    frames = []
    for market in markets:
        trades = lab.events(MarketData, market.aggregate_id, columns=["position", "timestamp", "price"])
        frame = trader.decisions(trades, market.bar)
        frames.append(frame.with_columns(symbol=pl.lit(market.name)))
    decisions = pl.concat(frames).sort("timestamp", "cause").with_row_index("row")
    lab.append(
        PORTFOLIO,
        PortfolioChange(Symbol("cash"), trader.cash, 1.0, kind="cash"),
        timestamp=min(market.start for market in markets),
    )
    if not len(decisions):
        return TraderResult(0, 0)
    strategy = f"sma {trader.fast}/{trader.slow}"
    signals = lab.append_frame(
        TradingSignal,
        decisions.select("timestamp", "cause", "symbol", "action", "strength", strategy=pl.lit(strategy)),
        aggregate_id=SIGNALS,
    )
    fills = decisions.with_columns(cause=pl.col("row").cast(pl.Int64) + signals.first_position)
    done = lab.append_frame(
        PortfolioChange,
        fills.sort("fill_timestamp", "row").select(
            "cause", "symbol", "quantity",
            timestamp="fill_timestamp",
            price="fill_price",
            fee=(pl.col("quantity") * pl.col("fill_price")).abs() * trader.fee,
            kind=pl.lit("fill"),
        ),
        aggregate_id=PORTFOLIO,
    )  # fmt: skip
    return TraderResult(signals.count, done.count)
