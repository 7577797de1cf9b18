from __future__ import annotations

import gzip
import json

import polars as pl
import pytest

from eventlab.errors import FeedError, SequenceGap
from eventlab.feeds import binance_capture
from tests.feeds.helpers import block_bytes, events, order_of

NS = 1723161600001658384


def trade(number: int, **other) -> dict:
    return {"e": "trade", "E": 1723161601438, "s": "BTCUSDT", "t": number, "p": "61685.99", "q": "0.5",
            "T": 1723161601437, "m": True, "M": True} | other  # fmt: skip


def depth(first: int, final: int, **other) -> dict:
    return {"e": "depthUpdate", "E": 1723161601273, "s": "BTCUSDT", "U": first, "u": final,
            "b": [["61685.99", "1.25"], ["61685.98", "0.00"]], "a": [["61686.00", "2.5"]]} | other  # fmt: skip


TICKER = {"u": 5, "s": "BTCUSDT", "b": "61685.99", "B": "1.25", "a": "61686.00", "A": "2.5"}


def binance_file(tmp_path, *messages: dict | str, combined: bool = True):
    lines = []
    for at, message in enumerate(messages):
        if isinstance(message, dict):
            wrapped = {"stream": "x", "data": message} if combined else message
            message = json.dumps(wrapped, separators=(",", ":"))  # noqa: PLW2901 - text as it is
        lines.append(f"{NS + at} {message}\n")
    file = tmp_path / "capture"
    file.write_text("".join(lines))
    return file


@pytest.mark.parametrize("combined", [True, False])
def test_messages_become_events_interleaved_as_captured(tmp_path, combined):
    file = binance_file(tmp_path, trade(1), depth(10, 12), TICKER, trade(2, m=False), depth(13, 14), combined=combined)
    (chunk,) = binance_capture(file).chunks()
    trades, quotes, books = chunk.batches
    assert [batch.aggregate_id for batch in chunk.batches] == ["market/{symbol}", "quote/{symbol}", "book/{symbol}"]
    assert [batch.clock for batch in chunk.batches] == ["exchange", "capture", "exchange"]
    assert [order_of(batch) for batch in chunk.batches] == [[1, 4], [3], [2, 2, 2, 5, 5, 5]]
    assert trades.frame.select("price", "volume", "side", "trade_id").rows() == [
        (61685.99, 0.5, "sell", 1), (61685.99, 0.5, "buy", 2),
    ]  # fmt: skip
    assert trades.frame["timestamp"].dt.timestamp("ms")[0] == 1723161601437
    assert quotes.frame["timestamp"].dt.timestamp("ns").to_list() == [NS + 2]
    assert books.frame.select("side", "price", "size", "first_update_id", "update_id").rows()[:3] == [
        ("bid", 61685.99, 1.25, 10, 12), ("bid", 61685.98, 0.0, 10, 12), ("ask", 61686.0, 2.5, 10, 12),
    ]  # fmt: skip
    assert books.frame["received_at"].dt.timestamp("ns").to_list()[:1] == [NS + 1]


def test_gaps_between_trades_and_between_updates_are_reported(tmp_path):
    feed = binance_capture(binance_file(tmp_path, trade(1), depth(10, 12), trade(3), depth(14, 15)))
    with pytest.warns(SequenceGap):
        events(feed, "market_data")
    assert [(gap.row, gap.previous_id, gap.next_id) for gap in feed.report.first_gaps] == [(3, 1, 3), (4, 12, 14)]


def test_futures_link_updates_by_pu_and_have_times_for_quotes(tmp_path):
    ticker = TICKER | {"e": "bookTicker", "T": 1723161601437, "E": 1723161601438}
    updates = [depth(10, 12, pu=3, T=1723161601270), depth(20, 22, pu=12, T=1723161601370)]
    feed = binance_capture(binance_file(tmp_path, *updates, ticker))
    (chunk,) = feed.chunks()
    assert feed.report.gaps == 0
    assert {batch.type.name: batch.clock for batch in chunk.batches} == {"book_change": "exchange", "quote": "exchange"}
    assert chunk.batches[1].frame["timestamp"].dt.timestamp("ms")[0] == 1723161601270


