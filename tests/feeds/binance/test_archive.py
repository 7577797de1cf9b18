"""Binance's public archives, and bad input of any file feed."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import FeedError, LateEvent, SequenceGap
from eventlab.events.columns import payload_from_frame
from eventlab.feeds import binance_agg_trades, binance_klines, binance_trades
from tests.feeds.helpers import block_bytes, events

HEADER = "id,price,qty,quote_qty,time,is_buyer_maker\n"
ROWS = [
    "7,61837.63000000,0.02000000,1236.7526,1723161255342,true\n",
    "8,61837.64000000,0.04800000,2968.2062,1723161255617,false\n",
    "9,61837.63000000,0.00009000,5.5653867,1723161255617,True\n",
]
PLAIN = (HEADER + "".join(ROWS)).encode()


def zipped(data: bytes, names: tuple[str, ...] = ("trades.csv",)) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return out.getvalue()


def written(tmp_path, data: bytes, name: str = "trades.csv"):
    file = tmp_path / name
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zipped])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("name", ["trades.csv", "trades.csv.gz", "trades.zip"])
def test_packing_is_detected_by_content_and_headers_may_be_missing(tmp_path, wrap, header, name):
    data = PLAIN if header else "".join(ROWS).encode()
    feed = binance_trades(written(tmp_path, wrap(data), name), "BTCUSDT")
    frame = events(feed)
    assert frame["trade_id"].to_list() == [7, 8, 9]
    assert frame["side"].to_list() == ["sell", "buy", "sell"]
    assert frame["timestamp"].dt.timestamp("ms").to_list() == [1723161255342, 1723161255617, 1723161255617]
    assert frame["symbol"].to_list() == ["BTCUSDT"] * 3
    assert (feed.report.rows, feed.report.events, feed.report.gaps) == (3, 3, 0)
    assert feed.clock == "exchange"


def test_the_identity_is_content_and_parameters_not_the_path(tmp_path):
    first = binance_trades(written(tmp_path, PLAIN, "a.csv"), "BTCUSDT")
    second = binance_trades(written(tmp_path, PLAIN, "b.csv"), "BTCUSDT")
    assert first.content_sha256 == second.content_sha256 == hashlib.sha256(PLAIN).hexdigest()
    assert (first.name, dict(first.params)) == (second.name, dict(second.params))
    assert first.params["aggregate_id"] == "market/{symbol}"


def test_microseconds_are_distinguished_from_milliseconds(tmp_path):
    data = PLAIN.replace(b"1723161255342", b"1735689600000001").replace(b"1723161255617", b"1735689600000002")
    frame = events(binance_trades(written(tmp_path, data), "BTCUSDT"))
    assert frame["timestamp"].dt.timestamp("us").to_list() == [1735689600000001, 1735689600000002, 1735689600000002]


def test_columns_go_by_name_and_the_capture_time_is_kept(tmp_path):
    text = (
        "local_ts_ns,time,id,qty,price,quote_qty,is_buyer_maker,is_best_match\n"
        "1723161254087896568,1723161255342,1,2.5,10.25,3,false,true\n"
    )
    frame = events(binance_trades(written(tmp_path, text.encode()), "X"))
    assert frame["received_at"].dt.timestamp("ns").to_list() == [1723161254087896568]
    assert frame.select("price", "volume").row(0) == (10.25, 2.5)


def test_line_ends_of_windows_and_blank_lines_at_the_end_do_not_matter(tmp_path):
    data = PLAIN.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    assert len(events(binance_trades(written(tmp_path, data), "X"))) == 3
    assert len(events(binance_trades(written(tmp_path, PLAIN.rstrip()), "X"))) == 3


def test_gaps_in_trade_ids_are_reported_once_across_chunks(tmp_path):
    rows = [f"{n},1.5,1,1,1723161255342,true\n" for n in [*range(20), *range(25, 40), 39, 50]]
    file = written(tmp_path, (HEADER + "".join(rows)).encode())
    feed = binance_trades(file, "BTCUSDT")
    with block_bytes(128), pytest.warns(SequenceGap) as warned:
        frame = events(feed)
    assert len(frame) == len(rows)
    assert len(warned) == 1
    assert feed.report.gaps == 3
    assert [(gap.row, gap.previous_id, gap.next_id) for gap in feed.report.first_gaps] == [
        (21, 19, 25), (36, 39, 39), (37, 39, 50),
    ]  # fmt: skip


@given(block=st.integers(64, 3_000), rows=st.integers(1, 60), tail=st.sampled_from(["", "\n", "\n\n"]))
def test_any_block_size_gives_the_same_events(tmp_path_factory, block, rows, tail):
    text = HEADER + "".join(f"{n},{n}.{n:03d},1.5,1,{1723161255342 + n},true\n" for n in range(rows)).rstrip() + tail
    file = tmp_path_factory.mktemp("blocks") / "trades.csv"
    file.write_text(text)
    whole = events(binance_trades(file, "X"))
    with block_bytes(block):
        feed = binance_trades(file, "X")
        chunks = list(feed.chunks())
    parts = [batch.frame for chunk in chunks for batch in chunk.batches]
    assert pl.concat(parts).equals(whole)
    assert [chunk.done for chunk in chunks] == sorted(chunk.done for chunk in chunks)
    assert chunks[-1].done <= file.stat().st_size


def test_prices_of_the_real_files_are_read_to_the_bit(market_data_dir):
    for name in ("spot", "usdm"):
        path = market_data_dir / "binance" / f"{name}_btcusdt_trades.csv.gz"
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()[1:]
        cells = [line.split(",") for line in lines]
        frame = events(binance_trades(path, "BTCUSDT"))
        assert np.array_equal(frame["price"].to_numpy(), np.array([float(cell[1]) for cell in cells]))
        assert np.array_equal(frame["volume"].to_numpy(), np.array([float(cell[2]) for cell in cells]))
        assert frame["trade_id"].to_list() == [int(cell[0]) for cell in cells]
        assert (frame["side"] == "sell").to_list() == [cell[5] == "true" for cell in cells]


@given(st.lists(st.floats(0, allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_every_float_is_read_to_the_bit(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("floats") / "trades.csv"
    file.write_text("".join(f"{n},{value!r},1,1,1723161255342,true\n" for n, value in enumerate(values)))
    got = events(binance_trades(file, "X"))["price"].to_numpy()
    assert np.array_equal(got.view(np.int64), np.array(values).view(np.int64))


def test_events_pass_the_checks_of_event_columns(tmp_path):
    feed = binance_trades(written(tmp_path, PLAIN), "BTCUSDT")
    for chunk in feed.chunks():
        for batch in chunk.batches:
            assert payload_from_frame(batch.type, batch.frame.drop("timestamp")).num_rows == 3


def changed(old: str, new: str) -> bytes:
    assert old.encode() in PLAIN
    return PLAIN.replace(old.encode(), new.encode(), 1)


BAD = {
    "empty file": (b"", "empty"),
    "text in a number column": (changed("0.04800000", "lots"), r"row 2, column 'qty'.*got lots.*finite number"),
    "NaN": (changed("61837.64000000", "nan"), r"row 2, column 'price'.*got nan"),
    "infinity": (changed("61837.64000000", "inf"), r"row 2, column 'price'.*got inf"),
    "overflow to infinity": (changed("61837.64000000", "1e999"), r"row 2, column 'price'.*got 1e999"),
    "negative price": (changed("61837.64000000", "-61837.64"), r"row 2, column 'price'.*got -61837.64"),
    "fraction in an id": (changed("\n8,", "\n8.5,"), r"row 2, column 'id'.*got 8.5.*integer"),
    "id past int64": (changed("\n8,", "\n99999999999999999999,"), r"row 2, column 'id'"),
    "empty cell": (changed("0.04800000", ""), r"row 2, column 'qty': empty cell"),
    "bad flag": (changed("false", "maybe"), r"row 2, column 'is_buyer_maker'.*got maybe.*true or false"),
    "short row": (changed(",2968.2062", ""), r"row 2: 5 cells.*expected 6"),
    "long row": (changed(",false", ",false,1"), r"row 2: 7 cells"),
    "blank line inside": (changed("\n8,", "\n\n8,"), r"row 2: 1 cells"),
    "torn last line": (PLAIN[:-30], r"row 3"),
    "torn last word": (PLAIN.rstrip()[:-1], r"row 3, column 'is_buyer_maker'.*got Tru"),
    "seconds": (changed("1723161255617", "1723161255"), r"row 2, column 'time'.*not a plausible time"),
    "mixed units": (changed("1723161255617", "1723161255617000"), r"row 2, column 'time'.*in us among times in ms"),
    "time zero": (changed("1723161255342", "0"), r"row 1, column 'time'.*got 0"),
    "time past 2100": (changed("1723161255617", "9723161255617"), r"row 2, column 'time'"),
    "wrong header": (changed("quote_qty", "quote"), r"first line: unknown column 'quote'.*expected id,price"),
    "missing column": (PLAIN.replace(b"quote_qty,", b""), r"first line: column 'quote_qty' is missing"),
    "column twice": (changed("qty,quote_qty", "qty,qty"), r"column 'qty' appears twice"),
    "headless, too few": (b"7,1.5,2\n", r"3 columns and no header"),
    "not UTF-8": (changed("\n8,", "\n\xff8,").replace(b"\xc3\xbf", b"\xff"), r"line 3: not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf" + PLAIN, "byte order mark"),
    "UTF-16": (PLAIN.decode().encode("utf-16"), "UTF-16"),
    "truncated gzip": (gzip.compress(PLAIN)[:-12], "truncated or damaged"),
    "flipped bit in gzip": (gzip.compress(PLAIN)[:-6] + b"\x00" + gzip.compress(PLAIN)[-5:], "truncated or damaged"),
    "truncated zip": (zipped(PLAIN)[:-20], "truncated or damaged"),
    "zip of two": (zipped(PLAIN, ("a.csv", "b.csv")), r"holds 2 files; got a.csv, b.csv"),
    "zip of none": (zipped(b"", ()), "holds 0 files"),
    "Zstandard": (b"\x28\xb5\x2f\xfd" + PLAIN, "is Zstandard"),
    "binary": (bytes(range(256)) * 4, "not UTF-8|unknown column|cells"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_of_it_is_yielded(tmp_path, case):
    data, message = BAD[case]
    file = written(tmp_path, data)
    feed = binance_trades(file, "BTCUSDT")
    with pytest.raises(FeedError, match=f"(?s){message}") as caught:
        next(feed.chunks())
    assert "trades.csv" in str(caught.value)


def test_rows_are_counted_across_blocks_in_errors(tmp_path):
    rows = [f"{n},1.5,1,1,1723161255342,true\n" for n in range(50)]
    rows[42] = rows[42].replace("1.5", "x")
    file = written(tmp_path, (HEADER + "".join(rows)).encode())
    with block_bytes(200), pytest.raises(FeedError, match="row 43, column 'price'"):
        events(binance_trades(file, "X"))
    file.write_bytes((HEADER + "".join(rows)).encode().replace(b"x", b"\xff"))
    with block_bytes(200), pytest.raises(FeedError, match="line 44: not UTF-8"):
        events(binance_trades(file, "X"))


def test_a_missing_file_and_a_directory_are_refused_at_once(tmp_path):
    with pytest.raises(FeedError, match="cannot be read"):
        binance_trades(tmp_path / "nothing.csv", "X")
    with pytest.raises(FeedError, match="is a directory"):
        binance_trades(tmp_path, "X")
    with pytest.raises(FeedError, match="symbol"):
        binance_trades(written(tmp_path, PLAIN), "")


@pytest.mark.parametrize(
    "template", ["", "{exchange}/x", "{symbol.__class__}", "{symbol", "symbol}", "{}", "{0}", None, 5]
)
def test_bad_templates_are_refused(tmp_path, template):
    with pytest.raises(FeedError, match="aggregate_id"):
        binance_trades(written(tmp_path, PLAIN), "X", aggregate_id=template)


def test_an_only_header_is_a_quiet_day(tmp_path):
    feed = binance_trades(written(tmp_path, HEADER.encode()), "X")
    assert [chunk.batches for chunk in feed.chunks()] == []
    assert feed.report.events == 0


@pytest.mark.parametrize(
    "header", ["", "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"]
)
def test_aggregated_trades(tmp_path, header):
    rows = "100,2.5,3,1,4,1723161255342,true\n103,2.25,1,5,5,1723161255343,false\n"
    feed = binance_agg_trades(written(tmp_path, (header + rows).encode()), "X", aggregate_id="agg/{symbol}")
    with pytest.warns(SequenceGap, match="103 after 100"):
        chunk = next(iter(list(feed.chunks())))
    frame = chunk.batches[0].frame
    assert frame.select("price", "volume", "side", "trade_id").rows() == [
        (2.5, 3.0, "sell", 100),
        (2.25, 1.0, "buy", 103),
    ]
    assert chunk.batches[0].aggregate_id == "agg/{symbol}"


@pytest.mark.parametrize("unit", [1_000, 1_000_000])
def test_klines_are_stamped_with_the_end_of_their_interval(tmp_path, unit):
    start = 1723161240
    row = f"{start * unit},10,12,9,11,5.5,{(start + 60) * unit - 1},60,42,3,33,0\n"
    frame = events(binance_klines(written(tmp_path, row.encode()), "X"))
    assert frame["timestamp"].dt.timestamp("us").to_list() == [(start + 60) * 1_000_000]
    assert frame.select("open", "high", "low", "close", "volume").row(0) == (10.0, 12.0, 9.0, 11.0, 5.5)


def test_a_kline_that_ends_before_it_begins_is_refused(tmp_path):
    row = b"1723161240000,10,12,9,11,5.5,1723161230000,60,42,3,33,0\n"
    with pytest.raises(FeedError, match="row 1, column 'close_time': before open_time"):
        events(binance_klines(written(tmp_path, row), "X"))


@pytest.mark.parametrize("size", [1 << 24, 60], ids=["one chunk", "many"])
def test_a_time_that_goes_back_names_the_file_and_the_event(tmp_path, size):
    path = tmp_path / "back.csv"
    times = [1_700_000_000_000 + at for at in (0, 1, 2, 3, 1)]
    path.write_text("".join(f"{at},1.5,2,3,{time},true,true\n" for at, time in enumerate(times)))
    with block_bytes(size), el.open(":memory:") as lab, pytest.raises(LateEvent) as caught:
        lab.ingest(binance_trades(path, symbol="X"), progress=False)
    assert str(caught.value).startswith(
        "back.csv: event 5: event time goes back in 'market/X'; got 2023-11-14T22:13:20.001Z"
    )
