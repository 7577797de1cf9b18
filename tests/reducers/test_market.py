"""Trades, order books and signals: small ones by hand, large ones from real files against other tools."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

import eventlab as el

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])


@BOTH
def test_trades(interpret):
    lab = el.open(":memory:")
    lab.append(
        "m", [el.MarketData("A", price, volume) for price, volume in ((3.0, 2.0), (5.0, 1.0), (1.0, 4.0), (2.0, 0.0))]
    )
    state = lab.state(el.Trades, "m", interpret=interpret)
    assert (state.open, state.high, state.low, state.close, state.last) == (3.0, 5.0, 1.0, 2.0, 2.0)
    assert (state.volume, state.notional, state.count, state.vwap) == (7.0, 15.0, 4, 15.0 / 7.0)
    before = lab.state(el.Trades, "m", as_of=0, interpret=interpret)
    assert all(math.isnan(getattr(before, name)) for name in ("open", "high", "low", "close", "last", "vwap"))
    assert (before.volume, before.count) == (0.0, 0)


@BOTH
def test_signals(interpret):
    lab = el.open(":memory:")
    lab.append(
        "s", [el.TradingSignal(*s) for s in (("A", "buy", 1.0, "x"), ("B", "sell", 2.0, "y"), ("A", "hold", 3.0, "z"))]
    )
    state = lab.state(el.Signals, "s", interpret=interpret)
    assert (state.symbol, state.action, state.strength, state.strategy, state.count) == ("A", "hold", 3.0, "z", 3)
    assert state.by_symbol.rows() == [("A", "hold", 3.0, "z", 2), ("B", "sell", 2.0, "y", 1)]


def change(side, price, size, update_id, *, snapshot=False):
    return el.BookChange("A", side, price, size, snapshot=snapshot, update_id=update_id)


@BOTH
def test_an_order_book(interpret):
    lab = el.open(":memory:")
    lab.append(
        "b",
        [
            change("bid", 1.0, 9.0, 1),  # before the snapshot: cleared by it
            change("bid", 10.0, 1.0, 2, snapshot=True),
            change("bid", 9.0, 2.0, 2, snapshot=True),
            change("ask", 11.0, 3.0, 2, snapshot=True),
            change("ask", 13.0, 1.0, 2, snapshot=True),
            change("bid", 10.5, 4.0, 3),
            change("ask", 11.0, 0.0, 4),
            change("ask", 77.0, 0.0, 5),  # deletes what is not there
            change("bid", 8.0, 1.0, 6, snapshot=True),  # a new snapshot
            change("bid", 7.0, 1.0, 7, snapshot=True),  # and another: its id differs
        ],
    )

    def look(version):
        state = lab.state(el.OrderBook, "b", as_of=version, interpret=interpret)
        return state.best_bid, state.best_bid_size, state.best_ask, state.best_ask_size

    assert look(5) == (10.0, 1.0, 11.0, 3.0)
    assert look(6) == (10.5, 4.0, 11.0, 3.0)
    assert look(8) == (10.5, 4.0, 13.0, 1.0)
    state = lab.state(el.OrderBook, "b", as_of=8, interpret=interpret)
    assert (state.mid, state.spread, state.imbalance) == (11.75, 2.5, 0.6)
    assert (state.bid_depth, state.ask_depth) == (7.0, 1.0)
    assert state.bids.rows() == [(10.5, 4.0), (10.0, 1.0), (9.0, 2.0)]
    assert state.asks.rows() == [(13.0, 1.0)]
    assert str(look(9)) == "(8.0, 1.0, nan, nan)"
    assert str(look(10)) == "(7.0, 1.0, nan, nan)"
    assert str(look(0)) == "(nan, nan, nan, nan)"
    last = lab.state(el.OrderBook, "b", interpret=interpret)
    assert math.isnan(last.mid)
    assert math.isnan(last.imbalance)
    assert (last.bid_depth, last.ask_depth) == (1.0, 0.0)


@BOTH
def test_depth_counts_ten_levels(interpret):
    lab = el.open(":memory:")
    lab.append("b", [change("bid", float(price), 1.0, 1) for price in range(1, 16)])
    assert lab.state(el.OrderBook, "b", interpret=interpret).bid_depth == 10.0


@pytest.mark.parametrize(("market", "compared"), [("usdm", 629), ("spot", 1072)])
def test_a_real_book_equals_an_independent_best_bid_and_ask_everywhere(market_data_dir, market, compared):
    folder = market_data_dir / "binance"
    lab = el.open(":memory:")
    lab.ingest(el.feeds.tardis_book(folder / f"{market}_btcusdt_l2.csv.gz"), progress=False)
    (name,) = lab.store.aggregate_ids()
    history = lab.history(el.OrderBook, name)
    book = history.group_by("update_id", maintain_order=True).last()
    seen = pl.read_csv(folder / f"{market}_btcusdt_bbo.csv.gz").group_by("update_id", maintain_order=True).last()
    both = book.join(seen, on="update_id")
    assert both.height == compared
    for ours, theirs in (
        ("best_bid", "bid_price"),
        ("best_bid_size", "bid_amount"),
        ("best_ask", "ask_price"),
        ("best_ask_size", "ask_amount"),
    ):  # fmt: skip
        assert both[ours].equals(both[theirs].cast(pl.Float64).alias(ours))
    whole = book.filter(pl.col("best_bid").is_not_nan() & pl.col("best_ask").is_not_nan())
    assert whole.filter(pl.col("best_bid") >= pl.col("best_ask")).height == 0
    last = lab.state(el.OrderBook, name)
    assert last.best_bid == history["best_bid"][-1]
    assert last.bids["price"].is_sorted(descending=True)
    assert last.asks["price"].is_sorted()
    for version in (1, 500, 3_000):
        interpreted, compiled = (lab.state(el.OrderBook, name, as_of=version, interpret=way) for way in (True, False))
        assert interpreted.digest == compiled.digest
    some = [1_000, 2_999, 3_000]
    rows = [lab.history(el.OrderBook, name, at=some, tables=True, interpret=way) for way in (True, False)]
    assert rows[0].equals(rows[1], null_equal=True)


@pytest.mark.parametrize("market", ["usdm", "spot"])
def test_real_trades_add_up_as_polars_says(market_data_dir, market):
    lab = el.open(":memory:")
    path = market_data_dir / "binance" / f"{market}_btcusdt_trades.csv.gz"
    lab.ingest(el.feeds.binance_trades(path, symbol="BTCUSDT"), progress=False)
    trades = lab.events(el.MarketData)
    history = lab.history(el.Trades, "market/BTCUSDT", interpret=False)
    price, volume = trades["price"].to_numpy(), trades["volume"].to_numpy()
    expected = {
        "last": price,
        "high": np.maximum.accumulate(price),
        "low": np.minimum.accumulate(price),
        "volume": np.cumsum(volume),  # one after the other, as the fold: bit for bit
        "notional": np.cumsum(price * volume),
        "count": np.arange(1, len(price) + 1),
    }
    for name, values in expected.items():
        assert np.array_equal(history[name].to_numpy(), values), name
    last = lab.state(el.Trades, "market/BTCUSDT", interpret=True)
    assert last.volume == pytest.approx(trades["volume"].sum(), rel=1e-12)
    assert last.vwap == pytest.approx(np.sum(price * volume) / np.sum(volume), rel=1e-12)
    assert last.to_dict()["notional"] == history["notional"][-1]
    minutes = lab.history(el.Trades, "market/BTCUSDT", every="1m")
    closes = trades.group_by_dynamic("timestamp", every="1m", closed="right", label="right").agg(pl.col("price").last())
    joined = minutes.join(closes, left_on="at", right_on="timestamp")
    assert joined.height == closes.height
    assert joined["last"].equals(joined["price"].alias("last"))


@pytest.mark.parametrize("interpret", [True, False])
def test_a_book_whose_source_has_no_update_ids_has_update_id_zero(interpret):
    with el.open(":memory:") as lab:
        lab.append("book/A", [el.BookChange("A", "bid", 1.0, 2.0), el.BookChange("A", "ask", 1.5, 2.0, snapshot=True)])
        history = lab.history(el.OrderBook, "book/A", interpret=interpret)
        assert lab.state(el.OrderBook, "book/A", interpret=interpret).update_id == 0
    assert history["update_id"].to_list() == [0, 0]
    assert history.select("best_bid", "best_ask").row(1)[1] == 1.5
