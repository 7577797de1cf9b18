"""Which snapshot policy is best for which reads, on one's own events: measured in turns, and held against the optimum.

All policies read the same versions in turns and must give the same states, so each measurement is a proof as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from eventlab.errors import SnapshotError, UnknownAggregate
from eventlab.experiments import asked
from eventlab.experiments.bootstrap import paired_ratios
from eventlab.experiments.measuring import HasStore, Subject, whole
from eventlab.experiments.trials import Ledger, Trial
from eventlab.experiments.turns import Design, measured
from eventlab.fold.declare.reducer import ReducerLike, as_reducer
from eventlab.snapshots.placement.optimum import WORTHWHILE
from eventlab.snapshots.placement.workloads import Workload
from eventlab.snapshots.policy import rules
from eventlab.snapshots.policy.rules import Policy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN_ROWS = 20
_BEST_SHOWN = 12

FRAME_SCHEMA: dict[str, Any] = {
    "policy": pl.String,
    "workload": pl.String,
    "budget": pl.Int64,
    "seed": pl.Int64,
    "snapshots": pl.Int64,
    "bytes": pl.Int64,
    "evictions": pl.Int64,
    "build_seconds": pl.Float64,
    "training_seconds": pl.Float64,
    "write_seconds": pl.Float64,
    "reads": pl.Int64,
    "latency_p50_ms": pl.Float64,
    "latency_p95_ms": pl.Float64,
    "latency_p99_ms": pl.Float64,
    "latency_max_ms": pl.Float64,
    "latency_mean_ms": pl.Float64,
    "events_replayed": pl.Float64,
    "optimum_ratio": pl.Float64,
    "headroom": pl.Float64,
    "captured": pl.Float64,
    "feasible": pl.Boolean,
}
INTERVALS_SCHEMA: dict[str, Any] = {
    "policy": pl.String,
    "workload": pl.String,
    "budget": pl.Int64,
    "reads": pl.Int64,
    "mean_ratio": pl.Float64,
    "mean_low": pl.Float64,
    "mean_high": pl.Float64,
    "p99_ratio": pl.Float64,
    "p99_low": pl.Float64,
    "p99_high": pl.Float64,
}


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
    """Compare snapshot policies by what they cost and how soon they give past states, for given kinds of reads.

    Reads are split by time: the first half trains policies that make snapshots as states are read, the second half is
    measured, in turns. The lab's own snapshots are neither used nor changed; those of the measurement are kept as the
    lab would keep them, in memory or in a temporary folder, and are gone afterwards.

    Parameters
    ----------
    lab : Lab
    reducer : Reducer
    policies : sequence or mapping of str to Policy
        ``el.snapshots``; those of a sequence go by their repr.
    workloads : sequence or mapping of str to Workload
        ``el.workloads``; likewise.
    aggregate_id : str, optional
        The longest aggregate that has events the reducer handles, by default.
    budgets : sequence of int or None
        Bytes that the snapshots may take; None for any number. A policy that makes more loses those of the lowest
        versions until the others fit.
    seeds : sequence of int
        Of the reads; a trial for each.
    reads : int
        How many are drawn, at least 2.
    name : str, optional
        Trials are appended as ``SnapshotTrial`` events under ``experiment/<name>``, with each of their reads, as soon
        as all policies have been measured on a workload, budget and seed. Those that are there are not measured again.
    into : Lab, optional
        The lab they are appended to instead of this one.
    progress : bool
        Show a bar.

    Returns
    -------
    Comparison

    Raises
    ------
    UnknownAggregate, ReducerError, ReadOnlyStore
    SnapshotError
        No policies or no workloads, a name that is there twice, numbers that make no sense; or states that differ
        between policies, which no correct snapshot gives.

    Warns
    -----
    SnapshotSkipped
        Not even one snapshot of a policy fits into its budget: names it, and the smallest budget that would do. It is
        measured without snapshots, as it would be used.

    Notes
    -----
    A policy that is added to a named experiment later is measured on the same reads and must give the same states, but
    at another time: the machine may be slower or faster then.

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
        asked.named("policy", policies, Policy), asked.named("workload", workloads, Workload),
        asked.budgets(budgets), asked.seeds(seeds),
        whole("reads", reads, 2),
    )  # fmt: skip
    for policy in design.policies.values():
        rules.check(policy)
    reducer = as_reducer(reducer)
    subject = Subject.of(lab, reducer, asked.longest(lab.store, reducer) if aggregate_id is None else aggregate_id)
    ledger = None if name is None else Ledger.of((lab if into is None else into).store, name)
    if ledger is not None:
        ledger.check_writable()
    return Comparison(measured(subject, design, ledger, progress=progress))


