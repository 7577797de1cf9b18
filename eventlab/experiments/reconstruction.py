"""How long it takes to reconstruct a past state: by snapshot interval, and by length of history.

All ways to a state are measured in turns on the same versions, so that a machine that slows down slows all of them;
and all of them must give the same state, so that each measurement is a proof as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Protocol

import numpy as np
import polars as pl

from eventlab.errors import SnapshotError, UnknownAggregate
from eventlab.events.frame import Int64Array
from eventlab.fold.declaration import Reducer, ReducerLike, as_reducer
from eventlab.fold.layout import digest
from eventlab.progress import tqdm
from eventlab.snapshots.collection import Built, Snapshots
from eventlab.snapshots.files import DirectoryFiles, MemoryFiles
from eventlab.snapshots.policies import Every
from eventlab.store.log import EventLog
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.calibration import undisturbed
from eventlab.timetravel.reconstruct import reconstruct

_LENGTHS = 12
_SHORTEST = 10

INTERVALS_SCHEMA = {
    "interval": pl.Int64,
    "snapshots": pl.Int64,
    "bytes": pl.Int64,
    "build_seconds": pl.Float64,
    "latency_p50_ms": pl.Float64,
    "latency_p95_ms": pl.Float64,
    "latency_p99_ms": pl.Float64,
    "latency_max_ms": pl.Float64,
}
LENGTHS_SCHEMA = {"version": pl.Int64, "latency_ms": pl.Float64, "events_per_second": pl.Float64}


class HasStore(Protocol):
    """Anything over a log, such as a Lab."""

    @property
    def store(self) -> EventLog: ...


def snapshot_intervals(
    lab: HasStore,
    reducer: ReducerLike,
    aggregate_id: str,
    intervals: Iterable[int | None] = (None, 100, 1_000, 10_000),
    reads: int = 200,
    seed: int = 0,
    progress: bool = True,  # noqa: FBT001, FBT002 - as everywhere in eventlab
) -> pl.DataFrame:
    """Compare snapshot intervals by what they cost and how soon they give a past state.

    The lab's own snapshots are neither used nor changed. Snapshots for the measurement are kept as the lab would keep
    them, in memory or in a temporary folder, and are gone afterwards.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    aggregate_id : str
    intervals : iterable of int or None
        Events between snapshots; None for no snapshots at all.
    reads : int
        Past versions to reconstruct, drawn uniformly from all; the same ones for every interval.
    seed : int
        Of the draw; not negative.
    progress : bool
        Show a bar.

    Returns
    -------
    polars.DataFrame
        A row per interval, in the order given: interval (null for none), snapshots, bytes, build_seconds, and of the
        time of a read in milliseconds latency_p50_ms, latency_p95_ms, latency_p99_ms, latency_max_ms. Percentiles are
        measured values: the smallest one that so many reads did not exceed.

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        Intervals, reads or seed that make no sense; or states that differ between intervals, which no correct
        snapshot gives.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
    >>> frame = snapshot_intervals(lab, el.Trades, "market/BTCUSDT", (None, 100), reads=5, progress=False)
    >>> frame["snapshots"].to_list()
    [0, 10]
    """
    chosen = _intervals(intervals)
    count, generator = _whole("reads", reads, 1), np.random.default_rng(_whole("seed", seed, 0))
    subject = _Subject.of(lab, reducer, aggregate_id)
    versions = generator.integers(1, subject.head, count, endpoint=True)
    rows = tqdm(
        total=len(chosen) * (count + 1), desc="snapshot intervals", unit="read", disable=not progress, leave=None
    )
    with rows as bar, _shelves(lab.store, len(chosen)) as shelves:
        built = []
        for interval, shelf in zip(chosen, shelves, strict=True):
            built.append(subject.build(shelf, interval))
            subject.warm(shelf)
            bar.update()
        taken = np.empty((len(chosen), count), np.int64)
        with undisturbed():
            for at, version in enumerate(versions):
                taken[:, at] = subject.in_turns(int(version), shelves, generator.permutation(len(shelves)))
                bar.update(len(chosen))
    return pl.DataFrame(
        [_row(interval, *made, ns) for interval, made, ns in zip(chosen, built, taken, strict=True)],
        schema=INTERVALS_SCHEMA,
    )


def latency_by_length(
    lab: HasStore, reducer: ReducerLike, aggregate_id: str, lengths: Sequence[int] | None = None, repeats: int = 5
) -> pl.DataFrame:
    """How long replaying a history takes without snapshots, by its length.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    aggregate_id : str
    lengths : sequence of int, optional
        Versions to reconstruct. By default about twelve, evenly spaced in logarithm, up to the last.
    repeats : int
        Measurements of each length, in turns; the median counts.

    Returns
    -------
    polars.DataFrame
        A row per length, in the order given: version, latency_ms, events_per_second.

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        A length that is no positive integer or lies past the last version; no lengths; repeats below 1.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
    >>> latency_by_length(lab, el.Trades, "market/BTCUSDT", (10, 1_000), repeats=1)["version"].to_list()
    [10, 1000]
    """
    count = _whole("repeats", repeats, 1)
    subject = _Subject.of(lab, reducer, aggregate_id)
    chosen = subject.spread() if lengths is None else _lengths(lengths, subject)
    subject.warm(None)
    taken = np.empty((len(chosen), count), np.int64)
    with undisturbed():
        for turn in range(count):
            for at, version in enumerate(chosen):
                taken[at, turn], _ = subject.read(version, None)
    median = np.median(taken, axis=1)
    return pl.DataFrame(
        {"version": chosen, "latency_ms": median / 1e6, "events_per_second": np.array(chosen) / (median / 1e9)},
        schema=LENGTHS_SCHEMA,
    )


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is reconstructed again and again."""

    store: EventLog
    reducer: Reducer
    aggregate_id: str
    head: int

    @staticmethod
    def of(lab: HasStore, reducer: ReducerLike, aggregate_id: str) -> _Subject:
        reducer = as_reducer(reducer)
        if not isinstance(aggregate_id, str):
            raise UnknownAggregate("not an aggregate id", got=aggregate_id, expected="text")
        heads = lab.store.heads([aggregate_id])
        if not heads:
            raise UnknownAggregate.named(aggregate_id)
        return _Subject(lab.store, reducer, aggregate_id, heads[0].version)

    def spread(self) -> list[int]:
        """Versions evenly spaced in logarithm, up to the last."""
        spaced = np.geomspace(min(_SHORTEST, self.head), self.head, _LENGTHS)
        return [int(version) for version in np.unique(spaced.round().astype(np.int64))]

    def build(self, shelf: Snapshots, interval: int | None) -> tuple[Built, float]:
        if interval is None:
            return Built(0, 0), 0.0
        self.warm(None)
        shelf.policy = Every(interval)
        begin = perf_counter_ns()
        built = shelf.build(self.reducer, self.aggregate_id)
        return built, (perf_counter_ns() - begin) / 1e9

    def warm(self, shelf: Snapshots | None) -> None:
        """Compile, and let files and snapshots be read once, so that only reconstructing is measured."""
        moment = AsOf(version=self.head)
        reconstruct(self.store, self.reducer, [self.aggregate_id], moment, snapshots=shelf, interpret=False)

    def read(self, version: int, shelf: Snapshots | None) -> tuple[int, str]:
        """Nanoseconds that a reconstruction took, and the digest of its state."""
        moment = AsOf(version=version)
        begin = perf_counter_ns()
        found = reconstruct(self.store, self.reducer, [self.aggregate_id], moment, snapshots=shelf, interpret=False)
        taken = perf_counter_ns() - begin
        return taken, digest(found.states, 0)

    def in_turns(self, version: int, shelves: Sequence[Snapshots], order: Int64Array) -> Int64Array:
        """Read one version by every way; all must give one state."""
        taken, states = np.empty(len(shelves), np.int64), set()
        for at in order:
            taken[at], state = self.read(version, shelves[at])
            states.add(state)
        if len(states) > 1:
            raise SnapshotError(
                f"the state of {self.aggregate_id!r} at version {version} depends on the snapshots used",
                got=", ".join(sorted(states)),
                expected="one digest",
                hint="Please report this: no correct fold does that.",
            )
        return taken


