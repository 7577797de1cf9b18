"""What an experiment is asked for, checked: policies, workloads, intervals, budgets, seeds, and whose states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from eventlab.errors import SnapshotError, UnknownAggregate
from eventlab.experiments.measuring import whole
from eventlab.fold.declare.reducer import Reducer
from eventlab.snapshots.policy.rules import Policy
from eventlab.store.api import Store

T = TypeVar("T")


def longest(store: Store, reducer: Reducer) -> str:
    """The aggregate of most events, of those that have any for the reducer."""
    handled = store.aggregates_with(reducer.event_types)
    if not handled:
        raise UnknownAggregate(
            f"no aggregate has events that {reducer.name} handles", expected=", ".join(sorted(reducer.event_types)),
        )  # fmt: skip
    return min(store.heads(handled), key=lambda head: (-head.version, head.aggregate_id)).aggregate_id


def named(what: str, given: Sequence[T] | Mapping[str, T], kind: type) -> dict[str, T]:
    """What is compared, by name: its own text where none was given."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise SnapshotError(f"not a sequence or mapping of {what} objects", got=given)
    pairs = list(given.items()) if isinstance(given, Mapping) else [(repr(one), one) for one in given]
    if not pairs:
        raise SnapshotError(f"there is no {what} to compare", expected="at least one")
    for name, one in pairs:
        if not isinstance(one, kind):
            example = "el.snapshots.Every(100)" if kind is Policy else "el.workloads.Uniform()"
            raise SnapshotError(f"not a {what}", got=one, expected=f"e.g. {example}")
        if not isinstance(name, str) or not name:
            raise SnapshotError(f"not the name of a {what}", got=name, expected="text")
    named = dict(pairs)
    if len(named) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SnapshotError(f"a {what} is there twice", got=twice, hint="Give a mapping of names where two look alike.")
    return named


def budgets(given: Iterable[int | None]) -> list[int | None]:
    """Bytes, or None for no limit, each once."""
    asked = several("budget", given, "(None, 1_000_000)")
    return _distinct("budget", [None if one is None else whole("a budget in bytes", one, 1) for one in asked])


def intervals(given: Iterable[int | None]) -> list[int | None]:
    """Events from one snapshot to the next, or None for no snapshots, each once."""
    asked = several("snapshot interval", given, "(None, 100, 1_000)")
    return _distinct("snapshot interval", [None if n is None else whole("a snapshot interval", n, 1) for n in asked])


def seeds(given: Iterable[int]) -> list[int]:
    """Whole numbers, each once."""
    return _distinct("seed", [whole("a seed", one, 0) for one in several("seed", given, "(0, 1, 2)")])


def several(what: str, given: Iterable[T], example: str) -> list[T]:
    """One or more. Raises SnapshotError."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise SnapshotError(f"{what}s must be a sequence", got=given, expected=f"e.g. {example}")
    found = list(given)
    if not found:
        raise SnapshotError(f"there is no {what}", expected="at least one")
    return found


def _distinct(what: str, values: list[T]) -> list[T]:
    if len(set(values)) < len(values):
        raise SnapshotError(f"a {what} is there twice", got=values)
    return values
