"""The format of checkpoints: an Arrow IPC file of one batch, a row per state with the envelope of its last event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from eventlab.snapshots.states import Marks

_STATE = "state."
"""Prefix of a state's columns, which separates them from the envelope's."""

_ENVELOPE = ("aggregate_id", "version", "position", "timestamp", "latest")


@dataclass(frozen=True, slots=True)
class StoredStates:
    """Decoded states, and the metadata they were stored with."""

    metadata: Mapping[str, str]
    aggregates: list[str]
    marks: Marks
    states: pa.RecordBatch


def encode(metadata: Mapping[str, str], aggregates: Sequence[str], marks: Marks, states: pa.RecordBatch) -> pa.Buffer:
    """States as bytes, one row per aggregate."""
    envelope = [
        pa.array(aggregates, pa.string()),
        *(pa.array(column) for column in (marks.version, marks.position, marks.timestamp, marks.latest)),
    ]
    fields = [pa.field(name, column.type) for name, column in zip(_ENVELOPE, envelope, strict=True)]
    fields += [field.with_name(f"{_STATE}{field.name}") for field in states.schema]
    batch = pa.RecordBatch.from_arrays([*envelope, *states.columns], schema=pa.schema(fields, dict(metadata)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode(content: pa.Buffer) -> StoredStates:
    """The inverse of `encode`. Other bytes raise ArrowException, KeyError or IndexError."""
    reader = pa.ipc.open_file(content)
    metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
    batch = reader.get_batch(0)
    fields = [field for field in batch.schema if field.name.startswith(_STATE)]
    states = pa.RecordBatch.from_arrays(
        [batch.column(field.name) for field in fields],
        schema=pa.schema([field.with_name(field.name.removeprefix(_STATE)) for field in fields]),
    )
    aggregates = batch.column("aggregate_id").to_pylist()
    return StoredStates(metadata, aggregates, Marks(*(batch.column(name).to_numpy() for name in _ENVELOPE[1:])), states)
