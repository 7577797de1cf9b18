"""Latency of reconstructing a past state, by snapshot interval and by length of history.

Reads of the same versions are interleaved, so that a slowdown of the machine affects all alternatives. All must give
the same state, so each measurement is also a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import polars as pl

from eventlab.errors import SnapshotError
from eventlab.events.frame import Int64Array
from eventlab.experiments import arguments
from eventlab.experiments.measurement import FROZEN, LATENCIES, HasStore, Subject, percentiles, private_snapshots
from eventlab.fold.declare.reducer import ReducerLike
from eventlab.runtime.progress import tqdm
from eventlab.snapshots.collection import Built, Snapshots
from eventlab.snapshots.policy.rules import Every
from eventlab.timetravel.calibration import undisturbed

_LENGTHS = 12
_SHORTEST = 10

INTERVALS_SCHEMA = {
    "interval": pl.Int64, "snapshots": pl.Int64, "bytes": pl.Int64, "build_seconds": pl.Float64,
    **dict.fromkeys(LATENCIES, pl.Float64), "reads": pl.Int64, "total_seconds": pl.Float64, "young": pl.Float64,
}  # fmt: skip
LENGTHS_SCHEMA = {"version": pl.Int64, "latency_ms": pl.Float64, "events_per_second": pl.Float64}


class HasSnapshots(HasStore, Protocol):
    """Any object with a log and snapshots, such as a Lab."""

    @property
    def snapshots(self) -> Snapshots: ...


def snapshot_intervals(
    lab: HasStore,
    reducer: ReducerLike,
    aggregate_id: str,
    intervals: Iterable[int | None] = (None, 100, 1_000, 10_000),
    reads: int = 200,
    seed: int = 0,
    progress: bool = True,  # noqa: FBT001, FBT002 - as everywhere in eventlab
) -> pl.DataFrame:
    """Compare snapshot intervals by size, build time and read latency.

    The lab's own snapshots are neither used nor changed. The experiment's snapshots are temporary: in memory or in a
    temporary folder, like the lab's own.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    aggregate_id : str
    intervals : iterable of int or None
        Events between snapshots; None for no snapshots.
    reads : int
        Number of past versions to reconstruct, drawn uniformly; the same for every interval.
    seed : int
        Seed of the draw; not negative.
    progress : bool
        Show a progress bar.

    Returns
    -------
    polars.DataFrame
        A row per interval, in the given order: interval (null for none), snapshots, bytes, build_seconds, and the
        latency_p50_ms, latency_p95_ms, latency_p99_ms and latency_max_ms of a read, as measured values; then reads;
        total_seconds, the build plus as many median reads; and young, the same in every row: the interval with the
        least total by Young's formula, from the measured cost of a snapshot in builds and of an event in median reads.
        It is null if the measurements do not determine it.

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        Invalid intervals, reads or seed; or states that differ between intervals, which is a bug.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
    >>> frame = snapshot_intervals(lab, el.Trades, "market/BTCUSDT", (None, 100), reads=5, progress=False)
    >>> frame["snapshots"].to_list()
    [0, 10]
    """
    chosen = arguments.intervals(intervals)
    count = arguments.positive("reads", reads)
    generator = np.random.default_rng(arguments.non_negative("seed", seed))
    subject = Subject.of(lab, reducer, aggregate_id)
    versions = generator.integers(1, subject.head, count, endpoint=True)
    rows = tqdm(
        total=len(chosen) * (count + 1), desc="snapshot intervals", unit="read", disable=not progress, leave=None
    )
    with rows as bar, private_snapshots(lab.store, len(chosen)) as collections:
        built = []
        for interval, snapshots in zip(chosen, collections, strict=True):
            built.append(subject.build(snapshots, None if interval is None else Every(interval)))
            subject.warm(snapshots)
            bar.update()
        taken, _ = subject.read_all(versions, collections, generator, bar)
    found = pl.DataFrame(
        [_row(interval, *made, ns) for interval, made, ns in zip(chosen, built, taken, strict=True)],
        schema=INTERVALS_SCHEMA,
    )
    return found.with_columns(young=pl.lit(_young(found, count / subject.head), pl.Float64))


def latency_by_length(
    lab: HasSnapshots,
    reducer: ReducerLike,
    aggregate_id: str,
    lengths: Sequence[int] | None = None,
    repeats: int = 5,
    *,
    with_snapshots: bool = False,
) -> pl.DataFrame:
    """Latency of reconstructing a state by length of history, without snapshots and with those of the lab.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    aggregate_id : str
    lengths : sequence of int, optional
        Versions to reconstruct. By default about twelve up to the last, spaced logarithmically.
    repeats : int
        Interleaved measurements per length; the result is their median.
    with_snapshots : bool
        Also measure the same reads with the lab's snapshots. Makes no snapshots.

    Returns
    -------
    polars.DataFrame
        A row per length, in the given order: version, latency_ms and events_per_second without snapshots, and
        latency_with_ms if `with_snapshots`.

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        A length that is not a positive integer or is past the last version; no lengths; repeats below 1; no snapshot at
        or below any of the lengths; or states that differ with and without snapshots.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
    >>> latency_by_length(lab, el.Trades, "market/BTCUSDT", (10, 1_000), repeats=1)["version"].to_list()
    [10, 1000]
    >>> made = lab.snapshot(el.Trades, "market/BTCUSDT", 900)
    >>> latency_by_length(lab, el.Trades, "market/BTCUSDT", (10, 1_000), with_snapshots=True).columns
    ['version', 'latency_ms', 'events_per_second', 'latency_with_ms']
    """
    count = arguments.positive("repeats", repeats)
    subject = Subject.of(lab, reducer, aggregate_id)
    chosen = _spread(subject.head) if lengths is None else _lengths(lengths, subject)
    ways: list[Snapshots | None] = [None]
    if with_snapshots:
        _check_snapshots(subject, lab.snapshots, max(chosen))
        ways.append(lab.snapshots)
    taken = np.empty((len(ways), len(chosen), count), np.int64)
    with _no_new_snapshots(lab.snapshots), undisturbed():
        for way in ways:
            subject.warm(way)
        for turn in range(count):
            for at, version in enumerate(chosen):
                taken[:, at, turn], _ = subject.read_interleaved(version, ways, np.roll(np.arange(len(ways)), turn))
    without, *others = np.median(taken, axis=2)
    found = pl.DataFrame(
        {"version": chosen, "latency_ms": without / 1e6, "events_per_second": np.array(chosen) / (without / 1e9)},
        schema=LENGTHS_SCHEMA,
    )
    return found.with_columns(latency_with_ms=others[0] / 1e6) if others else found


def _check_snapshots(subject: Subject, snapshots: Snapshots, longest: int) -> None:
    """Raise SnapshotError if there is no snapshot up to a version."""
    base = snapshots.latest(
        subject.reducer, [subject.aggregate_id], version=longest, time=None, stop_position=subject.store.stop_position
    )
    if not base.marks.version[0]:
        raise SnapshotError(
            f"no snapshots of {subject.reducer.name} to measure",
            got=f"none of {subject.aggregate_id!r} up to version {longest}",
            hint="Build some first: lab.snapshots.build(reducer, aggregate_id).",
        )


@contextmanager
def _no_new_snapshots(snapshots: Snapshots) -> Iterator[None]:
    """Reads make no snapshots inside this context, since these would speed up later reads."""
    policy, snapshots.policy = snapshots.policy, FROZEN
    try:
        yield
    finally:
        snapshots.policy = policy


def _row(interval: int | None, built: Built, seconds: float, taken: Int64Array) -> dict[str, Any]:
    found = {"interval": interval, "snapshots": built.snapshots, "bytes": built.bytes, "build_seconds": seconds}
    latency = percentiles(taken)
    total = seconds + len(taken) * latency["latency_p50_ms"] / 1e3
    return {**found, **latency, "reads": len(taken), "total_seconds": total}


def _young(intervals: pl.DataFrame, reads_per_event: float) -> float | None:
    """Young's interval for a rate of reads per version, from linear fits to the measurements.

    J. W. Young (1974), "A first order approximation to the optimum checkpoint interval", CACM 17(9): a snapshot every N
    events costs ``write / N`` seconds an event, and the reads of an event's version fold ``reads_per_event * N / 2``.
    """
    rows = intervals.filter(pl.col("snapshots") > 0)
    if rows["snapshots"].n_unique() < 2:
        return None
    seconds = rows["latency_p50_ms"] / 1e3
    write, _ = np.polyfit(rows["snapshots"], rows["build_seconds"], 1)
    event, _ = np.polyfit(rows["interval"] / 2.0, seconds, 1)  # a read folds half an interval
    if write <= 0.0 or event <= 0.0:  # below the noise of the machine
        return None
    return math.sqrt(2.0 * float(write) / (reads_per_event * float(event)))


def _spread(head: int) -> list[int]:
    """Logarithmically spaced versions, up to the last."""
    spaced = np.geomspace(min(_SHORTEST, head), head, _LENGTHS)
    return [int(version) for version in np.unique(spaced.round().astype(np.int64))]


def _lengths(lengths: Sequence[int], subject: Subject) -> list[int]:
    given = arguments.non_empty("history length", lengths, "(100, 1_000)")
    chosen = [arguments.positive("a history length", one) for one in given]
    if max(chosen) > subject.head:
        raise SnapshotError(
            f"a history length is past the last version of {subject.aggregate_id!r}",
            got=max(chosen),
            expected=f"at most {subject.head}",
        )
    return chosen
