from __future__ import annotations

import json

import pytest

from eventlab.errors import FeedError, SequenceGap
from eventlab.feeds import coinbase_capture
from tests.feeds.helpers import events, order_of

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


def test_matches_and_books(tmp_path):
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


def test_a_repeated_last_match_is_dropped(tmp_path):
    lines = [match(7, "last_match"), match(8), CONNECTION, match(8, "last_match"), match(10)]
    feed = coinbase_capture(coinbase_file(tmp_path, *lines))
    with pytest.warns(SequenceGap, match="10 after 8"):
        frame = events(feed)
    assert frame["trade_id"].to_list() == [7, 8, 10]
    assert feed.report.dropped["last_match of a trade already seen"] == 1


def test_a_book_that_never_gets_a_time_is_on_the_capture_clock(tmp_path):
    chunks = coinbase_capture(coinbase_file(tmp_path, SNAPSHOT, match(7))).chunks()
    batches = [batch for chunk in chunks for batch in chunk.batches]
    assert {batch.type.name: batch.clock for batch in batches} == {"market_data": None, "book_change": "capture"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (match(7)[:-20], "row 2, column 'line': neither a message nor a connection"),
        ("noise\n", "row 2, column 'line'"),
        (match(7).replace('"price"', '"price'), "line 2: incomplete or invalid match"),
        (match(7, price="cheap"), "row 2, column 'price'"),
        (match(7, side="up"), "row 2, column 'side': unknown side"),
        (match(7, time="yesterday"), "row 2, column 'time'"),
        (match(7, time="1821-04-17T16:43:30.244075Z"), "row 2, column 'time'"),
        (match(7, time="2604-04-17T16:43:30.244075Z"), "row 2, column 'time'"),  # wraps around to 2019
        (match(7, trade_id=None), "row 2, column 'trade_id': missing"),
        (UPDATE.replace("buy", "bid"), "row 2, column 'side'"),
        (SNAPSHOT.replace("bids", "bid"), "row 2, column 'type': message without levels"),
    ],
)
def test_bad_messages_are_named_by_line(tmp_path, line, message):
    with pytest.raises(FeedError, match=f"(?s)capture, {message}"):
        events(coinbase_capture(coinbase_file(tmp_path, CONNECTION, line)))


def test_the_real_capture(market_data_dir):
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


def test_kinds_must_not_share_an_aggregate(tmp_path):
    with pytest.raises(FeedError, match="in one aggregate"):
        coinbase_capture(coinbase_file(tmp_path, match(7)), aggregate_id="all/{symbol}")