def _row(interval: int | None, built: Built, seconds: float, taken: Int64Array) -> dict[str, int | float | None]:
    low, high, higher = np.percentile(taken, (50, 95, 99), method="inverted_cdf") / 1e6
    return {
        "interval": interval,
        "snapshots": built.snapshots,
        "bytes": built.bytes,
        "build_seconds": seconds,
        "latency_p50_ms": float(low),
        "latency_p95_ms": float(high),
        "latency_p99_ms": float(higher),
        "latency_max_ms": float(taken.max()) / 1e6,
    }


@contextmanager
def _shelves(store: EventLog, count: int) -> Iterator[list[Snapshots]]:
    """Empty collections of snapshots, of the kind the store itself has, beside those it has."""
    if store.path == ":memory:":
        yield [Snapshots(store, MemoryFiles()) for _ in range(count)]
        return
    with tempfile.TemporaryDirectory(prefix="eventlab-") as folder:
        yield [Snapshots(store, DirectoryFiles(Path(folder) / str(at), read_only=False)) for at in range(count)]


def _intervals(intervals: Iterable[int | None]) -> list[int | None]:
    if isinstance(intervals, str | bytes) or not isinstance(intervals, Iterable):
        raise SnapshotError("intervals must be a sequence", got=intervals, expected="e.g. (None, 100, 1_000)")
    chosen = [None if one is None else _whole("a snapshot interval", one, 1) for one in intervals]
    if not chosen:
        raise SnapshotError("no snapshot intervals to compare", expected="e.g. (None, 100, 1_000)")
    if len(set(chosen)) < len(chosen):
        raise SnapshotError("a snapshot interval is there twice", got=chosen)
    return chosen


def _lengths(lengths: Sequence[int], subject: _Subject) -> list[int]:
    if isinstance(lengths, str | bytes) or not isinstance(lengths, Iterable):
        raise SnapshotError("lengths must be a sequence", got=lengths, expected="e.g. (100, 1_000)")
    chosen = [_whole("a history length", one, 1) for one in lengths]
    if not chosen:
        raise SnapshotError("no history lengths to measure", expected="e.g. (100, 1_000)")
    if max(chosen) > subject.head:
        raise SnapshotError(
            f"a history length lies past the last version of {subject.aggregate_id!r}",
            got=max(chosen),
            expected=f"at most {subject.head}",
        )
    return chosen


def _whole(what: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SnapshotError(f"{what} must be a whole number", got=value, expected=f"at least {least}")
    return int(value)
