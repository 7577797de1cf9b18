from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from eventlab.demo.market import feeds_of, kind_of, tag_of
from eventlab.errors import FeedError

TRADES = "7,61837.63,0.02,1236.75,1723161255342,true\n"
BOOK = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n"
QUOTES = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (TRADES, "binance_trades"),
        (TRADES.replace("true", "True,True"), "binance_trades"),
        ("id,price,qty,quote_qty,time,is_buyer_maker\n" + TRADES, "binance_trades"),
        (BOOK, "tardis_book"),
        (QUOTES, "tardis_quotes"),
        ("exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n", "tardis_trades"),
    ],
)
def test_files_are_distinguished_by_their_first_line(tmp_path, text, kind):
    file = tmp_path / "anything"
    file.write_text(text)
    assert kind_of(file) == kind
    file.write_bytes(gzip.compress(text.encode()))
    assert kind_of(file) == kind


@pytest.mark.parametrize(
    "text", ["hello\n", "a,b,c\n1,2,3\n", "time,open,high,low,close,volume\n", "\x1b[2J<script>\n"]
)
def test_a_file_that_is_not_understood_is_named_with_what_would_be(tmp_path, text):
    file = tmp_path / "mystery.csv"
    file.write_text(text)
    with pytest.raises(FeedError, match="mystery.csv has an unknown format") as raised:
        kind_of(file)
    assert "Binance trades" in str(raised.value.expected)


def test_the_symbol_comes_from_the_name_or_the_caller(tmp_path):
    for name, given, expected in (
        ("BTCUSDT-trades-2024-08-09.csv", None, "BTCUSDT"),
        ("spot_ethusdc_trades.csv", None, "ETHUSDC"),
        ("whatever.csv", "XY", "XY"),
    ):
        file = tmp_path / name
        file.write_text(TRADES)
        assert feeds_of([file], given)[0].params["symbol"] == expected
    with pytest.raises(FeedError, match="has the symbol"):
        feeds_of([tmp_path / "whatever.csv"])


def test_different_markets_of_one_symbol_are_kept_apart(tmp_path):
    files = [tmp_path / name for name in ("usdm_btcusdt_trades.csv", "spot_btcusdt_trades.csv", "btcusdt_l2.csv")]
    for file in files:
        file.write_text(BOOK if "l2" in file.name else TRADES)
    feeds = feeds_of(files)
    assert [feed.params["aggregate_id"] for feed in feeds] == [
        "book/{symbol}", "market/spot/{symbol}", "market/usdm/{symbol}",
    ]  # fmt: skip


def test_days_of_one_market_go_to_one_aggregate_in_their_order(tmp_path):
    files = [tmp_path / f"BTCUSDT-trades-2024-08-{day}.csv" for day in ("10", "09")]
    for file in files:
        file.write_text(TRADES)
    feeds = feeds_of(files)
    assert [feed.source for feed in feeds] == ["BTCUSDT-trades-2024-08-09.csv", "BTCUSDT-trades-2024-08-10.csv"]
    assert {feed.params["aggregate_id"] for feed in feeds} == {"market/{symbol}"}


def test_without_trades_there_is_nothing_to_act_on(tmp_path):
    file = tmp_path / "btcusdt_l2.csv"
    file.write_text(BOOK)
    with pytest.raises(FeedError, match="no trades in the files"):
        feeds_of([file])


def test_tags_never_hold_what_a_template_or_path_would_read():
    assert tag_of(Path("{symbol}/../{evil}..BTCUSDT<b>.csv")) == "evil-b"
