"""Mean and variance of trade prices: over all trades, or over the last so many.

>>> import eventlab as el
>>> with el.open(":memory:") as lab:
...     prices = (1.0, 2.0, 3.0, 4.0, 9.0)
...     _ = lab.append("market/X", [el.MarketData("X", price, 1.0) for price in prices])
...     every, recent = lab.state(el.Moments, "market/X"), lab.state(el.RollingMoments(window=3), "market/X")
>>> (every.mean, round(every.variance, 9)), (round(recent.mean, 9), round(recent.variance, 9))
((3.8, 9.7), (5.333333333, 10.333333333))
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.layout import Array
from eventlab.fold.declare.reducer import reducer

LONGEST_WINDOW = 256
"""Trades that a rolling reducer can hold."""


def check_window(window: int) -> None:
    """Refuse a window that no ring holds."""
    if window < 1 or window > LONGEST_WINDOW:
        raise ValueError("window must be 1 to 256 trades")


def sample_variance(m2: float, count: int) -> float:
    """Variance from a sum of squared deviations; NaN of fewer than two values."""
    return m2 / (count - 1) if count > 1 else math.nan


class Window:
    """The parameter of rolling reducers, as their first field."""

    window: int


class Ring:
    """The latest prices, of which the next one replaces the oldest."""

    place: int = 0
    prices = Array(float, LONGEST_WINDOW)


class _Spread:
    """Mean and sum of squared deviations."""

    count: int = 0
    mean: float = math.nan
    m2: float = 0.0

    @property
    def variance(state: Any) -> float:
        """Sample variance."""
        return sample_variance(state.m2, state.count)

    @property
    def std(state: Any) -> float:
        """Sample standard deviation."""
        return math.sqrt(sample_variance(state.m2, state.count))


@reducer
class Moments(_Spread):
    """Count, mean, variance and range of all trade prices, without the cancellation of a sum of squares.

    Attributes
    ----------
    count : int
        Trades.
    mean : float
        Average price, every trade weighing the same; NaN before the first.
    m2 : float
        Sum of squared deviations from the mean, price squared.
    min, max : float
        Lowest and highest price; NaN before the first.
    variance, std : float
        Sample variance m2 / (count - 1) and its root; NaN of fewer than two trades.

    References
    ----------
    B. Welford, Note on a method for calculating corrected sums of squares and products, Technometrics 4 (1962) 419-420;
    D. Knuth, The Art of Computer Programming, vol. 2, §4.2.2, (15) and (16).
    """

    min: float = math.nan
    max: float = math.nan

    def on_market_data(state: Any, event: Any) -> None:
        price = event.price
        if state.count == 0:
            state.mean = state.min = state.max = price
        if price < state.min:
            state.min = price
        if price > state.max:
            state.max = price
        state.count += 1
        deviation = price - state.mean
        state.mean += deviation / state.count
        state.m2 += deviation * (price - state.mean)


def _settle(state: Any) -> None:
    """Mean and deviations of a full ring anew, from its first element to its last."""
    base = state.prices[0]  # so that equal prices have exactly that mean
    total = 0.0
    for place in range(state.window):
        total += state.prices[place] - base
    state.mean = base + total / state.window
    m2 = 0.0
    for place in range(state.window):
        deviation = state.prices[place] - state.mean
        m2 += deviation * deviation
    state.m2 = m2


@reducer
class RollingMoments(Ring, _Spread, Window):
    """Mean and variance of the last `window` trade prices.

    A price that arrives and the one that leaves update mean and deviations together. Each time the ring has been
    written round, both are computed anew from what it holds, so that rounding never outlives two windows.

    Attributes
    ----------
    window : int
        Parameter: trades that count, 1 to 256; 20 if not given.
    count : int
        Trades in the window: `window`, once there were so many.
    mean : float
        Their average price; NaN before the first.
    m2 : float
        Sum of their squared deviations from the mean, price squared.
    place : int
        Where in the ring the next price goes.
    prices : array of 256 float
        The ring: its first `window` elements are in use.
    variance, std : float
        Sample variance m2 / (count - 1) and its root; NaN of fewer than two trades.

    References
    ----------
    Welford (1962) as in `Moments`; T. Chan, G. Golub and R. LeVeque, Algorithms for computing the sample variance, The
    American Statistician 37 (1983) 242-247, whose pairwise update adds one value and takes one away.
    """

    window: int = 20

    def on_market_data(state: Any, event: Any) -> None:
        check_window(state.window)
        price, mean = event.price, state.mean
        if state.count == 0:
            mean = price
        if state.count < state.window:
            state.count += 1
            state.mean = mean + (price - mean) / state.count
            state.m2 += (price - mean) * (price - state.mean)
        else:
            leaving = state.prices[state.place]
            state.mean = mean + (price - leaving) / state.count
            state.m2 += (price - leaving) * (price - state.mean + leaving - mean)
            if state.m2 < 0.0:
                state.m2 = 0.0
        state.prices[state.place] = price
        state.place += 1
        if state.place == state.window:
            state.place = 0
            _settle(state)
