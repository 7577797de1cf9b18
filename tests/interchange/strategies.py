"""Labs with anything in them that a log can hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Literal

import hypothesis.strategies as st
import polars as pl

import eventlab as el
from eventlab.events.types import EventType, event_type
from eventlab.interchange.pieces import columns_of
from tests.events.strategies import TEXT, payloads


@el.event(schema_version=3)
class ExchangedOrder:
    """A user's own type with a field of every kind."""

    symbol: el.Symbol
    note: str
    price: float
    units: int | None
    filled: bool | None
    side: Literal["buy", "sell", "ü"] | None
    at_desk: dt.datetime | None = None


TYPES = (el.MarketData, el.BookChange, el.TradingSignal, el.PortfolioChange, ExchangedOrder)
AGGREGATES = ("a", "b/ü", "c'\"", "d\u202e")

METADATA = st.none() | st.dictionaries(TEXT, TEXT, min_size=1, max_size=2)
STEP = st.tuples(
    st.sampled_from(AGGREGATES), st.sampled_from(TYPES).map(event_type), METADATA, st.booleans(),
    st.none() | st.integers(0, 30),
)  # fmt: skip


@st.composite
def steps(draw) -> list[tuple]:
    """Appends: aggregate, type, payload, metadata, whether with ids of its own, a cause, and whether to seal after."""
    made = []
    for aggregate, declared, metadata, with_ids, cause in draw(st.lists(STEP, min_size=1, max_size=6)):
        frame = draw(payloads(declared, max_size=4).filter(len))
        made.append((aggregate, declared, frame, metadata, with_ids, cause, draw(st.booleans())))
    return made


def fill(lab: el.Lab, made: list[tuple]) -> None:
    """Append them, with times that rise."""
    position = 0
    for aggregate, declared, payload, metadata, with_ids, cause, seal in made:
        rows = len(payload)
        frame = payload.with_columns(timestamp=pl.Series([position * 10] * rows), aggregate_id=pl.lit(aggregate))
        if with_ids:
            frame = frame.with_columns(event_id=pl.Series([f"id-{position}-{row}" for row in range(rows)]))
        if cause is not None and cause < position:
            frame = frame.with_columns(cause=pl.Series([cause] * rows))
        lab.append_frame(declared, frame, metadata=metadata)
        position += rows
        if seal:
            lab.seal()


def content(lab: el.Lab) -> Mapping[str, pl.DataFrame]:
    """Everything that travels, type by type; without times of recording, and with supplied ids only."""
    found = {}
    for name in lab.store.types():
        declared: EventType = lab.store.types()[name]
        columns = [column for column in columns_of(declared) if column != "recorded_at"]
        rows = lab.store.rows(declared, columns=columns, computed_ids=False)
        frames = [lab.events(declared, columns=columns).clear(), *rows]
        found[name] = pl.concat(frames)
    return {name: frame for name, frame in found.items() if len(frame)}
