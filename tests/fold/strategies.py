"""Random events of every type, with values that hurt."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import strategies as st

import eventlab as el
from tests.fold.kitchen import Level, Tick, Tock, Unheard

FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, -0.25, 1.0, 3.0, -7.5, 1e-300, 1e300, 2.0**53, 9.3e18, 0.1, 5e-324]),
    st.floats(-1e6, 1e6),
)
INTS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63) + 1, 2**32, 10**18]),
    st.integers(-(10**6), 10**6),
)
WORDS = st.sampled_from(["", "a", "b", "c", "buy", "mm", "house", "drop", "again", "stop", "ü", "x" * 40])
SYMBOLS = WORDS.filter(bool)
PRICES = st.sampled_from([0.0, 0.5, 1.0, 1.1, 2.25, 99.99, 100.0, 1e-8, 123456.7])
SIZES = st.sampled_from([0.0, 0.0, 1.0, 0.3, 7.0, 1e9])


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


TICKS = st.builds(
    Tick,
    SYMBOLS,
    optional(WORDS),
    optional(st.sampled_from(["buy", "sell"])),
    optional(FLOATS),
    optional(INTS),
    st.booleans(),
    optional(st.booleans()),
    optional(st.just(dt.datetime(2024, 8, 9, tzinfo=dt.UTC))),
)
TOCKS = st.builds(Tock, SYMBOLS, FLOATS)
TRADES = st.builds(el.MarketData, SYMBOLS, PRICES, SIZES, optional(st.sampled_from(["buy", "sell"])))
LEVELS = st.builds(
    Level,
    st.sampled_from(["set", "set", "set", "set", "clear", "copy_best", "delete_all", "set_other"]),
    optional(PRICES | st.just(-0.0)),
    st.sampled_from([0.0, -0.0, 1.0, 2.5, 1e9]),
    PRICES,
)
KNOWN_LEVELS = st.builds(
    Level, st.sampled_from(["set", "set", "set", "clear", "copy_best", "delete_all"]), PRICES, SIZES, st.just(0.0)
)
BOOK_CHANGES = st.builds(
    el.BookChange,
    st.just("BTC"),
    st.sampled_from(["bid", "ask"]),
    PRICES,
    SIZES,
    st.sampled_from([False, False, False, True]),
    st.none(),
    optional(st.integers(1, 3)),
)
SIGNALS = st.builds(el.TradingSignal, SYMBOLS, WORDS, FLOATS, WORDS)
LOTS = st.sampled_from([1.0, -1.0, 2.0, -2.0, 0.1, -0.1, 0.3, -0.3, 0.7, 0.0, 1e-9, 5.5, -7.25])
PORTFOLIO_CHANGES = st.builds(
    el.PortfolioChange,
    st.sampled_from(["A", "B", "C"]),
    LOTS,
    PRICES,
    st.sampled_from([0.0, 0.25, -0.1]),
    st.sampled_from(["fill", "fill", "fill", "fill", "cash", "funding"]),
)
OTHERS = st.builds(Unheard) | st.builds(el.Funding, SYMBOLS, FLOATS)


def aggregates(*events: st.SearchStrategy[Any], max_size: int = 25) -> st.SearchStrategy[list[list[Any]]]:
    """Up to three aggregates of such events, now and then of one that nobody handles."""
    some = st.one_of(*events, *events, *events, OTHERS)
    return st.lists(st.lists(some, max_size=max_size), min_size=1, max_size=3)
