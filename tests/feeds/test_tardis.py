from __future__ import annotations

import gzip
import itertools

import polars as pl
import pytest

from eventlab.errors import FeedError, SequenceGap
from eventlab.feeds import tardis_book, tardis_quotes, tardis_trades
from tests.feeds.helpers import block_bytes, events

T = 1723161255208000
QUOTES = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"


def quote(symbol: str, time: int | None, local: int = T) -> str:
    return f"binance,{symbol},{'' if time is None else T + time},{local},1.5,101.5,100.5,2.5\n"


def written(tmp_path, text: str):
    file = tmp_path / "file.csv"
    file.write_text(text)
    return file


def offsets(frame: pl.DataFrame, symbol: str) -> list[int]:
    return (frame.filter(pl.col("symbol") == symbol)["timestamp"].dt.timestamp("us") - T).to_list()


def test_real_spot_quotes_have_no_exchange_time_and_futures_have(market_data_dir):
    spot = tardis_quotes(market_data_dir / "binance" / "spot_btcusdt_bbo.csv.gz")
    assert spot.clock == "capture"
    frame = events(spot)
    assert (frame["timestamp"] == frame["received_at"]).all()
    assert {batch.clock for chunk in spot.chunks() for batch in chunk.batches} == {"capture"}
    futures = tardis_quotes(market_data_dir / "binance" / "usdm_btcusdt_bbo.csv.gz")
    assert futures.clock == "exchange"
    assert events(futures)["timestamp"].is_sorted()


@pytest.mark.parametrize("block", [170, 10_000])
def test_null_times_take_the_row_before_of_their_symbol_and_the_first_the_next(tmp_path, block):
    times = [("A", None), ("B", 5), ("A", None), ("B", None), ("A", 7), ("A", None), ("A", 9), ("B", 8)]
    file = written(tmp_path, QUOTES + "".join(quote(*row) for row in times))
    with block_bytes(block):
        feed = tardis_quotes(file)
        frame = events(feed)
    assert offsets(frame, "A") == [7, 7, 7, 7, 9]
    assert offsets(frame, "B") == [5, 5, 8]
    assert feed.clock == "exchange"


@pytest.mark.parametrize("block", [170, 10_000])
def test_a_symbol_without_any_time_is_on_the_capture_clock_alone(tmp_path, block):
    file = written(tmp_path, QUOTES + "".join(quote(*row) for row in [("A", None), ("B", 5), ("A", None), ("B", None)]))
    with block_bytes(block):
        batches = [batch for chunk in tardis_quotes(file).chunks() for batch in chunk.batches]
    clocks = {(batch.clock, symbol) for batch in batches for symbol in batch.frame["symbol"]}
    assert clocks == {("capture", "A"), ("exchange", "B")}


def test_one_symbol_of_many_and_templates_with_the_exchange(tmp_path):
    file = written(tmp_path, QUOTES + quote("A", 1) + quote("B", 2) + quote("A", 3))
    feed = tardis_quotes(file, "A", aggregate_id="{exchange}/quote/{symbol}")
    (chunk,) = feed.chunks()
    assert chunk.batches[0].aggregate_id == "binance/quote/{symbol}"
    assert chunk.batches[0].frame["symbol"].to_list() == ["A", "A"]
    assert dict(feed.report.dropped) == {"other symbols": 1}
    with pytest.raises(FeedError, match="no rows of the symbol; got C"):
        events(tardis_quotes(file, "C"))


def test_an_empty_side_of_a_quote_is_zero_and_half_a_side_is_refused(tmp_path):
    row = f"binance,A,{T},{T},,,100.5,2.5\n"
    frame = events(tardis_quotes(written(tmp_path, QUOTES + row)))
    assert frame.select("bid_price", "bid_size", "ask_price", "ask_size").row(0) == (100.5, 2.5, 0.0, 0.0)
    with pytest.raises(FeedError, match="row 1, column 'ask_price'"):
        events(tardis_quotes(written(tmp_path, QUOTES + row.replace(",,,", ",,5,"))))


