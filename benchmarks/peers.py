"""The same work in other libraries, which are imported if they are installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import polars as pl


@cache
def _portfolio() -> Any:
    """The aggregate's class: the library allows one of a name."""
    from eventsourcing.domain import Aggregate, event

    class Portfolio(Aggregate):
        @event("Opened")
        def __init__(self) -> None:
            self.cash = self.realized_pnl = 0.0
            self.quantity: dict[str, float] = {}
            self.average_cost: dict[str, float] = {}

        @event("Filled")
        def fill(self, symbol: str, quantity: float, price: float, fee: float) -> None:
            self.cash -= quantity * price + fee
            held, cost = self.quantity.get(symbol, 0.0), self.average_cost.get(symbol, 0.0)
            left = held + quantity
            if held * quantity >= 0.0:
                if left != 0.0:
                    cost = (held * cost + quantity * price) / left
            else:
                gain = min(abs(held), abs(quantity)) * (price - cost)
                self.realized_pnl += gain if held > 0.0 else -gain
                cost = price if held * left < 0.0 else 0.0 if left == 0.0 else cost
            self.quantity[symbol], self.average_cost[symbol] = left, cost

    return Portfolio


def eventsourced_portfolio() -> Any:
    """A portfolio by average cost as an aggregate of the library eventsourcing, with plain floats."""
    return _portfolio()()


def eventsourced_application(portfolio: Any) -> Any:
    """An application of that library, in memory, with an aggregate saved in it."""
    from eventsourcing.application import Application

    application: Any = Application()
    application.save(portfolio)
    return application


def hftbacktest_replay(changes: pl.DataFrame, depth: str, tick: float) -> Callable[[], tuple[float, float]]:
    """Book changes as hftbacktest replays them, without a strategy; a call gives the best bid and ask at the end.

    It keeps a book of the exchange's and one of the trader's, so each change is applied twice.
    """
    import hftbacktest
    from numba import njit

    events = np.zeros(len(changes), hftbacktest.event_dtype)
    sides = np.where((changes["side"] == "bid").to_numpy(), hftbacktest.BUY_EVENT, hftbacktest.SELL_EVENT)
    known = hftbacktest.DEPTH_EVENT | hftbacktest.EXCH_EVENT | hftbacktest.LOCAL_EVENT
    events["ev"] = np.uint64(known) | sides.astype(np.uint64)
    events["exch_ts"] = 1_000_000 + 1_000 * np.arange(len(changes))
    events["local_ts"] = events["exch_ts"] + 1
    events["px"], events["qty"] = changes["price"].to_numpy(), changes["size"].to_numpy()
    lowest, highest = changes["price"].quantile(0.001), changes["price"].quantile(0.999)

    @njit
    def run(backtest: Any) -> None:
        while backtest.elapse(1_000_000_000_000) == 0:
            pass

    def replay() -> tuple[float, float]:
        asset = (
            hftbacktest.BacktestAsset()
            .data(events)
            .linear_asset(1.0)
            .constant_order_latency(0, 0)
            .risk_adverse_queue_model()
            .no_partial_fill_exchange()
            .trading_value_fee_model(0, 0)
            .tick_size(tick)
            .lot_size(0.001)
            .last_trades_capacity(0)
        )
        if depth.startswith("ROI"):  # an array of levels, of this range of prices only
            asset = asset.roi_lb(lowest).roi_ub(highest)
        backtest = getattr(hftbacktest, depth)([asset])
        run(backtest)
        book = backtest.depth(0)
        best = float(book.best_bid), float(book.best_ask)
        backtest.close()
        return best

    return replay
