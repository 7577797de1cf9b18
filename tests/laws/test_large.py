"""Fifty million events: the same answers, in a store on disk."""

import polars as pl
import pytest

import eventlab as el


@pytest.mark.slow
def test_fifty_million_trades(tmp_path):
    count = 50_000_000
    with el.open(tmp_path / "lab") as lab:
        symbols = tuple(f"COIN{number}USDT" for number in range(20))
        feed = el.feeds.simulate(symbols=symbols, trades=count, seed=50)
        assert lab.ingest(feed, progress=False).count == count
        states = lab.states(el.Trades, "market/*")
        assert states["count"].sum() == count
        trades = lab.scan(el.MarketData).group_by("aggregate_id")
        stats = trades.agg(pl.len(), pl.col("price").max(), pl.col("price").last().alias("last")).collect()
        joined = states.join(stats, on="aggregate_id", validate="1:1")
        assert joined.select(
            (pl.col("count") == pl.col("len")).all(),
            (pl.col("high") == pl.col("price")).all(),
            (pl.col("last") == pl.col("last_right")).all(),
        ).row(0) == (True, True, True)
        middle = lab.state(el.Trades, "market/COIN0USDT", 1_000_000)
        assert middle.count == 1_000_000
        digest = lab.state(el.Trades, "market/COIN0USDT").digest
        assert lab.verify().events == count
    with el.open(tmp_path / "lab", read_only=True) as lab:
        assert lab.state(el.Trades, "market/COIN0USDT").digest == digest
