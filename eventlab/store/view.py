"""What a process knows of the catalog: names, types, segments and the decoded tail, kept up to date by short reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eventlab.events.types import EventType, declared_types
from eventlab.store.catalog import Catalog
from eventlab.store.segments import Runs, SegmentFile
from eventlab.store.tail import Part, TailCache, part_of

_KEPT_RUNS = 1_000_000

_RUN = (
    "aggregate, row, rows, first_version, last_version, first_position, last_position, first_timestamp, last_timestamp"
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Positions ``first_position:stop_position``, in one file per event type name."""

    first_position: int
    stop_position: int
    files: Mapping[str, SegmentFile]


@dataclass(frozen=True, slots=True)
class View:
    """The whole log at one moment: segments and stretches of tail, together without gap or overlap."""

    stop_position: int
    segments: tuple[Segment, ...]
    tail: tuple[Part, ...]

    def pieces(self) -> list[Segment | list[Part]]:
        """Segments and adjacent stretches of tail, in position order."""
        both: list[Segment | Part] = [*self.segments, *self.tail]
        ordered = sorted(both, key=lambda piece: piece.first_position)
        found: list[Segment | list[Part]] = []
        for piece in ordered:
            if isinstance(piece, Segment):
                found.append(piece)
            elif found and isinstance(found[-1], list):
                found[-1].append(piece)
            else:
                found.append([piece])
        return found


class Knowledge:
    """Grows with the catalog. Nothing in it is ever wrong, because the catalog only appends, and seals what it had."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.names: list[str] = []
        self.numbers: dict[str, int] = {}
        self._runs: OrderedDict[int, Runs] = OrderedDict()
        self._kept_runs = 0
        self.forget()

    def forget(self) -> None:
        """Know nothing but names, which readers hold on to; the next refresh learns everything anew."""
        self.types: dict[str, EventType] = {}
        self.type_numbers: dict[str, int] = {}
        self.types_by_number: dict[int, EventType] = {}
        self.tail = TailCache()
        self.stop_position = 0
        self.recorded_at: int | None = None
        self.digest: bytes | None = None
        self._segments: dict[int, Segment] = {}
        self._ordered: tuple[Segment, ...] | None = ()
        self._last_file = 0

    def view(self) -> View:
        if self._ordered is None:
            self._ordered = tuple(self._segments[first] for first in sorted(self._segments))
        return View(self.stop_position, self._ordered, self.tail.parts)

    def refresh(self) -> None:
        """Read what is new. Call inside a transaction, before it writes."""
        execute = self._catalog.execute
        head = execute(
            "SELECT first_position, events, recorded_at, digest FROM commits ORDER BY first_position DESC LIMIT 1"
        ).fetchone()
        stop = 0 if head is None else head[0] + head[1]
        last_file = execute("SELECT max(no) FROM files").fetchone()[0] or 0
        if stop == self.stop_position and last_file == self._last_file:
            return
        try:
            self.refresh_types()
            self.learn_names(execute("SELECT name FROM aggregates WHERE no >= ? ORDER BY no", (len(self.names),)))
            if last_file > self._last_file:
                self._learn_files()
            if stop > self.stop_position:
                self._learn_tail()
                self.advance(stop, head[2], head[3])
        except BaseException:  # an interrupt may have left half of it
            self.forget()
            raise

    def learn_names(self, rows: Iterable[Sequence[str]]) -> None:
        for (name,) in rows:
            self.numbers[name] = len(self.names)
            self.names.append(name)

    def refresh_types(self) -> None:
        rows = self._catalog.execute(
            "SELECT no, schema FROM event_types WHERE no >= ? ORDER BY no", (len(self.types),)
        ).fetchall()
        for number, schema in rows:
            self.learn_type(number, EventType.from_schema_json(schema))

    def learn_type(self, number: int, declared: EventType) -> None:
        # Where this process declares the same type, its own class is what the user wants to meet.
        own = next((known for known in declared_types() if known == declared), declared)
        self.types[own.name] = own
        self.type_numbers[own.name] = number
        self.types_by_number[number] = own

    def advance(self, stop: int, recorded_at: int, digest: bytes) -> None:
        self.stop_position, self.recorded_at, self.digest = stop, recorded_at, digest

    def _learn_files(self) -> None:
        rows = self._catalog.execute(
            "SELECT f.no, f.segment, s.stop_position, f.event_type, f.name, f.rows, f.bytes, f.footer_bytes, "
            "f.footer_crc "
            "FROM files f JOIN segments s ON s.first_position = f.segment WHERE f.no > ? ORDER BY f.no",
            (self._last_file,),
        )
        found: dict[tuple[int, int], dict[str, SegmentFile]] = {}
        for no, first, stop, kind, *rest in rows:
            file = SegmentFile(no, first, stop, self.types_by_number[kind], *rest)
            found.setdefault((first, stop), {})[file.type.name] = file
        for (first, stop), files in found.items():
            self.learn_segment(Segment(first, stop, files))

    def learn_segment(self, segment: Segment) -> None:
        self._segments[segment.first_position] = segment
        self._ordered = None
        self._last_file = max(self._last_file, *(file.no for file in segment.files.values()))
        self.tail.drop(segment.first_position, segment.stop_position)

    def _learn_tail(self) -> None:
        rows = self._catalog.execute(
            "SELECT first_position, stop_position, crc, events FROM tail WHERE first_position >= ? "
            "ORDER BY first_position",
            (self.stop_position,),
        )
        parts = [part_of(row, self.types_by_number, self._catalog.where) for row in rows]
        if parts:
            self.tail.append(parts)

    def runs_of_file(self, file: SegmentFile) -> Runs:
        """All aggregates of a file."""
        runs = self._runs.get(file.no)
        if runs is None:
            rows = self._catalog.execute(f"SELECT {_RUN} FROM runs WHERE file = ? ORDER BY aggregate", (file.no,))  # noqa: S608  constants; values are bound
            runs = self._runs[file.no] = Runs.of(rows.fetchall())
            self._kept_runs += len(runs)
            while self._kept_runs > _KEPT_RUNS and len(self._runs) > 1:
                self._kept_runs -= len(self._runs.popitem(last=False)[1])
        else:
            self._runs.move_to_end(file.no)
        return runs

    def runs_of_aggregates(
        self, numbers: Sequence[int], after: Mapping[int, int], stop_position: int
    ) -> dict[int, Runs]:
        """Runs of some aggregates that reach past their version in `after` and begin before a position, by file."""
        found: dict[int, list[tuple[int, ...]]] = {}
        for number in sorted(set(numbers)):
            rows = self._catalog.execute(
                f"SELECT file, {_RUN} FROM runs WHERE aggregate = ? AND last_version > ? AND first_position < ?",  # noqa: S608  constants; values are bound
                (number, after.get(number, 0), stop_position),
            )
            for file, *run in rows:
                found.setdefault(file, []).append(tuple(run))
        return {file: Runs.of(runs) for file, runs in found.items()}
