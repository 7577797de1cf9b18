"""Realised variance and bipower variation of trade prices.

>>> import eventlab as el
>>> with el.open(":memory:") as lab:
...     trades = [el.MarketData("X", price, 1.0) for price in (100.0, 101.0, 100.0)]
...     _ = lab.append("market/X", trades)
...     round(lab.state(el.RealizedVolatility, "market/X").volatility, 6)
0.014072
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.reducer import reducer

HALF_PI = math.pi / 2.0


def _log_return(price: float, before: float) -> float:
    ratio = price / before
    if 0.0 < ratio < math.inf:
        return math.log(ratio)
    return math.log(price) - math.log(before)


@reducer
class RealizedVolatility:
    """Sum of squared log returns from trade to trade, and its part that jumps do not enter.

    Nothing is annualised: `variance` is that of the whole span. Returns from trade to trade also hold the bounce
    between bid and ask; over bars, that averages out. A price of 0 has no logarithm, and such a trade is passed over.

    Attributes
    ----------
    last : float
        Latest price above 0; NaN before the first.
    last_return : float
        Absolute value of the latest log return; 0 before the first.
    count : int
        Returns, one fewer than prices.
    sum_squares : float
        Sum of squared log returns.
    sum_products : float
        Sum of absolute log returns times the ones before them.
    variance : float
        Realised variance, sum_squares.
    volatility : float
        Its root.
    bipower : float
        Bipower variation, pi / 2 * sum_products: estimates the variance without that of jumps.

    References
    ----------
    T. Andersen and T. Bollerslev, Answering the skeptics: yes, standard volatility models do provide accurate
    forecasts, International Economic Review 39 (1998) 885-905; O. Barndorff-Nielsen and N. Shephard, Power and bipower
    variation with stochastic volatility and jumps, Journal of Financial Econometrics 2 (2004) 1-37.
    """

    last: float = math.nan
    last_return: float = 0.0
    count: int = 0
    sum_squares: float = 0.0
    sum_products: float = 0.0

    def on_market_data(state: Any, event: Any) -> None:
        if event.price <= 0.0:
            return
        if state.last > 0.0:
            change = abs(_log_return(event.price, state.last))
            state.sum_squares += change * change
            state.sum_products += change * state.last_return
            state.last_return = change
            state.count += 1
        state.last = event.price

    @property
    def variance(state: Any) -> float:
        """Realised variance of the whole span."""
        return state.sum_squares

    @property
    def volatility(state: Any) -> float:
        """Root of the realised variance."""
        return math.sqrt(state.sum_squares)

    @property
    def bipower(state: Any) -> float:
        """Bipower variation of the whole span."""
        return HALF_PI * state.sum_products
