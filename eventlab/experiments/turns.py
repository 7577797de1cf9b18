"""Trials: under one workload, budget and seed all policies are measured in turns, and must give the same states."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from eventlab.errors import BudgetTooSmall, SnapshotError, SnapshotSkipped
from eventlab.events.frame import Int64Array
from eventlab.experiments.measuring import FROZEN, Subject, percentiles, private_shelves
from eventlab.experiments.trials import Ledger, SnapshotTrial, Trial, identity
from eventlab.experiments.yardstick import Yardstick, warm
from eventlab.fold.declare.reducer import Reducer
from eventlab.runtime.progress import tqdm
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.placement.workloads import Workload
from eventlab.snapshots.policy.cost_model import Model
from eventlab.snapshots.policy.rules import Policy
from eventlab.store.event_log import EventLog
from eventlab.timetravel.calibration import calibrated, undisturbed

_PLAIN_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Design:
    """What is compared, under which circumstances."""

    policies: dict[str, Policy]
    workloads: dict[str, Workload]
    budgets: list[int | None]
    seeds: list[int]
    reads: int


@dataclass(frozen=True)
class _Group:
    """What is measured in turns: all policies under one workload, budget and seed."""

    workload: str
    reads: Workload
    budget: int | None
    seed: int
    versions: Int64Array
    identities: dict[str, str]
    """Of the trial of each policy, by its name."""

    @staticmethod
    def all(subject: Subject, design: Design) -> Iterator[_Group]:
        for name, workload in design.workloads.items():
            for seed in design.seeds:
                drawn = workload.draw(subject.head, design.reads, np.random.default_rng(seed))
                for budget in design.budgets:
                    shared = (
                        subject.store.store_id, subject.reducer.fingerprint, subject.aggregate_id, subject.head,
                        name, workload, budget, seed, design.reads, drawn,
                    )  # fmt: skip
                    identities = {given: identity(given, policy, *shared) for given, policy in design.policies.items()}
                    yield _Group(name, workload, budget, seed, drawn, identities)

    @property
    def training(self) -> Int64Array:
        return self.versions[: len(self.versions) // 2]

    @property
    def measured(self) -> Int64Array:
        return self.versions[len(self.versions) // 2 :]


class _Machine:
    """What reads cost here, measured when first asked, and once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._yardsticks: dict[str, Yardstick] = {}

    @cached_property
    def model(self) -> Model:
        return calibrated(self._subject.store, self._subject.reducer, self._subject.aggregate_id)

    def measure(self, _store: EventLog, _reducer: Reducer, _aggregate: str) -> Model:
        return self.model

    def yardstick(self, group: _Group) -> Yardstick:
        if group.workload not in self._yardsticks:
            store, head = self._subject.store, self._subject.head
            costs = self.model.costs(head, store.first_versions(self._subject.aggregate_id))
            self._yardsticks[group.workload] = Yardstick.of(group.reads.density(head), costs)
        return self._yardsticks[group.workload]


def measured(subject: Subject, design: Design, ledger: Ledger | None, *, progress: bool) -> list[Trial]:
    """All trials in the order of the design: those that were there, and the others."""
    groups = list(_Group.all(subject, design))
    wanted = {trial for group in groups for trial in group.identities.values()}
    kept = [] if ledger is None else ledger.trials()
    _check_names(subject, design, groups, kept)
    there = {one.summary.trial: one for one in kept}
    machine, found = _Machine(subject), list[Trial]()
    if not wanted <= there.keys():
        warm()
    total = len(wanted - there.keys()) * design.reads
    with tqdm(total=total, desc="snapshot policies", unit="read", disable=not progress, leave=None) as bar:
        for group in groups:
            missing = {name: policy for name, policy in design.policies.items() if group.identities[name] not in there}
            if missing:
                made = _measure(subject, group, missing, machine, bar)
                _check_answers(subject, [*made, *(there[t] for t in group.identities.values() if t in there)])
                if ledger is not None:
                    ledger.keep(made)
                there.update({one.summary.trial: one for one in made})
            found += [there[trial] for trial in group.identities.values()]
    return sorted(found, key=lambda one: list(design.policies).index(one.summary.policy))


def _check_names(subject: Subject, design: Design, groups: Sequence[_Group], kept: Sequence[Trial]) -> None:
    """Raise SnapshotError where a name stands for another policy or workload than in the trials kept so far."""
    reads = {(group.workload, group.seed): group.measured for group in groups}
    trials = {
        (group.workload, group.budget, group.seed, policy): trial
        for group in groups
        for policy, trial in group.identities.items()
    }
    about = (subject.reducer.name, subject.aggregate_id, subject.head, design.reads)
    for one in kept:
        told = one.summary
        if (told.reducer, told.subject, told.head, told.drawn) != about:
            continue
        measured = reads.get((told.workload, told.seed))
        other = None
        if measured is not None and not np.array_equal(measured, one.versions):
            other = f"{told.workload!r} is another workload"
        elif trials.get((told.workload, told.budget, told.seed, told.policy), told.trial) != told.trial:
            other = f"{told.policy!r} is another policy, or {told.reducer} another reducer,"
        if other is not None:
            raise SnapshotError(
                f"{other} than in the trials that this experiment has",
                hint="Call it otherwise, or begin another experiment with name=.",
            )


