"""What goes into a segment comes back bit by bit, and takes few bytes."""

from __future__ import annotations

import math
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given

from eventlab.events.types import Field
from eventlab.store.event_log import EventLog
from eventlab.store.segments import encodings as encoding
from eventlab.testing.events import TRADE

FLOAT = Field("x", "float", nullable=True)
TIME = Field("t", "time", nullable=True)

DECIMALS = st.builds(lambda n, k: n / 10**k, st.integers(-(2**53), 2**53), st.integers(0, 18))
ANY = st.none() | st.floats(allow_nan=False, allow_infinity=False) | DECIMALS


def through(array: pa.Array, field: Field) -> pa.Array:
    return encoding.decode(pa.chunked_array([encoding.encode(array)]), field)


def bits(array: pa.Array) -> list[bytes | None]:
    return [None if value is None else np.float64(value).tobytes() for value in array.to_pylist()]


@given(st.lists(ANY, max_size=40))
@example([-0.0, 1.0])
@example([0.0, None, 2.5])
@example([5e-324, math.nextafter(math.inf, 0)])
@example([float(2**53), -float(2**53)])
@example([float(2**53 + 2)])
@example([0.1 + 0.2])
@example([])
def test_floats_come_back_bit_by_bit(values):
    array = pa.array(values, pa.float64())
    back = through(array, FLOAT)
    assert bits(back) == bits(array)
    assert back.null_count == array.null_count


@pytest.mark.parametrize("odd", [-0.0, 1e308, 5e-324, 0.1 + 0.2, float(2**53 + 2), 0.125])
def test_one_odd_value_in_a_long_column_comes_back_bit_by_bit(odd):
    values = np.full(3 * encoding.ROW_GROUP, 0.25)
    values[encoding.ROW_GROUP + 1] = odd  # no sample holds it
    array = pa.array(values)
    back = through(array, FLOAT)
    assert back.to_numpy().tobytes() == values.tobytes()


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40), st.integers(0, 6))
def test_prices_are_stored_as_exact_decimals(raw, scale):
    values = pa.array([number / 10**scale for number in raw])
    stored = encoding.encode(values)
    assert pa.types.is_decimal(stored.type)
    assert stored.type.scale <= scale


@given(st.lists(st.none() | st.integers(-(2**63) + 1, 2**63 - 1), max_size=40), st.sampled_from([1, 1_000, 1_000_000]))
def test_times_come_back_exactly_from_the_coarsest_unit(values, unit):
    whole = [None if value is None else value // unit * unit for value in values]
    whole = [None if value is None or value < -(2**63) + 1 else value for value in whole]
    array = pa.array(whole, pa.int64()).cast(TIME.arrow_type)
    assert through(array, TIME).equals(array)
    if unit == 1_000_000:
        assert encoding.encode(array).type.unit == "ms"


def test_a_late_row_that_needs_more_digits():
    values = np.full(200_000, 1.5)
    values[150_001] = 0.123456
    stored = encoding.encode(pa.array(values))
    assert stored.type.scale == 6
    values[150_002] = math.pi * 1e10
    assert pa.types.is_floating(encoding.encode(pa.array(values)).type)


@pytest.mark.parametrize("slices", [(0, 5), (3, 9), (1, 2)])
def test_slices_with_nulls(slices):
    array = pa.array([None, 1.5, None, 2.25, 3.0, None, 7.125, 1.0, None, 0.5]).slice(*slices)
    assert bits(through(array, FLOAT)) == bits(array)


def test_six_real_files_take_a_fifth_of_their_raw_bytes(market_data_dir: Path, tmp_path: Path):
    """Everything on disk counted: catalog, segments and all. Raw means the columns as plain Arrow, 50.5 B an event."""
    import eventlab as el
    from eventlab.lab.open import open as open_lab

    rows = 0
    with open_lab(tmp_path) as lab:
        for market in ("usdm", "spot"):
            folder = market_data_dir / "binance"
            trades = pl.read_csv(folder / f"{market}_btcusdt_trades.csv.gz")
            book = pl.read_csv(folder / f"{market}_btcusdt_l2.csv.gz")
            best = pl.read_csv(folder / f"{market}_btcusdt_bbo.csv.gz")
            when = pl.coalesce("timestamp", "local_timestamp") if market == "usdm" else pl.col("local_timestamp")
            frames = [
                (el.MarketData, f"market/{market}", trades.select(
                    symbol=pl.lit("BTCUSDT"), price="price", volume="qty",
                    side=pl.when("is_buyer_maker").then(pl.lit("sell")).otherwise(pl.lit("buy")),
                    trade_id="id", received_at="local_ts_ns", timestamp=pl.col("time") * 1_000_000,
                )),
                (el.BookChange, f"book/{market}", book.select(
                    "symbol", "side", "price", size="amount", snapshot="is_snapshot",
                    first_update_id="first_update_id", update_id="final_update_id",
                    received_at=pl.col("local_timestamp") * 1_000,
                    timestamp=pl.coalesce("timestamp", "local_timestamp") * 1_000,
                )),
                (el.Quote, f"quote/{market}", best.select(
                    "symbol", "bid_price", "ask_price", bid_size="bid_amount", ask_size="ask_amount",
                    update_id="update_id", received_at=pl.col("local_timestamp") * 1_000, timestamp=when * 1_000,
                )),
            ]  # fmt: skip
            for kind, name, frame in frames:
                ordered = frame.with_columns(pl.col("timestamp").cum_max())
                lab.append_frame(kind, ordered, aggregate_id=name)
                rows += len(frame)
        lab.verify()
        whole = lab.events(el.MarketData, "market/usdm")
        assert (
            whole["price"].to_list()
            == pl.read_csv(market_data_dir / "binance/usdm_btcusdt_trades.csv.gz")["price"].to_list()
        )
    raw = 50.5 * rows
    with EventLog.open(tmp_path) as store:
        assert store.stop_position == rows
        assert store.bytes_on_disk() < 0.12 * raw
        assert TRADE.name in store.types()