def results(lab: HasStore, name: str) -> Comparison:
    """What was measured under a name, of the reducer, aggregate, last version and number of reads measured last.

    Raises
    ------
    UnknownAggregate
        There is no experiment of this name.

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
    trials = Ledger.of(lab.store, name).trials()
    if not trials:
        raise UnknownAggregate(
            "no experiment of this name", got=name,
            hint="lab.store.aggregate_ids('experiment/*') lists those there are.",
        )  # fmt: skip

    def about(trial: Trial) -> tuple[object, ...]:
        summary = trial.summary
        return summary.reducer, summary.subject, summary.head, summary.drawn

    return Comparison([trial for trial in trials if about(trial) == about(trials[-1])])


class Comparison:
    """What a comparison of snapshot policies found.

    Attributes
    ----------
    reducer, aggregate_id : str
    version : int
        The aggregate's last one.
    frame : polars.DataFrame
        A row per policy, workload, budget (null for none) and seed: snapshots, bytes, and evictions by the policy
        as it builds and by the budget;
        build_seconds, training_seconds (asking and keeping as states were read), write_seconds (the build above a
        plain fold); reads measured, and of their time in milliseconds latency_p50_ms, latency_p95_ms, latency_p99_ms,
        latency_max_ms, latency_mean_ms; events_replayed by a read on average. By the model of the machine:
        optimum_ratio, the mean latency over that of the best placement of the same bytes; headroom, how many times
        better than even spacing anything can be for these reads; captured, the share of that gain: 0 as evenly spaced,
        1 the optimum, null where the headroom is below 1.1. Where not even one snapshot fits into the budget, the
        policy's own or the comparison's, feasible is False, and the row is of reads without snapshots.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = list(trials)
        one = self._trials[0].summary
        self.reducer, self.aggregate_id, self.version = one.reducer, one.subject, one.head
        rows = [{name: getattr(one.summary, name) for name in FRAME_SCHEMA} for one in self._trials]
        self.frame = pl.DataFrame(rows, schema=FRAME_SCHEMA)

    def intervals(self, baseline: str | Policy | None = None, *, seed: int = 0) -> pl.DataFrame:
        """How much faster or slower than a baseline the policies are, and how sure that is.

        Reads of all seeds are taken together and paired: each resample takes a read's latency under both policies. The
        bootstrap takes reads as independent, so it is too sure of itself where a machine is disturbed for long.

        Parameters
        ----------
        baseline : str or Policy, optional
            The first policy by default.
        seed : int
            Of the resamples.

        Returns
        -------
        polars.DataFrame
            A row per other policy, workload and budget: reads, mean_ratio with the 95 % interval from mean_low to
            mean_high, and p99_ratio, p99_low, p99_high; below 1 is faster than the baseline.

        Raises
        ------
        SnapshotError
            A baseline that was not measured, or on other reads.
        """
        known = list(dict.fromkeys(one.summary.policy for one in self._trials))
        chosen = known[0] if baseline is None else baseline if isinstance(baseline, str) else repr(baseline)
        if chosen not in known:
            raise SnapshotError("no such policy was compared", got=chosen, expected=", ".join(known))
        seed = whole("seed", seed, 0)
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
            mean, rare = paired_ratios(ours, theirs, seed)
            rows.append(
                (policy, workload, budget, len(ours), mean.ratio, mean.low, mean.high, rare.ratio, rare.low, rare.high)
            )
        return pl.DataFrame(rows, schema=INTERVALS_SCHEMA, orient="row")

    def _grouped(self) -> dict[tuple[str, str, int | None], list[Trial]]:
        found: dict[tuple[str, str, int | None], list[Trial]] = {}
        for one in self._trials:
            found.setdefault((one.summary.policy, one.summary.workload, one.summary.budget), []).append(one)
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Bytes of snapshots against the 99th percentile of latency, with what no other policy beats in both."""
        from eventlab.plots import plot_pareto

        return plot_pareto(self.frame, ax=ax)

    @property
    def verdict(self) -> str:
        """What it comes to, in words: a line per workload and budget."""
        means = self.frame.group_by("workload", "budget", "policy", maintain_order=True).agg(
            pl.col("headroom").first(), pl.col("latency_mean_ms", "captured").mean(), pl.col("feasible").all()
        )
        lines = []
        for (workload, budget), rows in means.group_by(["workload", "budget"], maintain_order=True):
            best = rows.sort("latency_mean_ms").row(0, named=True)
            under = "" if budget is None else f" within {budget:,} bytes"
            line = f"{workload}{under}: {best['policy']} is fastest, {best['latency_mean_ms']:.3g} ms a read on average"
            if best["headroom"] < WORTHWHILE:
                line += f"; headroom {best['headroom']:.2f}: nothing adaptive can help here"
            else:
                line += f"; headroom {best['headroom']:.2f}"
                if best["captured"] is not None:
                    line += f", of which it captures {best['captured']:.0%}"
                elif best["feasible"]:
                    line += " of what is replayed, but the rest of a read outweighs that: next to nothing to gain"
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
        said = "<br>".join(escape(line if len(line) <= 400 else line[:399] + "…") for line in self._lines())
        head = self.frame.head(_SHOWN_ROWS)
        more = f" (first {_SHOWN_ROWS} shown)" if len(self.frame) > _SHOWN_ROWS else ""
        return f"<b>{escape(self._title())}{more}</b><p>{said}</p>{head._repr_html_()}"
