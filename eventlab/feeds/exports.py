"""The feed over exported files: restores everything that an export has of its events, in the log's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

from eventlab.errors import EventlabError, FeedError, InvalidEvent
from eventlab.events.frame import Int64Array
from eventlab.events.types import EventType
from eventlab.feeds.api import Chunk, FeedBatch, FeedReport, Param
from eventlab.interchange import stream
from eventlab.interchange.columnar import Columnar, ColumnarFile, checked
from eventlab.interchange.folder import checked_folder
from eventlab.interchange.pieces import merged, text_bytes
from eventlab.interchange.protobuf.convert import runs
from eventlab.storage.local import LocalStorage

CHUNK_ROWS = 262_144
CHUNK_TEXT = 1 << 26
"""A chunk is full with this many events or bytes of text."""

_STREAM_ROWS = 65_536
_SUFFIXES: dict[str, Columnar] = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}

Numbered = tuple[EventType, pl.DataFrame, Int64Array]
"""Events of one type and their row numbers in the source."""


def exported(path: str | Path) -> Exported:
    """Events written by ``lab.export``, or a stream of DomainEvents from another program.

    Checks the complete content against its digest before it yields the first event. Restores types, aggregates, event
    times, payloads, causes, supplied ids and metadata, in the order of the log. The log that ingests them assigns new
    positions and versions; for an empty log and the export of a complete one they are the same. A cause that was not
    exported is dropped and counted in the report. Commit times, commits, computed ids and digests are not exported;
    ``lab.backup`` copies these too.

    Parameters
    ----------
    path : str or Path
        A file, ``.pb`` or ``.binpb``, ``.parquet``, ``.arrow`` or ``.feather``, or a folder.

    Raises
    ------
    FeedError
        A file that is missing, damaged or truncated, or that is not an export.

    Examples
    --------
    >>> import eventlab as el, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with el.open(":memory:") as lab, el.open(":memory:") as other:
    ...     receipt = lab.append("signals/demo", el.TradingSignal("BTCUSDT", "buy", 1.0, "demo"))
    ...     done = lab.export(f"{folder}/signals.pb", progress=False)
    ...     other.ingest(el.feeds.exported(f"{folder}/signals.pb"), progress=False).count
    1
    """
    file = Path(path)
    if not file.exists():
        raise FeedError("no such file", got=str(path))
    return Exported(file)


@dataclass(frozen=True, slots=True)
class _Content:
    """The checked content of the path."""

    sha256: str
    store_id: str | None
    files: list[ColumnarFile] | None


class Exported:
    """The feed that :func:`exported` makes."""

    name = "exported"
    clock = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = self._lost = 0
        self.params: Mapping[str, Param] = MappingProxyType({})
        self.unit = "event" if path.is_dir() or path.suffix.lower() in _SUFFIXES else "B"

    def __repr__(self) -> str:
        return f"<feed exported of {self.source!r}>"

    @cached_property
    def _content(self) -> _Content:
        try:
            if self._path.is_dir():
                files, digest, store_id = checked_folder(LocalStorage(self._path), self.source)
                return _Content(digest, store_id, files)
            path = self._path.resolve()  # the path may be a link; what it leads to may not
            storage, columnar = LocalStorage(path.parent), _SUFFIXES.get(path.suffix.lower())
            if columnar is not None:
                file, digest = checked(storage, path.name, columnar)
                return _Content(digest, file.store_id, [file])
            return _Content(*stream.checked(storage, path.name), None)
        except OSError as error:
            raise FeedError(f"{self.source}: cannot be read", got=str(error)) from error

    @property
    def source(self) -> str:
        return self._path.name

    @property
    def store_id(self) -> str | None:
        """Id of the exported log; None for a stream from another program."""
        return self._content.store_id

    @property
    def content_sha256(self) -> str:
        return self._content.sha256

    @property
    def total(self) -> int | None:
        files = self._content.files
        return self._path.stat().st_size if files is None else sum(file.count for file in files)

    @property
    def report(self) -> FeedReport:
        lost = f"{self._lost:,} events have a cause that was not exported; it is dropped"
        return FeedReport(self._rows, self._rows, warnings=(lost,) if self._lost else ())

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`eventlab.feeds.api.Feed`."""
        files = self._content.files  # checks the content before the first event
        self._rows = self._lost = 0
        numbers = _RowNumbers(self.source)
        pending: list[Numbered] = []
        rows = text = 0
        for done, group in self._stream() if files is None else _files(files):
            pending += group
            rows += sum(len(frame) for _, frame, _ in group)
            text += sum(text_bytes(frame) for _, frame, _ in group)
            if rows >= CHUNK_ROWS or text >= CHUNK_TEXT:
                yield self._chunk(pending, rows, numbers, done)
                pending, rows, text = [], 0, 0
        if pending:
            yield self._chunk(pending, rows, numbers, done)

    def _stream(self) -> Iterator[tuple[int, list[Numbered]]]:
        with self._path.open("rb") as file:
            try:
                for run in runs(file, _STREAM_ROWS):
                    yield file.tell(), run
            except EventlabError as error:
                kind = FeedError if isinstance(error, InvalidEvent) else type(error)
                raise kind(
                    f"{self.source}: {error.what}", got=error.got, expected=error.expected, hint=error.hint
                ) from error

    def _chunk(self, events: list[Numbered], rows: int, numbers: _RowNumbers, done: int) -> Chunk:
        first = self._rows
        numbers.add(events, first)
        batches = []
        for declared in {declared.name: declared for declared, _, _ in events}.values():
            parts = [(frame, number) for kind, frame, number in events if kind.name == declared.name]
            frame = pl.concat([frame for frame, _ in parts])
            cause, lost = numbers.of(frame["cause"])
            self._lost += lost
            payload = frame.drop("position", "version", "cause", "recorded_at")
            order = np.concatenate([number for _, number in parts])
            batches.append(FeedBatch(declared, payload, None, order, cause_row=cause))
        self._rows += rows
        return Chunk(tuple(batches), done)


