"""Segment files as plain Parquet, which Polars, DuckDB and Spark open without eventlab."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventlab.events.types import Field
from eventlab.runtime import thread_pools as cores
from eventlab.storage.api import Storage
from eventlab.store.blocks import NO_CAUSE, Int64Array, Slab
from eventlab.store.segments import encodings as encoding
from eventlab.store.segments.format import Index, Pieces
from eventlab.store.segments.parquet_chunks import BatchReader, Chunks

BATCH_ROWS = 131_072
"""Rows that one thread decodes at a time, so that few raw columns are in memory at once."""

_FEW_WORDS = 64
_NUMBERS = ("position", "version", "timestamp", "cause")
_STATISTICS = ["version", "position", "timestamp"]
_FOOTER_TAIL = 8  # the footer's length, four bytes, and the magic word PAR1


class Parquet:
    """Parquet files. See `format.py`."""

    suffix = ".parquet"

    def write(self, slab: Slab, name_of: Callable[[int], str]) -> tuple[pa.Buffer, int]:
        """Encode a slab, and return the length of the footer too; columns without a value are left out."""
        size = encoding.row_group(len(slab.events), len(slab.aggregates))
        table = _table(slab, name_of, size)
        fixed: dict[str, encoding.Encoding] = {
            "position": "DELTA_BINARY_PACKED",
            "version": "DELTA_BINARY_PACKED",
            "aggregate_id": "DICTIONARY",
        }
        if "event_id" in table.column_names:
            fixed["event_id"] = "PLAIN"
        sink = pa.BufferOutputStream()
        with encoding.choose_encodings(table, fixed).writer(sink, table.schema, _STATISTICS) as writer:
            writer.write_table(table, row_group_size=size)
        content = sink.getvalue()
        return content, int.from_bytes(memoryview(content)[-_FOOTER_TAIL:-4], "little") + _FOOTER_TAIL

    def index(self, head: memoryview, footer: memoryview) -> Index:
        """Parse a footer whose checksum is right; `head` is the file's first `HEAD_BYTES`."""
        metadata = pq.read_metadata(pa.BufferReader(footer))
        names = metadata.schema.names
        groups = metadata.num_row_groups
        # All row groups but the last are as long as the first: looking at each takes longer than reading one.
        size = metadata.row_group(0).num_rows if groups else 1
        if -(-metadata.num_rows // size) != groups:
            raise ValueError("row groups are not equally long")
        rows = np.minimum(np.arange(groups + 1, dtype=np.int64) * size, metadata.num_rows)
        return Index(frozenset(names), rows, Chunks(metadata), lambda: _ends(metadata))

    def read(
        self,
        storage: Storage,
        file: str,
        index: Index,
        groups: Sequence[int],
        pieces: Pieces,
        wanted: Mapping[str, Field | None],
    ) -> dict[str, Any]:
        """Decode columns, large reads in batches on all cores."""
        chunks: Chunks = index.inside
        batch = max(BATCH_ROWS // max(int(index.group_rows[1]), 1), 1) if len(groups) else 1
        if pieces is None and len(groups) > batch:
            batches = [list(groups[at : at + batch]) for at in range(0, len(groups), batch)]
            return _in_batches(BatchReader(chunks, storage, file, batches, list(wanted)), index, batches, wanted)
        _, table = BatchReader(chunks, storage, file, [groups], list(wanted)).next()
        if pieces is not None and len(pieces) == 1:
            table = table.slice(pieces[0][0], pieces[0][1] - pieces[0][0])
        elif pieces is not None:
            table = pa.concat_tables([table.slice(start, stop - start) for start, stop in pieces])
        return {name: _decoded(name, table.column(name), field) for name, field in wanted.items()}


def _in_batches(
    reader: BatchReader, index: Index, batches: Sequence[Sequence[int]], wanted: Mapping[str, Field | None]
) -> dict[str, Any]:
    """Numbers are converted while a batch is in the processor's cache, into arrays that hold all of a column."""
    sizes = np.diff(index.group_rows)
    stops = np.cumsum([int(sizes[batch].sum()) for batch in batches]).tolist()
    columns = {name: _BatchedColumn(name, field, stops) for name, field in wanted.items()}

    def read() -> None:
        number, table = reader.next()
        for name, column in columns.items():
            column.put(number, table.column(name))

    cores.together([read] * len(batches), "columns")
    return {name: column.column() for name, column in columns.items()}


class _BatchedColumn:
    """A column whose batches arrive in any order."""

    def __init__(self, name: str, field: Field | None, stops: Sequence[int]) -> None:
        self._name = name
        self._field = field
        self._stops = stops
        self._parts: list[pa.ChunkedArray | None] = [None] * len(stops)
        self._values: npt.NDArray[Any] | None = None
        if name in _NUMBERS or (field is not None and field.kind in ("int", "time")):
            self._values = np.empty(stops[-1], dtype=np.int64)
        elif field is not None and field.kind == "float":
            self._values = np.empty(stops[-1], dtype=np.float64)

    def put(self, batch: int, stored: pa.ChunkedArray) -> None:
        if self._values is not None:
            stop = self._stops[batch]
            if stop - len(stored) != (self._stops[batch - 1] if batch else 0):
                raise ValueError("a row group holds another number of rows")
            encoding.numbers_into(stored, self._values[stop - len(stored) : stop])
        if self._values is None or stored.null_count:
            self._parts[batch] = stored

    def column(self) -> Any:
        parts = [part for part in self._parts if part is not None]
        if self._values is None:
            stored = pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
            return _decoded(self._name, stored, self._field)
        valid = np.ones(len(self._values), dtype=np.bool_) if parts else None
        for stop, part in zip(self._stops, self._parts, strict=True):
            if valid is not None and part is not None:
                valid[stop - len(part) : stop] = part.is_valid().to_numpy()
        if self._field is not None:
            return encoding.wrapped(self._values, valid, self._field.arrow_type)
        if valid is not None:
            self._values[~valid] = NO_CAUSE
        return self._values


def _table(slab: Slab, name_of: Callable[[int], str], size: int) -> pa.Table:
    events = slab.events
    names = pa.array([name_of(int(number)) for number in slab.aggregates], pa.string())
    codes = np.repeat(np.arange(len(names), dtype=np.int32), np.diff(slab.offsets))
    columns: dict[str, pa.Array] = {
        "position": pa.array(events.position),
        "aggregate_id": _local(pa.DictionaryArray.from_arrays(pa.array(codes), names), size),
        "version": pa.array(events.version),
        "timestamp": encoding.encode_times(events.timestamp),
    }
    if events.cause is not None and (events.cause >= 0).any():
        columns["cause"] = pa.array(events.cause, mask=events.cause < 0)
    if events.event_id is not None and events.event_id.null_count < len(events):
        columns["event_id"] = events.event_id
    if events.metadata is not None and events.metadata.null_count < len(events):
        columns["metadata"] = events.metadata
    for name, column in events.columns.items():
        if column.null_count < len(column):
            columns[name] = _local(encoding.encode(column), size)
    return pa.table(columns)


def _local(column: pa.Array, size: int) -> pa.Array | pa.ChunkedArray:
    """Give text of many words a dictionary per row group, with only the words that occur there."""
    if not pa.types.is_dictionary(column.type) or len(column.dictionary) <= _FEW_WORDS:
        return column
    chunks = []
    for start in range(0, len(column), size):
        part = column.slice(start, size)
        used = part.indices.unique().drop_null()
        places = np.zeros(len(part.dictionary), dtype=np.int32)
        places[used.to_numpy()] = np.arange(len(used), dtype=np.int32)
        codes = pa.array(places).take(part.indices)
        chunks.append(pa.DictionaryArray.from_arrays(codes, part.dictionary.take(used)))
    return pa.chunked_array(chunks, column.type)


def _decoded(name: str, stored: pa.ChunkedArray, field: Field | None) -> Any:
    if name in ("position", "version"):
        return encoding.integers(stored)
    if name == "timestamp":
        return encoding.numbers(stored, np.int64)
    if name == "cause":
        return encoding.integers(pc.fill_null(stored, NO_CAUSE))
    if name == "event_id":
        return encoding.one_chunk(stored)
    return encoding.one_text(stored) if field is None else encoding.decode(stored, field)


def _ends(metadata: pq.FileMetaData) -> Int64Array:
    names = metadata.schema.names
    version, position, timestamp = (names.index(name) for name in _STATISTICS)
    size = encoding.UNIT_NS[metadata.schema.to_arrow_schema().field("timestamp").type.unit]
    ends = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        versions, times = group.column(version).statistics, group.column(timestamp).statistics
        positions = group.column(position).statistics
        ends.append(
            (versions.max, positions.min, times.min_raw * size, times.max_raw * size, versions.min, positions.max)
        )
    return np.asarray(ends, dtype=np.int64).reshape(-1, 6)
