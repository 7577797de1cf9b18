"""The catalog: a database of event types, aggregates, commits, segments and ids. What it does not name does not exist.

Every question and every change is a method. Methods take and give plain values, so that another catalog can answer
them without SQL. Those that change something run inside a transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eventlab.events.types import EventType
from eventlab.store.blocks import Int64Array
from eventlab.store.catalog.connection import UNREADABLE, Connection, unreadable
from eventlab.store.segments.segments import Runs, SegmentFile
from eventlab.store.types import UNBOUND, Commit

_IDS_AT_ONCE = 500
_ROWS_AT_ONCE = 16_384

_COMMIT = "first_position, events, clamped, recorded_at, last_version, digest"
_RUN = (
    "aggregate, row, rows, first_version, last_version, first_position, last_position, first_timestamp, last_timestamp"
)

_MOST_PROBLEMS = 20

_CONTRADICTIONS = {
    "a segment's files do not hold all its events": (
        "SELECT s.first_position, s.stop_position, coalesce(sum(f.rows), 0) FROM segments s LEFT JOIN files f "
        "ON f.segment = s.first_position GROUP BY s.first_position "
        "HAVING coalesce(sum(f.rows), 0) <> s.stop_position - s.first_position"
    ),
    "a commit has impossible numbers": (
        "SELECT first_position, events, clamped FROM commits "
        "WHERE events < 1 OR abs(clamped) > events OR (source IS NULL) <> (chunk IS NULL) OR chunk < 0"
    ),
    "aggregates are not numbered without gap": (
        "SELECT max(no), count(*) FROM aggregates HAVING count(*) > 0 AND (max(no) <> count(*) - 1 OR min(no) <> 0)"
    ),
    "a file's runs do not hold all its rows": (
        "SELECT f.name, f.rows, coalesce(sum(r.rows), 0) FROM files f LEFT JOIN runs r ON r.file = f.no "
        "GROUP BY f.no HAVING coalesce(sum(r.rows), 0) <> f.rows"
    ),
}
"""What is wrong, and a query that finds the first such row."""

SourceChunk = tuple[str, int]
"""An ingested source's identity and the number of one of its chunks."""

HeadRow = tuple[int, str, int, int, int, str | None]
"""An aggregate's number, name, version, position, highest event time, and whose clock its times are by."""


@dataclass(frozen=True, slots=True)
class DroppedFile:
    """A segment file that compaction replaced; readers that began before `generation` may still read it."""

    no: int
    name: str
    bytes: int
    generation: int