def _files(files: list[ColumnarFile]) -> Iterator[tuple[int, list[Numbered]]]:
    done = 0
    for group in merged([(file.declared, file.frames()) for file in files]):
        done += sum(len(frame) for _, frame in group)
        yield done, [(declared, frame, frame["position"].to_numpy()) for declared, frame in group]


class _RowNumbers:
    """Maps positions in the exported log to row numbers in the source.

    Stores runs in which both rise by one: one a chunk for a complete log, at worst one per event.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._first = self._number = self._stop = np.empty(0, dtype=np.int64)
        self._last = -1

    def add(self, events: list[Numbered], first: int) -> None:
        """Add events; the first one has the row number `first`."""
        order = np.argsort(np.concatenate([number for _, _, number in events]), kind="stable")
        given = pl.concat([frame["position"] for _, frame, _ in events])[order]
        positions = given.drop_nulls().to_numpy()
        if not len(positions):
            return
        numbers = first + np.flatnonzero(given.is_not_null().to_numpy())
        before = np.concatenate([[self._last], positions[:-1]])
        wrong = np.flatnonzero(positions <= before)
        if len(wrong):
            raise FeedError(
                f"{self._source}: positions are not ascending", got=f"{positions[wrong[0]]} after {before[wrong[0]]}"
            )
        begins = np.append(True, (np.diff(positions) != 1) | (np.diff(numbers) != 1))
        stops = positions[np.append(np.flatnonzero(begins)[1:] - 1, len(positions) - 1)] + 1
        self._first = np.concatenate([self._first, positions[begins]])
        self._number = np.concatenate([self._number, numbers[begins]])
        self._stop = np.concatenate([self._stop, stops])
        self._last = int(positions[-1])

    def of(self, cause: pl.Series) -> tuple[Int64Array | None, int]:
        """Row numbers of causes, negative for none, or None if no event has one; and how many are missing."""
        if cause.null_count() == len(cause):
            return None, 0
        given = cause.fill_null(-1).to_numpy()
        if not len(self._first):
            return None, int((given >= 0).sum())
        at = np.searchsorted(self._first, given, "right") - 1
        present = (at >= 0) & (given < self._stop[at])
        found: Int64Array = np.where(present, self._number[at] + given - self._first[at], -1)
        return found, int(((given >= 0) & ~present).sum())
