"""Bars of trades: by time, by number of trades, by volume and by value traded.

A state holds the bar that is being built and, under `last_…`, the last one completed. To get all bars, take the rows of
a history in which `bars` changes:

>>> import eventlab as el
>>> import polars as pl
>>> with el.open(":memory:") as lab:
...     prices = (10.0, 12.0, 11.0, 9.0, 8.0)
...     _ = lab.append("market/X", [el.MarketData("X", price, 2.0) for price in prices])
...     rows = lab.history(el.TickBars(size=2), "market/X")
>>> bars = rows.filter(pl.col("bars") != pl.col("bars").shift(1, fill_value=0))
>>> bars.select("last_open", "last_high", "last_low", "last_close", "last_volume").rows()
[(10.0, 12.0, 10.0, 12.0, 4.0), (11.0, 11.0, 9.0, 9.0, 4.0)]

Sources: M. López de Prado, Advances in Financial Machine Learning (Wiley, 2018), ch. 2, "Standard bars".
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.reducer import reducer


def _add(state: Any, event: Any) -> None:
    """Take a trade into the bar that is being built."""
    if state.count == 0:
        state.open = state.high = state.low = event.price
        state.started = event.timestamp
    if event.price > state.high:
        state.high = event.price
    if event.price < state.low:
        state.low = event.price
    state.close = event.price
    state.volume += event.volume
    state.notional += event.price * event.volume
    state.count += 1


def _complete(state: Any, end: int) -> None:
    """Make the bar that is being built the last one, and begin an empty one."""
    state.last_open = state.open
    state.last_high = state.high
    state.last_low = state.low
    state.last_close = state.close
    state.last_volume = state.volume
    state.last_notional = state.notional
    state.last_count = state.count
    state.last_started = state.started
    state.last_end = end
    state.bars += 1
    state.open = state.high = state.low = state.close = math.nan
    state.volume = state.notional = 0.0
    state.count = state.started = 0


def _vwap(notional: float, volume: float) -> float:
    return notional / volume if volume > 0.0 else math.nan


# A class's fields begin with those of its last base, and a parameter is a bar's first column: hence a base for each.
class _Width:
    width_ns: int


class _TradesPerBar:
    size: int


class _SizePerBar:
    size: float


class _Building:
    """The bar that is being built."""

    open: float = math.nan
    high: float = math.nan
    low: float = math.nan
    close: float = math.nan
    volume: float = 0.0
    notional: float = 0.0
    count: int = 0
    started: int = 0

    @property
    def vwap(state: Any) -> float:
        """Volume-weighted average price of the bar being built."""
        return _vwap(state.notional, state.volume)


class _PeriodEnd:
    end: int = 0


class _Completed:
    """The last completed bar."""

    last_open: float = math.nan
    last_high: float = math.nan
    last_low: float = math.nan
    last_close: float = math.nan
    last_volume: float = 0.0
    last_notional: float = 0.0
    last_count: int = 0
    last_started: int = 0
    last_end: int = 0
    bars: int = 0

    @property
    def last_vwap(state: Any) -> float:
        """Volume-weighted average price of the last completed bar."""
        return _vwap(state.last_notional, state.last_volume)


@reducer
class TimeBars(_Completed, _PeriodEnd, _Building, _Width):
    """Bars of equal duration, aligned to the epoch: one covers (end - width, end], as `every=` of a history does.

    A bar is completed by the first trade after its end, since only that tells that no more will come. Intervals without
    a trade give no bar.

    Attributes
    ----------
    width_ns : int
        Parameter: duration of a bar in nanoseconds, 1 or more; a minute if not given.
    open, high, low, close : float
        Prices of the bar being built, in quote currency; NaN before its first trade.
    volume : float
        Sum of sizes, in base currency or contracts.
    notional : float
        Sum of price times size, in quote currency.
    count : int
        Trades in the bar being built.
    started : int
        Event time of its first trade, ns; 0 while it has none.
    end : int
        End of its interval, ns since the epoch, inclusive.
    last_open, last_high, last_low, last_close, last_volume, last_notional, last_count, last_started : float or int
        The same of the last completed bar.
    last_end : int
        End of its interval, ns; 0 while there is none.
    bars : int
        Bars completed.
    vwap, last_vwap : float
        Volume-weighted average prices of the two bars; NaN without volume.
    """

    width_ns: int = 60_000_000_000

    def on_market_data(state: Any, event: Any) -> None:
        if state.width_ns < 1:
            raise ValueError("width_ns, the duration of a bar, must be 1 nanosecond or more")
        end = -(-event.timestamp // state.width_ns) * state.width_ns
        if state.count > 0 and end != state.end:
            _complete(state, state.end)
        state.end = end
        _add(state, event)


@reducer
class TickBars(_Completed, _Building, _TradesPerBar):
    """Bars of equally many trades. The trade that makes a bar whole is part of it.

    Attributes
    ----------
    size : int
        Parameter: trades in a bar, 1 or more; 100 if not given.
    open, high, low, close, volume, notional, count, started : float or int
        The bar being built, as in `TimeBars`; empty after the trade that completed one.
    last_open, last_high, last_low, last_close, last_volume, last_notional, last_count, last_started : float or int
        The last completed bar.
    last_end : int
        Event time of its last trade, ns; 0 while there is none.
    bars : int
        Bars completed.
    vwap, last_vwap : float
        Volume-weighted average prices of the two bars; NaN without volume.
    """

    size: int = 100

    def on_market_data(state: Any, event: Any) -> None:
        if state.size < 1:
            raise ValueError("size, the trades in a bar, must be 1 or more")
        _add(state, event)
        if state.count >= state.size:
            _complete(state, event.timestamp)


@reducer
class VolumeBars(_Completed, _Building, _SizePerBar):
    """Bars completed by the trade with which their volume reaches `size`; that trade is wholly part of its bar.

    Attributes
    ----------
    size : float
        Parameter: volume that completes a bar, in base currency or contracts, above 0; 1 if not given.
    open, high, low, close, volume, notional, count, started : float or int
        The bar being built, as in `TimeBars`; empty after the trade that completed one.
    last_open, last_high, last_low, last_close, last_volume, last_notional, last_count, last_started : float or int
        The last completed bar. Its volume is at least `size`: what exceeds it is not carried over.
    last_end : int
        Event time of its last trade, ns; 0 while there is none.
    bars : int
        Bars completed.
    vwap, last_vwap : float
        Volume-weighted average prices of the two bars; NaN without volume.
    """

    size: float = 1.0

    def on_market_data(state: Any, event: Any) -> None:
        if not state.size > 0.0:
            raise ValueError("size, the volume of a bar, must be above 0")
        _add(state, event)
        if state.volume >= state.size:
            _complete(state, event.timestamp)


@reducer
class DollarBars(VolumeBars):
    """Bars completed by the trade with which the value traded reaches `size`; that trade is wholly part of its bar.

    Attributes
    ----------
    size : float
        Parameter: value traded that completes a bar, in quote currency, above 0; a million if not given.
    open, high, low, close, volume, notional, count, started : float or int
        The bar being built, as in `TimeBars`; empty after the trade that completed one.
    last_open, last_high, last_low, last_close, last_volume, last_notional, last_count, last_started : float or int
        The last completed bar. Its notional is at least `size`: what exceeds it is not carried over.
    last_end : int
        Event time of its last trade, ns; 0 while there is none.
    bars : int
        Bars completed.
    vwap, last_vwap : float
        Volume-weighted average prices of the two bars; NaN without volume.
    """

    size: float = 1_000_000.0

    def on_market_data(state: Any, event: Any) -> None:
        if not state.size > 0.0:
            raise ValueError("size, the value traded in a bar, must be above 0")
        _add(state, event)
        if state.notional >= state.size:
            _complete(state, event.timestamp)
