"""What a process knows of a store: names, types, segments and tail, kept up to date by short reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from eventlab.errors import EventlabError, StoreCorrupt
from eventlab.events.types import EventType, declared_types
from eventlab.store.catalog.database import UNREADABLE, Catalog, unreadable
from eventlab.store.catalog.unsealed import Ledger
from eventlab.store.journal.files import Journals
from eventlab.store.journal.journal import Journal, Lost, Record
from eventlab.store.journal.memtable import Damaged, Part, Piece, Tail
from eventlab.store.segments.segments import Runs, SegmentFile
from eventlab.store.types import UNBOUND

_KEPT_RUNS = 1_000_000
_TRIES = 1_000
_FEW_AGGREGATES, _KEPT_AGGREGATES = 16, 4_096
_FIRST_VERSION, _LAST_VERSION, _FIRST_POSITION = 3, 4, 5

_RUN = (
    "aggregate, row, rows, first_version, last_version, first_position, last_position, first_timestamp, last_timestamp"
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Positions ``first_position:stop_position``, in one file per event type; keys are the types' numbers."""

    first_position: int
    stop_position: int
    files: Mapping[int, SegmentFile]


@dataclass(frozen=True, slots=True)
class View:
    """The whole log at one moment: segments and stretches of tail, together without gap or overlap."""

    stop_position: int
    segments: tuple[Segment, ...]
    tail: tuple[Piece, ...]

    def pieces(self) -> list[Segment | Damaged | list[Part]]:
        """Segments, what is damaged, and adjacent stretches of tail, in position order."""
        both: list[Segment | Piece] = [*self.segments, *self.tail]
        ordered = sorted(both, key=lambda piece: piece.first_position)
        found: list[Segment | Damaged | list[Part]] = []
        for piece in ordered:
            if not isinstance(piece, Part):
                found.append(piece)
            elif found and isinstance(found[-1], list):
                found[-1].append(piece)
            else:
                found.append([piece])
        return found


