"""Checks of an experiment's arguments: policies, workloads, intervals, budgets, seeds, and the aggregate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from eventlab.errors import SnapshotError, UnknownAggregate
from eventlab.events.arguments import checked_int
from eventlab.experiments.measurement import HasStore, Subject
from eventlab.fold.declare.reducer import Reducer, ReducerLike, as_reducer
from eventlab.snapshots.placement.workloads import Workload
from eventlab.snapshots.policy import rules
from eventlab.snapshots.policy.rules import Policy
from eventlab.store.api import Store

T = TypeVar("T")


def _longest_aggregate(store: Store, reducer: Reducer) -> str:
    """The aggregate with the most events, among those with events that the reducer handles."""
    handled = store.aggregates_with(reducer.event_types)
    if not handled:
        raise UnknownAggregate(
            f"no aggregate has events that {reducer.name} handles", expected=", ".join(sorted(reducer.event_types)),
        )  # fmt: skip
    return min(store.heads(handled), key=lambda head: (-head.version, head.aggregate_id)).aggregate_id


def by_name(what: str, given: Sequence[T] | Mapping[str, T], kind: type) -> dict[str, T]:
    """The policies or workloads by name; those of a sequence go by their repr."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise SnapshotError(f"expected a sequence or mapping of {what} objects", got=given)
    pairs = list(given.items()) if isinstance(given, Mapping) else [(repr(one), one) for one in given]
    if not pairs:
        raise SnapshotError(f"no {what} to compare", expected="at least one")
    for name, one in pairs:
        if not isinstance(one, kind):
            example = "el.snapshots.Every(100)" if kind is Policy else "el.workloads.Uniform()"
            raise SnapshotError(f"not a {what}", got=one, expected=f"e.g. {example}")
        if not isinstance(name, str) or not name:
            raise SnapshotError(f"not the name of a {what}", got=name, expected="a non-empty string")
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SnapshotError(f"duplicate {what}", got=twice, hint="Pass a mapping to give them different names.")
    return unique


def policies(given: Sequence[Policy] | Mapping[str, Policy]) -> dict[str, Policy]:
    """Valid policies by name."""
    named = by_name("policy", given, Policy)
    for policy in named.values():
        rules.check(policy)
    return named


def subject(lab: HasStore, reducer: ReducerLike, aggregate_id: str | None) -> Subject:
    """The reducer and aggregate of an experiment; by default the longest aggregate that the reducer handles."""
    reducer = as_reducer(reducer)
    return Subject.of(lab, reducer, _longest_aggregate(lab.store, reducer) if aggregate_id is None else aggregate_id)


def budgets(given: Iterable[int | None]) -> list[int | None]:
    """Distinct budgets in bytes; None for no limit."""
    values = non_empty("budget", given, "(None, 1_000_000)")
    return _distinct("budget", [None if one is None else positive("a budget in bytes", one) for one in values])


def intervals(given: Iterable[int | None]) -> list[int | None]:
    """Distinct numbers of events between snapshots; None for no snapshots."""
    values = non_empty("snapshot interval", given, "(None, 100, 1_000)")
    return _distinct("snapshot interval", [None if n is None else positive("a snapshot interval", n) for n in values])


def seeds(given: Iterable[int]) -> list[int]:
    """Distinct seeds."""
    return _distinct("seed", [non_negative("a seed", one) for one in non_empty("seed", given, "(0, 1, 2)")])


def positive(what: str, value: object) -> int:
    """An integer of at least 1. Raises SnapshotError."""
    return checked_int(what, value, 1, error=SnapshotError)


def non_negative(what: str, value: object) -> int:
    """An integer of at least 0. Raises SnapshotError."""
    return checked_int(what, value, 0, error=SnapshotError)


def check_workload(workload: object) -> None:
    """Raise SnapshotError unless it is a workload."""
    if not isinstance(workload, Workload):
        raise SnapshotError("not a workload", got=workload, expected="e.g. el.workloads.Uniform()")


def non_empty(what: str, given: Iterable[T], example: str) -> list[T]:
    """A list of at least one value. Raises SnapshotError."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise SnapshotError(f"{what}s must be a sequence", got=given, expected=f"e.g. {example}")
    found = list(given)
    if not found:
        raise SnapshotError(f"no {what}", expected="at least one")
    return found


def _distinct(what: str, values: list[T]) -> list[T]:
    if len(set(values)) < len(values):
        raise SnapshotError(f"duplicate {what}", got=values)
    return values
