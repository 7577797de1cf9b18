"""The fast path of rows gives nothing, or exactly what the Arrow path gives."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given

from eventlab.errors import EventlabError
from eventlab.events import columns
from eventlab.events.rows import rows_of
from eventlab.events.types import EventType, Field, Limits
from tests.events.strategies import INT64, NS, TEXT, builtin_types, user_types, values

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) + 1, 0.0, -0.0,
    0.5, 5e-324, -5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"), "", "a", "ü€𝄞",
    "\ud800", "\0", b"bytes", np.float64(1.5), np.float32(0.1), np.int64(7), np.int8(-3), np.uint64(2**63),
    np.bool_(True),
    np.str_("s"), dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 1),  # noqa: DTZ001  naive on purpose
    dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    "2024-01-01T00:00:00.123456789Z", "2024-01-01", np.datetime64("2024-01-01T00:00:00.000000001"),
    np.datetime64("NaT"),
    dt.date(2024, 1, 1), [], object(), type,
]  # fmt: skip


def bits(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Every value, floats by their bits; text by what it says, as canonical columns may order their words freely."""
    made: list[tuple[Any, ...]] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        shown = column.view(pa.int64()) if pa.types.is_floating(column.type) else column
        words = tuple(column.dictionary.to_pylist()) if pa.types.is_dictionary(column.type) else ()
        if pa.types.is_timestamp(column.type):
            shown = column.view(pa.int64())
        made.append((name, str(column.type), tuple(shown.to_pylist()), words))
    return made


def long_way(declared: EventType, events: list[Any]) -> pa.RecordBatch | None:
    try:
        return columns.payload_from_objects(declared, events)
    except EventlabError:
        return None


def objects(declared: EventType, rows: list[tuple[Any, ...]]) -> list[Any]:
    """Objects that check nothing."""
    return [SimpleNamespace(**dict(zip([f.name for f in declared], row, strict=True))) for row in rows]


def same(declared: EventType, events: list[Any]) -> bool:
    """Whether the short way took them; it must then give what the long way gives."""
    rows = rows_of(declared, events)
    if rows is None:
        return False
    expected = long_way(declared, events)
    assert expected is not None, "what the long way refuses, the short way leaves to it"
    assert bits(rows.to_batch()) == bits(expected)
    assert rows.to_batch().schema == expected.schema
    assert rows.num_rows == len(events)
    return True


@given(st.data())
def test_plain_values_take_the_fast_path_and_are_equal(data: st.DataObject):
    declared = data.draw(builtin_types() | user_types())
    rows = data.draw(st.lists(st.tuples(*map(values, declared)), min_size=1, max_size=32))
    assert same(declared, objects(declared, rows))


@given(st.data())
def test_any_values_are_equal_or_left_to_the_slow_path(data: st.DataObject):
    declared = data.draw(builtin_types() | user_types())
    anything = st.sampled_from(ODD) | INT64 | NS | TEXT | st.floats()
    rows = data.draw(st.lists(st.tuples(*(values(field) | anything for field in declared)), min_size=1, max_size=4))
    same(declared, objects(declared, rows))


LIMITS = [
    Limits(),
    Limits(minimum=0),
    Limits(maximum=0),
    Limits(0.5, 2.5),
    Limits(-1e308, 1e308),
    Limits(-(2**60), 2**60),
]


@pytest.mark.parametrize("kind", ["float", "int", "bool", "string", "symbol", "enum", "time"])
@pytest.mark.parametrize("nullable", [False, True])
def test_every_odd_value_in_every_kind(kind: Any, nullable: bool):
    for limits in LIMITS if kind in ("float", "int") else LIMITS[:1]:
        field = Field("x", kind, nullable, limits, ("", "a", "ü€𝄞") if kind == "enum" else ())
        declared = EventType("one", (field,), 1, object)
        taken = [value for value in ODD if same(declared, objects(declared, [(value,)]))]
        assert taken or limits is not LIMITS[0]


@pytest.mark.parametrize("bound", [0.0, 1.0, 2.5, -2.5, 2.0**53, 1e19])
@given(value=st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from([2**53, -(2**53), -0.0]))
def test_bounds_are_the_same_on_both_paths(bound: float, value: float):
    for limits in (Limits(minimum=bound), Limits(maximum=bound)):
        for kind in ("float", "int"):
            declared = EventType("one", (Field("x", kind, False, limits),), 1, object)
            same(declared, objects(declared, [(value,)]))


# -- the same for columns of frames


@given(st.data())
def test_a_plain_column_is_what_the_closer_look_gives(data: st.DataObject):
    declared = data.draw(builtin_types() | user_types())
    for field in declared:
        made = data.draw(st.lists(values(field), max_size=40))
        series = pl.Series(field.name, made, pl.Int64() if field.kind == "time" else None, strict=False)
        if field.kind == "enum":
            series = series.cast(pl.String)
        _compare(field, series)


@given(st.lists(st.sampled_from(["a", "b", "", "a longer word than fits a view", "ü"]), max_size=30), st.data())
def test_text_columns_in_any_memory_layout(words: list[str], data: st.DataObject):
    start = data.draw(st.integers(0, len(words)))
    chunks = [pl.Series("x", words[:start], pl.String()), pl.Series("x", words[start:], pl.String())]
    for series in (pl.concat(chunks, rechunk=False), chunks[1], pl.Series("x", words, pl.String()).slice(start, 7)):
        for kind in ("string", "symbol", "enum"):
            _compare(Field("x", kind, False, Limits(), ("a", "b", "ü", "") if kind == "enum" else ()), series)


@pytest.mark.parametrize("limits", LIMITS)
@given(
    floats=st.lists(st.floats() | st.sampled_from([0.0, -0.0, 0.5, 2.5, 1.7976931348623157e308]), max_size=6),
    ints=st.lists(INT64 | st.just(-(2**63)), max_size=6),
)
def test_number_columns_and_their_bounds(limits: Limits, floats: list[float], ints: list[int]):
    _compare(Field("x", "float", False, limits), pl.Series("x", floats, pl.Float64()))
    _compare(Field("x", "int", False, limits), pl.Series("x", ints, pl.Int64()))


def _compare(field: Field, series: pl.Series) -> None:
    short = columns.plain_column(field, series)
    if short is None:
        return
    long = columns._checked(field, columns._from_series(field, series, ""), "")
    schema = pa.schema([pa.field(field.name, field.arrow_type)])
    assert bits(pa.RecordBatch.from_arrays([short], schema=schema)) == bits(
        pa.RecordBatch.from_arrays([long], schema=schema)
    )
