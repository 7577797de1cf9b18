"""Measures what reconstructs cost on this machine, for policies that plan by it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np

from eventlab.events.frame import EventTable, Float64Array, Int64Array
from eventlab.fold.declare.layout import digest
from eventlab.fold.declare.reducer import Reducer
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.policy.cost_model import Model, Reads, features
from eventlab.snapshots.storage.files import MemoryFiles
from eventlab.store.api import MOST_BYTES, MOST_GROUPS, EventReader, Selection
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.reconstruct import Reconstructed, reconstruct

_SNAPSHOTS = 24
_NEAR, _FAR = 200, 48
"""Reads of few row groups, which stay decoded, and of more than are kept; the latter take longer and vary less."""
_RUNS = 24
"""Parts that both kinds of reads are split into, to be timed alternately."""
_FARTHEST = 1_000_000
_OFF = 3.0
"""Reads off by more than this many median deviations were disturbed, and are left out."""


def calibrated(store: EventReader, reducer: Reducer, aggregate: str, seed: int = 0) -> Model:
    """Measure what reading states of a reducer costs on one aggregate, by some hundred reads.

    Raises
    ------
    UnknownAggregate, FoldError, ReducerError
    """
    calibration = Calibration(store, reducer, aggregate, seed)
    for base, version in calibration.warming:
        calibration.read(base, version)
    with undisturbed():
        for number in range(len(calibration)):
            calibration.time(number)
    return calibration.model()


class Calibration:
    """Reads of one aggregate whose times say what each part of a read costs, in the order in which to time them.

    Most begin at private snapshots, or at no state, and read one or two row groups that are decoded already. The others
    begin at the first event and read more row groups than are kept decoded.

    Attributes
    ----------
    base, version : int64 array
        Of each read.
    starts : int64 array
        Versions at which row groups begin.
    kept : int
        How many row groups the store keeps decoded.
    warming : list of (base, version)
        What to read first, so that the row groups of most reads are decoded.
    """

    def __init__(self, store: EventReader, reducer: Reducer, aggregate: str, seed: int = 0) -> None:
        self._store, self._reducer, self._aggregate = store, reducer, aggregate
        head = store.heads([aggregate])[0].version
        self.starts = store.first_versions(aggregate)
        self._length = head / len(self.starts)
        generator = np.random.default_rng(seed)
        evenly = np.ceil(np.linspace(0, head, _SNAPSHOTS + 1)).astype(np.int64)[1:]
        self._at = np.union1d(1, evenly)  # the first has the size of a state before it grows
        self._snapshots = Snapshots(store, MemoryFiles())
        self._snapshots.make(reducer, aggregate, self._at)
        self.kept = max(int(MOST_BYTES / max(self._bytes_of_a_group(), 1.0)), 1)
        places = generator.permutation(evenly)[: max(self.kept // (MOST_GROUPS + 1), 1)]
        spread = max(int(min(self._length, head / len(evenly) - 1)), 0)
        base = generator.choice(np.append(0, places), _NEAR)
        # Most fold few events and some none, which separates the cost of an event from that of a read.
        tail = np.ceil(generator.random(_NEAR) ** 3 * spread - 0.1).astype(np.int64)
        near = np.where(base, base + tail, 1 + (tail * self._length / max(spread, 1)).astype(np.int64))
        far = _spread(MOST_GROUPS * self._length, float(min(head, _FARTHEST)), _FAR, generator)
        # In turns: a read mostly follows one of its kind, which leaves the caches as it needs them.
        kinds = (generator.permutation(_NEAR), _NEAR + generator.permutation(len(far)))
        turns = zip(*(np.array_split(reads, _RUNS) for reads in kinds), strict=True)
        order = np.concatenate([part for both in turns for part in both])
        self.base = np.concatenate([base, np.zeros(len(far), np.int64)])[order]
        self.version = np.minimum(np.concatenate([near, far]), head)[order]
        self.seconds = np.zeros(len(order))
        self.warming = [(0, min(int(self._length) + 1, head)), *((p, min(p + spread, head)) for p in places.tolist())]

    def _bytes_of_a_group(self) -> float:
        """Bytes that the store keeps of a decoded row group."""
        selection = Selection(
            self._reducer.columns, others=True, aggregates=[self._aggregate], types=self._reducer.event_types,
            until_version=int(self._length),
        )  # fmt: skip
        return float(sum(_bytes(table) for frame in self._store.frames(selection) for table in frame.tables.values()))

    def __len__(self) -> int:
        return len(self.version)

    def time(self, number: int) -> None:
        """Make one of the reads."""
        base, version = int(self.base[number]), int(self.version[number])
        begin = perf_counter()
        found = self.read(base, version)
        self.seconds[number] = perf_counter() - begin
        digest(found.states, 0)  # the caller looks at a state, which changes the processor's caches

    def read(self, base: int, version: int) -> Reconstructed:
        """Reconstruct a version from one of the snapshots, or from nothing."""
        snapshots = self._snapshots if base else None
        moment = AsOf(version=version)
        return reconstruct(self._store, self._reducer, [self._aggregate], moment, snapshots=snapshots, interpret=False)

    def model(self) -> Model:
        """The model that the reads give, once all have been timed."""
        table = self._snapshots.table()
        reads = Reads.of(self.base, self.version, self.starts)
        return fitted(self.seconds, reads, self._at, table["bytes"].to_numpy(), self._length, self.kept)


def _spread(low: float, high: float, count: int, generator: np.random.Generator) -> Int64Array:
    """Random numbers, one in each of `count` ranges of equal ratio from `low` to `high`; none for no range."""
    if high <= low:
        return np.empty(0, np.int64)
    places = (np.arange(count) + generator.random(count)) / count
    return np.ceil(low * (high / low) ** places).astype(np.int64)


def _bytes(table: EventTable) -> int:
    """Bytes of a table's decoded columns; gapless numbers take none, because the catalog has them."""
    numbers = [column for column in (table.version, table.position) if (np.diff(column) != 1).any()]
    return sum(column.nbytes for column in (table.timestamp, *numbers, *table.columns.values()))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without garbage collection during a measurement."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def fitted(seconds: Float64Array, reads: Reads, at: Int64Array, size: Float64Array, length: float, kept: int) -> Model:
    """A model of timed reads: least squares with coefficients of at least 0, repeated without outliers."""
    counted = features(reads, np.interp(reads.base, at, size), np.interp(reads.version, at, size))
    # Errors are relative: a hundredth of a long read counts as much as a hundredth of a short one.
    coefficients = _least_squares(counted / seconds[:, None], np.ones(len(seconds)))
    off = np.abs(counted @ coefficients / seconds - 1.0)
    calm = off <= _OFF * max(float(np.median(off)), 1e-3)
    coefficients = _least_squares(counted[calm] / seconds[calm, None], np.ones(int(calm.sum())))
    rest = seconds / (counted @ coefficients)
    long = reads.decoded > MOST_GROUPS
    fixed, event, byte, given, joining, opening, *group = coefficients.tolist()
    return Model(
        fixed, event, byte, given, joining, opening, np.array(group), rest[~long],
        rest[long] if long.any() else np.ones(1), at, size, length, kept,
    )  # fmt: skip


def _least_squares(features: Float64Array, seconds: Float64Array) -> Float64Array:
    scale = np.maximum(features.max(axis=0), 1e-300)
    left = [column for column in range(features.shape[1]) if scale[column] > 1e-300]
    while True:
        found, *_ = np.linalg.lstsq(features[:, left] / scale[left], seconds, rcond=None)
        if (found >= 0.0).all():
            break
        left.pop(int(np.argmin(found)))
    coefficients = np.zeros(features.shape[1])
    coefficients[left] = found / scale[left]
    return coefficients
