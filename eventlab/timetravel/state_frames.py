"""Reconstructed states as return values: one as a State, many as a frame."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.fold.declare.reducer import Reducer
from eventlab.timetravel.reconstruct import Reconstructed
from eventlab.timetravel.state import State


def single(reducer: Reducer, found: Reconstructed) -> State:
    """The one state that was reconstructed."""
    version = int(found.marks.version[0])
    position, timestamp = (int(column[0]) for column in (found.marks.position, found.marks.timestamp))
    return State(
        reducer,
        found.aggregates[0],
        found.states,
        {name: found.emitted.column(name)[0].as_py() for name in reducer.properties},
        version,
        position if version else None,
        timestamp if version else None,
    )


def frame(reducer: Reducer, found: Reconstructed) -> pl.DataFrame:
    """One row an aggregate: aggregate_id, version, position, timestamp, fields, properties, tables as lists."""
    none = pa.array(found.marks.version == 0)
    known = {
        "position": pa.array(found.marks.position),
        "timestamp": pa.array(found.marks.timestamp).cast(pa.timestamp("ns", "UTC")),
    }
    columns = {
        "aggregate_id": pa.array(found.aggregates, pa.string()),
        "version": pa.array(found.marks.version),
        **{name: pc.if_else(none, None, column) for name, column in known.items()},
        **dict(zip(found.emitted.schema.names, found.emitted.columns, strict=True)),
        **{table.name: found.states.column(table.name) for table in reducer.layout.tables},
    }
    return pl.DataFrame(pl.from_arrow(pa.table(columns)))
