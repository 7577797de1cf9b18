"""Where snapshots of one aggregate are best placed, if it were known which versions will be read.

A read of version v starts at the newest snapshot s at or below v, or at the initial state, which is version 0, and
takes ``restore[s] + replay[v] - before[s]`` seconds. So every snapshot decides for the reads up to the next one, and
the best placement is a cheapest path through the versions: `optimal` finds it exactly, `within` under a budget.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from eventlab.errors import SnapshotError
from eventlab.events.frame import Float64Array, Int64Array
from eventlab.snapshots.placement.shortest_paths import Budgeted, Paths

Versions: TypeAlias = "Int64Array | Sequence[int]"

WORTHWHILE = 1.1
"""A `headroom` below this leaves nothing to gain from placing snapshots unevenly."""


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What reads and snapshots of one aggregate cost, by version: index 0 is the initial state, index n the head.

    Attributes
    ----------
    replay : float64 array, shape (n + 1,)
        Seconds to decode and fold everything up to the end of the version's row group.
    before : float64 array, shape (n + 1,)
        Seconds of that which a snapshot at the version saves: to decode up to the start of its row group, and to fold
        up to the version.
    restore : float64 array, shape (n + 1,)
        Seconds to load a snapshot at the version; of index 0, to start from nothing.
    size : float64 array, shape (n + 1,)
        Bytes of a snapshot at the version.

    Raises
    ------
    SnapshotError
        Their shapes differ, or there is a negative number, an infinite one or NaN.
    """

    replay: Float64Array
    before: Float64Array
    restore: Float64Array
    size: Float64Array

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _numbers(field.name, getattr(self, field.name)))
            _check_length(field.name, getattr(self, field.name), self)


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Snapshots, and what they bring and cost.

    Attributes
    ----------
    versions : int64 array
        Where they are, ascending.
    latency : float
        Seconds that a read takes, as the mean over the weights.
    size : float
        Bytes of all of them.
    price : float
        What a byte was taken to cost (of `within` with a count: what a snapshot was), in seconds of weighted reads.
    """

    versions: Int64Array
    latency: float
    size: float
    price: float


def optimal(
    weights: npt.ArrayLike,
    costs: Costs,
    *,
    size_price: float = 0.0,
    max_gap: int | None = None,
    candidates: Versions | None = None,
) -> Placement:
    """The placement with the least sum of weighted latencies and of its snapshots' prices; exact.

    Takes O(n) where what a snapshot saves rises from version to version, and O(n log n) at most.

    Parameters
    ----------
    weights : float64 array, shape (n + 1,)
        How often each version is read; at least one above zero. Prices are weighed against sums over them
        as they are.
    costs : Costs
    size_price : float
        Seconds that a byte is worth.
    max_gap : int, optional
        The most events between any version and the snapshot, or initial state, that its read starts at.
    candidates : int64 array, optional
        The only versions at which a snapshot may be, ascending, from 1 to n.

    Raises
    ------
    SnapshotError
        An argument makes no sense, or no placement keeps to `max_gap`.

    Examples
    --------
    Events take a microsecond each; all reads but a few are of one version:

    >>> n = 1_000
    >>> zero = np.zeros(n + 1)
    >>> costs = Costs(1e-6 * np.arange(n + 1), 1e-6 * np.arange(n + 1), zero, zero + 500.0)
    >>> weights = np.full(n + 1, 0.001)
    >>> weights[700] = 1.0
    >>> found = optimal(weights, costs, size_price=1e-6)
    >>> found.versions, found.size
    (array([700]), 500.0)
    >>> latency_of(weights, costs, []) / found.latency > 3
    True
    """
    weights = _weights(weights, costs)
    paths = _paths(weights, costs, max_gap, candidates)
    chain = paths.cheapest(_price("size_price", size_price) * costs.size[paths.starts])
    return _placement(paths.nodes[chain], weights, costs, size_price)


def within(
    weights: npt.ArrayLike,
    costs: Costs,
    *,
    size: float | None = None,
    count: int | None = None,
    max_gap: int | None = None,
    candidates: Versions | None = None,
) -> Placement:
    """The best placement found whose snapshots have at most so many bytes together, or are at most so many.

    Larger budgets buy lower latencies, and every price of a byte (or a snapshot) has its placement on the lower convex
    hull of the two. The two neighbours on the hull between which the budget lies are found by solving for the slope
    between the closest ones known, again and again. The one within the budget is the best of its size. It is
    improved, where it can be, by the beginning of one of the two and the end of the other: under a `count`, the result
    is the best there is where ``restore - before`` never rises [1]_.

    Parameters
    ----------
    weights, costs, max_gap, candidates
        As for `optimal`.
    size : float
        Bytes.
    count : int
        Snapshots. Give one of the two.

    Raises
    ------
    SnapshotError
        An argument makes no sense, the budget is below one snapshot, or no placement within it keeps to `max_gap`.

    References
    ----------
    .. [1] A. Aggarwal, B. Schieber, T. Tokuyama (1994), "Finding a minimum-weight k-link path in graphs with the
       concave Monge property and applications", Discrete & Computational Geometry 12.

    Examples
    --------
    >>> n = 1_000
    >>> zero = np.zeros(n + 1)
    >>> costs = Costs(1e-6 * np.arange(n + 1), 1e-6 * np.arange(n + 1), zero, zero + 500.0)
    >>> within(np.ones(n + 1), costs, count=3).versions
    array([250, 500, 750])
    """
    weights = _weights(weights, costs)
    budget, units = _budget(size, count, costs)
    paths = _paths(weights, costs, max_gap, candidates)
    units = units[paths.starts]
    least = units[1:].min(initial=np.inf)
    if budget < least < np.inf:
        raise SnapshotError("the budget is below one snapshot", got=f"{budget:g} bytes", expected=f"from {least:g} on")
    chain, price = Budgeted(paths, units).best(budget)
    return _placement(paths.nodes[chain], weights, costs, price)


def latencies_of(costs: Costs, versions: Versions) -> Float64Array:
    """Seconds that a read of each version takes, with snapshots at these ones, shape (n + 1,).

    Raises
    ------
    SnapshotError
        They are not ascending versions from 1 to n.

    Examples
    --------
    >>> costs = Costs([0, 1, 2, 3], [0, 1, 2, 3], [0, 0.5, 0.5, 0.5], [0, 9, 9, 9])
    >>> latencies_of(costs, [2])
    array([0. , 1. , 0.5, 1.5])
    """
    bases = np.concatenate([[0], _versions("versions", versions, costs)])
    reads = np.diff(bases, append=len(costs.replay))
    latencies = np.repeat(costs.restore[bases] - costs.before[bases], reads)
    latencies += costs.replay
    return latencies


def latency_of(weights: npt.ArrayLike, costs: Costs, versions: Versions) -> float:
    """Seconds that a read takes as the mean over `weights`, with snapshots at these versions.

    Raises
    ------
    SnapshotError
        As for `optimal` and `latencies_of`.
    """
    return _mean(_weights(weights, costs), costs, versions)


def headroom(weights: npt.ArrayLike) -> float:
    """How many times longer reads take with evenly spaced snapshots than with as many placed at best, at most.

    Reads fold half the distance between snapshots. With k of n versions that is ``n / (2 k)`` events where they are
    even, and ``sum(sqrt(p))**2 / (2 k sum(p))`` on average where their density is like ``sqrt(p)``. By Cauchy-Schwarz
    the quotient is at least 1; below `WORTHWHILE` there is nothing to gain.

    Raises
    ------
    SnapshotError

    Examples
    --------
    >>> headroom([2.0, 2.0, 2.0, 2.0]), headroom([0.0, 0.0, 0.0, 2.0])
    (1.0, 4.0)
    """
    weights = _read(_numbers("weights", weights))
    share = weights / weights.sum()
    return max(1.0, len(share) / float(np.sqrt(share).sum()) ** 2)


def _paths(weights: Float64Array, costs: Costs, max_gap: int | None, candidates: Versions | None) -> Paths:
    end = len(weights)
    nodes, reads = np.arange(end + 1), np.zeros(end + 1)
    np.cumsum(weights, out=reads[1:])
    slopes = costs.restore - costs.before
    if candidates is not None:
        nodes = np.concatenate([[0], _versions("candidates", candidates, costs), [end]])
        reads, slopes = reads[nodes], slopes[nodes[:-1]]
    return Paths(nodes, slopes, reads, None if max_gap is None else min(_positive_integer("max_gap", max_gap), end) + 1)


def _placement(versions: Int64Array, weights: Float64Array, costs: Costs, price: float) -> Placement:
    return Placement(versions, _mean(weights, costs, versions), float(costs.size[versions].sum()), float(price))


def _mean(weights: Float64Array, costs: Costs, versions: Versions) -> float:
    return float(weights @ latencies_of(costs, versions) / weights.sum())


def _numbers(name: str, given: npt.ArrayLike) -> Float64Array:
    try:
        numbers = np.ascontiguousarray(given, np.float64)
    except (TypeError, ValueError):
        raise SnapshotError(f"{name} must be numbers", got=given, expected="a float64 array") from None
    if np.ndim(given) != 1 or not len(numbers):
        raise SnapshotError(f"{name} must have one dimension", got=np.shape(given), expected="(n + 1,)")
    if not (numbers.min() >= 0.0 and numbers.max() < np.inf):  # NaN is neither
        bad = np.flatnonzero(~((numbers >= 0.0) & (numbers < np.inf)))
        raise SnapshotError(
            f"{name} has a number that makes no sense", got=f"{numbers[bad[0]]} at index {bad[0]}",
            expected="finite ones, zero or more",
        )  # fmt: skip
    return numbers


def _read(weights: Float64Array) -> Float64Array:
    if not 0.0 < weights.sum() < np.inf:
        raise SnapshotError(
            "the weights have no sum to speak of", got=float(weights.sum()), expected="at least one above zero"
        )
    return weights


def _weights(given: npt.ArrayLike, costs: Costs) -> Float64Array:
    weights = _numbers("weights", given)
    _check_length("weights", weights, costs)
    return _read(weights)


def _check_length(name: str, numbers: Float64Array, costs: Costs) -> None:
    if len(numbers) != len(costs.replay):
        raise SnapshotError(
            f"{name} does not have one number for each version", got=len(numbers), expected=len(costs.replay),
            hint="All begin with version 0, the initial state.",
        )  # fmt: skip


def _versions(name: str, given: Versions, costs: Costs) -> Int64Array:
    versions = np.asarray(given)
    if not versions.size:
        return np.empty(0, np.int64)
    last = len(costs.replay) - 1
    if versions.ndim != 1 or versions.dtype.kind not in "iu":
        raise SnapshotError(f"{name} must be whole numbers in one dimension", got=given, expected="e.g. [100, 200]")
    if versions[0] < 1 or versions[-1] > last or not (versions[1:] > versions[:-1]).all():
        raise SnapshotError(f"{name} must be ascending, each once", got=given, expected=f"versions from 1 to {last}")
    return versions.astype(np.int64)


def _price(name: str, given: float) -> float:
    if isinstance(given, (bool, str)) or not 0.0 <= (number := float(given)) < math.inf:
        raise SnapshotError(f"{name} makes no sense", got=given, expected="a finite number, zero or more")
    return number


def _positive_integer(name: str, given: SupportsIndex) -> int:
    try:
        number = 0 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = 0
    if number < 1:
        raise SnapshotError(f"{name} must be a whole number from 1 on", got=given, expected="e.g. 1000")
    return number


def _budget(size: float | None, count: int | None, costs: Costs) -> tuple[float, Float64Array]:
    """The budget, and what of it a snapshot at each version takes."""
    if count is not None and size is None:
        return _positive_integer("count", count), np.ones_like(costs.size)
    if size is not None and count is None:
        return _price("size", size), costs.size
    raise SnapshotError(
        "within takes one budget", got=f"size={size}, count={count}", expected="size=, in bytes, or count="
    )
