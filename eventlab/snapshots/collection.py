"""`lab.snapshots`: build, find, list, prove and drop snapshots."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import SnapshotError, UnknownAggregate
from eventlab.events.clock import MAX_NS
from eventlab.events.frame import Int64Array
from eventlab.fold.declaration import Reducer, ReducerLike, as_reducer, declared_reducers
from eventlab.fold.layout import digest
from eventlab.snapshots.base import Base, Marks
from eventlab.snapshots.policies import Every, Policy
from eventlab.snapshots.shelf import (
    DirectoryFiles,
    Files,
    MemoryFiles,
    Shelved,
    decode,
    encode,
    fingerprint_in,
    new_name,
    newest,
)
from eventlab.snapshots.taking import Taken, take_states
from eventlab.store.contract import Store
from eventlab.store.log import EventLog

_NO_VERSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made."""

    snapshots: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify` found: snapshots folded again and found equal, and those of reducers not declared here."""

    equal: int
    unknown: int


class Snapshots:
    """Snapshots of one store.

    They are derived and disposable: answers are the same without them. A snapshot serves only the reducer that made it,
    known by its fingerprint: one whose handlers, constants, state or event schemas changed never sees it.
    """

    def __init__(self, store: Store, files: Files) -> None:
        self._store, self._files = store, files
        self._policy: Policy = Every(100)
        self._known: dict[str, Shelved | None] = {}

    @staticmethod
    def beside(store: EventLog) -> Snapshots:
        """The snapshots that lie in a store's folder, or in memory with it."""
        if store.path == ":memory:":
            return Snapshots(store, MemoryFiles())
        return Snapshots(store, DirectoryFiles(Path(store.path) / "snapshots", read_only=store.read_only))

    @property
    def policy(self) -> Policy:
        """When `build` makes a snapshot; `Every(100)` at first."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        if not (hasattr(policy, "should_snapshot") and hasattr(policy, "versions")):
            raise SnapshotError("not a snapshot policy", got=policy, expected="e.g. el.snapshots.Every(100)")
        self._policy = policy

    def build(self, reducer: ReducerLike, aggregate_id: str = "*") -> Built:
        """Make the snapshots that the policy asks for and that are not there yet.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
            An id, or a pattern in which ``*`` stands for any run of characters.

        Returns
        -------
        Built

        Raises
        ------
        UnknownAggregate, ReadOnlyStore, StoreFull, FoldError, ReducerError
        """
        reducer = as_reducer(reducer)
        aggregates = self._store.aggregate_ids(aggregate_id)
        if not aggregates and "*" not in aggregate_id:
            raise UnknownAggregate.named(aggregate_id)
        stop = self._store.stop_position
        heads = {head.aggregate_id: head.version for head in self._store.heads(aggregates)}
        wanted = [self._missing(reducer, aggregate, heads[aggregate]) for aggregate in aggregates]
        needed = [at for at, versions in enumerate(wanted) if len(versions)]
        if not needed:
            return Built(0, 0)
        chosen, versions = [aggregates[at] for at in needed], [wanted[at] for at in needed]
        taken = list(take_states(self._store, reducer, chosen, versions, stop))
        if not taken:
            return Built(0, 0)
        content = self._encoded(reducer, chosen, taken)
        self._files.write(new_name(reducer.fingerprint, content), content)
        return Built(sum(len(one.aggregate) for one in taken), content.size)

    def _missing(self, reducer: Reducer, aggregate: str, head: int) -> Int64Array:
        there = [
            shelved.version[slice(*shelved.spans[aggregate])]
            for shelved in self._of(reducer)
            if aggregate in shelved.spans
        ]
        wanted = self._policy.versions(0, head)
        return np.setdiff1d(wanted, np.concatenate(there)) if there else wanted

    def _encoded(self, reducer: Reducer, aggregates: Sequence[str], taken: list[Taken]) -> pa.Buffer:
        owner = np.concatenate([one.aggregate for one in taken])
        version = np.concatenate([one.marks.version for one in taken])
        order = np.lexsort((version, owner))
        states = pa.Table.from_batches([one.states for one in taken]).take(pa.array(order)).combine_chunks()
        marks = Marks(
            version[order],
            np.concatenate([one.marks.position for one in taken])[order],
            np.concatenate([one.marks.timestamp for one in taken])[order],
        )
        ids = [aggregates[at] for at in owner[order]]
        return encode(
            reducer.name,
            reducer.fingerprint,
            self._store.store_id,
            ids,
            marks,
            states.to_batches()[0],
        )

    def latest(
        self,
        reducer: Reducer,
        aggregates: Sequence[str],
        *,
        version: int | None,
        time: int | None,
        stop_position: int,
    ) -> Base:
        """For each aggregate the newest snapshot within the bounds, its initial state where there is none."""
        shelf = self._of(reducer)
        base = Base.initial(reducer, len(aggregates))
        if not shelf:
            return base
        top = _NO_VERSION if version is None else version
        moment = MAX_NS if time is None else time
        marks, batches = base.marks, [base.states, *(shelved.states for shelved in shelf)]
        starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        take = np.arange(len(aggregates))
        for at, aggregate in enumerate(aggregates):
            for number, shelved in enumerate(shelf):
                row = newest(shelved, aggregate, top, moment, stop_position)
                if row is not None and shelved.version[row] > marks.version[at]:
                    take[at] = starts[number + 1] + row
                    marks.version[at], marks.position[at] = shelved.version[row], shelved.position[row]
                    marks.timestamp[at] = shelved.timestamp[row]
        if not marks.version.any():
            return base
        return Base(_gather(batches, starts, take), marks)

    def table(self) -> pl.DataFrame:
        """Every snapshot, and whether a reducer declared in this process can use it.

        Returns
        -------
        polars.DataFrame
            reducer, aggregate_id, version, position, timestamp, bytes (its share of its file), usable.
        """
        usable = {reducer.fingerprint for reducer in declared_reducers()}
        frames = [
            pl.DataFrame(
                {
                    "reducer": shelved.reducer,
                    "aggregate_id": shelved.aggregates,
                    "version": shelved.version,
                    "position": shelved.position,
                    "timestamp": pl.Series(shelved.timestamp).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"),
                    "bytes": shelved.size / max(len(shelved.version), 1),
                    "usable": shelved.fingerprint in usable,
                }
            )
            for shelved in self._all()
        ]
        return pl.concat(frames).sort("reducer", "aggregate_id", "version") if frames else _EMPTY_TABLE.clone()

    def drop(self, reducer: ReducerLike | None = None) -> int:
        """Remove the snapshots of a reducer, or all, damaged ones too; returns how many files that were."""
        names = self._files.names()
        if reducer is not None:
            wanted = as_reducer(reducer).fingerprint[:32]
            names = [name for name in names if fingerprint_in(name) == wanted]
        for name in names:
            self._files.remove(name)
            self._known.pop(name, None)
        return len(names)

    def verify(self) -> Checked:
        """Fold every snapshot again from the events.

        Raises
        ------
        SnapshotError
            A damaged file, or a snapshot that differs from what its events add up to: names it.
        """
        equal = unknown = 0
        reducers = {reducer.fingerprint: reducer for reducer in declared_reducers()}
        for name in self._files.names():
            content = self._files.read(name)
            shelved = decode(name, content, self._store.store_id)
            reducer = reducers.get(shelved.fingerprint)
            if reducer is None:
                unknown += len(shelved.version)
                continue
            equal += self._verified(reducer, shelved)
        return Checked(equal, unknown)

    def _verified(self, reducer: Reducer, shelved: Shelved) -> int:
        ids = list(shelved.spans)
        versions = [shelved.version[slice(*shelved.spans[aggregate])] for aggregate in ids]
        found = 0
        for taken in take_states(self._store, reducer, ids, versions, self._store.stop_position):
            for row, (owner, version) in enumerate(zip(taken.aggregate, taken.marks.version, strict=True)):
                low, high = shelved.spans[ids[owner]]
                there = low + int(np.searchsorted(shelved.version[low:high], version))
                if digest(taken.states, row) != digest(shelved.states, there):
                    which = f"{reducer.name} for {ids[owner]!r} at version {version}"
                    raise SnapshotError(
                        f"the snapshot of {which} differs from its events",
                        hint="lab.snapshots.drop() removes it; answers then come from the events.",
                    )
                found += 1
        if found != len(shelved.version):
            raise SnapshotError(f"snapshot file {shelved.name} has versions that the log does not have")
        return found

    def _of(self, reducer: Reducer) -> list[Shelved]:
        prefix = reducer.fingerprint[:32]
        names = [name for name in self._files.names() if fingerprint_in(name) == prefix]
        loaded = (self._load(name) for name in names)
        return [shelved for shelved in loaded if shelved is not None and shelved.fingerprint == reducer.fingerprint]

    def _all(self) -> list[Shelved]:
        loaded = (self._load(name) for name in self._files.names())
        return [shelved for shelved in loaded if shelved is not None]

    def _load(self, name: str) -> Shelved | None:
        if name not in self._known:
            try:
                self._known[name] = decode(name, self._files.read(name), self._store.store_id)
            except (SnapshotError, OSError, pa.ArrowException, KeyError, IndexError) as error:
                warnings.warn(f"a snapshot is left aside, and replayed instead: {error}", stacklevel=4)
                self._known[name] = None
        return self._known[name]


_EMPTY_TABLE = pl.DataFrame(
    schema={
        "reducer": pl.String,
        "aggregate_id": pl.String,
        "version": pl.Int64,
        "position": pl.Int64,
        "timestamp": pl.Datetime("ns", "UTC"),
        "bytes": pl.Float64,
        "usable": pl.Boolean,
    }
)


def _gather(batches: Sequence[pa.RecordBatch], starts: Int64Array, take: Int64Array) -> pa.RecordBatch:
    """Rows of several batches by their number in all, touching only what is taken."""
    source = np.searchsorted(starts, take, side="right") - 1
    pieces, order = [], []
    for number in np.unique(source):
        rows = np.flatnonzero(source == number)
        pieces.append(batches[number].take(pa.array(take[rows] - starts[number])))
        order.append(rows)
    back = np.argsort(np.concatenate(order))
    return pa.Table.from_batches(pieces).take(pa.array(back)).combine_chunks().to_batches()[0]
