"""Interleaved trials: all policies read the same versions in turn, and must give the same states."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from eventlab.errors import BudgetTooSmall, SnapshotError, SnapshotSkipped
from eventlab.events.frame import Int64Array
from eventlab.experiments.measurement import FROZEN, Subject, percentiles, private_snapshots
from eventlab.experiments.placement_score import PlacementScorer, warm
from eventlab.experiments.trials import SnapshotTrial, Trial, TrialLog, identity
from eventlab.runtime.progress import tqdm
from eventlab.snapshots.collection import Measure, Snapshots
from eventlab.snapshots.placement.workloads import Workload
from eventlab.snapshots.policy.cost_model import Model
from eventlab.snapshots.policy.rules import Policy
from eventlab.timetravel.calibration import calibrated

_PLAIN_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Design:
    """The policies, workloads, budgets, seeds and number of reads of a comparison."""

    policies: dict[str, Policy]
    workloads: dict[str, Workload]
    budgets: list[int | None]
    seeds: list[int]
    reads: int


@dataclass(frozen=True)
class _TrialGroup:
    """All policies under one workload, budget and seed, measured interleaved."""

    workload: str
    budget: int | None
    seed: int
    versions: Int64Array
    identities: dict[str, str]
    """Trial id by policy name."""

    @staticmethod
    def all(subject: Subject, design: Design) -> Iterator[_TrialGroup]:
        for name, workload in design.workloads.items():
            for seed in design.seeds:
                drawn = workload.draw(subject.head, design.reads, np.random.default_rng(seed))
                for budget in design.budgets:
                    shared = (
                        subject.store.store_id, subject.reducer.fingerprint, subject.aggregate_id, subject.head,
                        name, workload, budget, seed, design.reads, drawn,
                    )  # fmt: skip
                    identities = {given: identity(given, policy, *shared) for given, policy in design.policies.items()}
                    yield _TrialGroup(name, budget, seed, drawn, identities)

    @property
    def training(self) -> Int64Array:
        return self.versions[: len(self.versions) // 2]

    @property
    def measured(self) -> Int64Array:
        return self.versions[len(self.versions) // 2 :]


def run(subject: Subject, design: Design, log: TrialLog | None, *, progress: bool) -> list[Trial]:
    """All trials in the order of the design. Measures only those that the log does not have."""
    groups = list(_TrialGroup.all(subject, design))
    wanted = {trial for group in groups for trial in group.identities.values()}
    stored = [] if log is None else log.trials()
    _check_names(subject, design, groups, stored)
    done = {one.summary.trial: one for one in stored}
    found = list[Trial]()

    @cache  # measured at most once, and only if needed
    def model() -> Model:
        return calibrated(subject.store, subject.reducer, subject.aggregate_id)

    @cache
    def scorer(workload: str) -> PlacementScorer:
        costs = model().costs(subject.head, subject.store.first_versions(subject.aggregate_id))
        return PlacementScorer.of(design.workloads[workload].density(subject.head), costs)

    if not wanted <= done.keys():
        warm()
    total = len(wanted - done.keys()) * design.reads
    with tqdm(total=total, desc="snapshot policies", unit="read", disable=not progress, leave=None) as bar:
        for group in groups:
            missing = {name: policy for name, policy in design.policies.items() if group.identities[name] not in done}
            if missing:
                measured = _measure(subject, group, missing, scorer(group.workload), lambda *_: model(), bar)
                _check_answers(subject, [*measured, *(done[t] for t in group.identities.values() if t in done)])
                if log is not None:
                    log.append(measured)
                done.update({one.summary.trial: one for one in measured})
            found += [done[trial] for trial in group.identities.values()]
    return sorted(found, key=lambda one: list(design.policies).index(one.summary.policy))


def _check_names(subject: Subject, design: Design, groups: Sequence[_TrialGroup], stored: Sequence[Trial]) -> None:
    """Raise SnapshotError if a name has another policy or workload than in the stored trials."""
    reads = {(group.workload, group.seed): group.measured for group in groups}
    trials = {
        (group.workload, group.budget, group.seed, policy): trial
        for group in groups
        for policy, trial in group.identities.items()
    }
    about = (subject.reducer.name, subject.aggregate_id, subject.head, design.reads)
    for one in stored:
        trial = one.summary
        if (trial.reducer, trial.subject, trial.head, trial.drawn) != about:
            continue
        measured = reads.get((trial.workload, trial.seed), one.versions)
        if not np.array_equal(measured, one.versions):
            difference = f"{trial.workload!r} is another workload"
        elif trials.get((trial.workload, trial.budget, trial.seed, trial.policy), trial.trial) != trial.trial:
            difference = f"{trial.policy!r} is another policy, or {trial.reducer} another reducer,"
        else:
            continue
        raise SnapshotError(
            f"{difference} than in the stored trials of this experiment",
            hint="Use another name for it, or start another experiment with name=.",
        )


def _measure(
    subject: Subject, group: _TrialGroup, policies: Mapping[str, Policy], scorer: PlacementScorer, measure: Measure,
    bar: tqdm[Any],
) -> list[Trial]:  # fmt: skip
    count = len(group.measured)
    with private_snapshots(subject.store, len(policies), measure) as collections:
        subject.warm(None)
        plain = float(np.median([subject.read(subject.head, None)[0] for _ in range(_PLAIN_FOLDS)])) / 1e9
        rows = []
        for (name, policy), snapshots in zip(policies.items(), collections, strict=True):
            rows.append(_prepare(subject, group, name, policy, snapshots, plain))
            bar.update(len(group.training))
        taken, answers = subject.read_all(group.measured, collections, np.random.default_rng(group.seed), bar)
        tables = [snapshots.table().filter(pl.col("aggregate_id") == subject.aggregate_id) for snapshots in collections]
    trials = []
    for name, (prepared, feasible), table, nanoseconds in zip(policies, rows, tables, taken, strict=True):
        versions = table["version"].to_numpy()
        ratio, captured = scorer.score(versions)
        bases = np.concatenate([[0], versions])[np.searchsorted(versions, group.measured, "right")]
        summary = SnapshotTrial(
            trial=group.identities[name], answers=identity(answers), reducer=subject.reducer.name,
            subject=subject.aggregate_id, head=subject.head, drawn=len(group.versions), policy=name,
            workload=group.workload, budget=group.budget, seed=group.seed, snapshots=len(versions),
            bytes=math.floor(table["bytes"].sum()), **prepared, reads=count, **percentiles(nanoseconds),
            latency_mean_ms=float(nanoseconds.mean()) / 1e6, events_replayed=float((group.measured - bases).mean()),
            optimum_ratio=ratio, headroom=scorer.headroom, captured=captured, feasible=feasible,
        )  # fmt: skip
        trials.append(Trial(summary, group.measured, nanoseconds))
    return trials


def _prepare(
    subject: Subject, group: _TrialGroup, name: str, policy: Policy, snapshots: Snapshots, plain: float
) -> tuple[dict[str, Any], bool]:
    """Build, train, and evict down to the budget: the costs, and whether one snapshot fits into the budget."""
    build = training = 0.0
    evictions, feasible = 0, True
    try:
        built, build = subject.build(snapshots, policy)
        snapshots.policy = FROZEN
        if policy.on_read:
            training = sum(subject.offer(version, snapshots, policy) for version in group.training.tolist())
        evictions = built.evicted + (0 if group.budget is None else _fit(subject, snapshots, name, group.budget))
    except BudgetTooSmall as error:
        feasible, snapshots.policy = False, FROZEN
        message = f"{name} is measured without snapshots of {subject.reducer.name}: {error}"
        warnings.warn(message, SnapshotSkipped, stacklevel=5)
        snapshots.drop()
    subject.warm(snapshots)
    taken = {
        "evictions": evictions, "build_seconds": build, "training_seconds": training,
        "write_seconds": max(build - plain, 0.0),
    }  # fmt: skip
    return taken, feasible


def _fit(subject: Subject, snapshots: Snapshots, name: str, budget: int) -> int:
    """Evict snapshots of the lowest versions until the others fit; returns how many."""
    table = snapshots.table()
    sizes = table["bytes"].to_numpy()
    fitting = int((np.cumsum(sizes[::-1]) <= budget).sum())
    if fitting == 0 < len(sizes):
        raise BudgetTooSmall(
            f"the budget is below one snapshot of {name}", got=f"{budget:,} bytes",
            expected=f"at least {math.ceil(sizes[-1]):,}",
        )  # fmt: skip
    evicted = table["version"].to_numpy()[: len(sizes) - fitting]
    if len(evicted):
        snapshots.evict(subject.reducer, subject.aggregate_id, evicted)
    return len(evicted)


def _check_answers(subject: Subject, trials: Sequence[Trial]) -> None:
    answers = {one.summary.answers for one in trials}
    if len(answers) > 1:
        raise SnapshotError(
            f"states of {subject.aggregate_id!r} differ from those measured before",
            got=", ".join(sorted(answers)), expected="one digest of all states",
            hint="This is a bug in eventlab; please report it.",
        )  # fmt: skip
