"""What all experiments share: a subject read again and again, in turns, on snapshots that nobody else sees."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Protocol

import numpy as np

from eventlab.errors import SnapshotError, UnknownAggregate
from eventlab.events.frame import Int64Array
from eventlab.fold.declare.layout import digest
from eventlab.fold.declare.reducer import Reducer, ReducerLike, as_reducer
from eventlab.snapshots.collection import Built, Measure, Snapshots
from eventlab.snapshots.policy.rules import Every, Policy, Read
from eventlab.snapshots.states import Base
from eventlab.snapshots.storage.files import DirectoryFiles, MemoryFiles
from eventlab.store.api import Store
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.reconstruct import Reconstructed, reconstruct

FROZEN = Every(2**62)
"""Makes nothing as states are read: what is measured is what there was before."""


class HasStore(Protocol):
    """Anything over a log, such as a Lab."""

    @property
    def store(self) -> Store: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What is reconstructed again and again."""

    store: Store
    reducer: Reducer
    aggregate_id: str
    head: int

    @staticmethod
    def of(lab: HasStore, reducer: ReducerLike, aggregate_id: str) -> Subject:
        reducer = as_reducer(reducer)
        if not isinstance(aggregate_id, str):
            raise UnknownAggregate("not an aggregate id", got=aggregate_id, expected="text")
        heads = lab.store.heads([aggregate_id])
        if not heads:
            raise UnknownAggregate.named(aggregate_id)
        return Subject(lab.store, reducer, aggregate_id, heads[0].version)

    def build(self, shelf: Snapshots, policy: Policy | None) -> tuple[Built, float]:
        """Make what a policy asks for, and the seconds that took; None asks for nothing.

        The shelf keeps the policy, which reads may then ask.
        """
        if policy is None:
            return Built(0, 0), 0.0
        self.warm(None)
        shelf.policy = policy
        begin = perf_counter_ns()
        built = shelf.build(self.reducer, self.aggregate_id)
        return built, (perf_counter_ns() - begin) / 1e9

    def warm(self, shelf: Snapshots | None) -> None:
        """Compile, and let files and snapshots be read once, so that only reconstructing is measured."""
        self._reconstructed(self.head, shelf)

    def read(self, version: int, shelf: Snapshots | None) -> tuple[int, str]:
        """Nanoseconds that a reconstruction took, and the digest of its state."""
        begin = perf_counter_ns()
        found = self._reconstructed(version, shelf)
        taken = perf_counter_ns() - begin
        return taken, digest(found.states, 0)

    def in_turns(self, version: int, shelves: Sequence[Snapshots | None], order: Int64Array) -> tuple[Int64Array, str]:
        """Read one version by every way: nanoseconds of each, and the digest of the one state that all must give."""
        taken, states = np.empty(len(shelves), np.int64), dict[str, None]()
        for at in order:
            taken[at], state = self.read(version, shelves[at])
            states[state] = None
        if len(states) > 1:
            raise SnapshotError(
                f"the state of {self.aggregate_id!r} at version {version} depends on the snapshots used",
                got=", ".join(sorted(states)),
                expected="one digest",
                hint="Please report this: no correct fold does that.",
            )
        return taken, next(iter(states))

    def offer(self, version: int, shelf: Snapshots, policy: Policy) -> float:
        """Read a version, ask the policy whether to keep its state, and the seconds that asking and keeping took."""
        begin = perf_counter_ns()
        found = self._reconstructed(version, shelf)
        seconds = (perf_counter_ns() - begin) / 1e9
        base = shelf.latest(
            self.reducer, [self.aggregate_id], version=version, time=None, stop_position=self.store.stop_position
        )
        read = Read(version, int(base.marks.version[0]), seconds)
        shelf.policy, frozen = policy, shelf.policy
        begin = perf_counter_ns()
        shelf.after_read(self.reducer, self.aggregate_id, Base(found.states, found.marks), read)
        taken = perf_counter_ns() - begin
        shelf.policy = frozen
        return taken / 1e9

    def _reconstructed(self, version: int, shelf: Snapshots | None) -> Reconstructed:
        moment = AsOf(version=version)
        return reconstruct(self.store, self.reducer, [self.aggregate_id], moment, snapshots=shelf, interpret=False)


@contextmanager
def private_shelves(store: Store, count: int, measure: Measure | None = None) -> Iterator[list[Snapshots]]:
    """Empty collections of snapshots, of the kind the store itself has, beside those it has."""
    if store.path == ":memory:":
        yield [Snapshots(store, MemoryFiles(), measure) for _ in range(count)]
        return
    with tempfile.TemporaryDirectory(prefix="eventlab-") as folder:
        directories = [Path(folder) / str(at) for at in range(count)]
        yield [Snapshots(store, DirectoryFiles(one, read_only=False), measure) for one in directories]


def percentiles(nanoseconds: Int64Array) -> dict[str, Any]:
    """What reads took, in milliseconds. Percentiles are measured values: the smallest that so many did not exceed."""
    low, high, higher = np.percentile(nanoseconds, (50, 95, 99), method="inverted_cdf") / 1e6
    return {
        "latency_p50_ms": float(low),
        "latency_p95_ms": float(high),
        "latency_p99_ms": float(higher),
        "latency_max_ms": float(nanoseconds.max()) / 1e6,
    }


def whole(what: str, value: object, least: int) -> int:
    """A whole number of at least so much. Raises SnapshotError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SnapshotError(f"{what} must be a whole number", got=value, expected=f"at least {least}")
    if value >= 2**63:
        raise SnapshotError(f"{what} is too large", got=value, expected="below 2**63")
    return int(value)
