"""How long it takes to reconstruct a past state: by snapshot interval, and by length of history.

All ways to a state are measured in turns on the same versions, so that a machine that slows down slows all of them;
and all of them must give the same state, so that each measurement is a proof as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import polars as pl

from eventlab.errors import SnapshotError
from eventlab.events.frame import Int64Array
from eventlab.experiments import asked
from eventlab.experiments.measuring import FROZEN, HasStore, Subject, percentiles, private_shelves, whole
from eventlab.fold.declare.reducer import ReducerLike
from eventlab.runtime.progress import tqdm
from eventlab.snapshots.collection import Built, Snapshots
from eventlab.snapshots.placement.optimum import young
from eventlab.snapshots.policy.rules import Every
from eventlab.timetravel.calibration import undisturbed

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
    "reads": pl.Int64,
    "total_seconds": pl.Float64,
    "young": pl.Float64,
}
LENGTHS_SCHEMA = {"version": pl.Int64, "latency_ms": pl.Float64, "events_per_second": pl.Float64}


class HasSnapshots(HasStore, Protocol):
    """Anything over a log that keeps snapshots, such as a Lab."""

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
        measured values: the smallest one that so many reads did not exceed. Then reads; total_seconds, of building
        and so many median reads; and young, the same in every row: the interval for which that is least by Young's
        formula, from what a snapshot added to the builds measured and an event to the median reads. It is null where
        they do not tell.

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
    chosen = asked.intervals(intervals)
    count, generator = whole("reads", reads, 1), np.random.default_rng(whole("seed", seed, 0))
    subject = Subject.of(lab, reducer, aggregate_id)
    versions = generator.integers(1, subject.head, count, endpoint=True)
    rows = tqdm(
        total=len(chosen) * (count + 1), desc="snapshot intervals", unit="read", disable=not progress, leave=None
    )
    with rows as bar, private_shelves(lab.store, len(chosen)) as shelves:
        built = []
        for interval, shelf in zip(chosen, shelves, strict=True):
            built.append(subject.build(shelf, None if interval is None else Every(interval)))
            subject.warm(shelf)
            bar.update()
        taken = np.empty((len(chosen), count), np.int64)
        with undisturbed():
            for at, version in enumerate(versions):
                taken[:, at], _ = subject.in_turns(int(version), shelves, generator.permutation(len(shelves)))
                bar.update(len(chosen))
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
    """How long reconstructing a state takes by the length of its history: without snapshots, and with the lab's.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    aggregate_id : str
    lengths : sequence of int, optional
        Versions to reconstruct. By default about twelve, evenly spaced in logarithm, up to the last.
    repeats : int
        Measurements of each length, in turns; the median counts.
    with_snapshots : bool
        Measure the same reads with the snapshots that the lab has, too. None is made meanwhile.

    Returns
    -------
    polars.DataFrame
        A row per length, in the order given: version, and without snapshots latency_ms and events_per_second; and
        latency_with_ms, where that was asked for.

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        A length that is no positive integer or lies past the last version; no lengths; repeats below 1; no snapshot
        that any of the lengths could begin from, where they are to be measured; or states that differ with snapshots
        and without.

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
    count = whole("repeats", repeats, 1)
    subject = Subject.of(lab, reducer, aggregate_id)
    chosen = _spread(subject.head) if lengths is None else _lengths(lengths, subject)
    ways: list[Snapshots | None] = [None]
    if with_snapshots:
        _check_snapshots(subject, lab.snapshots, max(chosen))
        ways.append(lab.snapshots)
    taken = np.empty((len(ways), len(chosen), count), np.int64)
    with _none_made(ways), undisturbed():
        for way in ways:
            subject.warm(way)
        for turn in range(count):
            for at, version in enumerate(chosen):
                taken[:, at, turn], _ = subject.in_turns(version, ways, np.roll(np.arange(len(ways)), turn))
    without, *others = np.median(taken, axis=2)
    found = pl.DataFrame(
        {"version": chosen, "latency_ms": without / 1e6, "events_per_second": np.array(chosen) / (without / 1e9)},
        schema=LENGTHS_SCHEMA,
    )
    return found.with_columns(latency_with_ms=others[0] / 1e6) if others else found


def _check_snapshots(subject: Subject, snapshots: Snapshots, longest: int) -> None:
    """Raise SnapshotError where nothing up to a version could begin from a snapshot."""
    base = snapshots.latest(
        subject.reducer, [subject.aggregate_id], version=longest, time=None, stop_position=subject.store.stop_position
    )
    if not base.marks.version[0]:
        raise SnapshotError(
            f"no snapshots of {subject.reducer.name} to measure with",
            got=f"none of {subject.aggregate_id!r} up to version {longest}",
            hint="Make some first: lab.snapshots.build(reducer, aggregate_id).",
        )


@contextmanager
def _none_made(ways: Sequence[Snapshots | None]) -> Iterator[None]:
    """Reading makes no snapshots: they would shorten the very next reads."""
    policies = [(way, way.policy) for way in ways if way is not None]
    for way, _ in policies:
        way.policy = FROZEN
    try:
        yield
    finally:
        for way, policy in policies:
            way.policy = policy


def _row(interval: int | None, built: Built, seconds: float, taken: Int64Array) -> dict[str, Any]:
    found = {"interval": interval, "snapshots": built.snapshots, "bytes": built.bytes, "build_seconds": seconds}
    latency = percentiles(taken)
    total = seconds + len(taken) * latency["latency_p50_ms"] / 1e3
    return {**found, **latency, "reads": len(taken), "total_seconds": total}


def _young(intervals: pl.DataFrame, reads_per_event: float) -> float | None:
    """Young's interval for so many reads of a version, by straight lines through what was measured."""
    rows = intervals.filter(pl.col("snapshots") > 0)
    if rows["snapshots"].n_unique() < 2:
        return None
    seconds = rows["latency_p50_ms"] / 1e3
    write, _ = np.polyfit(rows["snapshots"], rows["build_seconds"], 1)
    event, _ = np.polyfit(rows["interval"] / 2.0, seconds, 1)  # a read folds half an interval
    if write <= 0.0 or event <= 0.0:  # less than a busy machine does by itself
        return None
    return young(reads_per_event, float(event), write=float(write), write_price=1.0)


def _spread(head: int) -> list[int]:
    """Versions evenly spaced in logarithm, up to the last."""
    spaced = np.geomspace(min(_SHORTEST, head), head, _LENGTHS)
    return [int(version) for version in np.unique(spaced.round().astype(np.int64))]


def _lengths(lengths: Sequence[int], subject: Subject) -> list[int]:
    chosen = [whole("a history length", one, 1) for one in asked.several("history length", lengths, "(100, 1_000)")]
    if max(chosen) > subject.head:
        raise SnapshotError(
            f"a history length lies past the last version of {subject.aggregate_id!r}",
            got=max(chosen),
            expected=f"at most {subject.head}",
        )
    return chosen
