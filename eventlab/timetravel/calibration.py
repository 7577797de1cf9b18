"""Measures what reconstructions cost on this machine, for policies that plan by it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import numpy.typing as npt

from eventlab.events.frame import Int64Array
from eventlab.fold.declaration import Reducer
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.files import MemoryFiles
from eventlab.snapshots.model import Model
from eventlab.store.log import EventLog
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.reconstruct import reconstruct

Float64Array = npt.NDArray[np.float64]

_SNAPSHOTS = 24
_READS = 240
_LONG, _LONGEST = 24, 200_000
"""So many of them begin at nothing, and fold up to so many events: what an event costs is small beside the rest."""
_SHORT = 50_000
"""What is left over of reads of fewer events is what snapshots have to do with."""
_FAR = 3.0
"""Reads this many times the median deviation off are disturbed by something else, and decide nothing."""


def calibrated(store: EventLog, reducer: Reducer, aggregate: str, seed: int = 0) -> Model:
    """Measure what reading states of a reducer costs on one aggregate, by some hundred reads.

    Most begin at snapshots that nobody else sees, and the events between are few to many, so that what an event costs
    can be told from what a row group costs.

    Raises
    ------
    UnknownAggregate, FoldError, ReducerError
    """
    head = store.heads([aggregate])[0].version
    generator = np.random.default_rng(seed)
    at = np.unique(np.ceil(np.linspace(0, head, _SNAPSHOTS + 1)).astype(np.int64)[1:])  # none at 0
    snapshots = Snapshots(store, MemoryFiles())
    begin = perf_counter()
    snapshots.make(reducer, aggregate, at)
    write = (perf_counter() - begin) / len(at)
    size = snapshots.table()["bytes"].to_numpy()
    base = generator.choice(np.concatenate([[0], at[:-1]]), _READS)
    tail = (generator.random(_READS) ** 3 * (head / len(at))).astype(np.int64)
    base[:_LONG], tail[:_LONG] = 0, generator.integers(1, min(head, _LONGEST), _LONG, endpoint=True)
    version = np.minimum(base + tail, head)
    seconds = np.concatenate(
        [
            _timed(store, reducer, aggregate, None, version[:_LONG]),
            _timed(store, reducer, aggregate, snapshots, version[_LONG:]),
        ]
    )
    starts = store.first_versions(aggregate)
    return fitted(seconds, base, version, starts, at, size, write)


def _timed(
    store: EventLog, reducer: Reducer, aggregate: str, snapshots: Snapshots | None, versions: Int64Array
) -> Float64Array:
    seconds = np.empty(len(versions))
    reconstruct(store, reducer, [aggregate], AsOf(version=int(versions.max())), snapshots=snapshots, interpret=False)
    with undisturbed():
        for at, version in enumerate(versions.tolist()):
            begin = perf_counter()
            reconstruct(store, reducer, [aggregate], AsOf(version=version), snapshots=snapshots, interpret=False)
            seconds[at] = perf_counter() - begin
    return seconds


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection in the middle of a measurement."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def fitted(
    seconds: Float64Array,
    base: Int64Array,
    version: Int64Array,
    starts: Int64Array,
    at: Int64Array,
    size: Float64Array,
    write: float,
) -> Model:
    """The model that timed reads suggest: least squares without negative coefficients, twice, without outliers then."""
    unit = [_model(one, write, np.zeros(1), at, size) for one in np.eye(4)]
    features = np.column_stack([model.latencies(base, version, starts) for model in unit])
    # What is left over grows with what is measured: a hundredth of a long read counts like a hundredth of a short one.
    coefficients = _least_squares(features / seconds[:, None], np.ones(len(seconds)))
    off = np.abs(features @ coefficients / seconds - 1.0)
    calm = off <= _FAR * max(float(np.median(off)), 1e-3)
    coefficients = _least_squares(features[calm] / seconds[calm, None], np.ones(int(calm.sum())))
    short = version - base < _SHORT
    rest = (seconds - features @ coefficients)[short]
    return _model(coefficients, write, rest if len(rest) else np.zeros(1), at, size)


def _model(coefficients: Float64Array, write: float, rest: Float64Array, at: Int64Array, size: Float64Array) -> Model:
    fixed, group, event, byte = coefficients.tolist()
    return Model(fixed, group, event, byte, write, rest, at, size)


def _least_squares(features: Float64Array, seconds: Float64Array) -> Float64Array:
    scale = np.maximum(features.max(axis=0), 1e-300)
    left = list(range(features.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(features[:, left] / scale[left], seconds, rcond=None)
        if (found >= 0.0).all():
            break
        left.pop(int(np.argmin(found)))
    coefficients = np.zeros(features.shape[1])
    coefficients[left] = found / scale[left]
    return coefficients
