"""Whether the model by which snapshots are planned is right: what it predicts of reads, beside what they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from eventlab.errors import SnapshotError
from eventlab.events.frame import Int64Array
from eventlab.experiments import asked
from eventlab.experiments.measuring import FROZEN, HasStore, Subject, private_shelves, whole
from eventlab.fold.declare.reducer import ReducerLike, as_reducer
from eventlab.runtime.progress import tqdm
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.placement.workloads import Uniform, Workload
from eventlab.snapshots.policy import rules
from eventlab.snapshots.policy.cost_based import CostOptimal
from eventlab.snapshots.policy.cost_model import Model, Reads
from eventlab.snapshots.policy.rules import Policy
from eventlab.timetravel.calibration import Calibration, calibrated, undisturbed

Float64Array = npt.NDArray[np.float64]

PREDICTIONS_SCHEMA = {
    "policy": pl.String,
    "snapshots": pl.Int64,
    "reads": pl.Int64,
    "predicted_p50_ms": pl.Float64,
    "measured_p50_ms": pl.Float64,
    "ratio_p50": pl.Float64,
    "predicted_p95_ms": pl.Float64,
    "measured_p95_ms": pl.Float64,
    "ratio_p95": pl.Float64,
}
_QUANTILES = (0.5, 0.95)

_RUN = 10
"""Reads that one policy makes before it is another's turn: each meets the processor as reads like it leave it."""


