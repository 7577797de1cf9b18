"""The boundary at which values become columns: what passes is canonical and unchanged, what does not is named."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlab.errors import InvalidEvent
from eventlab.events.builtin import BookChange, MarketData, PortfolioChange, Quote
from eventlab.events.columns import (
    frame_of,
    payload_from_frame,
    payload_from_objects,
    text_of,
    timestamps_from,
)
from eventlab.events.types import EventType, Limits, event, event_type
from tests.events.strategies import builtin_types, payloads, user_types

TRADE = event_type(MarketData)
NOON = dt.datetime(2024, 8, 9, 12, tzinfo=dt.UTC)
NOON_NS = 1_723_204_800_000_000_000


@event
class ColumnsBounded:
    """Bounds on integers, text without a vocabulary, and a flag."""

    level: int = 0
    share: float = 0.5
    note: str | None = None
    flag: bool | None = None


BOUNDED = event_type(ColumnsBounded)


def trades(**columns: object) -> pl.DataFrame:
    return pl.DataFrame({"symbol": ["A", "B"], "price": [1.0, 2.0], "volume": [3.0, 4.0]} | columns)


def public(batch: pa.RecordBatch, declared: EventType) -> pl.DataFrame:
    """The naive way back: each column through Python values."""
    columns = []
    for field in declared:
        values = batch.column(field.name)
        values = (values.cast(pa.int64()) if field.kind == "time" else values).to_pylist()
        raw = pl.Series(field.name, values, pl.Int64() if field.kind == "time" else field.polars_type)
        columns.append(raw.cast(field.polars_type))
    return pl.DataFrame(columns)


@given(st.data())
def test_a_frame_comes_out_as_it_went_in(data):
    declared = data.draw(builtin_types() | user_types())
    frame = data.draw(payloads(declared))
    batch = payload_from_frame(declared, frame)
    assert batch.schema.equals(declared.arrow_schema)
    batch.validate(full=True)
    assert public(batch, declared).equals(frame)


@given(st.data())
def test_objects_and_frames_give_the_same_columns(data):
    declared = data.draw(builtin_types())
    frame = data.draw(payloads(declared))
    times = [field.name for field in declared if field.kind == "time"]
    rows = frame.with_columns(pl.col(times).to_physical()).to_dicts()  # Python's datetimes have no nanoseconds
    for row in rows:
        row.update({name: np.datetime64(row[name], "ns") for name in times if row[name] is not None})
    made = payload_from_objects(declared, [declared.cls(**row) for row in rows])
    assert made.equals(payload_from_frame(declared, frame))


@given(payloads(TRADE, 8), st.data())
def test_order_of_columns_chunks_and_slices_do_not_matter(frame, data):
    shuffled = frame.select(data.draw(st.permutations(frame.columns)))
    cut = data.draw(st.integers(0, len(frame)))
    chunked = pl.concat([shuffled[:cut], shuffled[cut:]], rechunk=False)
    wide = pl.concat([shuffled, shuffled]).slice(len(frame), len(frame))
    expected = payload_from_frame(TRADE, frame)
    for same in (shuffled, chunked, wide):
        assert payload_from_frame(TRADE, same).equals(expected)


def test_defaults_fill_absent_columns():
    batch = payload_from_frame(event_type(PortfolioChange), trades(quantity=[1, 2]).drop("volume"))
    assert batch.column("fee").to_pylist() == [0.0, 0.0]
    assert batch.column("kind").to_pylist() == ["fill", "fill"]
    assert payload_from_frame(TRADE, trades()).column("side").to_pylist() == [None, None]


def test_numbers_of_every_width_are_numbers():
    for dtype in (pl.Int8, pl.UInt64, pl.Float32, pl.Decimal(10, 2)):
        frame = trades(price=pl.Series([1, 2]).cast(dtype), trade_id=pl.Series([1, 2], dtype=pl.UInt64))
        batch = payload_from_frame(TRADE, frame)
        assert batch.column("price").to_pylist() == [1.0, 2.0]
        assert batch.column("trade_id").to_pylist() == [1, 2]


def test_text_may_be_categorical_or_an_enum():
    for dtype in (pl.Categorical, pl.Enum(["A", "B"])):
        assert payload_from_frame(TRADE, trades(symbol=pl.Series(["A", "B"], dtype=dtype))).column(0).to_pylist() == [
            "A",
            "B",
        ]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_of_every_unit_and_zone_are_utc(unit, zone):
    times = pl.Series([NOON, None]).dt.cast_time_unit(unit)
    times = times.dt.replace_time_zone(None) if zone is None else times.dt.convert_time_zone(zone)
    batch = payload_from_frame(TRADE, trades(received_at=times))
    assert batch.column("received_at").cast(pa.int64()).to_pylist() == [NOON_NS, None]


def test_negative_zero_is_kept():
    batch = payload_from_frame(TRADE, trades(price=[-0.0, 0.0]))
    assert np.signbit(batch.column("price").to_numpy()).tolist() == [True, False]


def test_an_empty_frame_has_the_types_too():
    batch = payload_from_frame(TRADE, pl.DataFrame({"symbol": [], "price": [], "volume": []}))
    assert (batch.num_rows, batch.schema) == (0, TRADE.arrow_schema)


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (trades().drop("price"), r"f\.csv: market_data needs a column 'price'; got symbol, volume"),
        (trades(size=[1, 2]), r"f\.csv: market_data has no column 'size'; expected symbol, price"),
        (trades(price=["1", "2"]), r"f\.csv: column 'price' has the wrong type; got String; expected numbers"),
        (trades(price=[True, False]), r"column 'price' has the wrong type; got Boolean"),
        (trades(price=[1.0, None]), r"f\.csv: row 1, column 'price': null"),
        (trades(price=[None, None]), r"column 'price' has the wrong type; got Null"),
        (
            trades(price=[1.0, float("nan")]),
            r"f\.csv: row 1, column 'price': value refused; got nan; expected a finite",
        ),
        (trades(price=[2**53, 2**53 + 1]), r"row 1, column 'price': value refused; got 9007199254740993; .*exactly"),
        (
            trades(price=pl.Series([2**63, 2**64 - 1], dtype=pl.UInt64)),
            r"row 1, column 'price': value refused; got 18446744073709551615",
        ),
        (trades(price=[float("inf"), 1.0]), r"row 0, column 'price': value refused; got inf"),
        (trades(volume=[1.0, -2.5]), r"row 1, column 'volume': value refused; got -2\.5; .*at least 0"),
        (trades(symbol=["A", ""]), r"row 1, column 'symbol': value refused; got ; expected a non-empty symbol"),
        (trades(symbol=[None, "A"]), r"row 0, column 'symbol': null"),
        (trades(symbol=[1, 2]), r"column 'symbol' has the wrong type; got Int64; expected text"),
        (trades(side=["buy", "hold"]), r"row 1, column 'side': value refused; got hold; expected buy \| sell"),
        (trades(trade_id=[1.0, 2.0]), r"column 'trade_id' has the wrong type; got Float64; expected integers"),
        (
            trades(trade_id=pl.Series([1, 2**63], dtype=pl.UInt64)),
            r"row 1, column 'trade_id': .*got 9223372036854775808",
        ),
        (trades(trade_id=[1, -(2**63)]), r"row 1, column 'trade_id': value refused; got -9223372036854775808"),
        (trades(received_at=["now", "then"]), r"column 'received_at' has the wrong type; got String"),
        (trades(received_at=[NOON_NS, -(2**63)]), r"row 1, column 'received_at': value refused"),
        (
            trades(received_at=pl.Series([0, 10**14]).cast(pl.Datetime("ms"))),
            r"row 1, column 'received_at': value refused; got 100000000000000 ms since 1970; .*1677 to 2262",
        ),
        (
            trades(received_at=pl.Series([0, -(2**63)]).cast(pl.Datetime("us"))),
            r"row 1, column 'received_at': value refused",
        ),
    ],
)
def test_a_refusal_names_source_row_column_and_value(frame, match):
    with pytest.raises(InvalidEvent, match=match):
        payload_from_frame(TRADE, frame, where="f.csv")


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (MarketData("A", True, 1.0), r"row 1, column 'price': .*got True; expected float"),
        (MarketData("A", "1", 1.0), r"row 1, column 'price': .*got 1; expected float"),
        (MarketData("A", 10**400, 1.0), r"row 1, column 'price'"),
        (MarketData("A", None, 1.0), r"row 1, column 'price': null"),
        (MarketData("A", -1.0, 1.0), r"row 1, column 'price': value refused; got -1\.0"),
        (MarketData(b"A", 1.0, 1.0), r"row 1, column 'symbol': .*got b'A'; expected symbol"),
        (MarketData(5, 1.0, 1.0), r"row 1, column 'symbol'"),
        (MarketData("\ud800", 1.0, 1.0), r"row 1, column 'symbol'"),
        (MarketData("A", 1.0, 1.0, side="hold"), r"row 1, column 'side': value refused; got hold"),
        (MarketData("A", 1.0, 1.0, trade_id=1.5), r"row 1, column 'trade_id': .*got 1\.5; expected int"),
        (MarketData("A", 1.0, 1.0, trade_id=2**63), r"row 1, column 'trade_id'"),
        (MarketData("A", 1.0, 1.0, trade_id="7"), r"row 1, column 'trade_id'"),
        (MarketData("A", 1.0, 1.0, received_at=dt.datetime(2024, 1, 1)), r"row 1, .*received_at is a naive datetime"),  # noqa: DTZ001
        (MarketData("A", 1.0, 1.0, received_at="soon"), r"row 1, .*received_at cannot be read"),
    ],
)
def test_a_refused_object_is_named_by_row_and_field(made, match):
    with pytest.raises(InvalidEvent, match=match):
        payload_from_objects(TRADE, [MarketData("A", 1.0, 1.0), made])


def test_a_bool_is_not_a_number():
    for snapshot in (1, "yes"):
        with pytest.raises(InvalidEvent, match="row 0, column 'snapshot'"):
            payload_from_objects(event_type(BookChange), [BookChange("A", "bid", 1.0, 1.0, snapshot)])
    made = payload_from_objects(event_type(BookChange), [BookChange("A", "bid", np.float32(1), 1, np.bool_(True))])
    assert made.column("snapshot").to_pylist() == [True]


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_integers_beyond_float_precision_stay_exact(number):
    made = payload_from_objects(event_type(Quote), [Quote("A", 1, 1, 1, 1, update_id=number)])
    assert made.column("update_id").to_pylist() == [number]


def test_integer_bounds_are_inclusive():
    limited = EventType.from_schema_json(
        BOUNDED.schema_json().replace(
            '"kind":"int","maximum":null,"minimum":null', '"kind":"int","maximum":5,"minimum":-5'
        )
    )
    assert limited.field("level").limits == Limits(-5, 5)
    assert payload_from_frame(limited, pl.DataFrame({"level": [-5, 5]})).column("level").to_pylist() == [-5, 5]
    for bad in (-6, 6):
        with pytest.raises(InvalidEvent, match=rf"row 1, column 'level': value refused; got {bad}; .*between -5 and 5"):
            payload_from_frame(limited, pl.DataFrame({"level": [0, bad]}))


def test_frames_of_three_kinds_and_nothing_else():
    frame = trades()
    assert frame_of(frame) is frame
    assert frame_of(frame.to_arrow()).equals(frame)
    assert frame_of(frame.to_arrow().to_batches()[0]).equals(frame)
    for other in (frame.lazy(), {"price": [1]}, None, frame["price"]):
        with pytest.raises(InvalidEvent, match="not a frame"):
            frame_of(other)


def test_event_times_come_as_int64():
    column = pl.Series("timestamp", [NOON, NOON]).dt.cast_time_unit("ms")
    assert timestamps_from(column).tolist() == [NOON_NS, NOON_NS]
    assert timestamps_from(pl.Series([1, 2], dtype=pl.UInt8)).dtype == np.int64
    with pytest.raises(InvalidEvent, match=r"f\.csv: row 1, column 'timestamp': null"):
        timestamps_from(pl.Series([1, None]), where="f.csv")
    with pytest.raises(InvalidEvent, match="column 'timestamp' has the wrong type"):
        timestamps_from(pl.Series([1.5]))


def test_text_is_dictionary_encoded():
    for dtype in (pl.String, pl.Categorical):
        made = text_of(pl.Series(["b", "a", "b", None], dtype=dtype))
        assert made.type == pa.dictionary(pa.int32(), pa.string())
        assert made.to_pylist() == ["b", "a", "b", None]


@given(st.lists(st.sampled_from(["buy", "sell", None])))
def test_an_enum_with_the_fields_vocabulary_is_as_its_text(sides: list[str | None]):
    text = pl.DataFrame({"symbol": ["a"] * len(sides), "price": 1.0, "volume": 1.0}).with_columns(
        pl.Series("side", sides, pl.String)
    )
    expected = payload_from_frame(TRADE, text)
    for vocabulary in (["buy", "sell"], ["sell", "buy", "none"]):
        coded = payload_from_frame(TRADE, text.cast({"side": pl.Enum(vocabulary)}))
        assert coded.equals(expected)
        assert coded.schema == expected.schema
