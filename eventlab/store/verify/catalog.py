"""What the catalog's tables must say, beside the events: numbers without gap, references that lead somewhere, ids."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eventlab.events.types import EventType
from eventlab.store.blocks import Int64Array
from eventlab.store.catalog.database import Catalog
from eventlab.store.catalog.manifest import Knowledge
from eventlab.store.journal.memtable import Part

_AT_ONCE = 16_384
_ASKED_AT_ONCE = 500
_MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as catalog or journal have it. `late` below 0 counts events that it kept back-dated."""

    first: int
    events: int
    recorded_at: int
    last_version: int
    late: int
    digest: bytes

    @property
    def stop(self) -> int:
        return self.first + self.events

    @property
    def backdated(self) -> int:
        return max(-self.late, 0)


class Tables:
    """The catalog as it was when this was made, inside a transaction.

    Attributes
    ----------
    heads : int64 array, shape (aggregates, 3)
        Version and position of every aggregate's last event, and its highest event time, journal included.
    problems : list of str
        What is wrong with the tables.
    """

    def __init__(self, catalog: Catalog, knowledge: Knowledge, stop_position: int) -> None:
        self._catalog = catalog
        self._knowledge = knowledge
        self._stop = stop_position
        self._records = list(knowledge.ledger.records)
        self._tail = {record.first_position for record in self._records}
        digest = knowledge.digest
        self.head_digest = None if digest is None else digest.hex()
        self.problems: list[str] = []
        self.heads = self._heads()
        self._ids = int(catalog.execute("SELECT count(*) FROM event_ids").fetchone()[0])
        self._ids_seen = 0

    def _heads(self) -> Int64Array:
        heads = np.zeros((len(self._knowledge.names), 3), dtype=np.int64)
        heads[:, 1] = -1
        rows = self._catalog.execute("SELECT no, version, position, timestamp FROM aggregates ORDER BY no")
        while found := rows.fetchmany(_AT_ONCE):
            table = np.array(found, dtype=np.int64)
            table = table[(table[:, 0] >= 0) & (table[:, 0] < len(heads))]
            heads[table[:, 0]] = table[:, 1:]
        for number, head in self._knowledge.ledger.heads.items():
            if head[0] > heads[number, 0]:
                heads[number] = head
        return heads

    def check_structure(self) -> None:
        """What can be told from the tables alone."""
        execute, problems = self._catalog.execute, self.problems
        found = [str(text) for (text,) in execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})")]
        problems += [text for text in found if text != "ok"]
        problems += [
            f"row {row} of table {table} refers to a row of {parent} that is not there"
            for table, row, parent, _ in execute("PRAGMA foreign_key_check").fetchmany(_MOST_PROBLEMS)
            if table != "runs"  # those of dropped files stay as long as somebody may read these
        ]
        for at, (no, name, version, schema) in enumerate(
            execute("SELECT no, name, schema_version, schema FROM event_types ORDER BY no")
        ):
            declared = EventType.from_schema_json(schema)
            if (no, name, version) != (at, declared.name, declared.schema_version):
                problems.append(f"event type {name!r} of version {version} has another schema or number")
        for what, query in _QUERIES:
            row = execute(query).fetchone()
            if row is not None:
                problems.append(f"{what}: {', '.join(map(str, row))}")

    def commits(self) -> Iterator[Commit]:
        """All commits in position order, read in stretches: others may write, and seal, meanwhile."""
        return heapq.merge(self._sealed(), self._small(), key=lambda commit: commit.first)

    def _small(self) -> Iterator[Commit]:
        for record in self._records:
            yield Commit(
                record.first_position,
                record.events,
                record.recorded_at,
                record.last_version,
                record.late,
                record.digest,
            )

    def _sealed(self) -> Iterator[Commit]:
        query = (
            "SELECT first_position, events, recorded_at, last_version, clamped, digest FROM commits "
            "WHERE first_position >= ? AND first_position < ? ORDER BY first_position LIMIT ?"
        )
        at = -1
        while rows := self._catalog.execute(query, (at, self._stop, _AT_ONCE)).fetchall():
            yield from (Commit(*row) for row in rows if row[0] not in self._tail)
            at = rows[-1][0] + 1

    def check_ids(self, part: Part) -> Iterator[str]:
        """Whether the catalog knows the supplied ids of some events, each at its place; tells what is wrong."""
        sealed = part.first_position not in self._tail
        for block in part.blocks.values():
            if block.event_id is None or not sealed:
                continue
            pairs = zip(block.event_id.to_pylist(), block.position.tolist(), strict=True)
            supplied = {given: at for given, at in pairs if given is not None}
            known: dict[str, int] = {}
            names = list(supplied)
            for start in range(0, len(names), _ASKED_AT_ONCE):
                asked = names[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(asked))
                known.update(self._catalog.execute(f"SELECT * FROM event_ids WHERE event_id IN ({marks})", asked))  # noqa: S608  constants; values are bound
            self._ids_seen += len(supplied)
            if known != supplied:
                wrong = next(given for given in names if known.get(given) != supplied[given])
                yield f"the event id {wrong!r} is not at its event's place"

    def idle_ids(self) -> int:
        """How many ids no event was seen to have; call it after all events were seen."""
        return self._ids - self._ids_seen


_QUERIES = (
    (
        "a segment's files do not hold all its events",
        (
            "SELECT s.first_position, s.stop_position, coalesce(sum(f.rows), 0) FROM segments s LEFT JOIN files f "
            "ON f.segment = s.first_position GROUP BY s.first_position "
            "HAVING coalesce(sum(f.rows), 0) <> s.stop_position - s.first_position"
        ),
    ),
    (
        "a commit counts what cannot be",
        (
            "SELECT first_position, events, clamped FROM commits "
            "WHERE events < 1 OR abs(clamped) > events OR (source IS NULL) <> (chunk IS NULL) OR chunk < 0"
        ),
    ),
    (
        "an aggregate is numbered out of turn",
        "SELECT max(no), count(*) FROM aggregates HAVING count(*) > 0 AND (max(no) <> count(*) - 1 OR min(no) <> 0)",
    ),
    (
        "a file's runs do not hold all its rows",
        (
            "SELECT f.name, f.rows, coalesce(sum(r.rows), 0) FROM files f LEFT JOIN runs r ON r.file = f.no "
            "GROUP BY f.no HAVING coalesce(sum(r.rows), 0) <> f.rows"
        ),
    ),
)
"""What must not be found."""
