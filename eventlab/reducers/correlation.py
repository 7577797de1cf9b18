"""Covariance and correlation of trade price and size: over all trades, or over the last so many.

>>> import eventlab as el
>>> with el.open(":memory:") as lab:
...     trades = [el.MarketData("X", price, 2.0 * price) for price in (1.0, 2.0, 4.0)]
...     _ = lab.append("market/X", trades)
...     state = lab.state(el.Correlation, "market/X")
...     round(state.correlation, 12), round(state.covariance, 12)
(1.0, 4.666666666667)
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.layout import Array
from eventlab.fold.declare.reducer import reducer
from eventlab.reducers.moments import LONGEST_WINDOW, Ring, Window, check_window, sample_variance


def _correlation(comoment: float, price_m2: float, volume_m2: float) -> float:
    """Pearson's r; rounding never takes it outside [-1, 1]."""
    scale = math.sqrt(price_m2) * math.sqrt(volume_m2)
    if not scale > 0.0:
        return math.nan
    return max(-1.0, min(1.0, comoment / scale))


def _include(state: Any, price: float, volume: float) -> None:
    """Take a pair into means and moments."""
    if state.count == 0:
        state.price_mean = price
        state.volume_mean = volume
    state.count += 1
    by_price = price - state.price_mean
    by_volume = volume - state.volume_mean
    state.price_mean += by_price / state.count
    state.volume_mean += by_volume / state.count
    state.price_m2 += by_price * (price - state.price_mean)
    state.volume_m2 += by_volume * (volume - state.volume_mean)
    state.comoment += by_price * (volume - state.volume_mean)


@reducer
class Correlation:
    """Pearson's correlation between price and size over all trades.

    Attributes
    ----------
    count : int
        Trades.
    price_mean, volume_mean : float
        Averages, every trade weighing the same; NaN before the first.
    price_m2, volume_m2 : float
        Sums of squared deviations from the means.
    comoment : float
        Sum of products of both deviations.
    covariance : float
        Sample covariance comoment / (count - 1); NaN of fewer than two trades.
    correlation : float
        comoment / sqrt(price_m2 * volume_m2), between -1 and 1; NaN where either did not vary.

    References
    ----------
    B. Welford, Note on a method for calculating corrected sums of squares and products, Technometrics 4 (1962) 419-420;
    T. Chan, G. Golub and R. LeVeque, The American Statistician 37
    (1983) 242-247.
    """

    count: int = 0
    price_mean: float = math.nan
    volume_mean: float = math.nan
    price_m2: float = 0.0
    volume_m2: float = 0.0
    comoment: float = 0.0

    def on_market_data(state: Any, event: Any) -> None:
        _include(state, event.price, event.volume)

    @property
    def covariance(state: Any) -> float:
        """Sample covariance."""
        return sample_variance(state.comoment, state.count)

    @property
    def correlation(state: Any) -> float:
        """Pearson's correlation coefficient."""
        return _correlation(state.comoment, state.price_m2, state.volume_m2)


def _exchange(state: Any, price: float, volume: float) -> None:
    """Take a pair in for the one it replaces in a full ring."""
    old_price, old_volume = state.prices[state.place], state.volumes[state.place]
    price_mean, volume_mean = state.price_mean, state.volume_mean
    state.price_mean += (price - old_price) / state.count
    state.volume_mean += (volume - old_volume) / state.count
    state.price_m2 += (price - old_price) * (price - state.price_mean + old_price - price_mean)
    state.volume_m2 += (volume - old_volume) * (volume - state.volume_mean + old_volume - volume_mean)
    state.comoment += (price - old_price) * (volume - state.volume_mean)
    state.comoment += (old_price - price_mean) * (volume - old_volume)
    if state.price_m2 < 0.0:
        state.price_m2 = 0.0
    if state.volume_m2 < 0.0:
        state.volume_m2 = 0.0


def _settle(state: Any) -> None:
    """Means and moments of a full ring anew, from its first element to its last."""
    price_base, volume_base = state.prices[0], state.volumes[0]  # so that equal values have exactly that mean
    price_total = volume_total = 0.0
    for place in range(state.window):
        price_total += state.prices[place] - price_base
        volume_total += state.volumes[place] - volume_base
    state.price_mean = price_base + price_total / state.window
    state.volume_mean = volume_base + volume_total / state.window
    price_m2 = volume_m2 = comoment = 0.0
    for place in range(state.window):
        by_price = state.prices[place] - state.price_mean
        by_volume = state.volumes[place] - state.volume_mean
        price_m2 += by_price * by_price
        volume_m2 += by_volume * by_volume
        comoment += by_price * by_volume
    state.price_m2 = price_m2
    state.volume_m2 = volume_m2
    state.comoment = comoment


@reducer
class RollingCorrelation(Ring, Correlation, Window):
    """Pearson's correlation between price and size over the last `window` trades.

    Updated by the trade that arrives and the one that leaves, and computed anew each time the rings have been written
    round, as in `RollingMoments`.

    Attributes
    ----------
    window : int
        Parameter: trades that count, 1 to 256; 20 if not given.
    count : int
        Trades in the window: `window`, once there were so many.
    price_mean, volume_mean, price_m2, volume_m2, comoment : float
        As in `Correlation`, of the trades in the window.
    place : int
        Where in the rings the next trade goes.
    prices, volumes : array of 256 float
        The rings: their first `window` elements are in use.
    covariance, correlation : float
        As in `Correlation`.

    References
    ----------
    As for `Correlation`.
    """

    window: int = 20
    volumes = Array(float, LONGEST_WINDOW)

    def on_market_data(state: Any, event: Any) -> None:
        check_window(state.window)
        if state.count < state.window:
            _include(state, event.price, event.volume)
        else:
            _exchange(state, event.price, event.volume)
        state.prices[state.place] = event.price
        state.volumes[state.place] = event.volume
        state.place += 1
        if state.place == state.window:
            state.place = 0
            _settle(state)
