"""Trades of one market: last price, open, high, low, close, volume and volume-weighted average price."""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.reducer import reducer


@reducer
class Trades:
    """Statistics over all trades of an aggregate. Prices are NaN before the first trade."""

    last: float = math.nan
    open: float = math.nan
    high: float = math.nan
    low: float = math.nan
    volume: float = 0.0
    notional: float = 0.0
    count: int = 0

    def on_market_data(state: Any, event: Any) -> None:
        if state.count == 0:
            state.open = state.high = state.low = event.price
        if event.price > state.high:
            state.high = event.price
        if event.price < state.low:
            state.low = event.price
        state.last = event.price
        state.volume += event.volume
        state.notional += event.price * event.volume
        state.count += 1

    @property
    def close(state: Any) -> float:
        """The last price, under its name in a bar."""
        return state.last

    @property
    def vwap(state: Any) -> float:
        """Volume-weighted average price: notional / volume."""
        return state.notional / state.volume if state.volume else math.nan
