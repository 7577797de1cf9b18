"""The read log: which past states were asked for, so that snapshots can be planned for what is really read.

It is off unless a store is opened with ``record_reads=True``. Of a read it keeps the reducer's name, the aggregate,
the version and the aggregate's last version then; no time of day, no user, no process. It is derived and disposable,
and no part of the log: its table is made when the first reads are written.

Reads are gathered in memory and written in batches, so a process that is killed loses those of its last batch. A read
does not wait for others who write, and does not fail by its being recorded: what cannot be written is dropped with a
warning.
"""

from __future__ import annotations

import io
import threading
import warnings
import zlib
from collections.abc import Sequence

import polars as pl

from eventlab.errors import ReadOnlyStore, ReadsDropped, StoreError
from eventlab.store.catalog.connection import UNREADABLE, translating
from eventlab.store.catalog.database import Catalog

BATCH = 1_024
"""So many reads are written at once."""

MOST_READS = 262_144
"""So many reads are kept; the oldest batches beyond are removed."""

MOST_BUFFERED = 16 * BATCH
"""So many reads wait in memory while others write the catalog; the oldest beyond are dropped."""

SCHEMA = pl.Schema([("reducer", pl.String), ("aggregate_id", pl.String), ("version", pl.Int64), ("head", pl.Int64)])

_TABLE = (
    "CREATE TABLE IF NOT EXISTS recorded_reads "
    "(no INTEGER PRIMARY KEY, reads INTEGER NOT NULL, crc INTEGER NOT NULL, content BLOB NOT NULL)"
)
_BATCHES = "SELECT no, reads, crc, content FROM recorded_reads ORDER BY no"
_LAST = f"{_BATCHES} DESC LIMIT 1"

_Read = tuple[str, str, int, int]


