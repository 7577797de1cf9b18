from __future__ import annotations

import gzip
import json

import polars as pl
import pytest

from eventlab.errors import FeedError, SequenceGap
from eventlab.feeds import binance_capture, coinbase_capture
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


def test_gaps_between_trades_and_between_updates_are_told(tmp_path):
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
    assert dict(feed.report.dropped) == {"messages of kind aggTrade": 1, "messages of no known kind": 1}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"stream":"x","data":{"e":"trade","E":17231', "line 2: not a whole trade message"),
        ('{"result":nul', "line 2: not a whole JSON message"),
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


@pytest.mark.parametrize("feed", [binance_capture, coinbase_capture])
def test_kinds_must_not_share_an_aggregate(tmp_path, feed):
    with pytest.raises(FeedError, match="into one aggregate"):
        feed(binance_file(tmp_path, trade(1)), aggregate_id="all/{symbol}")


def test_the_real_binance_capture(market_data_dir):
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


LOCAL = "1618677817.0617"


def match(number: int, kind: str = "match", side: str = "sell", **other) -> str:
    message = {"type": kind, "trade_id": number, "side": side, "size": "0.04", "price": "14.7775",
               "product_id": "BAND-GBP", "sequence": 1, "time": "2021-04-17T16:43:30.244075Z"} | other  # fmt: skip
    return f"{LOCAL}: {json.dumps(message)}\n"


SNAPSHOT = f'{LOCAL}: {{"type":"snapshot","product_id":"A-B","asks":[["2.5","1"]],"bids":[["2.25","3"],["2","4"]]}}\n'
UPDATE = (
    f'{LOCAL}: {{"type":"l2update","product_id":"A-B","changes":[["buy","2.25","0"],["sell","2.75","5"]],'
    '"time":"2021-04-17T16:43:37.075687Z"}\n'
)
CONNECTION = "wss://ws-feed.pro.coinbase.com <-> 1618677816.8434298\n"


def coinbase_file(tmp_path, *lines: str):
    file = tmp_path / "capture"
    file.write_text("".join(lines))
    return file


def test_coinbase_matches_and_books(tmp_path):
    file = coinbase_file(tmp_path, CONNECTION, SNAPSHOT, match(7), UPDATE, match(8, side="buy"))
    feed = coinbase_capture(file)
    (chunk,) = feed.chunks()
    trades, books = chunk.batches
    assert trades.frame.select("side", "trade_id", "price").rows() == [("buy", 7, 14.7775), ("sell", 8, 14.7775)]
    assert trades.frame["received_at"].dt.timestamp("ns")[0] == 1618677817061700000
    assert (order_of(trades), order_of(books)) == ([3, 5], [2, 2, 2, 4, 4])
    assert books.frame.select("side", "price", "size", "snapshot").rows() == [
        ("bid", 2.25, 3.0, True), ("bid", 2.0, 4.0, True), ("ask", 2.5, 1.0, True),
        ("bid", 2.25, 0.0, False), ("ask", 2.75, 5.0, False),
    ]  # fmt: skip
    assert books.frame["timestamp"].n_unique() == 1
    assert dict(feed.report.dropped) == {"connection lines": 1}


def test_coinbase_a_last_match_seen_before_is_no_second_trade(tmp_path):
    lines = [match(7, "last_match"), match(8), CONNECTION, match(8, "last_match"), match(10)]
    feed = coinbase_capture(coinbase_file(tmp_path, *lines))
    with pytest.warns(SequenceGap, match="10 after 8"):
        frame = events(feed)
    assert frame["trade_id"].to_list() == [7, 8, 10]
    assert feed.report.dropped["last_match of a trade already seen"] == 1


def test_coinbase_a_book_that_never_gets_a_time_is_on_the_capture_clock(tmp_path):
    chunks = coinbase_capture(coinbase_file(tmp_path, SNAPSHOT, match(7))).chunks()
    batches = [batch for chunk in chunks for batch in chunk.batches]
    assert {batch.type.name: batch.clock for batch in batches} == {"market_data": None, "book_change": "capture"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (match(7)[:-20], "row 2, column 'line': neither a message nor a connection"),
        ("noise\n", "row 2, column 'line'"),
        (match(7).replace('"price"', '"price'), "line 2: not a whole match"),
        (match(7, price="cheap"), "row 2, column 'price'"),
        (match(7, side="up"), "row 2, column 'side': unknown word"),
        (match(7, time="yesterday"), "row 2, column 'time'"),
        (match(7, time="1821-04-17T16:43:30.244075Z"), "row 2, column 'time'"),
        (match(7, time="2604-04-17T16:43:30.244075Z"), "row 2, column 'time'"),  # wraps around to 2019
        (match(7, trade_id=None), "row 2, column 'trade_id': missing"),
        (UPDATE.replace("buy", "bid"), "row 2, column 'side'"),
        (SNAPSHOT.replace("bids", "bid"), "row 2, column 'type': a message without levels"),
    ],
)
def test_coinbase_bad_messages_are_named_by_line(tmp_path, line, message):
    with pytest.raises(FeedError, match=f"(?s)capture, {message}"):
        events(coinbase_capture(coinbase_file(tmp_path, CONNECTION, line)))


def test_the_real_coinbase_capture(market_data_dir):
    path = market_data_dir / "coinbase" / "COINBASE.ws.28.0"
    feed = coinbase_capture(path)
    trades, books = events(feed, "market_data"), events(feed, "book_change")
    assert feed.report.rows == 9_952
    assert (len(trades), books["snapshot"].sum() > 5_000) == (107, True)
    assert feed.report.dropped["messages of kind ticker"] == 107
    assert feed.report.gaps == 0
    for frame in (trades, books):
        for part in frame.partition_by("symbol"):
            assert part["timestamp"].is_sorted()
    # A taker's buy is at or above the maker's ask: sides agree with the books' spread.
    one = events(coinbase_capture(path, "SKL-USD"), "market_data")
    assert one["symbol"].unique().to_list() == ["SKL-USD"]
    naive = [json.loads(line.partition(": ")[2]) for line in path.read_text().splitlines() if '"l2update"' in line]
    assert sum(len(message["changes"]) for message in naive) == (~books["snapshot"]).sum()
