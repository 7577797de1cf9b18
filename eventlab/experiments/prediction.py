"""Tests of the cost model behind snapshot placement: predicted and measured latencies of reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from eventlab.errors import SnapshotError
from eventlab.events.frame import Int64Array
from eventlab.experiments import arguments
from eventlab.experiments.measurement import FROZEN, HasStore, Subject, private_snapshots
from eventlab.fold.declare.reducer import ReducerLike
from eventlab.runtime.progress import tqdm
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.placement.workloads import Uniform, Workload
from eventlab.snapshots.policy.cost_based import CostOptimal
from eventlab.snapshots.policy.cost_model import Model, Reads
from eventlab.snapshots.policy.rules import Policy
from eventlab.timetravel.calibration import Calibration, calibrated, undisturbed

_COLUMNS = [column for p in ("p50", "p95") for column in (f"predicted_{p}_ms", f"measured_{p}_ms", f"ratio_{p}")]
PREDICTIONS_SCHEMA = {
    "policy": pl.String, "snapshots": pl.Int64, "reads": pl.Int64, **dict.fromkeys(_COLUMNS, pl.Float64)
}  # fmt: skip
_QUANTILES = (0.5, 0.95)

_RUN = 10
"""Consecutive reads per policy before the next policy's turn, so that caches are in the state of similar reads."""


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
    """Compare predicted with measured latencies of reads, without snapshots and with those of policies.

    The model is that of ``CostOptimal``, fitted to reads of other versions. Both kinds of reads are interleaved, so
    that a slowdown of the machine affects both. The prediction follows which row groups the store's cache holds for
    short reads. The lab's own snapshots are neither used nor changed.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    policies : sequence or mapping of str to Policy
        Compared in addition to no snapshots; those of a sequence go by their repr.
    workload : Workload
        The distribution of reads: ``el.workloads``.
    aggregate_id : str, optional
        By default the longest aggregate with events that the reducer handles.
    reads : int
        Number of reads to draw. Reads of versions that the model was fitted to are dropped.
    seed : int
        Seed of all reads.
    progress : bool
        Show a progress bar.

    Returns
    -------
    polars.DataFrame
        A row without snapshots (policy null) and one per policy: snapshots, reads; predicted_p50_ms and measured_p50_ms
        of a read, and their ratio ratio_p50; the same for p95.

    Raises
    ------
    UnknownAggregate, ReducerError
    SnapshotError
        Not a policy or workload; an invalid number; or a history so short that the model was fitted to all drawn
        versions.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=5_000), progress=False)
    >>> found = predicted_latencies(lab, el.Trades, [el.snapshots.Every(1_000)], reads=20, progress=False)
    >>> found["snapshots"].to_list()
    [0, 5]
    """
    named = arguments.policies(policies)
    arguments.check_workload(workload)
    count, seed = arguments.positive("reads", reads), arguments.non_negative("seed", seed)
    subject = arguments.subject(lab, reducer, aggregate_id)
    generator = np.random.default_rng([seed, 1])  # independent of the calibration's
    calibration = Calibration(subject.store, subject.reducer, subject.aggregate_id, seed)
    drawn = workload.draw(subject.head, count, generator)
    held_out = drawn[~np.isin(drawn, calibration.version)]
    if not len(held_out):
        raise SnapshotError(
            "the model was fitted to all drawn versions", got=f"{subject.head:,} events",
            expected="a longer history, or more reads",
        )  # fmt: skip
    given: list[tuple[str | None, Policy | None]] = [(None, None), *named.items()]
    with private_snapshots(subject.store, len(given), calibrated) as collections:
        ways = [
            _PolicyReads(subject, *one, snapshots, held_out) for one, snapshots in zip(given, collections, strict=True)
        ]
        total = len(calibration) + len(held_out) * len(ways)
        with tqdm(total=total, desc="predictions", unit="read", disable=not progress, leave=None) as bar, undisturbed():
            base, version, way = _timed(calibration, ways, generator, bar)
    model = calibration.model()
    made = Reads.of(base, version, calibration.starts, calibration.kept)
    return pl.DataFrame(
        [one.row(model, made.where(way == at)) for at, one in enumerate(ways)], schema=PREDICTIONS_SCHEMA
    )


class _PolicyReads:
    """Timed reads of the versions with the snapshots of one policy."""

    def __init__(
        self, subject: Subject, name: str | None, policy: Policy | None, snapshots: Snapshots, version: Int64Array
    ) -> None:
        self._subject, self._name, self._snapshots = subject, name, snapshots
        self._count = subject.build(snapshots, policy)[0].snapshots
        snapshots.policy = FROZEN
        subject.warm(snapshots)
        starts = np.append(0, snapshots.table()["version"].to_numpy())
        self.version, self.base = version, starts[np.searchsorted(starts, version, "right") - 1]
        self._taken = np.zeros(len(version))

    def time(self, number: int) -> None:
        self._taken[number] = self._subject.read(int(self.version[number]), self._snapshots)[0] / 1e9

    def row(self, model: Model, reads: Reads) -> dict[str, str | int | float | None]:
        row: dict[str, str | int | float | None] = {
            "policy": self._name, "snapshots": self._count, "reads": len(self.version)
        }  # fmt: skip
        measured = np.quantile(self._taken, _QUANTILES).tolist()
        for q, seconds, predicted in zip(_QUANTILES, measured, model.quantiles(reads, _QUANTILES), strict=True):
            row[f"predicted_p{q * 100:.0f}_ms"], row[f"measured_p{q * 100:.0f}_ms"] = predicted * 1e3, seconds * 1e3
            row[f"ratio_p{q * 100:.0f}"] = predicted / seconds
        return row


_Step = tuple[int, int, int, int]
"""Base, version, index of the policy (or `_FITTING`, `_WARMING`), and number of the read in its series."""

_FITTING, _WARMING = -1, -2


def _timed(
    calibration: Calibration, ways: Sequence[_PolicyReads], generator: np.random.Generator, bar: tqdm[Any]
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Make all reads interleaved; returns their bases, versions and policies in order.

    Short reads run twice in the same order: in the second run the decoded row groups depend on the reads alone.
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


def _steps(calibration: Calibration, ways: Sequence[_PolicyReads], generator: np.random.Generator) -> Iterator[_Step]:
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
