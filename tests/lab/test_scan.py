"""A scan is a filter on events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.lab import scan as _scanning
from eventlab.lab.lab import Lab


@pytest.fixture(scope="module")
def filled() -> Iterator[Lab]:
    with el.open(":memory:") as lab:
        for part in range(4):
            frame = pl.DataFrame(
                {
                    "symbol": [f"S{n % 3}" for n in range(50)],
                    "price": [float(n) for n in range(50)],
                    "volume": [1.0] * 50,
                    "timestamp": [part * 1_000_000 + n * 1_000 for n in range(50)],
                }
            )
            lab.append_frame(el.MarketData, frame)
            if part % 2:
                lab.seal()
        yield lab


def at(ns: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=ns // 1000)


CONDITIONS = st.recursive(
    st.one_of(
        st.builds(
            lambda op, ns: getattr(pl.col("timestamp"), op)(at(ns)),
            st.sampled_from(["__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__"]),
            st.integers(0, 4_000_000),
        ),
        st.builds(lambda ns: pl.lit(at(ns)) < pl.col("timestamp"), st.integers(0, 4_000_000)),
        st.builds(
            lambda low, high, closed: pl.col("timestamp").is_between(at(low), at(high), closed=closed),
            st.integers(0, 4_000_000),
            st.integers(0, 4_000_000),
            st.sampled_from(["both", "left", "right", "none"]),
        ),
        st.builds(lambda code: pl.col("aggregate_id") == f"market/S{code}", st.integers(0, 3)),
        st.builds(
            lambda codes: pl.col("aggregate_id").is_in([f"market/S{code}" for code in codes]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        st.builds(
            pl.col("aggregate_id").str.starts_with,
            st.sampled_from(["", "market/", "market/S1", "market/S*", "x"]),
        ),
        st.builds(
            lambda op, position: getattr(pl.col("position"), op)(position),
            st.sampled_from(["__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__"]),
            st.integers(-2, 202) | st.floats(-2, 202) | st.sampled_from([-(2**63), 2**63 - 1]),
        ),
        st.builds(lambda low, high: pl.col("position").is_between(low, high), st.integers(0, 200), st.integers(0, 200)),
        st.builds(lambda price: pl.col("price") > price, st.integers(0, 50)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=4,
)


@given(condition=CONDITIONS, columns=st.sets(st.sampled_from(["price", "symbol", "timestamp", "version"]), min_size=1))
@settings(max_examples=200)
def test_a_scan_is_a_filter_on_events(filled: Lab, condition: pl.Expr, columns: set[str]):
    picked = sorted(columns)
    assert (
        filled.scan(el.MarketData)
        .filter(condition)
        .select(picked)
        .collect()
        .equals(filled.events(el.MarketData).filter(condition).select(picked))
    )


def test_a_scan_knows_its_schema_and_stops_early(filled: Lab):
    lazy = filled.scan(el.MarketData)
    assert lazy.collect_schema() == filled.events(el.MarketData).schema
    assert lazy.head(7).collect().equals(filled.events(el.MarketData).head(7))
    assert lazy.select(pl.len()).collect().item() == 200
    assert lazy.collect().equals(filled.events(el.MarketData))


def test_a_scan_pushes_times_and_aggregates_down():
    bounds = _scanning.bounds_of(
        (pl.col("timestamp") >= at(5_000)) & (pl.col("timestamp") < at(9_000)) & (pl.col("aggregate_id") == "a")
    )
    assert bounds == _scanning.ScanBounds(5_000, 9_000, names=frozenset("a"))
    column = pl.col("aggregate_id")
    either = column.is_in(["a", "b"]) & column.str.starts_with("b") | (column == "c") & (pl.col("position") < 9)
    assert _scanning.bounds_of(either) == _scanning.ScanBounds(names=frozenset("bc"))
    range_ = column.str.starts_with("market/") & pl.col("position").is_between(3, 8) & (pl.col("price") > 1)
    assert _scanning.bounds_of(range_) == _scanning.ScanBounds(first_position=3, stop_position=9, prefix="market/")
    assert _scanning.bounds_of((pl.col("timestamp") > at(1_000)) | (pl.col("price") > 1)) == _scanning.ScanBounds()


def signal_of(strength):
    return el.TradingSignal("BTC", "buy", strength, "s")


@pytest.mark.parametrize("seal", [True, False])
def test_a_scan_takes_its_first_rows_before_it_filters_them(seal):
    with el.open(":memory:") as lab:
        for at in range(200):
            lab.append("a", el.TradingSignal("B", "buy" if at % 3 else "sell", float(at), "s"))
        if seal:
            lab.seal()
        for ask in (
            lambda lazy: lazy.head(100).filter(pl.col("action") == "buy"),
            lambda lazy: lazy.filter(pl.col("action") == "buy").head(20),
            lambda lazy: lazy.head(50).filter(pl.col("position") >= 40),
            lambda lazy: lazy.head(150).filter(pl.col("aggregate_id") == "b"),
            lambda lazy: lazy.head(10).select(pl.col("strength") * 2.0).filter(pl.col("strength") > 4.0),
        ):
            assert ask(lab.scan(el.TradingSignal)).collect().equals(ask(lab.events(el.TradingSignal).lazy()).collect())
