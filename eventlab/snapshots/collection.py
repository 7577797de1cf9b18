"""`lab.snapshots`: makes, finds, lists, verifies and drops snapshots."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import polars as pl

from eventlab.errors import EventlabError, SnapshotError, SnapshotSkipped, UnknownAggregate
from eventlab.events.clock import MAX_NS
from eventlab.events.frame import Int64Array
from eventlab.fold.declare.layout import digest
from eventlab.fold.declare.reducer import Reducer, ReducerLike, as_reducer, declared_reducers
from eventlab.runtime.weak_calls import weakly
from eventlab.snapshots.build import take_states
from eventlab.snapshots.policy import rules as policies
from eventlab.snapshots.policy.cost_based import CostOptimal
from eventlab.snapshots.policy.cost_model import Model
from eventlab.snapshots.policy.history import Past
from eventlab.snapshots.policy.rules import Policy, Read
from eventlab.snapshots.states import Base, Taken
from eventlab.snapshots.storage.files import DirectoryFiles, Files, MemoryFiles
from eventlab.snapshots.storage.index import REMOVAL, SUFFIX, TABLE, Shelf, prefix_of
from eventlab.store.api import UNBOUND, EventReader, Store

_EMPTY_TABLE = pl.DataFrame(schema={**TABLE, "usable": pl.Boolean})

Measure: TypeAlias = Callable[[EventReader, Reducer, str], Model]
"""Measures the cost of reading states of a reducer, on an aggregate of a store."""


@dataclass(frozen=True, slots=True)
class Built:
    """The result of a build.

    Attributes
    ----------
    snapshots, bytes : int
        How many were made, and the bytes that they take in their file.
    evicted : int
        How many the policy removed, of these and of older ones.
    """

    snapshots: int
    bytes: int
    evicted: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of `verify`.

    Attributes
    ----------
    equal : int
        Snapshots that were folded again and found equal.
    unknown : int
        Those of reducers that are not declared in this process.
    """

    equal: int
    unknown: int


