"""An event type as a Parquet or Arrow IPC file: the columns of ``lab.events``, the type's schema, and a proof."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.errors import EventlabError, FeedError
from eventlab.events.types import ENVELOPE, EventType, prefer_declared
from eventlab.interchange import proof
from eventlab.interchange.pieces import columns_of
from eventlab.storage.api import Storage
from eventlab.storage.file import opened

Columnar = Literal["parquet", "arrow"]

FORMAT = 1
_KEY, _PROOF_KEY = b"eventlab", b"eventlab.proof"
_TIME = pa.timestamp("ns", tz="UTC")
_ENVELOPE = {
    "position": pa.field("position", pa.int64(), nullable=False),
    "aggregate_id": pa.field("aggregate_id", pa.string(), nullable=False),
    "version": pa.field("version", pa.int64(), nullable=False),
    "timestamp": pa.field("timestamp", _TIME, nullable=False),
    "cause": pa.field("cause", pa.int64()),
    "event_id": pa.field("event_id", pa.string()),
    "metadata": pa.field("metadata", pa.string()),
    "recorded_at": pa.field("recorded_at", _TIME, nullable=False),
}


def schema_of(declared: EventType) -> pa.Schema:
    """The columns of a type's file."""
    payload = {
        field.name: pa.field(field.name, pa.string() if field.is_text else field.arrow_type, field.nullable)
        for field in declared
    }
    return pa.schema([_ENVELOPE[name] if name in ENVELOPE else payload[name] for name in columns_of(declared)])


def buffers(
    columnar: Columnar, declared: EventType, store_id: str, frames: Iterable[pl.DataFrame], placeholder: str
) -> Iterator[bytes]:
    """The bytes of a file with a type's events, in position order, and a placeholder for the proof."""
    schema = schema_of(declared)
    described = json.dumps(
        {"format": FORMAT, "store_id": store_id, "schema": json.loads(declared.schema_json())}, sort_keys=True
    )
    known = {_KEY: described.encode(), _PROOF_KEY: placeholder.encode()}
    sink = _Sink()
    writer = _parquet_writer(sink, schema) if columnar == "parquet" else _arrow_writer(sink, schema, known)
    with writer:
        for frame in frames:
            writer.write_table(_table(frame, schema))
            yield sink.taken()
        if columnar == "parquet":
            writer.add_key_value_metadata({key.decode(): value.decode() for key, value in known.items()})
    yield sink.taken()


class _Sink(io.RawIOBase):
    """Collects what a writer writes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        self._parts.append(content)
        return len(content)

    def taken(self) -> bytes:
        """Return what was written since the last call."""
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def _parquet_writer(sink: _Sink, schema: pa.Schema) -> Any:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    encodings = {
        field.name: "BYTE_STREAM_SPLIT" if pa.types.is_floating(field.type) else "DELTA_BINARY_PACKED"
        for field in schema
        if not (pa.types.is_string(field.type) or pa.types.is_boolean(field.type))
    }
    return pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=texts, column_encoding=encodings)


def _arrow_writer(sink: _Sink, schema: pa.Schema, known: dict[bytes, bytes]) -> Any:
    # The metadata goes into the footer, as the proof is known when all else is written.
    return pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"), metadata=known)


def _table(frame: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        series = frame[field.name]
        if pa.types.is_string(field.type):
            series = series.cast(pl.String)
        columns.append(series.to_arrow().cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


@dataclass(frozen=True, slots=True)
class ColumnarFile:
    """An exported file of columns, as its metadata describes it. Its proof is checked elsewhere.

    Attributes
    ----------
    storage : Storage
    name : str
    columnar : {"parquet", "arrow"}
    declared : EventType
    store_id : str
        The log that it was exported from.
    count : int
        Events in it.
    """

    storage: Storage
    name: str
    columnar: Columnar
    declared: EventType
    store_id: str
    count: int

    @classmethod
    def open(cls, storage: Storage, name: str, columnar: Columnar) -> ColumnarFile:
        """Read a file's metadata.

        Raises
        ------
        FeedError, SchemaMismatch
            The file is no export, or its type is declared here with other fields.
        """
        try:
            with opened(storage, name) as source:
                if columnar == "parquet":
                    with pq.ParquetFile(source) as file:
                        known, schema, count = file.metadata.metadata, file.schema_arrow, file.metadata.num_rows
                else:
                    only_rows = pa.ipc.IpcReadOptions(included_fields=[0])
                    with pa.ipc.open_file(source, options=only_rows) as file:
                        count = sum(file.get_batch(at).num_rows for at in range(file.num_record_batches))
                    with pa.ipc.open_file(source) as file:
                        known, schema = file.metadata, file.schema
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FeedError(f"{name}: not a readable {columnar} file", got=str(error)) from error
        if known is None or _KEY not in known:
            raise foreign(name)
        try:
            described = json.loads(known[_KEY])
            declared = prefer_declared(EventType.from_schema_json(json.dumps(described["schema"])))
            newer = int(described["format"]) > FORMAT
            store_id = str(described["store_id"])
        except EventlabError as error:
            raise type(error)(f"{name}: {error.what}", got=error.got, expected=error.expected) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FeedError(f"{name}: its metadata cannot be read", got=known[_KEY][:200]) from error
        if newer:
            raise FeedError(f"{name}: exported by a newer eventlab", got=described["format"], expected=FORMAT)
        if not schema.remove_metadata().equals(schema_of(declared)):
            raise FeedError(
                f"{name}: other columns than {declared.name} has", got=", ".join(schema.names),
                expected=", ".join(columns_of(declared)),
            )  # fmt: skip
        return cls(storage, name, columnar, declared, store_id, count)

    def frames(self) -> Iterator[pl.DataFrame]:
        """The events, as they were written."""
        try:
            with opened(self.storage, self.name) as source:
                if self.columnar == "parquet":
                    with pq.ParquetFile(source) as file:
                        yield from (_frame(file.read_row_group(group)) for group in range(file.num_row_groups))
                else:
                    with pa.ipc.open_file(source) as file:
                        yield from (_frame(file.get_batch(at)) for at in range(file.num_record_batches))
        except (pa.ArrowException, OSError) as error:
            raise FeedError(f"{self.name}: cannot be read", got=str(error)) from error


def _frame(table: pa.Table | pa.RecordBatch) -> pl.DataFrame:
    made = pl.from_arrow(table)
    assert isinstance(made, pl.DataFrame)  # noqa: S101  for type checkers: a table becomes a frame
    return made


def foreign(name: str) -> FeedError:
    """The error for a file of columns that is no export."""
    return FeedError(
        f"{name}: not an export of eventlab, or a damaged one",
        hint="Append other files as frames, e.g. lab.append_frame(el.MarketData, pl.read_parquet(path)).",
    )


def checked(storage: Storage, name: str, columnar: Columnar) -> tuple[ColumnarFile, str]:
    """Open a file whose bytes agree with its proof; returns it and the proof's digits."""
    digest = proof.check(storage, name)
    if digest is None:
        raise foreign(name)
    return ColumnarFile.open(storage, name, columnar), digest