class ReadLog:
    """The read log of one store.

    Attributes
    ----------
    recording : bool
        Whether :meth:`record` keeps anything.
    """

    def __init__(self, catalog: Catalog, lock: threading.RLock, *, recording: bool) -> None:
        self._catalog, self._lock = catalog, lock
        self.recording = recording
        self._buffer: list[_Read] = []
        self._buffering = threading.Lock()

    def record(self, reducer: str, aggregate_id: str, version: int, head: int) -> None:
        """Keep that a state was asked for, if this store records reads.

        Parameters
        ----------
        reducer : str
            Its name.
        aggregate_id : str
        version : int
            Of the state.
        head : int
            The aggregate's last version at that time.

        Warns
        -----
        ReadsDropped
            Reads could not be written.
        """
        if not self.recording:
            return
        with self._buffering:
            self._buffer.append((reducer, aggregate_id, int(version), int(head)))
            due = len(self._buffer) % BATCH == 0
        if due:
            self._flush_or_drop(patient=False)

    def flush(self) -> None:
        """Write what is gathered; happens by itself each 1,024 reads, and when the store is closed.

        Raises
        ------
        StoreLocked, StoreFull
            Nothing was written; the reads stay in memory.
        """
        self._flush(patient=True)

    def close(self) -> None:
        """Write what is gathered, or warn that it cannot be."""
        self._flush_or_drop(patient=True)

    def frame(self) -> pl.DataFrame:
        """All reads that are kept, in the order in which they were written; then those that this process gathered.

        Returns
        -------
        polars.DataFrame
            Columns reducer, aggregate_id, version, head.

        Warns
        -----
        ReadsDropped
            A batch is damaged, and left out.
        """
        with self._lock:
            with self._buffering:
                gathered = list(self._buffer)
            with self._catalog.reading():
                kept = self._catalog.execute(_BATCHES).fetchall() if self._has_table() else []
        frames = [_decoded(*row[2:]) for row in kept]
        damaged = sum(frame is None for frame in frames)
        if damaged:
            warnings.warn(f"{damaged} batches of recorded reads are damaged", ReadsDropped, stacklevel=2)
        return pl.concat([*(frame for frame in frames if frame is not None), _framed(gathered)])

    def clear(self) -> None:
        """Forget all reads.

        Raises
        ------
        ReadOnlyStore, StoreLocked, StoreFull
            Nothing was changed.
        """
        if self._catalog.read_only:
            raise ReadOnlyStore(
                f"{self._catalog.where}: recorded reads cannot be removed from a store opened to be read"
            )
        with self._lock:
            with self._catalog.writing():
                if self._has_table():
                    self._catalog.execute("DROP TABLE recorded_reads")
                    self._catalog.commit()
            with self._buffering:
                self._buffer.clear()

    def _has_table(self) -> bool:
        query = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'recorded_reads'"
        return bool(self._catalog.execute(query).fetchone()[0])

    def _flush_or_drop(self, *, patient: bool) -> None:
        try:
            self._flush(patient=patient)
        except (StoreError, *UNREADABLE) as error:
            with self._buffering:
                lost = len(self._buffer)
                self._buffer.clear()
            warnings.warn(f"{lost} recorded reads were dropped: {error}", ReadsDropped, stacklevel=4)
        with self._buffering:
            beyond = len(self._buffer) - MOST_BUFFERED
            if beyond > 0:
                del self._buffer[:beyond]
        if beyond > 0:
            warnings.warn(f"{beyond} recorded reads were dropped: others write", ReadsDropped, stacklevel=4)

    def _flush(self, *, patient: bool) -> None:
        """Write the buffer; where not `patient`, not while others write."""
        if not self._lock.acquire(blocking=patient):
            return
        try:
            with self._buffering:
                reads = list(self._buffer)
            if reads and self._written(reads, patient=patient):
                with self._buffering:
                    del self._buffer[: len(reads)]
        finally:
            self._lock.release()

    def _written(self, reads: Sequence[_Read], *, patient: bool) -> bool:
        with translating(self._catalog.where):
            try:
                if patient:
                    self._catalog.begin_write()
                elif not self._catalog.try_begin_write():
                    return False
                self._write(reads)
                self._catalog.commit()
            finally:
                self._catalog.rollback()
        return True

    def _write(self, reads: Sequence[_Read]) -> None:
        """Add batches, the last one filled up first: a store that is opened often does not come to hold tiny ones."""
        self._catalog.execute(_TABLE)
        frame, no = _framed(reads), 1
        last = self._catalog.execute(_LAST).fetchone()
        if last is not None:
            no = last[0] + 1
            before = _decoded(*last[2:]) if last[1] < BATCH else None
            if before is not None:
                frame, no = pl.concat([before, frame]), last[0]
        for at, piece in enumerate(frame.iter_slices(BATCH)):
            content = _encoded(piece)
            row = (no + at, len(piece), zlib.crc32(content), content)
            self._catalog.execute(
                "INSERT OR REPLACE INTO recorded_reads (no, reads, crc, content) VALUES (?, ?, ?, ?)", row
            )
        self._trim()

    def _trim(self) -> None:
        kept = 0
        for no, reads in self._catalog.execute("SELECT no, reads FROM recorded_reads ORDER BY no DESC").fetchall():
            kept += reads
            if kept > MOST_READS:
                self._catalog.execute("DELETE FROM recorded_reads WHERE no <= ?", (no,))
                return


def _framed(reads: Sequence[_Read]) -> pl.DataFrame:
    return pl.DataFrame(reads, schema=SCHEMA, orient="row")


def _encoded(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.with_columns(pl.col(pl.String).cast(pl.Categorical)).write_ipc(buffer, compression="zstd")
    return buffer.getvalue()


def _decoded(crc: int, content: bytes) -> pl.DataFrame | None:
    """A batch's reads; None where they are not what was written."""
    if not isinstance(content, bytes) or zlib.crc32(content) != crc:
        return None
    try:
        return pl.read_ipc(io.BytesIO(content)).cast(SCHEMA)
    except pl.exceptions.PolarsError:
        return None
