"""Depth, imbalance and order flow: by hand, and against the order book and sorted levels."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import FoldError
from tests.examples import examples
from tests.fold.strategies import BOOK_CHANGES

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])
TEN = el.BookDepth(levels=10)


def book(*levels):
    lab = el.open(":memory:")
    lab.append("b", [el.BookChange("A", side, price, size) for side, price, size in levels])
    return lab


@BOTH
def test_depth_is_that_of_the_best_levels(interpret):
    bids = [("bid", 100.0 - n, 1.0 + n) for n in range(4)]
    asks = [("ask", 101.0 + n, 2.0) for n in range(2)]
    with book(*asks[::-1], *bids[::-1]) as lab:
        for levels, bid, ask in ((1, 1.0, 2.0), (2, 3.0, 4.0), (3, 6.0, 4.0), (50, 10.0, 4.0)):
            state = lab.state(el.BookDepth(levels=levels), "b", interpret=interpret)
            assert (state.bid_depth, state.ask_depth) == (bid, ask)
            assert state.imbalance == (bid - ask) / (bid + ask)
            assert state.microprice == (100.0 * 2.0 + 101.0 * 1.0) / 3.0  # fewer on the bid: nearer to it


@BOTH
def test_an_empty_side_has_no_depth_and_no_microprice(interpret):
    with book(("bid", 1.0, 2.0), ("ask", 2.0, 4.0), ("bid", 1.0, 0.0), ("ask", 2.0, 0.0)) as lab:
        rows = lab.history(el.BookDepth, "b", interpret=interpret)
        before = lab.state(el.BookDepth, "b", as_of=0, interpret=interpret)
    assert rows["bid_depth"].to_list() == [2.0, 2.0, 0.0, 0.0]
    assert rows["ask_depth"].to_list() == [0.0, 4.0, 4.0, 0.0]
    assert str(rows["imbalance"].to_list()) == str([math.nan, -1.0 / 3.0, math.nan, math.nan])
    assert str(rows["microprice"].to_list()) == str([math.nan, 8.0 / 6.0, math.nan, math.nan])
    assert (before.bid_depth, before.ask_depth) == (0.0, 0.0)
    assert math.isnan(before.imbalance)


@BOTH
@pytest.mark.parametrize("levels", [0, -1, 51])
def test_levels_out_of_range_are_refused(interpret, levels):
    with book(("bid", 1.0, 2.0)) as lab, pytest.raises(FoldError, match="BookDepth.*version 1.*levels.*1 to 50"):
        lab.state(el.BookDepth(levels=levels), "b", interpret=interpret)


@examples(25)
@given(st.lists(BOOK_CHANGES, min_size=1, max_size=60))
def test_ten_levels_deep_it_is_the_order_book(changes):
    with el.open(":memory:") as lab:
        lab.append("b", changes)
        deep, plain = (lab.history(reducer, "b", tables=True, interpret=True) for reducer in (TEN, el.OrderBook))
        shallow = lab.state(el.BookDepth(levels=1), "b", interpret=True)
    same = ["bids", "asks", "update_id", "in_snapshot", "bid_depth", "ask_depth"]
    assert deep.select(same).equals(plain.select(same))
    last = plain.row(-1, named=True)
    assert str(shallow.imbalance) == str(last["imbalance"])
    if last["bids"] and last["asks"]:
        low, high = sorted((last["best_bid"], last["best_ask"]))
        assert low * (1 - 1e-12) <= shallow.microprice <= high * (1 + 1e-12)


@pytest.mark.parametrize("market", ["usdm", "spot"])
def test_a_real_books_depth_is_the_sum_of_its_sorted_levels(market_data_dir, market):
    with el.open(":memory:") as lab:
        lab.ingest(el.feeds.tardis_book(market_data_dir / "binance" / f"{market}_btcusdt_l2.csv.gz"), progress=False)
        (name,) = lab.store.aggregate_ids()
        at = [2_000, 5_000, 30_000, 100_000]
        rows = lab.history(TEN, name, at=at, tables=True, interpret=False)
        versions = lab.history(el.OrderBook, name, at=at)
        first = [lab.state(TEN, name, as_of=at[0], interpret=way).digest for way in (True, False)]
    assert first[0] == first[1]
    for row in rows.iter_rows(named=True):
        bids, asks = (pl.DataFrame(row[side]) for side in ("bids", "asks"))
        bid = bids.sort("price", descending=True)["size"].head(10).to_numpy()
        ask = asks.sort("price")["size"].head(10).to_numpy()
        assert row["bid_depth"] == pytest.approx(bid.sum(), rel=1e-13)
        assert row["ask_depth"] == pytest.approx(ask.sum(), rel=1e-13)
        assert row["imbalance"] == pytest.approx((bid.sum() - ask.sum()) / (bid.sum() + ask.sum()), abs=1e-13)
    weighted = (versions["best_bid"] * versions["best_ask_size"] + versions["best_ask"] * versions["best_bid_size"]) / (
        versions["best_ask_size"] + versions["best_bid_size"]
    )
    assert rows["microprice"].to_list() == pytest.approx(weighted.to_list(), rel=1e-15)


@BOTH
@pytest.mark.parametrize(
    ("after", "flow"),
    [
        ((99.0, 8.0, 101.0, 6.0), 3.0),  # size joins the bid
        ((99.0, 4.0, 101.0, 6.0), -1.0),  # size leaves it
        ((99.0, 5.0, 101.0, 9.0), -3.0),  # size joins the ask
        ((100.0, 2.0, 101.0, 6.0), 2.0),  # a better bid brings its size
        ((98.0, 7.0, 101.0, 6.0), -5.0),  # a worse one takes what stood above
        ((99.0, 5.0, 100.0, 4.0), -4.0),  # a better ask
        ((99.0, 5.0, 102.0, 4.0), 6.0),  # a worse one
        ((0.0, 0.0, 101.0, 6.0), -5.0),  # no bid any more
        ((99.0, 5.0, 0.0, 0.0), 6.0),  # no ask any more
        ((99.0, 5.0, 101.0, 6.0), 0.0),
    ],
)
def test_order_flow(interpret, after, flow):
    with el.open(":memory:") as lab:
        lab.append("q", [el.Quote("A", *quote) for quote in ((99.0, 5.0, 101.0, 6.0), after, (99.0, 5.0, 101.0, 6.0))])
        rows = lab.history(el.OrderFlowImbalance, "q", interpret=interpret)
    assert rows["flow"].to_list() == [0.0, flow, -flow]  # there and back is nothing
    assert rows["ofi"].to_list() == [0.0, flow, 0.0]
    assert rows["count"].to_list() == [1, 2, 3]


@examples(25)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 4), min_size=1, max_size=50))
def test_at_prices_that_stay_order_flow_is_what_the_sizes_gained(sizes):
    quotes = [(10.0, float(bid) + 1.0, 11.0, float(ask) + 1.0) for bid, ask, *_ in sizes]
    with el.open(":memory:") as lab:
        lab.append("q", [el.Quote("A", *quote) for quote in quotes])
        ofi = lab.history(el.OrderFlowImbalance, "q", interpret=True)["ofi"].to_numpy()
    lean = np.array([bid - ask for _, bid, _, ask in quotes])
    assert np.array_equal(ofi, lean - lean[0])
