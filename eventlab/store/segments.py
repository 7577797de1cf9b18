"""Segment files: plain Parquet, one per event type, rows clustered by aggregate and then by version."""

from __future__ import annotations

import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eventlab.errors import StoreCorrupt, StoreError
from eventlab.events.types import EventType
from eventlab.store import encoding
from eventlab.store.blocks import NO_CAUSE, Block, Int64Array, Slab, clustered, null_column
from eventlab.store.vault import Vault

RUN_FIELDS = 9
"""Numbers the catalog keeps of a run: aggregate, row, rows; first and last version, position and timestamp."""

_STATISTICS = ["version", "position", "timestamp"]
_OPEN_FILES = 256
_FOOTER_TAIL = 8  # a Parquet file ends in its footer's length, four bytes, and the magic word PAR1


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One file as the catalog knows it."""

    no: int
    segment: int
    stop_position: int
    type: EventType
    name: str
    rows: int
    bytes: int
    footer_bytes: int
    footer_crc: int


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A new file's content and what the catalog must keep of it. `runs` has shape (aggregates, RUN_FIELDS)."""

    content: pa.Buffer
    rows: int
    footer_bytes: int
    footer_crc: int
    runs: Int64Array


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Stretches of a file, one an aggregate, by ascending aggregate number. All arrays have shape (k,)."""

    aggregate: Int64Array
    row: Int64Array
    rows: Int64Array
    first_version: Int64Array
    last_version: Int64Array
    first_position: Int64Array
    last_position: Int64Array
    first_timestamp: Int64Array
    last_timestamp: Int64Array

    @staticmethod
    def of(table: Sequence[Sequence[int]] | Int64Array) -> Runs:
        """From rows of the nine numbers."""
        numbers = np.asarray(table, dtype=np.int64).reshape(-1, RUN_FIELDS)
        return Runs(*np.ascontiguousarray(numbers.T))

    def where(self, chosen: npt.NDArray[np.bool_]) -> Runs:
        return self if chosen.all() else Runs(*(getattr(self, name)[chosen] for name in Runs.__slots__))

    def __len__(self) -> int:
        return len(self.aggregate)


def write_segment(block: Block, name_of: Callable[[int], str]) -> Written:
    """Lay out one event type's part of a segment as a Parquet file."""
    slab = clustered(block)
    events = slab.events
    counts = np.diff(slab.offsets)
    columns: dict[str, pa.Array] = {
        "position": pa.array(events.position),
        "aggregate_id": _repeated(slab, counts, name_of),
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
            columns[name] = encoding.encode(column)
    table = pa.table(columns)
    fixed: dict[str, encoding.Encoding] = {
        "position": "DELTA_BINARY_PACKED",
        "version": "DELTA_BINARY_PACKED",
        "aggregate_id": "DICTIONARY",
    }
    if "event_id" in columns:
        fixed["event_id"] = "PLAIN"
    sink = pa.BufferOutputStream()
    with encoding.choose_encodings(table, fixed).writer(sink, table.schema, _STATISTICS) as writer:
        writer.write_table(table, row_group_size=encoding.ROW_GROUP)
    content = sink.getvalue()
    footer_bytes, footer_crc = _footer(memoryview(content))
    return Written(content, len(events), footer_bytes, footer_crc, _runs(slab, counts))


def _repeated(slab: Slab, counts: Int64Array, name_of: Callable[[int], str]) -> pa.DictionaryArray:
    names = pa.array([name_of(int(number)) for number in slab.aggregates], pa.string())
    codes = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return pa.DictionaryArray.from_arrays(pa.array(codes), names)


def _runs(slab: Slab, counts: Int64Array) -> Int64Array:
    first, last, events = slab.offsets[:-1], slab.offsets[1:] - 1, slab.events
    return np.column_stack(
        [
            slab.aggregates, first, counts,
            events.version[first], events.version[last],
            events.position[first], events.position[last],
            events.timestamp[first], events.timestamp[last],
        ]
    )  # fmt: skip


def _footer(content: memoryview) -> tuple[int, int]:
    length = int.from_bytes(content[-_FOOTER_TAIL:-4], "little") + _FOOTER_TAIL
    return length, zlib.crc32(content[-length:])


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    metadata: pq.FileMetaData
    columns: frozenset[str]
    group_rows: Int64Array  # first row of each row group, and one past the last
    ends: Int64Array  # highest version, lowest position, lowest and highest time, lowest version; shape (groups, 5)


class Segments:
    """Reads segment files. Footers are checked against the catalog once and kept."""

    def __init__(self, vault: Vault, where: str) -> None:
        self._vault = vault
        self._where = where
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, _Opened] = OrderedDict()

    def read(
        self,
        file: SegmentFile,
        runs: Runs,
        columns: Collection[str],
        *,
        after: Mapping[int, int] | None = None,
        stop_position: int | None = None,
        extra: Collection[str] = (),
        start: int | None = None,
        stop: int | None = None,
        until_version: int | None = None,
        exact: bool = False,
    ) -> Slab:
        """Events of some aggregates of a file.

        Parameters
        ----------
        runs : Runs
            The aggregates wanted; all of the file's for the whole file.
        columns, extra : collection of str
            Payload columns, and which of ``cause``, ``event_id`` and ``metadata``.
        after : mapping of int to int, optional
            By aggregate number: leave out versions up to and including this one.
        stop_position : int, optional
            Leave out positions from this one on.
        start, stop : int, optional
            Row groups without an event time in ``start:stop`` may be left out; single rows are not.
        until_version : int, optional
            Row groups with later versions only may be left out; single rows are not.
        exact : bool
            Read also what the catalog implies: every version, position and aggregate id.

        Raises
        ------
        StoreCorrupt
            The file is missing or its bytes are not those that were written.
        """
        low, high = runs.row.copy(), runs.row + runs.rows
        cut = self._cuts(file, runs, after, stop_position, low, high)
        self._narrow(file, start, stop, until_version, low, high)
        slab = self._read_rows(file, runs, low, high, columns, extra, exact=exact)
        return slab if not cut else trim(slab, after or {}, stop_position)

    def _cuts(
        self,
        file: SegmentFile,
        runs: Runs,
        after: Mapping[int, int] | None,
        stop_position: int | None,
        low: Int64Array,
        high: Int64Array,
    ) -> bool:
        """Narrow each run to the row groups that matter, in place; tells whether single rows remain to be cut."""
        floor = np.zeros(len(runs), dtype=np.int64)
        if after:
            floor = np.fromiter((after.get(int(no), 0) for no in runs.aggregate), np.int64, len(runs))
        ceiling = file.stop_position if stop_position is None else stop_position
        partial = (runs.first_version <= floor) | (runs.last_position >= ceiling)
        if not partial.any():
            return False
        opened = self._open(file)
        for index in np.flatnonzero(partial):
            start, stop = int(low[index]), int(high[index])
            groups = np.arange(
                np.searchsorted(opened.group_rows, start, "right") - 1, np.searchsorted(opened.group_rows, stop, "left")
            )
            inside = (opened.group_rows[groups] >= start) & (opened.group_rows[groups + 1] <= stop)
            skip = inside & ((opened.ends[groups, 0] <= floor[index]) | (opened.ends[groups, 1] >= ceiling))
            kept = groups[~skip]
            if len(kept) == 0:
                high[index] = start
                continue
            low[index] = max(start, int(opened.group_rows[kept[0]]))
            high[index] = min(stop, int(opened.group_rows[kept[-1] + 1]))
        return True

    def _narrow(
        self,
        file: SegmentFile,
        start: int | None,
        stop: int | None,
        until_version: int | None,
        low: Int64Array,
        high: Int64Array,
    ) -> None:
        """Leave out leading and trailing row groups of each run that hold nothing within these bounds, in place."""
        if start is None and stop is None and until_version is None:
            return
        opened = self._open(file)
        useful = np.ones(len(opened.ends), dtype=bool)
        if start is not None:
            useful &= opened.ends[:, 3] >= start
        if stop is not None:
            useful &= opened.ends[:, 2] < stop
        if until_version is not None:
            useful &= opened.ends[:, 4] <= until_version
        if useful.all():
            return
        for index in range(len(low)):
            begin, end = int(low[index]), int(high[index])
            first = int(np.searchsorted(opened.group_rows, begin, "right")) - 1
            last = int(np.searchsorted(opened.group_rows, end, "left"))
            kept = np.flatnonzero(useful[first:last]) + first
            if len(kept) == 0:
                high[index] = begin
                continue
            low[index] = max(begin, int(opened.group_rows[kept[0]]))
            high[index] = min(end, int(opened.group_rows[kept[-1] + 1]))

    def _read_rows(
        self,
        file: SegmentFile,
        runs: Runs,
        low: Int64Array,
        high: Int64Array,
        columns: Collection[str],
        extra: Collection[str],
        *,
        exact: bool,
    ) -> Slab:
        opened = self._open(file)
        whole = not exact and (low == runs.row).all() and (high == runs.row + runs.rows).all()
        # Gapless numbers need not be read: the catalog's first and last say them all.
        dense_versions = whole and (runs.last_version - runs.first_version + 1 == runs.rows).all()
        dense_positions = whole and (runs.last_position - runs.first_position + 1 == runs.rows).all()
        names = [name for name in (*columns, *extra) if name in opened.columns]
        stored = [*names, "timestamp"]
        stored += [] if dense_versions else ["version"]
        stored += [] if dense_positions else ["position"]
        groups, pieces = _groups_and_pieces(opened.group_rows, low, high)
        table = self._table(file, opened, groups, stored, pieces)
        offsets = np.concatenate([[0], np.cumsum(np.maximum(high - low, 0))])
        rows = int(offsets[-1])
        payload = {name: table.column(name) for name in names}
        events = Block(
            file.type,
            _ranges(runs.first_position, runs.rows) if dense_positions else encoding.integers(table.column("position")),
            np.empty(0, dtype=np.int64),
            _ranges(runs.first_version, runs.rows) if dense_versions else encoding.integers(table.column("version")),
            encoding.times(table.column("timestamp")),
            encoding.integers(pc.fill_null(payload["cause"], NO_CAUSE)) if "cause" in payload else None,
            encoding.one_chunk(payload["event_id"]) if "event_id" in payload else None,
            encoding.one_text(payload["metadata"]) if "metadata" in payload else None,
            {name: _column(file.type, name, payload, rows) for name in columns},
        )
        if len(events.timestamp) != rows:
            raise self._corrupt(file, "holds another number of rows", len(events.timestamp), rows)
        return Slab(runs.aggregate, offsets, events)

    def _table(
        self,
        file: SegmentFile,
        opened: _Opened,
        groups: list[int],
        names: list[str],
        pieces: list[tuple[int, int]] | None,
    ) -> pa.Table:
        try:
            with (
                self._vault.source(file.name) as source,
                pq.ParquetFile(
                    source, metadata=opened.metadata, page_checksum_verification=True, pre_buffer=False
                ) as parquet,
            ):
                table = parquet.read_row_groups(groups, columns=names)
        except FileNotFoundError as error:
            raise self._corrupt(file, "is missing", None, None) from error
        except (OSError, pa.ArrowException) as error:
            raise self._corrupt(file, "cannot be read", str(error), None) from error
        if pieces is None:
            return table
        return pa.concat_tables([table.slice(start, stop - start) for start, stop in pieces])

    def check_runs(self, file: SegmentFile, runs: Runs, slab: Slab, names: Sequence[str]) -> None:
        """Raise StoreCorrupt unless the file's content and its own aggregate ids are what its runs say."""
        found = _runs(slab, np.diff(slab.offsets))
        if not np.array_equal(found, np.column_stack([getattr(runs, name) for name in Runs.__slots__])):
            raise self._corrupt(file, "holds other versions, positions or times than the catalog says", None, None)
        opened = self._open(file)
        groups = list(range(len(opened.ends)))
        stored = encoding.one_text(self._table(file, opened, groups, ["aggregate_id"], None).column("aggregate_id"))
        expected = pa.DictionaryArray.from_arrays(
            pa.array(np.repeat(np.arange(len(names), dtype=np.int32), runs.rows)), pa.array(names, pa.string())
        )
        if not pc.cast(stored, pa.string()).equals(pc.cast(expected, pa.string())):
            raise self._corrupt(file, "holds other aggregate ids than the catalog says", None, None)

    def _open(self, file: SegmentFile) -> _Opened:
        with self._lock:
            opened = self._opened.get(file.name)
            if opened is not None:
                self._opened.move_to_end(file.name)
                return opened
        opened = self._open_anew(file)
        with self._lock:
            self._opened[file.name] = opened
            while len(self._opened) > _OPEN_FILES:
                self._opened.popitem(last=False)
        return opened

    def _open_anew(self, file: SegmentFile) -> _Opened:
        try:
            with self._vault.source(file.name) as source:
                size = source.size()
                if size != file.bytes:
                    raise self._corrupt(file, "has another size", size, file.bytes)
                source.seek(size - file.footer_bytes)
                footer = source.read(file.footer_bytes)
                if zlib.crc32(footer) != file.footer_crc:
                    raise self._corrupt(file, "has a damaged footer", None, None)
                metadata = pq.read_metadata(source)
        except FileNotFoundError as error:
            raise self._corrupt(file, "is missing", None, None) from error
        except (OSError, pa.ArrowException) as error:
            raise self._corrupt(file, "cannot be opened", str(error), None) from error
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        names = metadata.schema.names
        version, position, timestamp = (names.index(name) for name in _STATISTICS)
        ends = [
            (
                g.column(version).statistics.max,
                g.column(position).statistics.min,
                *_time_range(g.column(timestamp)),
                g.column(version).statistics.min,
            )
            for g in groups
        ]
        return _Opened(
            metadata,
            frozenset(names),
            np.cumsum([0, *(group.num_rows for group in groups)]),
            np.asarray(ends, dtype=np.int64).reshape(-1, 5),
        )

    def _corrupt(self, file: SegmentFile, what: str, got: object, expected: object) -> StoreError:
        return StoreCorrupt(
            f"{self._where}: segment file {file.name} {what} ({file.type.name}, positions {file.segment} to "
            f"{file.stop_position - 1})",
            got=got,
            expected=expected,
            hint="Restore the file from a copy of the store.",
        )


