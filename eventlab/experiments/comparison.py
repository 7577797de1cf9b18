"""Comparisons of snapshot policies by latency and size, on the lab's own events, with the optimum as a reference.

All policies read the same versions, interleaved, and must give the same states, so each measurement is also a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from eventlab.errors import SnapshotError, UnknownAggregate
from eventlab.events.arguments import checked_int
from eventlab.events.types import event_type
from eventlab.experiments import arguments, interleaved
from eventlab.experiments.bootstrap import paired_ratios
from eventlab.experiments.interleaved import Design
from eventlab.experiments.measurement import HasStore
from eventlab.experiments.trials import SnapshotTrial, Trial, TrialLog
from eventlab.fold.declare.reducer import ReducerLike
from eventlab.snapshots.placement.optimum import WORTHWHILE
from eventlab.snapshots.placement.workloads import Workload
from eventlab.snapshots.policy.rules import Policy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN_ROWS = 20
_BEST_SHOWN = 12

_FIELDS = event_type(SnapshotTrial).polars_schema
FRAME_SCHEMA: dict[str, pl.DataType] = dict(list(_FIELDS.items())[list(_FIELDS).index("policy") :])
_RATIOS = ("mean_ratio", "mean_low", "mean_high", "p99_ratio", "p99_low", "p99_high")
INTERVALS_SCHEMA: dict[str, Any] = {
    "policy": pl.String, "workload": pl.String, "budget": pl.Int64, "reads": pl.Int64,
    **dict.fromkeys(_RATIOS, pl.Float64),
}  # fmt: skip


def compare(
    lab: HasStore,
    reducer: ReducerLike,
    policies: Sequence[Policy] | Mapping[str, Policy],
    workloads: Sequence[Workload] | Mapping[str, Workload],
    *,
    aggregate_id: str | None = None,
    budgets: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0,),
    reads: int = 200,
    name: str | None = None,
    into: HasStore | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare snapshot policies by size and read latency, for given workloads.

    The first half of the reads trains policies that make snapshots when states are read; the second half is measured,
    interleaved. The lab's own snapshots are neither used nor changed. The experiment's snapshots are temporary: in
    memory or in a temporary folder, like the lab's own.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    policies : sequence or mapping of str to Policy
        ``el.snapshots``; those of a sequence go by their repr.
    workloads : sequence or mapping of str to Workload
        ``el.workloads``; likewise.
    aggregate_id : str, optional
        By default the longest aggregate with events that the reducer handles.
    budgets : sequence of int or None
        Bytes of snapshots; None for no limit. Above the budget, snapshots of the lowest versions are evicted.
    seeds : sequence of int
        Seeds of the reads; one trial each.
    reads : int
        Number of reads to draw, at least 2.
    name : str, optional
        Append trials as ``SnapshotTrial`` events with all their reads under ``experiment/<name>``, as soon as all
        policies are measured on a workload, budget and seed. Trials that are already there are not measured again.
    into : Lab, optional
        The lab to append trials to, instead of this one.
    progress : bool
        Show a bar.

    Returns
    -------
    Comparison

    Raises
    ------
    UnknownAggregate, ReducerError, ReadOnlyStore
    SnapshotError
        No policies or workloads, a duplicate name, or an invalid number; or states that differ between policies, which
        is a bug.

    Warns
    -----
    SnapshotSkipped
        No snapshot of a policy fits into its budget; names the policy and the smallest sufficient budget. It is
        measured without snapshots.

    Notes
    -----
    A policy added later to a named experiment reads the same versions and must give the same states, but the machine
    may be slower or faster by then.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
    >>> found = compare(
    ...     lab, el.Trades, [el.snapshots.Every(100), el.snapshots.Every(500)], [el.workloads.Uniform()],
    ...     reads=20, progress=False,
    ... )
    >>> found.frame["snapshots"].to_list()
    [10, 2]
    """
    design = Design(
        arguments.policies(policies), arguments.by_name("workload", workloads, Workload), arguments.budgets(budgets),
        arguments.seeds(seeds), checked_int("reads", reads, 2, error=SnapshotError),
    )  # fmt: skip
    subject = arguments.subject(lab, reducer, aggregate_id)
    log = None if name is None else TrialLog.of((lab if into is None else into).store, name)
    if log is not None:
        log.check_writable()
    return Comparison(interleaved.run(subject, design, log, progress=progress))