def _measure(
    subject: Subject, group: _Group, policies: Mapping[str, Policy], machine: _Machine, bar: tqdm[Any]
) -> list[Trial]:
    yardstick = machine.yardstick(group)
    count = len(group.measured)
    with private_shelves(subject.store, len(policies), machine.measure) as shelves:
        plain = _plain_fold(subject)
        rows = []
        for (name, policy), shelf in zip(policies.items(), shelves, strict=True):
            rows.append(_prepared(subject, group, name, policy, shelf, plain))
            bar.update(len(group.training))
        taken, answers = np.empty((len(policies), count), np.int64), []
        generator = np.random.default_rng(group.seed)
        with undisturbed():
            for at, version in enumerate(group.measured.tolist()):
                taken[:, at], state = subject.in_turns(version, shelves, generator.permutation(len(shelves)))
                answers.append(state)
                bar.update(len(shelves))
        kept = [_kept(subject, shelf) for shelf in shelves]
    trials = []
    for name, (prepared, feasible), (versions, size), nanoseconds in zip(policies, rows, kept, taken, strict=True):
        ratio, captured = yardstick.held(versions)
        bases = np.concatenate([[0], versions])[np.searchsorted(versions, group.measured, "right")]
        summary = SnapshotTrial(
            trial=group.identities[name], answers=identity(answers), reducer=subject.reducer.name,
            subject=subject.aggregate_id, head=subject.head, drawn=len(group.versions), policy=name,
            workload=group.workload, budget=group.budget, seed=group.seed, snapshots=len(versions), bytes=size,
            **prepared, reads=count, **percentiles(nanoseconds), latency_mean_ms=float(nanoseconds.mean()) / 1e6,
            events_replayed=float((group.measured - bases).mean()), optimum_ratio=ratio, headroom=yardstick.headroom,
            captured=captured, feasible=feasible,
        )  # fmt: skip
        trials.append(Trial(summary, group.measured, nanoseconds))
    return trials


def _prepared(
    subject: Subject, group: _Group, name: str, policy: Policy, shelf: Snapshots, plain: float
) -> tuple[dict[str, Any], bool]:
    """Build, train, and keep to the budget: what that took, and whether a snapshot fits into the budget at all."""
    build = training = 0.0
    evictions, feasible = 0, True
    try:
        built, build = subject.build(shelf, policy)
        shelf.policy = FROZEN
        if policy.on_read:
            training = sum(subject.offer(version, shelf, policy) for version in group.training.tolist())
        evictions = built.evicted + (0 if group.budget is None else _fit(subject, shelf, name, group.budget))
    except BudgetTooSmall as error:
        feasible, shelf.policy = False, FROZEN
        told = f"{name} is measured without snapshots of {subject.reducer.name}: {error}"
        warnings.warn(told, SnapshotSkipped, stacklevel=5)
        shelf.drop()
    subject.warm(shelf)
    taken = {
        "evictions": evictions, "build_seconds": build, "training_seconds": training,
        "write_seconds": max(build - plain, 0.0),
    }  # fmt: skip
    return taken, feasible


def _fit(subject: Subject, shelf: Snapshots, name: str, budget: int) -> int:
    """Let snapshots of the lowest versions go until the others fit; how many went."""
    table = shelf.table()
    sizes = table["bytes"].to_numpy()
    fitting = int((np.cumsum(sizes[::-1]) <= budget).sum())
    if fitting == 0 < len(sizes):
        raise BudgetTooSmall(
            f"a budget below one snapshot of {name}", got=f"{budget:,} bytes",
            expected=f"at least {math.ceil(sizes[-1]):,}",
        )  # fmt: skip
    gone = table["version"].to_numpy()[: len(sizes) - fitting]
    if len(gone):
        shelf.evict(subject.reducer, subject.aggregate_id, gone)
    return len(gone)


def _kept(subject: Subject, shelf: Snapshots) -> tuple[Int64Array, int]:
    """Versions of the snapshots that there are, and their bytes."""
    table = shelf.table().filter(pl.col("aggregate_id") == subject.aggregate_id)
    return table["version"].to_numpy(), math.floor(table["bytes"].sum())


def _plain_fold(subject: Subject) -> float:
    """Seconds of a fold of all events that makes no snapshot: the median of a few."""
    subject.warm(None)
    return float(np.median([subject.read(subject.head, None)[0] for _ in range(_PLAIN_FOLDS)])) / 1e9


def _check_answers(subject: Subject, trials: Sequence[Trial]) -> None:
    answers = {one.summary.answers for one in trials}
    if len(answers) > 1:
        raise SnapshotError(
            f"states of {subject.aggregate_id!r} differ from those measured before",
            got=", ".join(sorted(answers)), expected="one digest of all that was read",
            hint="Please report this: no correct fold does that.",
        )  # fmt: skip
