"""One event type as a Parquet or Arrow IPC file: the columns of ``lab.events``, the type's schema, and a proof."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from eventlab.errors import EventlabError, FeedError
from eventlab.events.types import ENVELOPE, EventType, prefer_declared
from eventlab.interchange import proof
from eventlab.interchange.pieces import columns_of

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
    """Columns of a type's file."""
    payload = {
        field.name: pa.field(field.name, pa.string() if field.is_text else field.arrow_type, field.nullable)
        for field in declared
    }
    return pa.schema([_ENVELOPE[name] if name in ENVELOPE else payload[name] for name in columns_of(declared)])


def write(
    path: Path, columnar: Columnar, declared: EventType, store_id: str, frames: Iterable[pl.DataFrame], written: str
) -> None:
    """Write a type's events, in position order, with a placeholder for the proof."""
    schema = schema_of(declared)
    described = json.dumps(
        {"format": FORMAT, "store_id": store_id, "schema": json.loads(declared.schema_json())}, sort_keys=True
    )
    known = {_KEY: described.encode(), _PROOF_KEY: written.encode()}
    writer = _parquet_writer(path, schema) if columnar == "parquet" else _arrow_writer(path, schema, known)
    with writer:
        for frame in frames:
            writer.write_table(_table(frame, schema))
        if columnar == "parquet":
            writer.add_key_value_metadata({key.decode(): value.decode() for key, value in known.items()})


def _parquet_writer(path: Path, schema: pa.Schema) -> Any:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    encodings = {
        field.name: "BYTE_STREAM_SPLIT" if pa.types.is_floating(field.type) else "DELTA_BINARY_PACKED"
        for field in schema
        if not (pa.types.is_string(field.type) or pa.types.is_boolean(field.type))
    }
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts, column_encoding=encodings)


def _arrow_writer(path: Path, schema: pa.Schema, known: dict[bytes, bytes]) -> Any:
    return pa.ipc.new_file(path, schema.with_metadata(known), options=pa.ipc.IpcWriteOptions(compression="lz4"))


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
    """A file that `write` made, as it says of itself. Its proof is checked elsewhere.

    Attributes
    ----------
    path : Path
    columnar : {"parquet", "arrow"}
    declared : EventType
    store_id : str
        Of the log it was read from.
    count : int
        Events in it.
    """

    path: Path
    columnar: Columnar
    declared: EventType
    store_id: str
    count: int

    @classmethod
    def open(cls, path: Path, columnar: Columnar) -> ColumnarFile:
        """Read what a file says of itself.

        Raises
        ------
        FeedError, SchemaMismatch
            No file that `write` made; a type that is declared here with other fields.
        """
        try:
            if columnar == "parquet":
                with pq.ParquetFile(path) as file:
                    known, schema, count = file.metadata.metadata or {}, file.schema_arrow, file.metadata.num_rows
            else:
                with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
                    known, schema = file.schema.metadata or {}, file.schema
                    count = sum(file.get_batch(at).num_rows for at in range(file.num_record_batches))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FeedError(f"{path.name}: not a readable {columnar} file", got=str(error)) from error
        if _KEY not in known:
            raise foreign(path)
        try:
            described = json.loads(known[_KEY])
            declared = prefer_declared(EventType.from_schema_json(json.dumps(described["schema"])))
            newer = int(described["format"]) > FORMAT
            store_id = str(described["store_id"])
        except EventlabError as error:
            raise type(error)(f"{path.name}: {error.what}", got=error.got, expected=error.expected) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FeedError(f"{path.name}: what it says of itself cannot be read", got=known[_KEY][:200]) from error
        if newer:
            raise FeedError(f"{path.name}: exported by a newer eventlab", got=described["format"], expected=FORMAT)
        if not schema.remove_metadata().equals(schema_of(declared)):
            raise FeedError(
                f"{path.name}: other columns than {declared.name} has", got=", ".join(schema.names),
                expected=", ".join(columns_of(declared)),
            )  # fmt: skip
        return cls(path, columnar, declared, store_id, count)

    def frames(self) -> Iterator[pl.DataFrame]:
        """The events, as they were written."""
        try:
            yield from self._parquet() if self.columnar == "parquet" else self._arrow()
        except (pa.ArrowException, OSError) as error:
            raise FeedError(f"{self.path.name}: cannot be read", got=str(error)) from error

    def _parquet(self) -> Iterator[pl.DataFrame]:
        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield _frame(file.read_row_group(group))

    def _arrow(self) -> Iterator[pl.DataFrame]:
        with pa.OSFile(str(self.path)) as source, pa.ipc.open_file(source) as file:
            for at in range(file.num_record_batches):
                yield _frame(pa.Table.from_batches([file.get_batch(at)]))


def _frame(table: pa.Table) -> pl.DataFrame:
    made = pl.from_arrow(table)
    assert isinstance(made, pl.DataFrame)  # noqa: S101  for type checkers: a table becomes a frame
    return made


def foreign(path: Path) -> FeedError:
    """The error for a file of columns that no export made."""
    return FeedError(
        f"{path.name}: not an export of eventlab, or a damaged one",
        hint="Append other files as frames, e.g. lab.append_frame(el.MarketData, pl.read_parquet(path)).",
    )


def checked(path: Path, columnar: Columnar) -> tuple[ColumnarFile, str]:
    """A file whose bytes agree with its proof, and the proof's digits."""
    digest = proof.check(path)
    if digest is None:
        raise foreign(path)
    return ColumnarFile.open(path, columnar), digest
