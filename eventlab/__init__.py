"""eventlab: a laboratory for event-sourced trading research.

``import eventlab as el`` loads next to nothing; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventlab import errors, experiments, feeds, plots, snapshots
    from eventlab.errors import EventlabError
    from eventlab.events import protobuf
    from eventlab.events.builtin import Bar, BookChange, Funding, MarketData, PortfolioChange, Quote, TradingSignal
    from eventlab.events.types import Limits, Symbol, event
    from eventlab.events.upcast import upcast
    from eventlab.fold import Array, Keyed, Ladder, Queue, executors, is_null, on, reducer
    from eventlab.lab import Lab, open  # noqa: A004
    from eventlab.reducers import (
        BookDepth,
        Correlation,
        DollarBars,
        Ewma,
        EwmaTime,
        FundingRate,
        Moments,
        OrderBook,
        OrderFlowImbalance,
        Portfolio,
        RealizedVolatility,
        Risk,
        RollingCorrelation,
        RollingMoments,
        Signals,
        TickBars,
        TimeBars,
        Trades,
        Twap,
        VolumeBars,
        Vwap,
    )
    from eventlab.store.contract import Receipt
    from eventlab.timetravel.asof import AsOf

__version__ = "0.1.0"

__all__ = [
    "Array",
    "AsOf",
    "Bar",
    "BookChange",
    "BookDepth",
    "Correlation",
    "DollarBars",
    "EventlabError",
    "Ewma",
    "EwmaTime",
    "Funding",
    "FundingRate",
    "Keyed",
    "Lab",
    "Ladder",
    "Limits",
    "MarketData",
    "Moments",
    "OrderBook",
    "OrderFlowImbalance",
    "Portfolio",
    "PortfolioChange",
    "Queue",
    "Quote",
    "RealizedVolatility",
    "Receipt",
    "Risk",
    "RollingCorrelation",
    "RollingMoments",
    "Signals",
    "Symbol",
    "TickBars",
    "TimeBars",
    "Trades",
    "TradingSignal",
    "Twap",
    "VolumeBars",
    "Vwap",
    "errors",
    "event",
    "executors",
    "experiments",
    "feeds",
    "is_null",
    "on",
    "open",
    "plots",
    "protobuf",
    "reducer",
    "snapshots",
    "upcast",
]

_HOMES = {
    "eventlab.errors": ("EventlabError",),
    "eventlab.events.builtin": (
        "Bar", "BookChange", "Funding", "MarketData", "PortfolioChange", "Quote", "TradingSignal",
    ),
    "eventlab.events.types": ("Limits", "Symbol", "event"),
    "eventlab.events.upcast": ("upcast",),
    "eventlab.fold": ("Array", "Keyed", "Ladder", "Queue", "is_null", "on", "reducer"),
    "eventlab.lab": ("Lab", "open"),
    "eventlab.reducers": (
        "BookDepth", "Correlation", "DollarBars", "Ewma", "EwmaTime", "FundingRate", "Moments", "OrderBook",
        "OrderFlowImbalance", "Portfolio", "RealizedVolatility", "Risk", "RollingCorrelation", "RollingMoments",
        "Signals", "TickBars", "TimeBars", "Trades", "Twap", "VolumeBars", "Vwap",
    ),
    "eventlab.store.contract": ("Receipt",),
    "eventlab.timetravel.asof": ("AsOf",),
}  # fmt: skip
_MODULES = {
    "errors": "eventlab.errors",
    "executors": "eventlab.fold.executors",
    "experiments": "eventlab.experiments",
    "feeds": "eventlab.feeds",
    "plots": "eventlab.plots",
    "protobuf": "eventlab.events.protobuf",
    "snapshots": "eventlab.snapshots",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOME_OF:
        raise AttributeError(f"module 'eventlab' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
