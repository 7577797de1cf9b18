"""The stored form of states: an Arrow IPC file of one batch, the envelope of the last event beside each state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from eventlab.snapshots.states import Marks

_STATE = "state."
"""Before the names of a state's columns, which could else be those of the envelope."""

_ENVELOPE = ("aggregate_id", "version", "position", "timestamp", "latest")


@dataclass(frozen=True, slots=True)
class Kept:
    """States as they were written. `described` is what was said of them."""

    described: Mapping[str, str]
    aggregates: list[str]
    marks: Marks
    states: pa.RecordBatch


def encode(described: Mapping[str, str], aggregates: Sequence[str], marks: Marks, states: pa.RecordBatch) -> pa.Buffer:
    """States, one row an aggregate and version, as bytes."""
    envelope = [
        pa.array(aggregates, pa.string()),
        *(pa.array(column) for column in (marks.version, marks.position, marks.timestamp, marks.latest)),
    ]
    fields = [pa.field(name, column.type) for name, column in zip(_ENVELOPE, envelope, strict=True)]
    fields += [field.with_name(f"{_STATE}{field.name}") for field in states.schema]
    batch = pa.RecordBatch.from_arrays([*envelope, *states.columns], schema=pa.schema(fields, dict(described)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode(content: pa.Buffer) -> Kept:
    """What `encode` was given. Bytes that are not its own raise what Arrow raises, KeyError or IndexError."""
    reader = pa.ipc.open_file(content)
    described = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
    batch = reader.get_batch(0)
    fields = [field for field in batch.schema if field.name.startswith(_STATE)]
    states = pa.RecordBatch.from_arrays(
        [batch.column(field.name) for field in fields],
        schema=pa.schema([field.with_name(field.name.removeprefix(_STATE)) for field in fields]),
    )
    aggregates = batch.column("aggregate_id").to_pylist()
    return Kept(described, aggregates, Marks(*(batch.column(name).to_numpy() for name in _ENVELOPE[1:])), states)
