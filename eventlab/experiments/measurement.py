"""Timed reads of past states of one aggregate, interleaved over separate collections of snapshots."""

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
from eventlab.runtime.progress import tqdm
from eventlab.snapshots.collection import Built, Measure, Snapshots
from eventlab.snapshots.policy.rules import Every, Policy, Read
from eventlab.snapshots.states import Base
from eventlab.snapshots.storage.files import DirectoryFiles, MemoryFiles
from eventlab.store.api import Store
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.calibration import undisturbed
from eventlab.timetravel.reconstruct import Reconstructed, reconstruct

LATENCIES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "latency_max_ms")

FROZEN = Every(2**62)
"""A policy that makes no snapshots, so that reads do not change what is measured."""


class HasStore(Protocol):
    """Any object with a log, such as a Lab."""

    @property
    def store(self) -> Store: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """The reducer and aggregate whose states are reconstructed."""

    store: Store
    reducer: Reducer
    aggregate_id: str
    head: int

    @staticmethod
    def of(lab: HasStore, reducer: ReducerLike, aggregate_id: str) -> Subject:
        reducer = as_reducer(reducer)
        if not isinstance(aggregate_id, str):
            raise UnknownAggregate("not an aggregate id", got=aggregate_id, expected="a string")
        heads = lab.store.heads([aggregate_id])
        if not heads:
            raise UnknownAggregate.named(aggregate_id)
        return Subject(lab.store, reducer, aggregate_id, heads[0].version)

    def build(self, snapshots: Snapshots, policy: Policy | None) -> tuple[Built, float]:
        """Build the snapshots of a policy; returns their counts and the seconds. None builds nothing.

        Sets the policy of the collection.
        """
        if policy is None:
            return Built(0, 0), 0.0
        self.warm(None)
        snapshots.policy = policy
        begin = perf_counter_ns()
        built = snapshots.build(self.reducer, self.aggregate_id)
        return built, (perf_counter_ns() - begin) / 1e9

    def warm(self, snapshots: Snapshots | None) -> None:
        """Compile, and load files and snapshots, so that reads measure reconstruction only."""
        self._reconstructed(self.head, snapshots)

    def read(self, version: int, snapshots: Snapshots | None) -> tuple[int, str]:
        """Reconstruct a version; returns the nanoseconds and the digest of the state."""
        begin = perf_counter_ns()
        found = self._reconstructed(version, snapshots)
        taken = perf_counter_ns() - begin
        return taken, digest(found.states, 0)

    def read_interleaved(
        self, version: int, collections: Sequence[Snapshots | None], order: Int64Array
    ) -> tuple[Int64Array, str]:
        """Read a version with each collection: the nanoseconds of each, and the digest, which must be the same."""
        taken, states = np.empty(len(collections), np.int64), dict[str, None]()
        for at in order:
            taken[at], state = self.read(version, collections[at])
            states[state] = None
        if len(states) > 1:
            raise SnapshotError(
                f"the state of {self.aggregate_id!r} at version {version} depends on the snapshots used",
                got=", ".join(sorted(states)),
                expected="one digest",
                hint="This is a bug in eventlab; please report it.",
            )
        return taken, next(iter(states))

    def read_all(
        self, versions: Int64Array, collections: Sequence[Snapshots], generator: np.random.Generator, bar: tqdm[Any]
    ) -> tuple[Int64Array, list[str]]:
        """Read versions with each collection, in random order: nanoseconds by collection and version, and digests."""
        taken, states = np.empty((len(collections), len(versions)), np.int64), []
        with undisturbed():
            for at, version in enumerate(versions.tolist()):
                order = generator.permutation(len(collections))
                taken[:, at], state = self.read_interleaved(version, collections, order)
                states.append(state)
                bar.update(len(collections))
        return taken, states

    def offer(self, version: int, snapshots: Snapshots, policy: Policy) -> float:
        """Read a version and let the policy decide about a snapshot; returns the seconds of decision and snapshot."""
        begin = perf_counter_ns()
        found = self._reconstructed(version, snapshots)
        seconds = (perf_counter_ns() - begin) / 1e9
        base = snapshots.latest(
            self.reducer, [self.aggregate_id], version=version, time=None, stop_position=self.store.stop_position
        )
        read = Read(version, int(base.marks.version[0]), seconds)
        snapshots.policy, frozen = policy, snapshots.policy
        begin = perf_counter_ns()
        snapshots.after_read(self.reducer, self.aggregate_id, Base(found.states, found.marks), read)
        taken = perf_counter_ns() - begin
        snapshots.policy = frozen
        return taken / 1e9

    def _reconstructed(self, version: int, snapshots: Snapshots | None) -> Reconstructed:
        moment = AsOf(version=version)
        return reconstruct(self.store, self.reducer, [self.aggregate_id], moment, snapshots=snapshots, interpret=False)


@contextmanager
def private_snapshots(store: Store, count: int, measure: Measure | None = None) -> Iterator[list[Snapshots]]:
    """Empty collections of snapshots, in memory or in a temporary folder like the store's own."""
    if store.path == ":memory:":
        yield [Snapshots(store, MemoryFiles(), measure) for _ in range(count)]
        return
    with tempfile.TemporaryDirectory(prefix="eventlab-") as folder:
        directories = [Path(folder) / str(at) for at in range(count)]
        yield [Snapshots(store, DirectoryFiles(one, read_only=False), measure) for one in directories]


def percentiles(nanoseconds: Int64Array) -> dict[str, Any]:
    """Percentiles of latency in milliseconds, as measured values."""
    values = np.percentile(nanoseconds, (50, 95, 99, 100), method="inverted_cdf") / 1e6
    return dict(zip(LATENCIES, values.tolist(), strict=True))
