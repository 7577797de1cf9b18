"""Hypothesis strategies: values, rows and frames of any event type."""

from __future__ import annotations

import polars as pl
from hypothesis import strategies as st

import eventlab.events.builtin  # noqa: F401  declares the built-in types
from eventlab.events.clock import MAX_NS, MIN_NS
from eventlab.events.columns import metadata_json
from eventlab.events.types import EventType, Field, Limits, event_type

BUILTIN_NAMES = ("market_data", "quote", "book_change", "bar", "funding", "trading_signal", "portfolio_change")

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
INT64 = st.one_of(st.integers(-3, 3), st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from([2**53 + 1, 2**63 - 1]))
NS = st.one_of(st.integers(-2_000_000_000, 2_000_000_000), st.integers(MIN_NS, MAX_NS))


def values(field: Field) -> st.SearchStrategy:
    low, high = field.limits.minimum, field.limits.maximum
    made = {
        "float": st.floats(low, high, allow_nan=False, allow_infinity=False),
        "int": INT64,
        "bool": st.booleans(),
        "string": TEXT,
        "symbol": TEXT.filter(bool),
        "enum": st.sampled_from(field.vocabulary) if field.vocabulary else st.nothing(),
        "time": NS,
    }[field.kind]
    return st.none() | made if field.nullable else made


def payload_frame(declared: EventType, rows: list[tuple]) -> pl.DataFrame:
    schema = {f.name: pl.Int64() if f.kind == "time" else f.polars_type for f in declared}
    frame = pl.DataFrame(rows, schema, orient="row")
    return frame.cast(pl.Schema(declared.polars_schema))


def payloads(declared: EventType, max_size: int = 6) -> st.SearchStrategy[pl.DataFrame]:
    rows = st.lists(st.tuples(*map(values, declared)), max_size=max_size)
    return rows.map(lambda found: payload_frame(declared, found))


def _metadata() -> st.SearchStrategy[str | None]:
    some = st.dictionaries(TEXT, TEXT, min_size=1, max_size=3)
    return st.none() | some.map(metadata_json)


@st.composite
def frames(draw, declared: EventType, max_size: int = 6) -> pl.DataFrame:
    """Frames as `lab.events` gives them: envelope and payload."""
    payload = draw(payloads(declared, max_size))
    whole = st.integers(0, 2**63 - 1)
    row = st.tuples(
        st.none() | whole, TEXT.filter(bool), st.none() | st.integers(1, 2**63 - 1), NS, st.none() | whole,
        st.none() | TEXT, _metadata(), st.none() | NS,
    )  # fmt: skip
    rows = draw(st.lists(row, min_size=len(payload), max_size=len(payload)))
    schema = {
        "position": pl.Int64, "aggregate_id": pl.String, "version": pl.Int64, "timestamp": pl.Int64, "cause": pl.Int64,
        "event_id": pl.String, "metadata": pl.String, "recorded_at": pl.Int64,
    }  # fmt: skip
    envelope = pl.DataFrame(rows, schema, orient="row")
    envelope = envelope.cast({name: pl.Datetime("ns", "UTC") for name in ("timestamp", "recorded_at")})
    return pl.concat([envelope, payload], how="horizontal")


@st.composite
def user_types(draw) -> EventType:
    """Event types as a store may remember them: any fields, in any order."""
    names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True), min_size=1, max_size=6, unique=True))
    fields = []
    for name in names:
        kind = draw(st.sampled_from(["float", "int", "bool", "string", "symbol", "enum", "time"]))
        vocabulary = tuple(draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))) if kind == "enum" else ()
        fields.append(Field(f"f_{name}", kind, draw(st.booleans()), Limits(), vocabulary))
    return EventType("anything", tuple(fields), draw(st.integers(1, 9)), object)


def builtin_types() -> st.SearchStrategy[EventType]:
    return st.sampled_from([event_type(name) for name in BUILTIN_NAMES])


def same_bits(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """Equal in schema, nulls and the bits of every float: unlike `equals`, tells -0.0 from 0.0."""
    if left.schema != right.schema or not left.equals(right):
        return False
    floats = [name for name, dtype in left.schema.items() if dtype == pl.Float64]
    return all(
        [str(value) for value in left[name].to_list()] == [str(value) for value in right[name].to_list()]
        for name in floats
    )
