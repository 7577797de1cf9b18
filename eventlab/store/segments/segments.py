"""Segment files, one per event type: rows clustered by aggregate and then by version, in row groups.

This module knows runs, pruning and trimming. The format, which a file's suffix names, knows the layout of the bytes.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from eventlab.errors import StoreCorrupt, StoreError
from eventlab.events.columns import null_column
from eventlab.events.types import EventType, Field
from eventlab.runtime import thread_pools as cores
from eventlab.runtime.cores import count as core_count
from eventlab.storage.api import Storage
from eventlab.store.blocks import Block, Int64Array, Slab, clustered
from eventlab.store.segments import format as formats
from eventlab.store.segments import row_group_cache
from eventlab.store.segments.files import new_name
from eventlab.store.segments.format import HEAD_BYTES, Index, Pieces
from eventlab.store.segments.parquet import Parquet
from eventlab.store.segments.pco import Archive
from eventlab.store.segments.pruning import ReadBounds, groups_and_pieces, trim
from eventlab.store.segments.row_group_cache import RowGroupCache

RUN_FIELDS = 9
"""Numbers of a run in the catalog: aggregate, row, rows; first and last version and position; extreme timestamps."""

FORMATS: Mapping[str, Parquet | Archive] = {"parquet": Parquet(), "archive": Archive()}
"""Formats by codec."""

_OPEN_FILES = 256
_WORTH_A_CORE = 262_144  # encoding more rows takes longer than one more open file costs readers until it is merged
_BY_SUFFIX = {made.suffix: made for made in FORMATS.values()}


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A file as the catalog describes it."""

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
    """A new file's content and its description for the catalog.

    Its name must end in `suffix`; `runs` has shape (aggregates, RUN_FIELDS).
    """

    suffix: str
    content: pa.Buffer
    rows: int
    footer_bytes: int
    footer_crc: int
    runs: Int64Array

    def file(self, first: int, stop: int, declared: EventType) -> SegmentFile:
        """The file, under a new name, as the catalog gets it."""
        return SegmentFile(
            0, first, stop, declared, new_name(first, self.suffix), self.rows, self.content.size,
            self.footer_bytes, self.footer_crc,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The rows of each aggregate in a file, by ascending aggregate number. All arrays have shape (k,).

    Versions and positions ascend in a run. Event times need not, so it has the lowest and the highest.
    """

    aggregate: Int64Array
    row: Int64Array
    rows: Int64Array
    first_version: Int64Array
    last_version: Int64Array
    first_position: Int64Array
    last_position: Int64Array
    low_timestamp: Int64Array
    high_timestamp: Int64Array

    @staticmethod
    def of(table: Sequence[Sequence[int]] | Int64Array) -> Runs:
        """Make runs from rows of `RUN_FIELDS` numbers."""
        numbers = np.asarray(table, dtype=np.int64).reshape(-1, RUN_FIELDS)
        return Runs(*np.ascontiguousarray(numbers.T))

    @property
    def dense(self) -> npt.NDArray[np.bool_]:
        """Whether a run holds every version from its first to its last, so that a version gives its row."""
        found: npt.NDArray[np.bool_] = self.last_version - self.first_version + 1 == self.rows
        return found

    def where(self, chosen: npt.NDArray[np.bool_]) -> Runs:
        return self if chosen.all() else Runs(*(getattr(self, name)[chosen] for name in Runs.__slots__))

    def __len__(self) -> int:
        return len(self.aggregate)


def write_segment(block: Block, name_of: Callable[[int], str], codec: str = "parquet") -> Written:
    """Encode one event type's part of a segment as a file."""
    made, slab = FORMATS[codec], clustered([block])
    content, footer_bytes = made.write(slab, name_of)
    footer_crc = zlib.crc32(memoryview(content)[-footer_bytes:])
    runs = _runs(slab, np.diff(slab.offsets))
    return Written(made.suffix, content, len(slab.events), footer_bytes, footer_crc, runs)


def write_segments(blocks: Sequence[Block], name_of: Callable[[int], str], codec: str = "parquet") -> Iterator[Written]:
    """Encode blocks in order, several at a time: encoding releases the GIL."""
    work = [partial(write_segment, block, name_of, codec) for block in blocks]
    return cores.ahead(work, "files") if len(work) > 1 else (write() for write in work)


def stretches(first: int, stop: int, most: int, side_by_side: int = 1) -> list[tuple[int, int]]:
    """Cut positions ``first:stop`` into about equal ranges for segments of at most `most` events.

    If fewer files than there are cores are encoded `side_by_side`, large ranges are cut further.
    """
    rows = stop - first
    least = -(-rows // most)
    free = core_count() // max(side_by_side, 1)
    count = max(least, min(free, rows // _WORTH_A_CORE))
    return [(first + rows * k // count, first + rows * (k + 1) // count) for k in range(count)]


def _runs(slab: Slab, counts: Int64Array) -> Int64Array:
    first, last, events = slab.offsets[:-1], slab.offsets[1:] - 1, slab.events
    return np.column_stack(
        [
            slab.aggregates, first, counts,
            events.version[first], events.version[last],
            events.position[first], events.position[last],
            np.minimum.reduceat(events.timestamp, first), np.maximum.reduceat(events.timestamp, first),
        ]
    )  # fmt: skip


class Segments:
    """Reads segment files. Each footer is compared with the catalog once and then cached."""

    def __init__(self, storage: Storage, where: str) -> None:
        self._storage = storage
        self.where = where
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, Index] = OrderedDict()
        self._cache = RowGroupCache()

    def read(
        self,
        file: SegmentFile,
        runs: Runs,
        columns: Collection[str],
        *,
        bounds: ReadBounds | None = None,
        extra: Collection[str] = (),
        exact: bool = False,
    ) -> Slab:
        """Events of some aggregates of a file.

        Parameters
        ----------
        runs : Runs
            The aggregates to read; those of the whole file to read all of it.
        columns, extra : collection of str
            Payload columns, and which of ``cause``, ``event_id`` and ``metadata``.
        bounds : ReadBounds, optional
            Events that may be left out. Those up to `after` and from `stop_position` on are left out one by one, others
            by row groups.
        exact : bool
            Read versions, positions and aggregate ids also where the catalog implies them.

        Raises
        ------
        StoreCorrupt
            The file is missing or damaged.
        """
        low, high = runs.row.copy(), runs.row + runs.rows
        cut = False
        if bounds is not None:
            cut = self._narrow_to_events(file, runs, bounds, low, high)
            self._narrow_to_groups(file, runs, bounds, low, high)
        slab = self._read_rows(file, runs, low, high, columns, extra, exact=exact)
        return slab if bounds is None or not cut else trim(slab, bounds)

    def _narrow_to_events(
        self, file: SegmentFile, runs: Runs, bounds: ReadBounds, low: Int64Array, high: Int64Array
    ) -> bool:
        """Leave out, in place, versions up to `after` and positions from `stop_position` on.

        The rows of a dense run are known, also up to `until_version`. Others are narrowed to row groups; returns
        whether single rows are left to cut.
        """
        floor = bounds.floors(runs.aggregate) if bounds.after else np.zeros(len(runs), dtype=np.int64)
        ceiling = bounds.stop_position
        dense, shift = runs.dense, runs.row - runs.first_version
        np.maximum(low, shift + floor + 1, out=low, where=dense)
        if bounds.until_version is not None:
            np.minimum(high, shift + bounds.until_version + 1, out=high, where=dense)
        np.minimum(low, runs.row + runs.rows, out=low)
        np.maximum(high, low, out=high)
        partial = ((runs.first_version <= floor) & ~dense) | (runs.last_position >= ceiling)
        if not partial.any():
            return False
        opened = self._open(file)
        first = np.searchsorted(opened.group_rows, low, "left")
        last = np.searchsorted(opened.group_rows, high, "right") - 1
        for index in np.flatnonzero(partial & (last > first)):  # others have no row group of their own
            start, stop = int(low[index]), int(high[index])
            groups = np.arange(
                np.searchsorted(opened.group_rows, start, "right") - 1, np.searchsorted(opened.group_rows, stop, "left")
            )
            ends = opened.ends[groups]
            versions, positions = ends[:, formats.VERSION_MAX].copy(), ends[:, formats.POSITION_MIN].copy()
            inside = (opened.group_rows[groups] >= start) & (opened.group_rows[groups + 1] <= stop)
            if not inside[0]:  # the bounds of a group at the edge include another aggregate
                positions[0] = runs.first_position[index]
                versions[0] = ends[1, formats.VERSION_MIN] - 1 if inside[1] else runs.last_version[index]
            if not inside[-1]:
                versions[-1] = runs.last_version[index]
                positions[-1] = ends[-2, formats.POSITION_MAX] + 1 if inside[-2] else runs.first_position[index]
            skip = (versions <= floor[index]) | (positions >= ceiling)
            wanted = groups[~skip]
            if len(wanted) == 0:
                high[index] = start
                continue
            low[index] = max(start, int(opened.group_rows[wanted[0]]))
            high[index] = min(stop, int(opened.group_rows[wanted[-1] + 1]))
        return True

    def _narrow_to_groups(
        self, file: SegmentFile, runs: Runs, bounds: ReadBounds, low: Int64Array, high: Int64Array
    ) -> None:
        """Leave out, in place, leading and trailing row groups of each run without a row within the bounds."""
        since, until = bounds.since_time, bounds.until_time
        later = bool((runs.first_position < bounds.start_position).any())
        until_version = None if runs.dense.all() else bounds.until_version  # rows of dense runs are cut already
        if since is None and until is None and until_version is None and not later:
            return
        opened = self._open(file)
        rows, ends = opened.group_rows, opened.ends
        useful = np.ones(len(ends), dtype=bool)
        if since is not None:
            useful &= ends[:, formats.TIME_MAX] >= since
        if until is not None:
            useful &= ends[:, formats.TIME_MIN] <= until
        if until_version is not None:
            useful &= ends[:, formats.VERSION_MIN] <= until_version
        if later:
            useful &= ends[:, formats.POSITION_MAX] >= bounds.start_position
        if useful.all():
            return
        groups = np.arange(len(useful))
        next_useful = np.minimum.accumulate(np.where(useful, groups, len(useful))[::-1])[::-1]
        last_useful = np.maximum.accumulate(np.where(useful, groups, -1))
        some = np.flatnonzero(low < high)
        begin, end = low[some], high[some]
        first, last = np.searchsorted(rows, begin, "right") - 1, np.searchsorted(rows, end, "left") - 1
        # The bounds of a group at the edge include neighbouring aggregates; those of the group next to it do not, and
        # bound the event times of the edge if these ascend.
        ascends = ~np.isin(runs.aggregate[some], list(bounds.backdated))
        inner = np.minimum(first + 1, last)
        own = (first < inner) & ((inner < last) | (end == rows[last + 1]))
        past = np.zeros(len(some), dtype=bool)
        if since is not None:
            past |= (ends[inner, formats.TIME_MIN] < since) & ascends
        if later:
            past |= ends[inner, formats.POSITION_MIN] <= bounds.start_position
        lead = next_useful[first + (past & own)]
        inner = np.maximum(last - 1, first)
        own = (inner < last) & ((first < inner) | (begin == rows[first]))
        past = np.zeros(len(some), dtype=bool)
        if until is not None:
            past |= (ends[inner, formats.TIME_MAX] > until) & ascends
        if until_version is not None:
            past |= ends[inner, formats.VERSION_MAX] >= until_version
        trail = last_useful[last - (past & own)]
        high[some] = np.where(lead <= trail, np.minimum(end, rows[trail + 1]), begin)
        low[some] = np.maximum(begin, rows[np.minimum(lead, trail)])

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
        # Gapless numbers are not read: they follow from the first and last in the catalog.
        dense_versions = not exact and runs.dense.all()
        dense_positions = not exact and (runs.last_position - runs.first_position + 1 == runs.rows).all()
        wanted: dict[str, Field | None] = {
            f.name: f for f in file.type if f.name in columns and f.name in opened.columns
        }
        wanted |= dict.fromkeys(name for name in (*extra, "timestamp") if name in opened.columns)
        wanted |= {} if dense_versions else {"version": None}
        wanted |= {} if dense_positions else {"position": None}
        groups, pieces = groups_and_pieces(opened.group_rows, low, high)
        if 0 < len(groups) <= row_group_cache.MOST_GROUPS and not exact:
            found = self._cache.columns(
                file.name, groups, list(wanted), pieces,
                lambda missing: self._columns(file, opened, missing, None, wanted),
                opened.group_rows,
            )  # fmt: skip
        else:
            found = self._columns(file, opened, groups, pieces, wanted)
        counts, skipped = np.maximum(high - low, 0), low - runs.row
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = int(offsets[-1])
        if len(found["timestamp"]) != rows:
            raise self._corrupt(file, "holds another number of rows", len(found["timestamp"]), rows)
        events = Block(
            file.type,
            _ranges(runs.first_position + skipped, counts) if dense_positions else found["position"],
            np.empty(0, dtype=np.int64),
            _ranges(runs.first_version + skipped, counts) if dense_versions else found["version"],
            found["timestamp"],
            found.get("cause"),
            found.get("event_id"),
            found.get("metadata"),
            {name: found[name] if name in found else null_column(file.type.field(name), rows) for name in columns},
        )
        return Slab(runs.aggregate, offsets, events)

    def _columns(
        self,
        file: SegmentFile,
        opened: Index,
        groups: Sequence[int],
        pieces: Pieces,
        wanted: Mapping[str, Field | None],
    ) -> dict[str, Any]:
        with self._named(file, "cannot be read"):
            return self._format(file).read(self._storage, file.name, opened, groups, pieces, wanted)

    @contextmanager
    def _named(self, file: SegmentFile, what: str) -> Iterator[None]:
        """Turn the errors of a format into one that names the file."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._corrupt(file, "is missing", None, None) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._corrupt(file, what, str(error), None) from error

    def _format(self, file: SegmentFile) -> Parquet | Archive:
        return _BY_SUFFIX[file.name[file.name.rindex(".") :]]

    def first_versions(self, file: SegmentFile, runs: Runs) -> Int64Array:
        """The version at which each row group of one aggregate begins; approximate if types are mixed."""
        rows = self._open(file).group_rows
        row, count = int(runs.row[0]), int(runs.rows[0])
        inside = np.concatenate([[row], rows[(rows > row) & (rows < row + count)]]) - row
        first, last = int(runs.first_version[0]), int(runs.last_version[0])
        versions: Int64Array = first + inside * (last - first + 1) // count
        return versions

    def check_runs(self, file: SegmentFile, runs: Runs, slab: Slab, names: Sequence[str]) -> None:
        """Raise StoreCorrupt unless the file's content and aggregate ids agree with its runs."""
        found = _runs(slab, np.diff(slab.offsets))
        if not np.array_equal(found, np.column_stack([getattr(runs, name) for name in Runs.__slots__])):
            raise self._corrupt(file, "holds other versions, positions or times than the catalog says", None, None)
        opened = self._open(file)
        groups = list(range(len(opened.group_rows) - 1))
        stored = self._columns(file, opened, groups, None, {"aggregate_id": None})["aggregate_id"]
        expected = pa.DictionaryArray.from_arrays(
            pa.array(np.repeat(np.arange(len(names), dtype=np.int32), runs.rows)), pa.array(names, pa.string())
        )
        if not pc.cast(stored, pa.string()).equals(pc.cast(expected, pa.string())):
            raise self._corrupt(file, "holds other aggregate ids than the catalog says", None, None)

    def _open(self, file: SegmentFile) -> Index:
        with self._lock:
            opened = self._opened.get(file.name)
            if opened is not None:
                self._opened.move_to_end(file.name)
                return opened
        opened = self._read_index(file)
        with self._lock:
            self._opened[file.name] = opened
            while len(self._opened) > _OPEN_FILES:
                self._opened.popitem(last=False)
        return opened

    def _read_index(self, file: SegmentFile) -> Index:
        with self._named(file, "cannot be opened"):
            # One byte more than there should be, which shows a file that is too long.
            wanted = [(0, HEAD_BYTES), (file.bytes - file.footer_bytes, file.bytes + 1)]
            head, footer = self._storage.ranges(file.name, wanted)
            if len(footer) != file.footer_bytes:
                size = self._storage.list(file.name).get(file.name)
                raise self._corrupt(file, "has another size", size, file.bytes)
            if zlib.crc32(footer) != file.footer_crc:
                raise self._corrupt(file, "has a damaged footer", None, None)
            return self._format(file).index(head, footer)

    def _corrupt(self, file: SegmentFile, what: str, got: object, expected: object) -> StoreError:
        return StoreCorrupt(
            f"{self.where}: segment file {file.name} {what} ({file.type.name}, positions {file.segment} to "
            f"{file.stop_position - 1})",
            got=got,
            expected=expected,
            hint="Restore the file from a copy of the store.",
        )


def _ranges(first: Int64Array, counts: Int64Array) -> Int64Array:
    """``first[i], first[i] + 1, …`` for `counts[i]` numbers, one range after the other."""
    if len(first) == 1:
        return np.arange(first[0], first[0] + counts[0], dtype=np.int64)
    ends = np.cumsum(counts)
    shift: Int64Array = np.repeat(first - (ends - counts), counts)
    shift += np.arange(len(shift))
    return shift
