from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from eventlab.errors import FeedError
from eventlab.feeds import bars
from tests.feeds.helpers import block_bytes, events

HEADER = "time,open,high,low,close,volume\n"
ROW = "1776606960000,1.5,2.5,1.25,2,10\n"


def written(tmp_path, text: str):
    file = tmp_path / "bars.csv"
    file.write_text(text)
    return file


def test_the_real_minute_bars(market_data_dir):
    path = market_data_dir / "bars" / "flox_btcusdt_1m.csv"
    frame = events(bars(path, "BTCUSDT", time="timestamp", interval="1m", stamped="start"))
    raw = pl.read_csv(path)
    assert frame["timestamp"].dt.timestamp("ms").to_list() == (raw["timestamp"] + 60_000).to_list()
    for name in ("open", "high", "low", "close", "volume"):
        assert frame[name].to_list() == raw[name].to_list()


@pytest.mark.parametrize(("pair", "missing"), [("BTC", 0), ("ETH", 1_077), ("LTC", 940)])
def test_the_real_daily_bars_of_three_pairs(market_data_dir, pair, missing):
    names = {name: f"{pair}:{name}" for name in ("open", "high", "low", "close", "volume")}
    path = market_data_dir / "bars" / "bitstamp_BTC_ETH_LTC_USD_daily.csv"
    feed = bars(path, f"{pair}USD", time="", interval="1d", stamped="start", **names)
    frame = events(feed)
    assert (len(frame), feed.report.rows, feed.report.dropped.get("rows without numbers", 0)) == (
        1_865 - missing, 1_865, missing,
    )  # fmt: skip
    assert frame["timestamp"][-1] == dt.datetime(2020, 1, 18, tzinfo=dt.UTC)
    assert frame["timestamp"].is_sorted()


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        ("1776606960", None), ("1776606960000", None), ("1776606960000000", "us"), ("1776606960000000000", None),
        ("1776606960.0", "s"), ("2026-04-19T13:56:00Z", None), ("2026-04-19 13:56", None),
        ("2026-04-19 15:56:00+02:00", None), ("2026-04-19T13:56:00.000+0000", None), ("2026-04-19 13:56:00 UTC", None),
        ("2026-04-19T13:56Z", None),
    ],
)  # fmt: skip
def test_times_in_all_their_spellings(tmp_path, time, unit):
    frame = events(bars(written(tmp_path, HEADER + ROW.replace("1776606960000", time)), "X", time_unit=unit))
    assert frame["timestamp"].dt.timestamp("ms").to_list() == [1776606960000]


@pytest.mark.parametrize("time", ["2500-01-01", "1500-01-01 00:00", "2300-01-01T00:00:00Z", "2262-04-11"])
def test_years_that_nanoseconds_do_not_hold_are_refused(tmp_path, time):
    with pytest.raises(FeedError, match="row 1, column 'time': cannot be read.*from 1678 to 2261"):
        events(bars(written(tmp_path, HEADER + ROW.replace("1776606960000", time)), "X"))
    frame = pl.DataFrame({"time": [dt.datetime.fromisoformat(time)], "open": 1.0, "high": 1.0, "low": 1.0})
    frame.with_columns(close=1.0, volume=1.0).write_parquet(tmp_path / "bars.parquet")
    if time != "2262-04-11":  # the last day that begins within them
        with pytest.raises(FeedError, match="row 1, column 'time': out of range"):
            events(bars(tmp_path / "bars.parquet", "X"))
    with pytest.raises(FeedError, match="row 1, column 'time'"):
        events(bars(tmp_path / "bars.parquet", "X", interval="1d", stamped="start"))


@pytest.mark.parametrize("time", [pl.Datetime("ms"), pl.Datetime("ns", "UTC"), pl.Date, pl.Int64, pl.Float64])
def test_parquet_files_with_any_type_of_time(tmp_path, time):
    moment = dt.datetime(2026, 4, 19, tzinfo=dt.UTC)
    number = pl.Series([int(moment.timestamp() * 1_000)])
    stamped = number.cast(time) if time in (pl.Int64, pl.Float64) else number.cast(pl.Datetime("ms")).cast(time)
    if time == pl.Datetime("ns", "UTC"):
        stamped = number.cast(pl.Datetime("ms", "UTC")).cast(time)
    frame = pl.DataFrame({"t": stamped, "o": [1.5], "h": [2.5], "l": [1], "c": [2.0], "v": [10]})
    frame.write_parquet(tmp_path / "bars.parquet")
    names = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    feed = bars(tmp_path / "bars.parquet", "X", time="t", **names)
    got = events(feed)
    assert got["timestamp"].to_list() == [moment]
    assert got.select("open", "high", "low", "close", "volume").row(0) == (1.5, 2.5, 1.0, 2.0, 10.0)
    assert [chunk.done for chunk in feed.chunks()][-1] == feed.total


def test_quoted_headers_and_small_blocks(tmp_path):
    text = '"time","open","high, really","low","close","volume"\n' + "".join(
        f"{1776606960000 + 60_000 * n},1,2,1,1.5,{n}\n" for n in range(50)
    )
    whole = events(bars(written(tmp_path, text), "X", high="high, really"))
    with block_bytes(200):
        assert events(bars(written(tmp_path, text), "X", high="high, really")).equals(whole)
    assert whole["volume"].to_list() == [float(n) for n in range(50)]


def test_odd_bars_are_kept_with_a_warning(tmp_path):
    feed = bars(written(tmp_path, HEADER + ROW.replace("2.5", "1.75")), "X")
    assert len(events(feed)) == 1
    assert "have open or close outside" in feed.report.warnings[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2.5,", ",", "row 1, column 'high': missing in a row with other numbers"),
        ("2.5,", "high,", "row 1, column 'high': cannot be read; got high"),
        ("2.5,", "nan,", "row 1, column 'high'"),
        ("2.5,", "-2.5,", "row 1, column 'high'"),
        ("1776606960000", "soon", "row 1, column 'time': cannot be read; got soon"),
        ("1776606960000", "17", "row 1, column 'time': not a plausible time"),
        ("1776606960000", "", "row 1, column 'time': missing"),
        ("1.25,2,10", "1.25,2,10,9", "cannot be read as CSV|cells"),
        ("high", "hoch", "no column 'high'; got 'time', 'open', 'hoch'"),
        ("open", "high", "no column 'open'|2 columns 'high'"),
    ],
)
def test_bad_cells_are_named(tmp_path, old, new, message):
    text = (HEADER + ROW).replace(old, new, 1)
    with pytest.raises(FeedError, match=f"(?s)bars.csv.*{message}"):
        events(bars(written(tmp_path, text), "X"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"stamped": "start"},
        {"stamped": "middle"},
        {"time_unit": "h"},
        {"interval": "soon"},
        {"open": 3},
        {"aggregate_id": "{x}"},
    ],
)
def test_invalid_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="."):
        bars(written(tmp_path, HEADER + ROW), "X", **wrong)


def test_a_torn_parquet_file(tmp_path):
    pl.DataFrame({"time": [1]}).write_parquet(tmp_path / "bars.parquet")
    data = (tmp_path / "bars.parquet").read_bytes()
    (tmp_path / "bars.parquet").write_bytes(data[:-10])
    with pytest.raises(FeedError, match="cannot be read as Parquet"):
        events(bars(tmp_path / "bars.parquet", "X"))