def test_trades_with_textual_ids_and_unknown_sides(tmp_path):
    text = TRADES + f"bitmex,XBTUSD,{T},{T + 1},abc-1,unknown,100.5,2\nbitmex,XBTUSD,{T},{T + 1},7,buy,100.5,2\n"
    feed = tardis_trades(written(tmp_path, text))
    frame = events(feed)
    assert frame.select("side", "trade_id").rows() == [(None, None), ("buy", 7)]
    assert "1 trade ids" in feed.report.warnings[0]
    assert feed.report.gaps == 0


def test_gaps_are_reported_per_symbol_for_contiguous_ids(tmp_path):
    rows = [("A", 1), ("B", 50), ("A", 2), ("B", 51), ("A", 4)]
    text = "".join(f"binance,{symbol},{T},{T},{number},sell,1.5,1\n" for symbol, number in rows)
    feed = tardis_trades(written(tmp_path, TRADES + text))
    with pytest.warns(SequenceGap, match="symbol A: 4 after 2"):
        events(feed)
    assert feed.report.gaps == 1
    assert feed.report.first_gaps[0].row == 5


BOOK = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n"


def test_a_book_without_update_ids_is_taken_as_it_is(tmp_path):
    rows = (
        f"deribit,A,{T},{T},true,bid,9.5,1\nderibit,A,{T},{T},true,ask,10.5,1\nderibit,A,{T + 5},{T},false,bid,9.5,0\n"
    )
    frame = events(tardis_book(written(tmp_path, BOOK + rows)))
    assert frame.select("snapshot", "side", "size").rows() == [
        (True, "bid", 1.0),
        (True, "ask", 1.0),
        (False, "bid", 0.0),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bid", "buy", "row 1, column 'side': unknown side; got buy; expected bid | ask"),
        ("true", "yes", "row 1, column 'is_snapshot'.*true or false"),
        ("deribit", "de/ribit", "not an exchange name"),
        ("9.5", "-9.5", "row 1, column 'price'"),
        (f"{T},{T},true", f"{T // 1000},{T},true", "row 1, column 'timestamp': not a plausible time"),
        (f"{T},{T},true", f"{T},,true", "row 1, column 'local_timestamp': empty cell"),
        ("is_snapshot", "snapshot", "unknown column 'snapshot'"),
        ("price,amount", "price", "column 'amount' is missing"),
        ("exchange,", "", "column 'exchange' is missing|cells"),
    ],
)
def test_bad_cells_are_named(tmp_path, old, new, message):
    text = BOOK + f"deribit,A,{T},{T},true,bid,9.5,1\n"
    assert old in text
    with pytest.raises(FeedError, match=f"(?s)file.csv.*{message}".replace("bid | ask", r"bid \| ask")):
        events(tardis_book(written(tmp_path, text.replace(old, new, 1))))


def test_a_second_exchange_is_refused(tmp_path):
    with pytest.raises(FeedError, match="row 2, column 'exchange': more than one exchange; got kraken"):
        events(tardis_quotes(written(tmp_path, QUOTES + quote("A", 1) + quote("A", 2).replace("binance", "kraken"))))


def test_a_row_torn_in_nullable_columns_is_noticed(tmp_path):
    text = QUOTES.replace("bid_amount", "bid_amount,update_id") + quote("A", 1).replace("\n", ",5\n") + quote("A", 1)
    with pytest.raises(FeedError, match="row 2: 8 cells"):
        events(tardis_quotes(written(tmp_path, text)))


def test_prices_of_the_real_books_are_read_to_the_bit(market_data_dir, tmp_path):
    path = tmp_path / "book.csv"
    with gzip.open(market_data_dir / "binance" / "usdm_btcusdt_l2.csv.gz", "rt") as file:
        lines = list(itertools.islice(file, 50_000))
    path.write_text("".join(lines))
    cells = [line.split(",") for line in lines[1:]]
    expected = sorted((float(cell[6]), float(cell[7])) for cell in cells[259:])
    assert sorted(events(tardis_book(path)).select("price", "size").iter_rows()) == expected
