"""The reducers that come with eventlab: what a market, a book, signals and a portfolio add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventlab.runtime.lazy_names import lazily

if TYPE_CHECKING:
    from eventlab.reducers.averages import Ewma, EwmaTime, Twap, Vwap
    from eventlab.reducers.bars import DollarBars, TickBars, TimeBars, VolumeBars
    from eventlab.reducers.book import OrderBook
    from eventlab.reducers.correlation import Correlation, RollingCorrelation
    from eventlab.reducers.depth import BookDepth
    from eventlab.reducers.flow import OrderFlowImbalance
    from eventlab.reducers.funding import FundingRate
    from eventlab.reducers.market import Trades
    from eventlab.reducers.moments import Moments, RollingMoments
    from eventlab.reducers.portfolio import Portfolio
    from eventlab.reducers.risk import Risk
    from eventlab.reducers.signals import Signals
    from eventlab.reducers.volatility import RealizedVolatility

__all__ = [
    "BookDepth",
    "Correlation",
    "DollarBars",
    "Ewma",
    "EwmaTime",
    "FundingRate",
    "Moments",
    "OrderBook",
    "OrderFlowImbalance",
    "Portfolio",
    "RealizedVolatility",
    "Risk",
    "RollingCorrelation",
    "RollingMoments",
    "Signals",
    "TickBars",
    "TimeBars",
    "Trades",
    "Twap",
    "VolumeBars",
    "Vwap",
]

_HOMES = {
    "averages": (
        "Ewma",
        "EwmaTime",
        "Twap",
        "Vwap",
    ),
    "bars": (
        "DollarBars",
        "TickBars",
        "TimeBars",
        "VolumeBars",
    ),
    "book": ("OrderBook",),
    "correlation": (
        "Correlation",
        "RollingCorrelation",
    ),
    "depth": ("BookDepth",),
    "flow": ("OrderFlowImbalance",),
    "funding": ("FundingRate",),
    "market": ("Trades",),
    "moments": (
        "Moments",
        "RollingMoments",
    ),
    "portfolio": ("Portfolio",),
    "risk": ("Risk",),
    "signals": ("Signals",),
    "volatility": ("RealizedVolatility",),
}

__getattr__, __dir__ = lazily(__name__, _HOMES)


def declare() -> None:
    """Load all of them, so that whatever was made with one is known by its fingerprint."""
    for name in __all__:
        __getattr__(name)