def _time_range(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    statistics = column.statistics
    size = encoding.unit_ns(json.loads(statistics.logical_type.to_json())["timeUnit"])
    return statistics.min_raw * size, statistics.max_raw * size


def _column(declared: EventType, name: str, payload: Mapping[str, pa.ChunkedArray], rows: int) -> pa.Array:
    field = declared.field(name)
    if name in payload:
        return encoding.decode(payload[name], field)
    return null_column(field, rows)


def _ranges(first: Int64Array, counts: Int64Array) -> Int64Array:
    """``first[i], first[i] + 1, …`` for `counts[i]` numbers, one stretch after the other."""
    if len(first) == 1:
        return np.arange(first[0], first[0] + counts[0], dtype=np.int64)
    ends = np.cumsum(counts)
    shift: Int64Array = np.repeat(first - (ends - counts), counts)
    shift += np.arange(len(shift))
    return shift


def _groups_and_pieces(
    group_rows: Int64Array, low: Int64Array, high: Int64Array
) -> tuple[list[int], list[tuple[int, int]] | None]:
    """Row groups that hold the wanted stretches, and where these lie in what is read; None where that is all of it.

    Bounds may leave nothing of any run: then there are no groups, and the empty table is all of it.
    """
    wanted = np.zeros(len(group_rows) - 1, dtype=bool)
    some = high > low
    first = np.searchsorted(group_rows, low[some], "right") - 1
    last = np.searchsorted(group_rows, high[some], "left")
    for start, stop in zip(first, last, strict=True):
        wanted[start:stop] = True
    groups = np.flatnonzero(wanted)
    sizes = np.diff(group_rows)
    # Where each row group begins in what is read, less where it begins in the file.
    shift = np.zeros(len(wanted), dtype=np.int64)
    shift[groups] = np.cumsum(sizes[groups]) - sizes[groups] - group_rows[groups]
    pieces: list[tuple[int, int]] = []
    for start, stop, group in zip(low[some], high[some], first, strict=True):
        begin = int(start + shift[group])
        end = begin + int(stop - start)
        if pieces and pieces[-1][1] == begin:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((begin, end))
    if not pieces or pieces == [(0, int(sizes[groups].sum()))]:
        return groups.tolist(), None
    return groups.tolist(), pieces


def trim(slab: Slab, after: Mapping[int, int], stop_position: int | None) -> Slab:
    """A slab without versions up to those in `after` (by aggregate number) and positions from `stop_position` on."""
    events = slab.events
    starts, stops = slab.offsets[:-1].copy(), slab.offsets[1:].copy()
    for index, number in enumerate(slab.aggregates):
        begin, end = int(starts[index]), int(stops[index])
        floor = after.get(int(number), 0)
        if floor:
            starts[index] = begin + np.searchsorted(events.version[begin:end], floor, "right")
        if stop_position is not None:
            stops[index] = begin + np.searchsorted(events.position[begin:end], stop_position, "left")
    counts = np.maximum(stops - starts, 0)
    kept = counts > 0
    offsets = np.concatenate([[0], np.cumsum(counts[kept])])
    if kept.sum() == 1:
        index = int(np.flatnonzero(kept)[0])
        return Slab(slab.aggregates[kept], offsets, events.slice(int(starts[index]), int(stops[index])))
    if counts.sum() == len(events):
        return slab if kept.all() else Slab(slab.aggregates[kept], offsets, events)
    return Slab(slab.aggregates[kept], offsets, events.take(_ranges(starts[kept], counts[kept])))
