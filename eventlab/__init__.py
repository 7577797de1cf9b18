"""eventlab: a laboratory for event-sourced trading research.

``import eventlab as el`` loads next to nothing; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventlab.runtime.lazy_names import lazily

if TYPE_CHECKING:
    from eventlab import errors, experiments, feeds, plots, snapshots
    from eventlab.errors import EventlabError
    from eventlab.events.builtin import Bar, BookChange, Funding, MarketData, PortfolioChange, Quote, TradingSignal
    from eventlab.events.types import Limits, Symbol, event
    from eventlab.events.upcast import upcast
    from eventlab.fold import Array, Keyed, Ladder, Queue, executors, is_null, on, reducer
    from eventlab.interchange.protobuf import convert as protobuf
    from eventlab.lab.lab import Lab
    from eventlab.lab.open import open  # noqa: A004
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
    from eventlab.snapshots.placement import workloads
    from eventlab.store.types import Receipt
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
    "workloads",
]

_HOMES = {
    "errors": ("EventlabError",),
    "events.builtin": (
        "Bar", "BookChange", "Funding", "MarketData", "PortfolioChange", "Quote", "TradingSignal",
    ),
    "events.types": ("Limits", "Symbol", "event"),
    "events.upcast": ("upcast",),
    "fold": ("Array", "Keyed", "Ladder", "Queue", "is_null", "on", "reducer"),
    "lab.lab": ("Lab",),
    "lab.open": ("open",),
    "reducers": (
        "BookDepth", "Correlation", "DollarBars", "Ewma", "EwmaTime", "FundingRate", "Moments", "OrderBook",
        "OrderFlowImbalance", "Portfolio", "RealizedVolatility", "Risk", "RollingCorrelation", "RollingMoments",
        "Signals", "TickBars", "TimeBars", "Trades", "Twap", "VolumeBars", "Vwap",
    ),
    "store.types": ("Receipt",),
    "timetravel.asof": ("AsOf",),
}  # fmt: skip
_MODULES = {
    "errors": "errors",
    "executors": "fold.executors",
    "experiments": "experiments",
    "feeds": "feeds",
    "plots": "plots",
    "protobuf": "interchange.protobuf.convert",
    "snapshots": "snapshots",
    "workloads": "snapshots.placement.workloads",
}
_load, _names = lazily(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    return import_module(f"{__name__}.{_MODULES[name]}") if name in _MODULES else _load(name)


def __dir__() -> list[str]:
    return sorted({*_names(), *_MODULES})
