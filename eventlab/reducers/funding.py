"""Funding rates of perpetuals: the latest, their sum and their mean, by symbol and in total.

>>> import eventlab as el
>>> with el.open(":memory:") as lab:
...     _ = lab.append("funding/X", [el.Funding("X", rate) for rate in (0.25, -0.5, 1.0)])
...     state = lab.state(el.FundingRate, "funding/X")
...     state.rate, state.cumulative, state.count, state.mean
(1.0, 0.75, 3, 0.25)
"""

from __future__ import annotations

import math
from typing import Any

from eventlab.fold.declare.layout import Keyed
from eventlab.fold.declare.reducer import reducer


@reducer
class FundingRate:
    """Funding rates as fractions of a position's value; longs pay a positive one.

    Attributes
    ----------
    rate : float
        The latest rate of any symbol; NaN before the first.
    cumulative : float
        Sum of all rates: what a long of constant value paid over all intervals, in units of that value.
    count : int
        Intervals.
    mean : float
        cumulative / count; NaN before the first.
    by_symbol : table
        The same of every symbol, in order of first touch: symbol, rate, cumulative, count, mean.

    References
    ----------
    The sum is the simple one of linear perpetuals: each interval's payment is rate times the position's value then
    (BitMEX, Perpetual Contracts Guide, "Funding").
    """

    rate: float = math.nan
    cumulative: float = 0.0
    count: int = 0
    by_symbol = Keyed("symbol", rate=float, cumulative=float, count=int, mean=float)

    def on_funding(state: Any, event: Any) -> None:
        state.rate = event.rate
        state.cumulative += event.rate
        state.count += 1
        row = state.by_symbol[event.symbol]
        row.rate = event.rate
        row.cumulative += event.rate
        row.count += 1
        row.mean = row.cumulative / row.count

    @property
    def mean(state: Any) -> float:
        """Average rate over all intervals."""
        return state.cumulative / state.count if state.count > 0 else math.nan
