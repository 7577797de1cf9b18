"""A feed is ingested once, and an interrupted ingest resumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import eventlab as el
from eventlab.errors import (
    FeedError,
    InvalidEvent,
)
from eventlab.events.types import event_type
from eventlab.feeds.api import Chunk, FeedBatch, FeedReport
from eventlab.lab.lab import Lab


def signal(action: str = "buy") -> el.TradingSignal:
    return el.TradingSignal("BTC", action, 1.0, "s")


class ListFeed:
    """A feed of frames held in memory, which can break off after some chunks."""

    name, clock, source, unit, total = "list", "exchange", "a list", "event", 6

    def __init__(self, sha: str = "0" * 64, break_at: int | None = None, clock: str = "exchange") -> None:
        self.content_sha256, self.break_at, self.clock = sha, break_at, clock
        self.params = {"symbol": "A"}
        self.read = 0
        self.report = FeedReport()

    def chunks(self) -> Iterator[Chunk]:
        for number in range(3):
            if number == self.break_at:
                raise FeedError("broken", got=number)
            self.read += 1
            frame = pl.DataFrame(
                {
                    "symbol": ["A"] * 2,
                    "price": [1.0, 2.0],
                    "volume": [1.0] * 2,
                    "timestamp": [number * 10, number * 10 + 5],
                }
            )
            frames = () if number == 1 else (frame,)
            batches = tuple(FeedBatch(_trade_type(), f, "market/{symbol}") for f in frames)
            self.report = FeedReport(rows=self.read * 2, events=4, dropped={"odd": 2})
            yield Chunk(batches, (number + 1) * 2)


def _trade_type():
    return event_type(el.MarketData)


def test_an_ingest_happens_once(lab: Lab, capsys: pytest.CaptureFixture[str]):
    first = lab.ingest(ListFeed())
    assert (first.count, first.added, first.first_position, first.position, first.already) == (4, 4, 0, 3, False)
    assert first.report.dropped == {"odd": 2}
    again = ListFeed()
    second = lab.ingest(again)
    assert again.read == 0
    assert (second.count, second.added, second.already, second.position) == (4, 0, True, 3)
    assert second.report == first.report
    lab.ingest(ListFeed("1" * 64), late="clamp", progress=False)
    assert lab.info().events == 8


def test_a_broken_ingest_resumes(lab: Lab):
    with pytest.raises(FeedError):
        lab.ingest(ListFeed(break_at=2), progress=False)
    assert lab.info().events == 2
    lab.append("between", signal())
    receipt = lab.ingest(ListFeed(), progress=False)
    assert (receipt.count, receipt.added, receipt.first_position, receipt.position) == (4, 2, 0, 4)
    assert lab.events(el.MarketData)["version"].to_list() == [1, 2, 3, 4]


def test_an_aggregate_never_mixes_clocks(lab: Lab):
    lab.ingest(ListFeed(), progress=False)
    with pytest.raises(InvalidEvent, match=r"exchange.*capture"):
        lab.ingest(ListFeed("2" * 64, clock="capture"), late="clamp", progress=False)
    assert lab.info().events == 4


def test_real_trades_through_a_feed(lab: Lab, market_data_dir: Path):
    feed = el.feeds.binance_trades(market_data_dir / "binance" / "usdm_btcusdt_trades.csv.gz", symbol="BTCUSDT")
    assert lab.ingest(feed, progress=False).count == 21_313
    assert lab.events(el.MarketData, columns=["trade_id"])["trade_id"].diff().drop_nulls().unique().to_list() == [1]