def results(lab: HasStore, name: str) -> Comparison:
    """Stored trials of a named experiment that have the reducer, aggregate, version and reads of the last one.

    Raises
    ------
    UnknownAggregate
        No experiment of this name.

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.ingest(el.feeds.simulate(symbols=("BTCUSDT",), trades=1_000), progress=False)
    >>> every, uniform = [el.snapshots.Every(100)], [el.workloads.Uniform()]
    >>> found = compare(lab, el.Trades, every, uniform, reads=20, name="first", progress=False)
    >>> results(lab, "first").frame.equals(found.frame)
    True
    """
    trials = TrialLog.of(lab.store, name).trials()
    if not trials:
        raise UnknownAggregate(
            "no experiment of this name", got=name,
            hint="lab.store.aggregate_ids('experiment/*') lists all.",
        )  # fmt: skip

    def about(trial: Trial) -> tuple[object, ...]:
        summary = trial.summary
        return summary.reducer, summary.subject, summary.head, summary.drawn

    return Comparison([trial for trial in trials if about(trial) == about(trials[-1])])


class Comparison:
    """The result of a comparison of snapshot policies.

    Attributes
    ----------
    reducer, aggregate_id : str
    version : int
        The aggregate's last version.
    frame : polars.DataFrame
        A row per policy, workload, budget (null for none) and seed: snapshots, bytes, and evictions by the policy or
        the budget; build_seconds, training_seconds (decisions and snapshots during reads), write_seconds (the build
        minus a plain fold); the number of measured reads, and their latency_p50_ms, latency_p95_ms, latency_p99_ms,
        latency_max_ms and latency_mean_ms; events_replayed per read on average. By the measured cost model:
        optimum_ratio, the mean latency relative to the best placement of the same bytes; headroom, the factor by which
        the best placement can beat even spacing; captured, the share of that gain: 0 for even spacing, 1 for the
        optimum, null for a headroom below 1.1. If no snapshot fits into the budget of the policy or the comparison,
        feasible is False, and the reads are without snapshots.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = list(trials)
        one = self._trials[0].summary
        self.reducer, self.aggregate_id, self.version = one.reducer, one.subject, one.head
        rows = [{name: getattr(one.summary, name) for name in FRAME_SCHEMA} for one in self._trials]
        self.frame = pl.DataFrame(rows, schema=FRAME_SCHEMA)

    def intervals(self, baseline: str | Policy | None = None, *, seed: int = 0) -> pl.DataFrame:
        """Latency ratios of the policies to a baseline, with confidence intervals.

        Uses the reads of all seeds as pairs: each resample takes a read's latency under both policies. The bootstrap
        assumes independent reads, so its intervals are too narrow if something disturbs the machine for long.

        Parameters
        ----------
        baseline : str or Policy, optional
            The first policy by default.
        seed : int
            Seed of the resamples.

        Returns
        -------
        polars.DataFrame
            A row per other policy, workload and budget: reads, mean_ratio and its 95 % interval mean_low to mean_high,
            and p99_ratio, p99_low, p99_high. Below 1 is faster than the baseline.

        Raises
        ------
        SnapshotError
            The baseline was not measured, or on other reads.
        """
        known = list(dict.fromkeys(one.summary.policy for one in self._trials))
        chosen = known[0] if baseline is None else baseline if isinstance(baseline, str) else repr(baseline)
        if chosen not in known:
            raise SnapshotError("no such policy was compared", got=chosen, expected=", ".join(known))
        seed = arguments.non_negative("seed", seed)
        rows = []
        for (policy, workload, budget), trials in self._grouped().items():
            if policy == chosen:
                continue
            others = {one.summary.seed: one for one in self._grouped().get((chosen, workload, budget), [])}
            pairs = [(one, others[one.summary.seed]) for one in trials if one.summary.seed in others]
            if not pairs or any(not np.array_equal(one.versions, other.versions) for one, other in pairs):
                raise SnapshotError(
                    "the baseline was not measured on the same reads", got=chosen,
                    expected=f"trials of it under {workload} with budget {budget}",
                )  # fmt: skip
            ours = np.concatenate([one.nanoseconds for one, _ in pairs])
            theirs = np.concatenate([other.nanoseconds for _, other in pairs])
            mean, p99 = paired_ratios(ours, theirs, seed)
            rows.append(
                (policy, workload, budget, len(ours), mean.ratio, mean.low, mean.high, p99.ratio, p99.low, p99.high)
            )
        return pl.DataFrame(rows, schema=INTERVALS_SCHEMA, orient="row")

    def _grouped(self) -> dict[tuple[str, str, int | None], list[Trial]]:
        found: dict[tuple[str, str, int | None], list[Trial]] = {}
        for one in self._trials:
            found.setdefault((one.summary.policy, one.summary.workload, one.summary.budget), []).append(one)
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot bytes of snapshots against the 99th percentile of latency, with the Pareto front."""
        from eventlab.plots import plot_pareto

        return plot_pareto(self.frame, ax=ax)

    @property
    def verdict(self) -> str:
        """The result as text: a line per workload and budget."""
        means = self.frame.group_by("workload", "budget", "policy", maintain_order=True).agg(
            pl.col("headroom").first(), pl.col("latency_mean_ms", "captured").mean(), pl.col("feasible").all()
        )
        lines = []
        for (workload, budget), rows in means.group_by(["workload", "budget"], maintain_order=True):
            best = rows.sort("latency_mean_ms").row(0, named=True)
            under = "" if budget is None else f" within {budget:,} bytes"
            line = (
                f"{workload}{under}: {best['policy']} is fastest, {best['latency_mean_ms']:.3g} ms per read on average"
            )
            line += f"; headroom {best['headroom']:.2f}"
            if best["headroom"] < WORTHWHILE:
                line += ": no adaptive placement can help"
            elif best["captured"] is not None:
                line += f", of which it captures {best['captured']:.0%}"
            elif best["feasible"]:
                line += " of replay, which is a small part of a read: no relevant gain is possible"
            without = rows.filter(~pl.col("feasible"))["policy"].to_list()
            if without:
                line += f"; no snapshot fits into the budget of {', '.join(without)}"
            lines.append(line)
        return "\n".join(lines)

    def _title(self) -> str:
        count = f"{len(self.frame):,} trials of snapshots"
        return f"{count} of {self.reducer} for {self.aggregate_id} at version {self.version:,}"

    def _lines(self) -> list[str]:
        lines = self.verdict.splitlines()
        return lines if len(lines) <= _BEST_SHOWN else [*lines[:_BEST_SHOWN], f"and {len(lines) - _BEST_SHOWN} more"]

    def __repr__(self) -> str:
        return "\n".join([self._title(), *(f"  {line}" for line in self._lines())])

    def _repr_html_(self) -> str:
        verdict = "<br>".join(escape(line if len(line) <= 400 else line[:399] + "…") for line in self._lines())
        head = self.frame.head(_SHOWN_ROWS)
        more = f" (first {_SHOWN_ROWS} shown)" if len(self.frame) > _SHOWN_ROWS else ""
        return f"<b>{escape(self._title())}{more}</b><p>{verdict}</p>{head._repr_html_()}"