class Knowledge:
    """Grows with catalog and journal. Nothing in it is ever wrong: both only grow, and seals keep what they had.

    Attributes
    ----------
    stop_position : int
        The number of events in the log.
    recorded_at, digest : int, bytes or None
        Those of the last commit; None for an empty log, and where the last commit is lost.
    generation : int
        The highest file number ever; it rises with every segment written.
    ledger : Ledger
        What the journal says beyond the catalog.
    backdated : set of int
        Numbers of the aggregates that have back-dated events: event times of all others ascend.
    epoch : int
        Rises whenever something was learned that this process did not write, or all was forgotten.
    frozen : bool
        While this process is writing to the journal: nobody else can, and refreshing would meet it half-way.
    """

    def __init__(self, catalog: Catalog, journals: Journals) -> None:
        self._catalog = catalog
        self._journals = journals
        self.names: list[str] = []
        self.numbers: dict[str, int] = {}
        self.journal: Journal | None = None
        self.frozen = False
        self.epoch = 0
        self._runs: OrderedDict[int, Runs] = OrderedDict()
        self._kept_runs = 0
        self._few_runs: dict[int, list[tuple[int, ...]]] = {}
        self._few_runs_at = 0
        self.forget()

    def forget(self) -> None:
        """Know nothing but names, which readers hold on to; the next refresh learns everything anew."""
        self.types: dict[str, EventType] = {}
        self.type_numbers: dict[tuple[str, int], int] = {}
        self.types_by_number: dict[int, EventType] = {}
        self.stop_position = 0
        self.recorded_at: int | None = None
        self.digest: bytes | None = None
        self.generation = 0
        self._segments: dict[int, Segment] = {}
        self._ordered: tuple[Segment, ...] | None = ()
        self._sealed_events = 0
        self._sealed_head: tuple[int, int, bytes] | None = None
        self._seen: int | None = None
        self.backdated: set[int] = set()
        self.epoch += 1
        self._use_journal("")

    def _use_journal(self, name: str) -> None:
        """Begin with another journal: the one before was sealed."""
        if self.journal is not None:
            self.journal.close()
        self.journal = None
        self.journal_name = name
        self.ledger = Ledger()
        self._tail = Tail()
        self._lost: list[Lost] = []
        self._damage: tuple[Damaged, ...] = ()

    def close(self) -> None:
        self._use_journal("")

    def view(self) -> View:
        if self._ordered is None:
            self._ordered = tuple(self._segments[first] for first in sorted(self._segments))
        tail = self._tail.pieces(self.types_by_number)
        return View(self.stop_position, self._ordered, (*tail, *self._damage) if self._damage else tail)

    @property
    def damage(self) -> Damaged | None:
        """Something lost of which nothing tells whose events it were: nobody may append without that."""
        return self._damage[0] if self._damage else None

    def check_whole(self) -> None:
        """Raise StoreCorrupt where something is lost that an answer may depend on."""
        if self._damage:
            raise self._damage[0].error(self._catalog.where)

    # -- learning

    def refresh(self, *, alone: bool = False) -> None:
        """Read what is new.

        `alone` says that no other process is writing: then what a killed one left complete is taken too.
        """
        news = False
        if self.frozen:
            return
        for _ in range(_TRIES):
            seen = self._catalog.data_version()
            try:
                if seen != self._seen:
                    with self._catalog.reading():
                        self._learn_catalog()
                    self._seen, news = seen, True
                if self._open_journal():
                    news |= self._learn_journal(alone=alone)
                    # Where they do not fit, the journal goes on after a commit that the catalog had not when it was
                    # read, or was sealed away since. If the catalog is still the same, they never will.
                    if not news:
                        return
                    self.epoch += 1
                    if self._settle(sure=self._catalog.data_version() == seen):
                        return
                elif self._catalog.data_version() == seen:
                    raise self._missing_journal()
            except BaseException as error:  # an interrupt may have left half of it
                self.forget()
                if isinstance(error, UNREADABLE) and not isinstance(error, EventlabError):
                    raise unreadable(error, self._catalog.where) from error
                raise
        raise StoreCorrupt(f"{self._catalog.where}: catalog and journal do not fit together")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A transaction in which the catalog is as this process knows it."""
        for _ in range(_TRIES):
            self.refresh()
            with self._catalog.reading():
                self._catalog.execute("SELECT 1 FROM meta").fetchone()  # from here on it stands still
                if self.frozen or self._catalog.data_version() == self._seen:  # frozen: what others change is no event
                    yield
                    return
        raise StoreCorrupt(f"{self._catalog.where}: the catalog never stands still")

    def _learn_catalog(self) -> None:
        execute = self._catalog.execute
        journal = execute("SELECT value FROM meta WHERE key = 'journal'").fetchone()[0]
        if journal != self.journal_name:
            self._use_journal(journal)
        self.refresh_types()
        self._learn_names()
        self.backdated |= self._catalog.backdated()
        generation = execute("SELECT max(no) FROM files").fetchone()[0] or 0
        if generation > self.generation:
            self._learn_files()
        self._sealed_head = execute(
            "SELECT first_position + events, recorded_at, digest FROM commits ORDER BY first_position DESC LIMIT 1"
        ).fetchone()

    def _learn_names(self) -> None:
        query = "SELECT no, name FROM aggregates WHERE no >= ? ORDER BY no"
        for number, name in self._catalog.execute(query, (len(self.names),)):
            self.learn_name(number, name)

    def learn_name(self, number: int, name: str) -> None:
        if number < len(self.names) and self.names[number] == name:
            return
        if number != len(self.names) or name in self.numbers:
            raise StoreCorrupt(f"{self._catalog.where}: aggregates are not numbered without gap", got=number)
        self.numbers[name] = number
        self.names.append(name)

    def refresh_types(self) -> None:
        rows = self._catalog.execute(
            "SELECT no, schema FROM event_types WHERE no >= ? ORDER BY no", (len(self.types_by_number),)
        ).fetchall()
        for number, schema in rows:
            self.learn_type(number, EventType.from_schema_json(schema))

    def learn_type(self, number: int, declared: EventType) -> None:
        # Where this process declares the same type, its own class is what the user wants to meet.
        own = next((known for known in declared_types() if known == declared), declared)
        self.types[own.name] = own
        self.type_numbers[own.name, own.schema_version] = number
        self.types_by_number[number] = own

    def _learn_files(self) -> None:
        rows = self._catalog.execute(
            "SELECT f.no, f.segment, s.stop_position, f.event_type, f.name, f.rows, f.bytes, f.footer_bytes, "
            "f.footer_crc "
            "FROM files f JOIN segments s ON s.first_position = f.segment WHERE f.no > ? ORDER BY f.no",
            (self.generation,),
        )
        found: dict[tuple[int, int], dict[int, SegmentFile]] = {}
        for no, first, stop, kind, *rest in rows:
            file = SegmentFile(no, first, stop, self.types_by_number[kind], *rest)
            found.setdefault((first, stop), {})[kind] = file
        for (first, stop), files in found.items():
            self.learn_segment(Segment(first, stop, files))

    def learn_segment(self, segment: Segment) -> None:
        """A new segment; those that lie inside it were merged into it."""
        first, stop = segment.first_position, segment.stop_position
        for known in [s for s in self._segments.values() if s.first_position < stop and s.stop_position > first]:
            del self._segments[known.first_position]
            self._sealed_events -= known.stop_position - known.first_position
        self._segments[first] = segment
        self._sealed_events += stop - first
        self._ordered = None
        self.generation = max(self.generation, *(file.no for file in segment.files.values()))

    def _open_journal(self) -> bool:
        """Open the catalog's journal; False where it is not there."""
        if self.journal is None and self.journal_name:
            try:
                self.journal = self._journals.open(self.journal_name)
            except FileNotFoundError:
                return False
        return True

    def _missing_journal(self) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._catalog.where}: the journal is missing",
            expected=f"journal/{self.journal_name}",
            hint="Restore the store from a copy.",
        )

    def _learn_journal(self, *, alone: bool) -> bool:
        if self.journal is None or not self.journal.is_news:
            return False
        found = self.journal.read(beyond=alone)
        for record in found:
            if isinstance(record, Lost):
                self._lost.append(record)
            else:
                self.learn_record(record)
        return bool(found)

    def learn_record(self, record: Record) -> None:
        """The journal's next record."""
        first = record.extras.get("from", 0)
        for number, name in enumerate(record.extras.get("new", ()), first):
            self.learn_name(number, name)
        self.ledger.learn(record)
        self.backdated.update(record.extras.get("backdated", ()))
        self._tail.append(record)
        if record.stop_position > self.stop_position:
            self.stop_position, self.recorded_at, self.digest = record.stop_position, record.recorded_at, record.digest

    def _settle(self, *, sure: bool) -> bool:
        """Whether catalog and journal make up a log without gaps; what is missing for good becomes damage."""
        last = self.ledger.records[-1] if self.ledger.records else None
        stops = [lost.stop_position for lost in self._lost if lost.stop_position is not None]
        if self._sealed_head is not None:
            stops.append(self._sealed_head[0])
        if last is not None:
            stops.append(last.stop_position)
        if self.journal is not None:
            stops.append(self.journal.counted)
        stop = max(stops, default=0)
        gaps: tuple[Damaged, ...] = ()
        if self._sealed_events + self.ledger.rows != stop:
            if not (sure or self._lost):
                return False
            gaps = tuple(self._gaps(stop))
        self._damage = gaps
        self.stop_position, self.recorded_at, self.digest = stop, None, None
        if self._sealed_head is not None and self._sealed_head[0] == stop:
            _, self.recorded_at, self.digest = self._sealed_head
        elif last is not None and last.stop_position == stop:
            self.recorded_at, self.digest = last.recorded_at, last.digest
        return True

    def _gaps(self, stop: int) -> list[Damaged]:
        what = self._lost[0].what if self._lost else "events are counted that are nowhere"
        held = sorted(
            [(s.first_position, s.stop_position) for s in self._segments.values()]
            + [(r.first_position, r.stop_position) for r in self.ledger.records]
        )
        gaps, position = [], 0
        for first, after in [*held, (stop, stop)]:
            if first < position:
                raise StoreCorrupt(f"{self._catalog.where}: positions {first} to {position - 1} are there twice")
            if first > position:
                gaps.append(Damaged(position, first, what))
            position = max(position, after)
        return gaps

    def learn_commit(self, stop: int, recorded_at: int, digest: bytes) -> None:
        """A bulk commit of this process, whose segments are known already."""
        self.stop_position, self.recorded_at, self.digest = stop, recorded_at, digest
        self._sealed_head = (stop, recorded_at, digest)

    def learn_seal(self, journal: str) -> None:
        """A seal of this process, whose segments are known already: the tail is theirs now."""
        if self.ledger.records and self.ledger.records[-1].stop_position == self.stop_position:
            last = self.ledger.records[-1]
            self._sealed_head = (last.stop_position, last.recorded_at, last.digest)
        self._use_journal(journal)

    def head(self, number: int) -> tuple[int, int, int, str | None]:
        """Version, position and event time of an aggregate's last event, and whose clock its times are by."""
        row = self._catalog.execute(
            "SELECT version, position, timestamp, clock FROM aggregates WHERE no = ?", (number,)
        ).fetchone() or (0, -1, 0, None)
        head = self.ledger.heads.get(number)
        clock = self.ledger.clocks.get(number, row[3])
        return (*head, clock) if head is not None and head[0] > row[0] else (*row[:3], clock)

    # -- runs

    def runs_of_file(self, file: SegmentFile) -> Runs:
        """All aggregates of a file."""
        runs = self._runs.get(file.no)
        if runs is None:
            rows = self._catalog.execute(f"SELECT {_RUN} FROM runs WHERE file = ? ORDER BY aggregate", (file.no,))  # noqa: S608  constants; values are bound
            try:
                runs = Runs.of(rows.fetchall())
            except UNREADABLE as error:
                raise unreadable(error, self._catalog.where) from error
            self._runs[file.no] = runs
            self._kept_runs += len(runs)
            while self._kept_runs > _KEPT_RUNS and len(self._runs) > 1:
                self._kept_runs -= len(self._runs.popitem(last=False)[1])
        else:
            self._runs.move_to_end(file.no)
        return runs

    def runs_of_aggregates(
        self, numbers: Sequence[int], after: Mapping[int, int], stop_position: int, until_version: int | None
    ) -> dict[int, Runs]:
        """Runs of some aggregates, by file, that reach past their version in `after` and begin within the other bounds.

        Those of a few aggregates are kept until the next segment is written.
        """
        few = len(numbers) <= _FEW_AGGREGATES
        if self._few_runs_at != self.generation or len(self._few_runs) > _KEPT_AGGREGATES:
            self._few_runs, self._few_runs_at = {}, self.generation
        if few and all(number in self._few_runs for number in numbers):
            return _within(
                [(number, self._few_runs[number]) for number in numbers], after, stop_position, until_version
            )
        with self.reading():
            found = [(number, self._runs_of(number)) for number in sorted(set(numbers))]
        if few and self._few_runs_at == self.generation:
            self._few_runs.update(found)
        return _within(found, after, stop_position, until_version)

    def _runs_of(self, number: int) -> list[tuple[int, ...]]:
        rows = self._catalog.execute(
            f"SELECT file, {_RUN} FROM runs WHERE aggregate = ?",  # noqa: S608  constants; values are bound
            (number,),
        )
        return list(rows)


def _within(
    runs: Sequence[tuple[int, list[tuple[int, ...]]]],
    after: Mapping[int, int],
    stop_position: int,
    until_version: int | None,
) -> dict[int, Runs]:
    found: dict[int, list[Sequence[int]]] = {}
    until = UNBOUND if until_version is None else until_version
    for number, rows in runs:
        floor = after.get(number, 0)
        for file, *run in rows:
            if floor < run[_LAST_VERSION] and run[_FIRST_VERSION] <= until and run[_FIRST_POSITION] < stop_position:
                found.setdefault(file, []).append(run)
    return {file: Runs.of(rows) for file, rows in found.items()}