def predicted_latencies(
    lab: HasStore,
    reducer: ReducerLike,
    policies: Sequence[Policy] | Mapping[str, Policy] = (CostOptimal(),),
    workload: Workload = Uniform(),  # noqa: B008 - frozen
    *,
    aggregate_id: str | None = None,
    reads: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> pl.DataFrame:
    """Hold what reads are predicted to take against what they take, without snapshots and with what policies build.

    The model is the one by which ``CostOptimal`` plans, fitted anew to reads of other versions. Both kinds of reads are
    timed in turns, so that a machine that slows down slows both. Which row groups short reads find decoded is followed
    as the store keeps them. The lab's own snapshots are neither used nor changed.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    policies : sequence or mapping of str to Policy
        Beside no snapshots at all; those of a sequence go by their repr.
    workload : Workload
        Which versions are read: ``el.workloads``.
    aggregate_id : str, optional
        The longest aggregate that has events the reducer handles, by default.
    reads : int
        How many are drawn; those of versions that the model was fitted to are left out.
    seed : int
        Of all reads.
    progress : bool
        Show a bar.

    Returns
    -------
    polars.DataFrame
        A row without snapshots (policy null) and one per policy: snapshots, reads; of the time of a read in
        milliseconds predicted_p50_ms and measured_p50_ms, and the first over the second, ratio_p50; the same at p95.

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        What is no policy or workload; numbers that make no sense; a history so short that the model was fitted to all
        versions drawn.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=5_000), progress=False)
    >>> found = predicted_latencies(lab, el.Trades, [el.snapshots.Every(1_000)], reads=20, progress=False)
    >>> found["snapshots"].to_list()
    [0, 5]
    """
    named = asked.named("policy", policies, Policy)
    for policy in named.values():
        rules.check(policy)
    if not isinstance(workload, Workload):
        raise SnapshotError("not a workload", got=workload, expected="e.g. el.workloads.Uniform()")
    count, seed = whole("reads", reads, 1), whole("seed", seed, 0)
    reducer, generator = as_reducer(reducer), np.random.default_rng([seed, 1])  # others than those of the calibration
    subject = Subject.of(lab, reducer, asked.longest(lab.store, reducer) if aggregate_id is None else aggregate_id)
    calibration = Calibration(subject.store, reducer, subject.aggregate_id, seed)
    drawn = workload.draw(subject.head, count, generator)
    held_out = drawn[~np.isin(drawn, calibration.version)]
    if not len(held_out):
        raise SnapshotError(
            "the model was fitted to all of the versions drawn", got=f"{subject.head:,} events",
            expected="a longer history, or more reads",
        )  # fmt: skip
    given: list[tuple[str | None, Policy | None]] = [(None, None), *named.items()]
    with private_shelves(subject.store, len(given), calibrated) as shelves:
        ways = [_Way(subject, *one, shelf, held_out) for one, shelf in zip(given, shelves, strict=True)]
        total = len(calibration) + len(held_out) * len(ways)
        with tqdm(total=total, desc="predictions", unit="read", disable=not progress, leave=None) as bar, undisturbed():
            base, version, way = _timed(calibration, ways, generator, bar)
    model = calibration.model()
    made = Reads.of(base, version, calibration.starts, calibration.kept)
    return pl.DataFrame(
        [one.row(model, made.where(way == at)) for at, one in enumerate(ways)], schema=PREDICTIONS_SCHEMA
    )


class _Way:
    """Reads of the same versions, from what one policy builds."""

    def __init__(
        self, subject: Subject, name: str | None, policy: Policy | None, shelf: Snapshots, version: Int64Array
    ) -> None:
        self._subject, self._name, self._shelf = subject, name, shelf
        self._snapshots = subject.build(shelf, policy)[0].snapshots
        shelf.policy = FROZEN
        subject.warm(shelf)
        there = np.append(0, shelf.table()["version"].to_numpy())
        self.version, self.base = version, there[np.searchsorted(there, version, "right") - 1]
        self._taken = np.zeros(len(version))

    def time(self, number: int) -> None:
        self._taken[number] = self._subject.read(int(self.version[number]), self._shelf)[0] / 1e9

    def row(self, model: Model, reads: Reads) -> dict[str, str | int | float | None]:
        row: dict[str, str | int | float | None] = {
            "policy": self._name, "snapshots": self._snapshots, "reads": len(self.version)
        }  # fmt: skip
        measured = np.quantile(self._taken, _QUANTILES).tolist()
        for q, was, is_predicted in zip(_QUANTILES, measured, model.quantiles(reads, _QUANTILES), strict=True):
            row[f"predicted_p{q * 100:.0f}_ms"], row[f"measured_p{q * 100:.0f}_ms"] = is_predicted * 1e3, was * 1e3
            row[f"ratio_p{q * 100:.0f}"] = is_predicted / was
        return row


_Step = tuple[int, int, int, int]
"""Base, version, which way (`_FITTING`, `_WARMING`), and the number of the read among its own."""

_FITTING, _WARMING = -1, -2


def _timed(
    calibration: Calibration, ways: Sequence[_Way], generator: np.random.Generator, bar: tqdm[Any]
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Make all reads in turns; their bases, versions and ways, in the order in which they were made.

    Short ones are made twice, in the same order: the second time, what is decoded depends on the reads alone.
    """
    steps = np.array(list(_steps(calibration, ways, generator)), np.int64)
    short = steps[Reads.of(steps[:, 0], steps[:, 1], calibration.starts).decoded == 0]
    for at, (base, version, way, number) in enumerate([*short.tolist(), *steps.tolist()]):
        if way >= 0:
            ways[way].time(number)
        elif way == _FITTING:
            calibration.time(number)
        else:
            calibration.read(base, version)
        bar.update(at >= len(short) and way != _WARMING)
    base, version, way, _ = np.concatenate([short * [1, 1, 0, 0] + [0, 0, _WARMING, 0], steps]).T
    return base, version, way


def _steps(calibration: Calibration, ways: Sequence[_Way], generator: np.random.Generator) -> Iterator[_Step]:
    count = len(ways[0].version)
    runs = -(-count // _RUN)
    for run, fitting in enumerate(np.array_split(np.arange(len(calibration)), runs)):
        for base, version in calibration.warming:
            yield base, version, _WARMING, 0
        for number in fitting.tolist():
            yield int(calibration.base[number]), int(calibration.version[number]), _FITTING, number
        for at in generator.permutation(len(ways)).tolist():
            for number in range(run * _RUN, min((run + 1) * _RUN, count)):
                yield int(ways[at].base[number]), int(ways[at].version[number]), at, number