class Snapshots:
    """Snapshots of one store.

    They are derived and disposable: answers are the same without them. A snapshot belongs to a reducer's fingerprint: a
    reducer whose handlers, constants, state or event schemas have changed never uses it.

    Once this process has used a reducer, aggregates that have snapshots of it get new ones as events are appended, as
    the policy says. A policy such as ``SlowerThan`` makes them as states are read. Where a snapshot cannot be made, the
    append or the answer succeeds all the same, and a `SnapshotSkipped` warning says why.
    """

    def __init__(self, store: EventReader, files: Files, measure: Measure | None = None) -> None:
        self._store, self._files, self._measure = store, files, measure
        self._policy: Policy = CostOptimal()
        self._models: dict[str, Model] = {}
        self._shelves: dict[str, Shelf] = {}
        self._used: WeakValueDictionary[str, Reducer] = WeakValueDictionary()

    @staticmethod
    def beside(store: Store, measure: Measure) -> Snapshots:
        """The snapshots in a store's folder, or in memory as the store is; `measure` measures the cost of reads."""
        place, in_memory = Path(store.path) / "snapshots", store.path == ":memory:"
        files = MemoryFiles() if in_memory else DirectoryFiles(place, read_only=store.read_only)
        found = Snapshots(store, files, measure)
        if not store.read_only:
            store.follow(weakly(found.after_commit))
        return found

    def close(self) -> None:
        """Close all files. The next use opens them again."""
        for shelf in list(self._shelves.values()):
            shelf.close()

    @property
    def policy(self) -> Policy:
        """The policy of builds, appends and reads; `CostOptimal` by default."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._policy = policies.check(policy)

    # -- making snapshots

    def build(self, reducer: ReducerLike, aggregate_id: str = "*") -> Built:
        """Make the snapshots that the policy chooses and that are missing, in one fold over the events.

        Aggregates without any event that the reducer handles get none: their state never changes.

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
        UnknownAggregate, ReadOnlyStore, StoreFull, FoldError, ReducerError, SnapshotError

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
        >>> lab.snapshots.policy = el.snapshots.Every(100)
        >>> lab.snapshots.build(el.Trades, "market/*").snapshots
        10
        """
        reducer = as_reducer(reducer)
        if not isinstance(aggregate_id, str):
            raise UnknownAggregate("not an aggregate id or pattern", got=aggregate_id, expected="text")
        aggregates = self._store.aggregate_ids(aggregate_id)
        if not aggregates and "*" not in aggregate_id:
            raise UnknownAggregate.named(aggregate_id)
        handled = self._store.aggregates_with(reducer.event_types)
        return self._update(reducer, [one for one in aggregates if one in handled], from_start=True)

    def take(self, reducer: ReducerLike, aggregate_id: str, version: int | None = None) -> Built:
        """Make one snapshot, unless there is one at this version. `lab.snapshot` calls this.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
        version : int, optional
            The latest by default.

        Returns
        -------
        Built

        Raises
        ------
        UnknownAggregate, ReadOnlyStore, StoreFull, FoldError, ReducerError
        SnapshotError
            Not a version from 1 to the last.
        """
        reducer = as_reducer(reducer)
        if not isinstance(aggregate_id, str):
            raise UnknownAggregate("not an aggregate id", got=aggregate_id, expected="text")
        heads = self._store.heads([aggregate_id])
        if not heads:
            raise UnknownAggregate.named(aggregate_id)
        wanted = heads[0].version if version is None else version
        if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer) or not 1 <= wanted <= heads[0].version:
            raise SnapshotError(
                f"{aggregate_id!r} has no such version", got=version, expected=f"1 to {heads[0].version}"
            )
        return self.make(reducer, aggregate_id, np.array([wanted]))

    def make(self, reducer: Reducer, aggregate_id: str, versions: Int64Array) -> Built:
        """Make the missing snapshots at these ascending versions of an aggregate."""
        missing = _without(versions, self._shelf(reducer).versions(aggregate_id))
        if not len(missing):
            return Built(0, 0)
        return self._made(reducer, [aggregate_id], [missing], self._store.stop_position)

    def evict(self, reducer: Reducer, aggregate_id: str, versions: Int64Array) -> None:
        """Remove the snapshots of an aggregate at these versions."""
        self._shelf(reducer).evict(reducer, {aggregate_id: versions})

    def _update(self, reducer: Reducer, aggregates: Sequence[str], *, from_start: bool) -> Built:
        """Make what the policy chooses, from the start or after the newest snapshots, and remove what it lets go."""
        shelf, stop = self._shelf(reducer), self._store.stop_position
        chosen, wanted, pasts = [], [], {}
        for head in self._store.heads(aggregates):
            there = shelf.versions(head.aggregate_id)
            after = 0 if from_start or not len(there) else int(there[-1])
            past = Past(head.version, after, self._store, head.aggregate_id, stop, partial(self._model, reducer))
            versions = _without(policies.choose(self._policy, past), there)
            pasts[head.aggregate_id] = past
            if len(versions):
                chosen.append(head.aggregate_id)
                wanted.append(versions)
        built = self._made(reducer, chosen, wanted, stop) if chosen else Built(0, 0)
        gone = {}
        for aggregate, past in pasts.items():
            there = shelf.versions(aggregate)
            stays = policies.retain(self._policy, past, there)
            if len(stays) < len(there):
                gone[aggregate] = _without(there, stays)
        if gone:
            shelf.evict(reducer, gone)
        return Built(built.snapshots, built.bytes, sum(map(len, gone.values())))

    def _made(self, reducer: Reducer, aggregates: Sequence[str], versions: Sequence[Int64Array], stop: int) -> Built:
        shelf = self._shelf(reducer)
        base = shelf.newest(reducer, aggregates, [(int(wanted[0]) - 1, MAX_NS, stop) for wanted in versions])
        return Built(*shelf.add(reducer, take_states(self._store, reducer, aggregates, versions, stop, base)))

    def _model(self, reducer: Reducer, aggregate: str) -> Model:
        """The cost of reading a reducer's states, measured once, on the first aggregate for which a policy needs it."""
        if reducer.fingerprint not in self._models:
            if self._measure is None:
                raise SnapshotError("a policy asks for costs where nothing measures them")
            self._models[reducer.fingerprint] = self._measure(self._store, reducer, aggregate)
        return self._models[reducer.fingerprint]

    def after_commit(self, aggregates: Collection[str]) -> None:
        """After a commit, update the aggregates that have snapshots of reducers that this process uses."""
        for reducer in list(self._used.values()):
            try:
                shelf = self._shelf(reducer)
                followed = [aggregate for aggregate in aggregates if shelf.line(aggregate) is not None]
                if followed:
                    self._update(reducer, followed, from_start=False)
            except (EventlabError, OSError) as error:
                self._skipped(reducer, error)

    def after_read(self, reducer: Reducer, aggregate: str, base: Base | None, read: Read) -> None:
        """After a reconstruction, keep its state, if the policy says so and the version has no snapshot.

        Without `base`, which back-dated events do not allow to know, the version is folded once more.
        """
        if self._files.read_only or not read.version:
            return
        try:
            shelf = self._shelf(reducer)
            if read.version not in shelf.versions(aggregate) and policies.wants(self._policy, read):
                if base is None:
                    self.make(reducer, aggregate, np.array([read.version]))
                else:
                    shelf.add(reducer, [Taken([aggregate], base.marks, base.states)])
                self._update(reducer, [aggregate], from_start=False)
        except (EventlabError, OSError) as error:
            self._skipped(reducer, error)

    def _skipped(self, reducer: Reducer, error: Exception) -> None:
        warnings.warn(
            f"a snapshot of {reducer.name} was not made, and events are replayed instead: {error}",
            SnapshotSkipped,
            stacklevel=5,
        )

    # -- using snapshots

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
        top = UNBOUND if version is None else version
        bounds = (top, MAX_NS if time is None else time, stop_position)
        return self._shelf(reducer).newest(reducer, aggregates, [bounds] * len(aggregates))

    def _shelf(self, reducer: Reducer) -> Shelf:
        """The shelf of a reducer, up to date. From now on appends update its snapshots."""
        prefix = prefix_of(reducer)
        self._used.setdefault(prefix, reducer)
        return self._shelf_of(prefix)

    def _shelf_of(self, prefix: str) -> Shelf:
        shelf = self._shelves.get(prefix) or self._shelves.setdefault(prefix, Shelf(self._files, prefix, self._store))
        shelf.refresh()
        return shelf

    def table(self) -> pl.DataFrame:
        """Every snapshot, and whether a reducer declared in this process can use it.

        Returns
        -------
        polars.DataFrame
            reducer, aggregate_id, version, position, timestamp, bytes (its share of its file), usable.
        """
        usable = set(map(prefix_of, declared_reducers()))
        shelves = [self._shelf_of(name.removesuffix(SUFFIX)) for name in self._files.names()]
        frames = [
            shelf.table().with_columns(usable=pl.lit(shelf.prefix in usable)).select(_EMPTY_TABLE.columns)
            for shelf in shelves
        ]
        return pl.concat([_EMPTY_TABLE, *frames]).sort("reducer", "aggregate_id", "version")

    def drop(self, reducer: ReducerLike | None = None) -> int:
        """Remove the snapshots of a reducer, or all, damaged ones too.

        Returns
        -------
        int
            How many files that were: one a reducer.

        Raises
        ------
        ReducerError, ReadOnlyStore
        """
        names = self._files.names()
        if reducer is not None:
            wanted = prefix_of(as_reducer(reducer)) + SUFFIX
            names = [name for name in names if name == wanted]
        for name in names:
            self._files.remove(name)
        return len(names)

    def verify(self) -> Checked:
        """Fold every snapshot again from the events.

        Returns
        -------
        Checked

        Raises
        ------
        SnapshotError
            Names a snapshot that is damaged, or differs from the state of its events.
        """
        equal = unknown = 0
        reducers = {prefix_of(reducer): reducer for reducer in declared_reducers()}
        for name in self._files.names():
            shelf = Shelf(self._files, name.removesuffix(SUFFIX), self._store)  # read anew, not from the cache
            for what in shelf.find_damage():
                raise SnapshotError(what, hint=REMOVAL)
            reducer = reducers.get(shelf.prefix)
            if reducer is None:
                unknown += sum(len(shelf.versions(aggregate)) for aggregate in shelf.aggregates())
            else:
                equal += self._verified(reducer, shelf)
        return Checked(equal, unknown)

    def _verified(self, reducer: Reducer, shelf: Shelf) -> int:
        ids = shelf.aggregates()
        versions = [shelf.versions(aggregate) for aggregate in ids]
        missing = set(ids).difference(self._store.aggregate_ids())
        if missing:
            raise SnapshotError(f"{shelf.name} has snapshots of {min(missing)!r}, which the log does not have")
        found = 0
        for taken in take_states(self._store, reducer, ids, versions, self._store.stop_position):
            for row, (owner, version) in enumerate(zip(taken.aggregates, taken.marks.version, strict=True)):
                there = shelf.stored(reducer, owner, int(version))
                same = digest(taken.states, row) == digest(there.states, 0)
                if not same or there.marks != taken.marks[row : row + 1]:
                    which = f"{reducer.name} for {owner!r} at version {version}"
                    raise SnapshotError(f"the snapshot of {which} differs from its events", hint=REMOVAL)
                found += 1
        if found != sum(map(len, versions)):
            raise SnapshotError(f"{shelf.name} has versions that the log does not have")
        return found


def _without(versions: Int64Array, others: Int64Array) -> Int64Array:
    return versions[~np.isin(versions, others)] if len(others) else versions
