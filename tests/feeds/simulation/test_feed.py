from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest

from eventlab.errors import FeedError
from eventlab.events.columns import payload_from_frame
from eventlab.feeds import simulate
from eventlab.feeds.simulation import feed as feed_module
from eventlab.feeds.simulation import market
from tests.feeds.binance.naive_book_sync import DictBook
from tests.feeds.helpers import events, order_of


def digest(feed) -> str:
    sha = hashlib.sha256()
    for chunk in feed.chunks():
        for batch in chunk.batches:
            sha.update(batch.order.tobytes())
            for name in sorted(batch.frame.columns):
                column = batch.frame[name]
                text = column.dtype == pl.String or isinstance(column.dtype, pl.Enum)
                sha.update(
                    "\n".join(column.cast(pl.String)).encode() if text else column.to_physical().to_numpy().tobytes()
                )
    return sha.hexdigest()


def test_the_output_is_pinned_to_the_bit():
    assert digest(simulate(trades=200_000, seed=7)) == PINNED["trades"]
    everything = simulate(symbols=("BTCUSDT", "ETHUSDT", "ABC", "Ω"), trades=70_000, seed=1, books=True, bars="1m")
    assert digest(everything) == PINNED["everything"]


def test_a_shorter_run_is_a_prefix_of_a_longer_one():
    short, long = (events(simulate(trades=n, seed=3), "market_data") for n in (70_001, 140_000))
    assert short.equals(long[:70_001])


def test_arguments_are_the_identity():
    assert simulate(seed=1).content_sha256 == simulate(seed=1).content_sha256
    assert simulate(seed=1).content_sha256 != simulate(seed=2).content_sha256
    assert simulate(trades=5).total == 5
    assert simulate().clock == "simulated"


def test_trades_look_like_a_market():
    frame = events(simulate(trades=400_000, seed=5), "market_data")
    assert frame["timestamp"].is_sorted()
    gaps = np.diff(frame["timestamp"].to_physical().to_numpy())
    assert 0.4 < (gaps == 0).mean() < 0.75
    assert gaps.std() > 2 * gaps.mean()  # clustered: far from a Poisson process
    btc = frame.filter(pl.col("symbol") == "BTCUSDT")
    assert btc["trade_id"].to_list() == list(range(1, len(btc) + 1))
    assert 0.3 < (btc["side"] == "buy").to_numpy().mean() < 0.7
    moves = btc["price"].diff().drop_nulls().to_numpy()
    assert np.mean(moves**4) / np.mean(moves**2) ** 2 > 6  # fat tails; a normal distribution has 3
    ticks = btc["price"].to_numpy() * 100
    assert np.abs(ticks - np.round(ticks)).max() < 1e-6
    assert frame["price"].to_numpy().min() > 0
    assert frame["volume"].to_numpy().min() >= 1e-5


def test_books_are_consistent_and_trades_take_their_best_price(monkeypatch):
    for module in (feed_module, market):
        monkeypatch.setattr(module, "BLOCK_TRADES", 4_096)
    feed = simulate(symbols=("BTCUSDT", "DOGE", "ABC"), trades=10_000, seed=2, books=True)
    rows = []
    for chunk in feed.chunks():
        for number, batch in enumerate(chunk.batches):
            order = order_of(batch)
            assert order == sorted(order)
            rows += zip(order, [number] * len(batch.frame), batch.frame.to_dicts(), strict=True)
    rows.sort(key=lambda row: row[:2])
    books: dict[str, DictBook] = {}
    last: dict[str, int] = {}
    for _, number, event in rows:
        book = books.setdefault(event["symbol"], DictBook())
        if number == 0:
            bid, _, ask, _ = book.best()
            assert bid < ask
            assert event["price"] == (ask if event["side"] == "buy" else bid)
            assert len(book.bids) == len(book.asks) == 10
            continue
        before = last.get(event["symbol"], 0)
        assert event["update_id"] in (before, before + 1)
        assert event["snapshot"] == (event["update_id"] == 1)
        last[event["symbol"]] = event["update_id"]
        if not event["snapshot"] and event["size"] == 0:
            assert event["price"] in (book.bids if event["side"] == "bid" else book.asks)
        book.change(event["side"], event["price"], event["size"], event["snapshot"], event["update_id"])


def test_bars_are_those_of_the_trades():
    feed = simulate(symbols=("BTCUSDT", "ETHUSDT", "RARE"), trades=150_000, seed=4, bars="5m")
    chunks = list(feed.chunks())
    trades = pl.concat([batch.frame for chunk in chunks for batch in chunk.batches if batch.type.name == "market_data"])
    bars = pl.concat([batch.frame for chunk in chunks for batch in chunk.batches if batch.type.name == "bar"])
    expected = (
        trades.with_columns((pl.col("timestamp").dt.truncate("5m") + pl.duration(minutes=5)).alias("timestamp"))
        .group_by("symbol", "timestamp")
        .agg(
            open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(),
            close=pl.col("price").last(), volume=pl.col("volume").sum(),
        )
        .sort("timestamp", "symbol")
    )  # fmt: skip
    got = bars.sort("timestamp", "symbol")
    exact = ["symbol", "timestamp", "open", "high", "low", "close"]
    assert got.select(exact).equals(expected.select(exact))
    assert np.allclose(got["volume"], expected["volume"])
    assert bars["timestamp"].is_sorted()
    for chunk in chunks:  # a bar stands between the last trade in it and the first one that is not
        of = {batch.type.name: batch for batch in chunk.batches}
        if "bar" in of:
            times = of["market_data"].frame["timestamp"].to_physical().to_numpy()
            ends = of["bar"].frame["timestamp"].to_physical().to_numpy()
            assert np.array_equal(
                np.searchsorted(of["market_data"].order, of["bar"].order), np.searchsorted(times, ends)
            )


def test_events_pass_the_checks_of_event_columns():
    for chunk in simulate(trades=2_000, books=True, bars="1m").chunks():
        for batch in chunk.batches:
            payload_from_frame(batch.type, batch.frame.drop("timestamp"))


def test_many_symbols_and_no_trades():
    feed = simulate(symbols=[f"S{n}" for n in range(500)], trades=100_000, seed=1)
    assert events(feed)["symbol"].n_unique() > 400
    assert list(simulate(trades=0).chunks()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"symbols": "BTCUSDT"}, {"symbols": ()}, {"symbols": ("A", "A")}, {"symbols": ("",)}, {"trades": -1},
        {"trades": 1.5}, {"trades": True}, {"seed": -1}, {"rate": 0}, {"bars": "soon"}, {"start": "whenever"},
        {"aggregate_id": "{venue}/{symbol}"}, {"books": True, "aggregate_id": "all/{symbol}"},
    ],
)  # fmt: skip
def test_invalid_arguments_are_refused(wrong):
    with pytest.raises((FeedError, ValueError)):
        simulate(**wrong)


PINNED = {
    "trades": "a030c8b0bb5789315d6c215b4682b0913cc041fa7209126926e2125df9c3d824",
    "everything": "d086f9fff380fe0b607296391a17bc02b06728adc6c080260cc331c1705974b5",
}
