"""Trials of snapshot policies, stored as events, so that a rerun of an experiment reuses them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from eventlab.errors import ReadOnlyStore, SnapshotError
from eventlab.events.frame import Int64Array
from eventlab.events.types import EventType, event, event_type
from eventlab.lab.append import batch_of_frame
from eventlab.store.api import Store

_PREFIX = "experiment/"


@event(schema_version=2)
class SnapshotTrial:
    """The measurement of one policy under one workload and budget.

    Attributes
    ----------
    trial : str
        Digest of everything that the trial depends on, except the machine.
    answers : str
        Digest of all states read; equal for trials of the same reads.
    drawn : int
        Number of reads drawn; the second half was measured.

    The other fields are columns of a comparison's frame.
    """

    trial: str
    answers: str
    reducer: str
    subject: str
    head: int
    drawn: int
    policy: str
    workload: str
    budget: int | None
    seed: int
    snapshots: int
    bytes: int
    evictions: int
    build_seconds: float
    training_seconds: float
    write_seconds: float
    reads: int
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    latency_max_ms: float
    latency_mean_ms: float
    events_replayed: float
    optimum_ratio: float
    headroom: float
    captured: float | None
    feasible: bool = True


@event
class SnapshotRead:
    """One read of a trial: the version and the time."""

    trial: str
    state_version: int
    nanoseconds: int


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A trial and its reads, in order."""

    summary: SnapshotTrial
    versions: Int64Array
    nanoseconds: Int64Array


def identity(*parts: object) -> str:
    """A digest of parts: the bytes of arrays, the repr of other values."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class TrialLog:
    """The stored trials of one experiment: the events of an aggregate."""

    store: Store
    aggregate_id: str

    @staticmethod
    def of(store: Store, name: object) -> TrialLog:
        if not isinstance(name, str) or not name or len(name) > 200:
            raise SnapshotError("not the name of an experiment", got=name, expected='a string, e.g. "policies"')
        return TrialLog(store, _PREFIX + name)

    def check_writable(self) -> None:
        """Raise ReadOnlyStore before measuring if the trials cannot be stored."""
        if self.store.read_only:
            raise ReadOnlyStore(
                "a named experiment appends its results, but this lab was opened read-only",
                got=self.store.path, hint="Omit name=, or store them in another lab with into=.",
            )  # fmt: skip

    def append(self, trials: Sequence[Trial]) -> None:
        """Append trials with their reads in one commit."""
        reads = pl.concat([
            pl.DataFrame({
                "trial": [one.summary.trial] * len(one.versions), "state_version": one.versions,
                "nanoseconds": one.nanoseconds,
            })
            for one in trials
        ])  # fmt: skip
        declared = event_type(SnapshotTrial)
        rows = [[getattr(one.summary, field.name) for field in declared] for one in trials]
        summaries = pl.DataFrame(rows, declared.polars_schema, orient="row")
        frames = ((declared, summaries), (event_type(SnapshotRead), reads))
        self.store.commit([batch_of_frame(of, frame, aggregate_id=self.aggregate_id) for of, frame in frames])

    def trials(self) -> list[Trial]:
        """The stored trials in order of measurement; the last of equal ones."""
        if not self.store.heads([self.aggregate_id]):
            return []
        names = [field.name for field in event_type(SnapshotTrial)]
        summaries = {
            row["trial"]: SnapshotTrial(**row)
            for row in self._rows(event_type(SnapshotTrial)).select(names).iter_rows(named=True)
        }
        reads = self._rows(event_type(SnapshotRead)).partition_by("trial", as_dict=True, maintain_order=True)
        found = []
        for trial, summary in summaries.items():
            own = reads[trial,].tail(summary.reads)
            found.append(Trial(summary, own["state_version"].to_numpy(), own["nanoseconds"].to_numpy()))
        return found

    def _rows(self, declared: EventType) -> pl.DataFrame:
        return pl.concat(list(self.store.rows(declared, aggregates=[self.aggregate_id])))
