"""What a process knows of a log: names, types, segments and unsealed commits, kept up to date by short reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from eventlab.errors import EventlabError, StoreCorrupt
from eventlab.events.types import EventType, declared_types
from eventlab.store.catalog.connection import UNREADABLE, unreadable
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.manifest import Manifest, Segment
from eventlab.store.catalog.unsealed import Unsealed
from eventlab.store.journal.files import Journals
from eventlab.store.journal.journal import Journal, Lost, Record
from eventlab.store.journal.memtable import Damaged, Memtable
from eventlab.store.segments.pruning import ReadBounds
from eventlab.store.segments.segments import Runs, SegmentFile
from eventlab.store.types import UNBOUND, Commit

_KEPT_RUNS = 1_000_000
_TRIES = 1_000
_FEW_AGGREGATES, _KEPT_AGGREGATES = 16, 4_096
_FIRST_VERSION, _LAST_VERSION, _FIRST_POSITION = 3, 4, 5


class LogIndex:
    """Grows with catalog and journal. Nothing in it is ever wrong: both only grow, and seals keep all events.

    Attributes
    ----------
    stop_position : int
        The number of events in the log.
    recorded_at, digest : int, bytes or None
        Those of the last commit; None for an empty log, and where the last commit is lost.
    generation : int
        The highest file number ever; it rises with every segment written.
    unsealed : Unsealed
        What the journal adds to the catalog.
    damage : Damaged or None
        Lost events whose aggregates are unknown: no commit may follow them.
    backdated : set of int
        Numbers of the aggregates that have back-dated events: event times of all others ascend.
    epoch : int
        Rises whenever something was learned that this process did not write, and when all was forgotten.
    frozen : bool
        While this process writes to the journal: a refresh would read half of the write, and no other process writes.
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
        """Forget everything but names, which readers keep; the next refresh reads everything again."""
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
        self._last_sealed: Commit | None = None
        self._seen: int | None = None
        self.backdated: set[int] = set()
        self.epoch += 1
        self._use_journal("")

    def _use_journal(self, name: str) -> None:
        """Go on with another journal: the one before was sealed."""
        if self.journal is not None:
            self.journal.close()
        self.journal = None
        self.journal_name = name
        self.unsealed = Unsealed()
        self._memtable = Memtable()
        self._lost: list[Lost] = []
        self._gaps: tuple[Damaged, ...] = ()
        self.damage: Damaged | None = None

    def close(self) -> None:
        self._use_journal("")

    def manifest(self) -> Manifest:
        if self._ordered is None:
            self._ordered = tuple(self._segments[first] for first in sorted(self._segments))
        pieces = self._memtable.pieces(self.types_by_number)
        return Manifest(self.stop_position, self._ordered, (*pieces, *self._gaps) if self._gaps else pieces)

    def check_whole(self) -> None:
        """Raise StoreCorrupt where events are lost that an answer may depend on."""
        if self.damage is not None:
            raise self.damage.error(self._catalog.where)

    # -- learning

    def refresh(self, *, alone: bool = False) -> None:
        """Read what is new.

        `alone` says that no other process is writing: then complete records of a killed one are taken too.
        """
        changed = False
        if self.frozen:
            return
        for _ in range(_TRIES):
            seen = self._catalog.data_version()
            try:
                if seen != self._seen:
                    with self._catalog.reading():
                        self._learn_catalog()
                    self._seen, changed = seen, True
                if self._open_journal():
                    changed |= self._learn_journal(alone=alone)
                    # Where they do not fit, the journal goes on after a commit that came into the catalog after it was
                    # read, or was sealed since. If the catalog has not changed, they never will.
                    if not changed:
                        return
                    self.epoch += 1
                    if self._settle(sure=self._catalog.data_version() == seen):
                        return
                elif self._catalog.data_version() == seen:
                    raise StoreCorrupt(
                        f"{self._catalog.where}: the journal is missing", expected=f"journal/{self.journal_name}",
                        hint="Restore the store from a copy.",
                    )  # fmt: skip
            except BaseException as error:  # an interrupt may leave it half done
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
            with self._catalog.reading() as version:
                if self.frozen or version == self._seen:  # frozen: others cannot add events
                    yield
                    return
        raise StoreCorrupt(f"{self._catalog.where}: the catalog changes at every attempt to read it")

    def _learn_catalog(self) -> None:
        journal = self._catalog.journal_name()
        if journal != self.journal_name:
            self._use_journal(journal)
        self.refresh_types()
        for number, name in self._catalog.aggregate_names(len(self.names)):
            self.learn_name(number, name)
        self.backdated |= self._catalog.backdated_aggregates()
        if self._catalog.last_file() > self.generation:
            found: dict[tuple[int, int], dict[int, SegmentFile]] = {}
            for kind, file in self._catalog.files_after(self.generation, self.types_by_number):
                found.setdefault((file.segment, file.stop_position), {})[kind] = file
            for (first, stop), files in found.items():
                self.learn_segment(Segment(first, stop, files))
        self._last_sealed = self._catalog.commit_at()

    def learn_name(self, number: int, name: str) -> None:
        if number < len(self.names) and self.names[number] == name:
            return
        if number != len(self.names) or name in self.numbers:
            raise StoreCorrupt(f"{self._catalog.where}: aggregates are not numbered without gap", got=number)
        self.numbers[name] = number
        self.names.append(name)

    def refresh_types(self) -> None:
        for number, _, _, schema in self._catalog.event_types(len(self.types_by_number)):
            self.learn_type(number, EventType.from_schema_json(schema))

    def learn_type(self, number: int, declared: EventType) -> None:
        # Where this process declares the same type, the user expects its own class.
        own = next((known for known in declared_types() if known == declared), declared)
        self.types[own.name] = own
        self.type_numbers[own.name, own.schema_version] = number
        self.types_by_number[number] = own

    def learn_segment(self, segment: Segment) -> None:
        """Add a segment; it replaces those inside its positions, which were merged into it."""
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

    def _learn_journal(self, *, alone: bool) -> bool:
        if self.journal is None or not self.journal.has_more():
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
        self.unsealed.learn(record)
        self.backdated.update(record.extras.get("backdated", ()))
        self._memtable.append(record)
        stop = record.first_position + record.events
        if stop > self.stop_position:
            self.stop_position, self.recorded_at, self.digest = stop, record.recorded_at, record.digest

    def _settle(self, *, sure: bool) -> bool:
        """Whether catalog and journal make up a log without gaps; with `sure`, gaps become damage."""
        ends = [commit for commit in (self._last_sealed, *self.unsealed.records[-1:]) if commit is not None]
        stops = [commit.stop_position for commit in ends]
        stops += [lost.stop_position for lost in self._lost if lost.stop_position is not None]
        if self.journal is not None:
            stops.append(self.journal.counted)
        stop = max(stops, default=0)
        gaps: tuple[Damaged, ...] = ()
        if self._sealed_events + self.unsealed.rows != stop:
            if not (sure or self._lost):
                return False
            gaps = tuple(self._gaps_before(stop))
        self._gaps, self.damage = gaps, gaps[0] if gaps else None
        last = next((commit for commit in ends if commit.stop_position == stop), None)
        self.stop_position = stop
        self.recorded_at, self.digest = (None, None) if last is None else (last.recorded_at, last.digest)
        return True

    def _gaps_before(self, stop: int) -> list[Damaged]:
        what = self._lost[0].what if self._lost else "events are counted that are nowhere"
        present = sorted(
            [(s.first_position, s.stop_position) for s in self._segments.values()]
            + [(r.first_position, r.stop_position) for r in self.unsealed.records]
        )
        gaps, position = [], 0
        for first, after in [*present, (stop, stop)]:
            if first < position:
                raise StoreCorrupt(f"{self._catalog.where}: positions {first} to {position - 1} are there twice")
            if first > position:
                gaps.append(Damaged(position, first, what))
            position = max(position, after)
        return gaps

    def learn_commit(self, commit: Commit) -> None:
        """A bulk commit of this process, whose segments are known already."""
        self.stop_position, self.recorded_at, self.digest = commit.stop_position, commit.recorded_at, commit.digest
        self._last_sealed = commit

    def learn_seal(self, journal: str) -> None:
        """A seal of this process, whose segments are known already: they hold all that was unsealed."""
        if self.unsealed.records and self.unsealed.records[-1].stop_position == self.stop_position:
            self._last_sealed = self.unsealed.records[-1]
        self._use_journal(journal)

    def head(self, number: int) -> tuple[int, int, int, str | None]:
        """Version, position and event time of an aggregate's last event, and whose clock its times are by."""
        sealed = self._catalog.head(number) or (0, -1, 0, None)
        head = self.unsealed.heads.get(number)
        clock = self.unsealed.clocks.get(number, sealed[3])
        return (*head, clock) if head is not None and head[0] > sealed[0] else (*sealed[:3], clock)

    # -- runs

    def runs_of_file(self, number: int) -> Runs:
        """All aggregates of a file."""
        runs = self._runs.get(number)
        if runs is None:
            runs = self._runs[number] = self._catalog.runs_of_file(number)
            self._kept_runs += len(runs)
            while self._kept_runs > _KEPT_RUNS and len(self._runs) > 1:
                self._kept_runs -= len(self._runs.popitem(last=False)[1])
        else:
            self._runs.move_to_end(number)
        return runs

    def runs_of_aggregates(self, numbers: Sequence[int], bounds: ReadBounds) -> dict[int, Runs]:
        """Runs of some aggregates, by file, that reach past their version in `after` and begin within the other bounds.

        Those of a few aggregates are kept until the next segment is written.
        """
        few = len(numbers) <= _FEW_AGGREGATES
        if self._few_runs_at != self.generation or len(self._few_runs) > _KEPT_AGGREGATES:
            self._few_runs, self._few_runs_at = {}, self.generation
        if few and all(number in self._few_runs for number in numbers):
            known = [(number, self._few_runs[number]) for number in numbers]
        else:
            with self.reading():
                known = [(number, self._catalog.runs_of_aggregate(number)) for number in sorted(set(numbers))]
            if few and self._few_runs_at == self.generation:
                self._few_runs.update(known)
        found: dict[int, list[Sequence[int]]] = {}
        until, stop = UNBOUND if bounds.until_version is None else bounds.until_version, bounds.stop_position
        for number, rows in known:
            floor = bounds.after.get(number, 0)
            for file, *run in rows:
                if floor < run[_LAST_VERSION] and run[_FIRST_VERSION] <= until and run[_FIRST_POSITION] < stop:
                    found.setdefault(file, []).append(run)
        return {file: Runs.of(rows) for file, rows in found.items()}