def test_other_messages_are_counted_by_kind(tmp_path):
    feed = binance_capture(binance_file(tmp_path, trade(1), {"e": "aggTrade", "s": "X"}, '{"result":null,"id":1}'))
    assert len(events(feed)) == 1
    assert dict(feed.report.dropped) == {"messages of kind aggTrade": 1, "messages of unknown kind": 1}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"stream":"x","data":{"e":"trade","E":17231', "line 2: incomplete or invalid trade message"),
        ('{"result":nul', "line 2: incomplete or invalid JSON message"),
        (trade(2, p="cheap"), "row 2, column 'p': cannot be read; got cheap"),
        (trade(2, p="-1"), "row 2, column 'p'"),
        (trade(2, q="NaN"), "row 2, column 'q'"),
        (trade(2, T=5), "row 2, column 'timestamp': not a time in the capture's unit; got 5"),
        (trade(2, T=1723161601437000), "row 2, column 'timestamp'"),
        (trade(2, m=None), "row 2, column 'm': missing"),
        (depth(1, 2, b=[["1"]]), "row 2, column 'size'"),
        (depth(1, 2, b=None), "row 2, column 'b': missing"),
        (TICKER | {"B": "inf"}, "row 2, column 'B'"),
    ],
)
def test_bad_messages_are_named_by_line(tmp_path, bad, message):
    with pytest.raises(FeedError, match=f"(?s)capture, {message}"):
        events(binance_capture(binance_file(tmp_path, trade(1), bad)))


@pytest.mark.parametrize("line", ["x {}", "17 {}", "1723161600001658384"])
def test_lines_without_a_capture_time_or_message_are_refused(tmp_path, line):
    file = tmp_path / "capture"
    file.write_text(f"{line}\n")
    with pytest.raises(FeedError, match="row 1"):
        events(binance_capture(file))


def test_kinds_must_not_share_an_aggregate(tmp_path):
    with pytest.raises(FeedError, match="in one aggregate"):
        binance_capture(binance_file(tmp_path, trade(1)), aggregate_id="all/{symbol}")


def test_the_real_capture(market_data_dir):
    path = market_data_dir / "raw" / "spot_btcusdt_20240809.gz"
    feed = binance_capture(path)
    (chunk,) = feed.chunks()
    assert feed.report.rows == 58_325
    assert feed.report.gaps == 0
    assert {batch.type.name: len(batch.frame) for batch in chunk.batches} == {
        "market_data": 10_147, "quote": 45_134, "book_change": 174_021,
    }  # fmt: skip
    # The converted files hold the same trades and quotes: an independent reading of the same messages.
    by_id = {
        "market_data": ("trades", "id", "trade_id", "price"),
        "quote": ("bbo", "update_id", "update_id", "ask_price"),
    }
    for batch in chunk.batches[:2]:
        name, theirs, ours, price = by_id[batch.type.name]
        converted = pl.read_csv(market_data_dir / "binance" / f"spot_btcusdt_{name}.csv.gz", infer_schema_length=None)
        both = batch.frame.join(converted, left_on=ours, right_on=theirs, suffix="_theirs")
        assert len(both) == len(batch.frame)
        assert (both[price] == both[f"{price}_theirs"]).all()


def test_small_blocks_give_the_same_events(market_data_dir, tmp_path):
    lines = gzip.decompress((market_data_dir / "raw" / "spot_btcusdt_20240809.gz").read_bytes()).splitlines(
        keepends=True
    )
    file = tmp_path / "part"
    file.write_bytes(b"".join(lines[:3_000]))
    for kind in ("market_data", "quote", "book_change"):
        whole = events(binance_capture(file), kind)
        with block_bytes(10_000):
            assert events(binance_capture(file), kind).equals(whole)
