"""Random logs with a plain model beside them that says which events a moment includes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

import eventlab as el
from tests.fold.helpers import digests, folded

T0 = 1_723_161_600_000_000_000
SECOND = 1_000_000_000
NAMES = ("a/one", "a/two", "b/three")


@dataclass
class Entry:
    position: int
    aggregate: str
    version: int
    timestamp: int
    recorded_at: int
    event: Any


@dataclass
class World:
    """A lab and what was put into it."""

    lab: el.Lab
    entries: list[Entry] = field(default_factory=list)

    def commit(self, rows: list[tuple[str, int, Any]], late: str = "reject") -> None:
        """Append rows of (aggregate, seconds, event) in one commit, where times go back only if they are accepted."""
        with self.lab.commit(late=late) as group:
            for aggregate, seconds, event in rows:
                group.append(aggregate, event, timestamp=T0 + seconds * SECOND)
        recorded = self.lab.events(type(rows[-1][2]), columns=["position", "recorded_at"])["recorded_at"][-1]
        recorded_at = int((recorded - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(microseconds=1)) * 1000
        for aggregate, seconds, event in rows:
            version = 1 + len(self.of(aggregate))
            position = len(self.entries)
            self.entries.append(Entry(position, aggregate, version, T0 + seconds * SECOND, recorded_at, event))

    def of(self, aggregate: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.aggregate == aggregate]

    def included(self, aggregate: str, moment: el.AsOf) -> list[Entry]:
        found = self.of(aggregate)
        if moment.version is not None:
            found = [entry for entry in found if entry.version <= moment.version]
        if moment.time is not None:
            found = [entry for entry in found if entry.timestamp <= moment.time]
        if moment.position is not None:
            found = [entry for entry in found if entry.position <= moment.position]
        if moment.known_at is not None:
            found = [entry for entry in found if entry.recorded_at <= moment.known_at]
        return found

    def digest(self, reducer: Any, aggregate: str, moment: el.AsOf) -> str:
        """Of the plain interpreted fold of the included events."""
        events = [entry.event for entry in self.included(aggregate, moment)]
        return digests(folded(reducer, [events], interpret=True).states)[0]


def ticks() -> Iterator[int]:
    """A clock for `el.open`: a second a reading, from an hour after T0."""
    now = T0 + 3_600 * SECOND
    while True:
        now += SECOND
        yield now


def clock() -> Any:
    ticking = ticks()
    return lambda: next(ticking)


@st.composite
def commits(draw: Any, events: st.SearchStrategy[Any], most: int = 6) -> list[list[tuple[str, int, Any]]]:
    """Commits of a few events each; event times stand still or rise."""
    seconds, made = 0, []
    for _ in range(draw(st.integers(1, most))):
        rows = []
        for _ in range(draw(st.integers(1, 8))):
            seconds += draw(st.sampled_from([0, 0, 1, 7]))
            rows.append((draw(st.sampled_from(NAMES)), seconds, draw(events)))
        made.append(rows)
    return made


MOMENTS = st.builds(
    el.AsOf,
    version=st.none(),
    time=st.none() | st.integers(-2, 60).map(lambda seconds: T0 + seconds * SECOND),
    position=st.none(),
    known_at=st.none() | st.integers(-2, 12).map(lambda seconds: T0 + (3_600 + seconds) * SECOND),
)


def built(made: list[Any]) -> World:
    """A world of commits, in memory; the first two are in a segment, the others in the tail."""
    world = World(el.open(":memory:", clock=clock()))
    for number, rows in enumerate(made):
        world.commit(rows)
        if number == 1:
            world.lab.seal()
    return world