class Catalog(Connection):
    """The catalog of one store."""

    # -- the journal

    def journal_name(self) -> str:
        """The journal that goes on after the catalog's commits; empty where there is none yet."""
        return str(self.execute("SELECT value FROM meta WHERE key = 'journal'").fetchone()[0])

    def set_journal(self, name: str) -> None:
        self.execute("UPDATE meta SET value = ? WHERE key = 'journal'", (name,))

    # -- event types

    def event_types(self, first: int = 0) -> list[tuple[int, str, int, str]]:
        """Number, name, version and schema (JSON) of every version of an event type, from a number on."""
        query = "SELECT no, name, schema_version, schema FROM event_types WHERE no >= ? ORDER BY no"
        return self.execute(query, (first,)).fetchall()

    def add_event_type(self, number: int, declared: EventType) -> None:
        row = (number, declared.name, declared.schema_version, declared.schema_json())
        self.execute("INSERT INTO event_types VALUES (?, ?, ?, ?)", row)

    # -- aggregates

    def aggregate_names(self, first: int = 0) -> Iterator[tuple[int, str]]:
        """Numbers and names of the aggregates from a number on."""
        return iter(self.execute("SELECT no, name FROM aggregates WHERE no >= ? ORDER BY no", (first,)))

    def head(self, number: int) -> tuple[int, int, int, str | None] | None:
        """Version and position of an aggregate's last event, its highest event time, and whose clock its times are by.

        None for an aggregate that the catalog does not have.
        """
        query = "SELECT version, position, timestamp, clock FROM aggregates WHERE no = ?"
        found: tuple[int, int, int, str | None] | None = self.execute(query, (number,)).fetchone()
        return found

    def heads(self) -> Int64Array:
        """Number, version, position and highest event time of all aggregates: an array of shape (aggregates, 4)."""
        rows = self.execute("SELECT no, version, position, timestamp FROM aggregates ORDER BY no")
        tables = [np.empty((0, 4), dtype=np.int64)]
        with self._readable():
            while found := rows.fetchmany(_ROWS_AT_ONCE):
                tables.append(np.array(found, dtype=np.int64))
        return np.concatenate(tables)

    def put_heads(self, heads: Iterable[HeadRow]) -> None:
        """Add aggregates, and raise the heads of those that are there with lower versions."""
        self.executemany(
            "INSERT INTO aggregates VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (no) DO UPDATE SET "
            "version = excluded.version, position = excluded.position, timestamp = excluded.timestamp, "
            "clock = coalesce(excluded.clock, clock) WHERE version < excluded.version",
            heads,
        )

    def backdated_aggregates(self) -> set[int]:
        """Numbers of the aggregates that have back-dated events."""
        return {number for (number,) in self.execute("SELECT aggregate FROM backdated")}

    def add_backdated_aggregates(self, numbers: Iterable[int]) -> None:
        self.executemany("INSERT OR IGNORE INTO backdated VALUES (?)", [(number,) for number in numbers])

    # -- commits

    def count_commits(self) -> int:
        return int(self.execute("SELECT count(*) FROM commits").fetchone()[0])

    def commit_at(self, position: int = UNBOUND) -> Commit | None:
        """The last commit that begins at a position or before it; by default the last of all."""
        return self._one_commit("WHERE first_position <= ? ORDER BY first_position DESC LIMIT 1", position)

    def commits(self, first: int, stop: int) -> Iterator[Commit]:
        """Commits that begin at positions ``first:stop``, read in stretches: others may write meanwhile."""
        query = (
            f"SELECT {_COMMIT} FROM commits WHERE first_position >= ? AND first_position < ? "  # noqa: S608  constants
            f"ORDER BY first_position LIMIT {_ROWS_AT_ONCE}"
        )
        while rows := self.execute(query, (first, stop)).fetchall():
            yield from (Commit(*row) for row in rows)
            first = rows[-1][0] + 1

    def commit_times(self, low: int, high: int) -> list[tuple[int, int]]:
        """First position and `recorded_at` of the commits that hold positions from `low` to `high`."""
        return self.execute(
            "SELECT first_position, recorded_at FROM commits WHERE first_position <= ? AND first_position >= "
            "coalesce((SELECT max(first_position) FROM commits WHERE first_position <= ?), 0)",
            (high, low),
        ).fetchall()

    def add_commits(self, commits: Sequence[tuple[Commit, SourceChunk | None]]) -> None:
        """Add commits, each with the chunk that it ingested."""
        identities = {source[0] for _, source in commits if source is not None}
        self.executemany(
            "INSERT OR IGNORE INTO sources (identity) VALUES (?)", [(identity,) for identity in identities]
        )
        self.executemany(
            "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, (SELECT no FROM sources WHERE identity = ?), ?)",
            [
                (c.first_position, c.events, c.recorded_at, c.last_version, c.late, c.digest, *(source or (None, None)))
                for c, source in commits
            ],
        )

    def _one_commit(self, condition: str, *values: object) -> Commit | None:
        row = self.execute(f"SELECT {_COMMIT} FROM commits {condition}", values).fetchone()  # noqa: S608  constants
        return None if row is None else Commit(*row)

    # -- ingested sources

    def commit_of_chunk(self, identity: str, chunk: int) -> Commit | None:
        """The commit that ingested a source's chunk."""
        return self._one_commit("JOIN sources ON no = source WHERE identity = ? AND chunk = ?", identity, chunk)

    def source_receipt(self, identity: str) -> str | None:
        """The receipt of a source that is ingested completely."""
        row = self.execute("SELECT receipt FROM sources WHERE identity = ?", (identity,)).fetchone()
        return None if row is None else row[0]

    def finish_source(self, identity: str, receipt: str) -> None:
        """Note that all of a source is in the log."""
        self.execute(
            "INSERT INTO sources (identity, receipt) VALUES (?, ?) "
            "ON CONFLICT (identity) DO UPDATE SET receipt = excluded.receipt",
            (identity, receipt),
        )

    # -- ids that callers supplied

    def positions_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        """Positions of the events that have these ids; ids of no event are left out."""
        found: dict[str, int] = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = ids[start : start + _IDS_AT_ONCE]
            marks = ",".join("?" * len(some))
            found.update(self.execute(f"SELECT * FROM event_ids WHERE event_id IN ({marks})", some))  # noqa: S608  marks only
        return found

    def count_ids(self) -> int:
        return int(self.execute("SELECT count(*) FROM event_ids").fetchone()[0])

    def add_ids(self, positions: Iterable[tuple[str, int]]) -> None:
        self.executemany("INSERT INTO event_ids VALUES (?, ?)", positions)

    # -- segments and their files

    def files_after(self, number: int, types: Mapping[int, EventType]) -> list[tuple[int, SegmentFile]]:
        """Segment files with a higher number, each with its event type's number.

        `types` are the event types by number.
        """
        rows = self.execute(
            "SELECT f.event_type, f.no, f.segment, s.stop_position, f.name, f.rows, f.bytes, f.footer_bytes, "
            "f.footer_crc FROM files f JOIN segments s ON s.first_position = f.segment WHERE f.no > ? ORDER BY f.no",
            (number,),
        )
        return [(kind, SegmentFile(no, first, stop, types[kind], *rest)) for kind, no, first, stop, *rest in rows]

    def last_file(self) -> int:
        """The highest number of a segment file; 0 where there is none."""
        return int(self.execute("SELECT max(no) FROM files").fetchone()[0] or 0)

    def file_names(self) -> set[str]:
        """Names of all segment files, dropped ones included."""
        return {name for (name,) in self.execute("SELECT name FROM files UNION ALL SELECT name FROM garbage")}

    def bytes_of_files(self) -> int:
        """Bytes of all segment files, without dropped ones."""
        return int(self.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0])

    def add_segment(self, first: int, stop: int) -> None:
        """Add a segment of positions ``first:stop``; its files follow."""
        self.execute("INSERT INTO segments VALUES (?, ?)", (first, stop))

    def add_file(self, kind: int, file: SegmentFile, runs: Int64Array) -> SegmentFile:
        """Add a file that is complete and synced to its segment; gives it with its number.

        Parameters
        ----------
        kind : int
            The number of its event type.
        runs : int64 array, shape (aggregates, 9)
            One row a run, in the order of the fields of `Runs`.
        """
        no = self.execute(
            "INSERT INTO files (segment, event_type, name, rows, bytes, footer_bytes, footer_crc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING no",
            (file.segment, kind, file.name, file.rows, file.bytes, file.footer_bytes, file.footer_crc),
        ).fetchone()[0]
        numbered = np.insert(runs, 1, no, axis=1)
        self.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", numbered.tolist())
        return replace(file, no=no)

    def merge_segments(
        self,
        first: int,
        stop: int,
        old: Collection[SegmentFile],
        new: Mapping[int, tuple[SegmentFile, Int64Array]],
    ) -> dict[int, SegmentFile]:
        """Replace the segments of positions ``first:stop`` by one; the old files become garbage.

        Parameters
        ----------
        old : collection of SegmentFile
            All files of these segments.
        new : mapping of int to (SegmentFile, runs)
            The files that replace them, by number of the event type. They are given back with their numbers.
        """
        self.execute("UPDATE segments SET stop_position = ? WHERE first_position = ?", (stop, first))
        files = {kind: self.add_file(kind, file, runs) for kind, (file, runs) in new.items()}
        generation = max(file.no for file in files.values())
        self.executemany(
            "INSERT INTO garbage (file, name, bytes, dropped) VALUES (?, ?, ?, ?)",
            [(file.no, file.name, file.bytes, generation) for file in old],
        )
        self.executemany("DELETE FROM files WHERE no = ?", [(file.no,) for file in old])
        self.execute("DELETE FROM segments WHERE first_position > ? AND first_position < ?", (first, stop))
        return files

    def runs_of_file(self, number: int) -> Runs:
        """The runs of a file, by ascending aggregate."""
        rows = self.execute(f"SELECT {_RUN} FROM runs WHERE file = ? ORDER BY aggregate", (number,))  # noqa: S608  constants
        with self._readable():
            return Runs.of(rows.fetchall())

    def runs_of_aggregate(self, number: int) -> list[tuple[int, ...]]:
        """The runs of an aggregate: the number of the file, then the fields of `Runs`."""
        return self.execute(f"SELECT file, {_RUN} FROM runs WHERE aggregate = ?", (number,)).fetchall()  # noqa: S608  constants

    # -- dropped files

    def dropped_files(self) -> list[DroppedFile]:
        """Files that compaction replaced, by ascending generation. Their runs stay as long as they may be read."""
        rows = self.execute("SELECT file, name, bytes, dropped FROM garbage ORDER BY dropped")
        return [DroppedFile(*row) for row in rows]

    def forget_dropped(self, numbers: Sequence[int]) -> None:
        """Remove dropped files and their runs."""
        for statement in ("DELETE FROM runs WHERE file = ?", "DELETE FROM garbage WHERE file = ?"):
            self.executemany(statement, [(number,) for number in numbers])

    # -- the database

    def contradictions(self) -> list[str]:
        """What is wrong with the tables; call it inside a transaction."""
        found = [str(text) for (text,) in self.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})")]
        problems = [text for text in found if text != "ok"]
        problems += [
            f"row {row} of table {table} refers to a row of {parent} that is not there"
            for table, row, parent, _ in self.execute("PRAGMA foreign_key_check").fetchmany(_MOST_PROBLEMS)
            if table != "runs"  # runs of dropped files stay as long as readers may need them
        ]
        for at, (no, name, version, schema) in enumerate(self.event_types()):
            declared = EventType.from_schema_json(schema)
            if (no, name, version) != (at, declared.name, declared.schema_version):
                problems.append(f"event type {name!r} of version {version} has another schema or number")
        for what, query in _CONTRADICTIONS.items():
            row = self.execute(query).fetchone()
            if row is not None:
                problems.append(f"{what}: {', '.join(map(str, row))}")
        return problems

    def size(self) -> int:
        """Bytes of the database."""
        pages, size = (int(self.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size"))
        return pages * size

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Raise StoreCorrupt for values that are not numbers."""
        try:
            yield
        except UNREADABLE as error:
            raise unreadable(error, self.where) from error
