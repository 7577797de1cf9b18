"""Average prices of trades: weighted by volume, by time, or exponentially.

>>> import eventlab as el
>>> with el.open(":memory:") as lab:
...     trades = [el.MarketData("X", 10.0, 1.0), el.MarketData("X", 20.0, 3.0)]
...     _ = lab.append("market/X", trades)
...     lab.state(el.Vwap, "market/X").vwap, lab.state(el.Ewma(alpha=0.5), "market/X").ewma
(17.5, 15.0)
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.reducer import reducer

LN2 = math.log(2.0)


@reducer
class Vwap:
    """Volume-weighted average price over all trades: notional / volume.

    Attributes
    ----------
    notional : float
        Sum of price times size, in quote currency.
    volume : float
        Sum of sizes, in base currency or contracts.
    vwap : float
        Their ratio, a price; NaN without volume.

    References
    ----------
    S. Berkowitz, D. Logue and E. Noser, The total cost of transactions on the NYSE, The Journal of Finance 43 (1988)
    97-112.
    """

    notional: float = 0.0
    volume: float = 0.0

    def on_market_data(state: Any, event: Any) -> None:
        state.notional += event.price * event.volume
        state.volume += event.volume

    @property
    def vwap(state: Any) -> float:
        """Volume-weighted average price."""
        return state.notional / state.volume if state.volume > 0.0 else math.nan


@reducer
class Twap:
    """Time-weighted average price: a price counts for as long as it was the last one, up to the latest trade.

    Attributes
    ----------
    last : float
        Price of the latest trade; NaN before the first.
    started, updated : int
        Event times of the first and the latest trade, ns.
    integral : float
        Integral of the last price over event time, price times ns.
    count : int
        Trades.
    twap : float
        integral / (updated - started); the last price while no time has passed, NaN before the first trade.

    References
    ----------
    The average of a step function over its duration; as an execution benchmark, R. Almgren and N. Chriss, Optimal
    execution of portfolio transactions, Journal of Risk 3 (2001) 5-39, whose risk-neutral schedule trades along it.
    """

    last: float = math.nan
    started: int = 0
    updated: int = 0
    integral: float = 0.0
    count: int = 0

    def on_market_data(state: Any, event: Any) -> None:
        if state.count == 0:
            state.started = event.timestamp
        else:
            state.integral += state.last * (event.timestamp - state.updated)
        state.last = event.price
        state.updated = event.timestamp
        state.count += 1

    @property
    def twap(state: Any) -> float:
        """Time-weighted average price."""
        elapsed = state.updated - state.started
        return state.integral / elapsed if elapsed > 0 else state.last


@reducer
class Ewma:
    """Exponentially weighted moving average of trade prices, an equal step a trade.

    ``ewma += alpha * (price - ewma)``, begun with the first price. A weight halves in ln(1/2) / ln(1 - alpha) trades;
    a span of n trades is alpha = 2 / (n + 1).

    Attributes
    ----------
    alpha : float
        Parameter: weight of the newest price, above 0 and at most 1; 0.1 if not given.
    ewma : float
        The average, a price; NaN before the first trade.
    count : int
        Trades.

    References
    ----------
    S. Roberts, Control chart tests based on geometric moving averages, Technometrics 1 (1959) 239-250.
    """

    alpha: float = 0.1
    ewma: float = math.nan
    count: int = 0

    def on_market_data(state: Any, event: Any) -> None:
        if not 0.0 < state.alpha <= 1.0:
            raise ValueError("alpha, the weight of the newest price, must be above 0 and at most 1")
        if state.count == 0:
            state.ewma = event.price
        else:
            state.ewma += state.alpha * (event.price - state.ewma)
        state.count += 1


@reducer
class EwmaTime:
    """Exponentially weighted moving average of trade prices that come at irregular times.

    ``ewma = w * ewma + (1 - w) * price`` with ``w = exp(-ln 2 * dt / half_life)`` and dt the time since the trade
    before, begun with the first price. A trade at the very time of the one before has no weight.

    Attributes
    ----------
    half_life_ns : int
        Parameter: nanoseconds after which a weight has halved, 1 or more; a minute if not given.
    ewma : float
        The average, a price; NaN before the first trade.
    updated : int
        Event time of the latest trade, ns.
    count : int
        Trades.

    References
    ----------
    U. Müller, Specially weighted moving averages with repeated application of the EMA operator, Olsen & Associates
    (1991); A. Eckner, Algorithms for unevenly spaced time series: moving averages and other rolling operators (2017),
    "EMA_next".
    """

    half_life_ns: int = 60_000_000_000
    ewma: float = math.nan
    updated: int = 0
    count: int = 0

    def on_market_data(state: Any, event: Any) -> None:
        if state.half_life_ns < 1:
            raise ValueError("half_life_ns must be 1 nanosecond or more")
        if state.count == 0:
            state.ewma = event.price
        else:
            weight = math.exp(-LN2 * ((event.timestamp - state.updated) / state.half_life_ns))
            state.ewma = weight * state.ewma + (1.0 - weight) * event.price
        state.updated = event.timestamp
        state.count += 1
