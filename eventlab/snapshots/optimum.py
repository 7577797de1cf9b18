"""The best placement of snapshots for known reads, by dynamic programming, and the closed forms beside it.

Reads of version v start at the newest snapshot s at or below it and take ``restore[s] + replay[v] - before[s]``; a
snapshot at i is charged ``size_price * size[i] + write_price * write[i]``. Weights say how often each version is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eventlab.errors import SnapshotError
from eventlab.events.frame import Int64Array
from eventlab.fold.function import Function
from eventlab.snapshots import envelopes
from eventlab.snapshots.costs import Costs

Float64Array = npt.NDArray[np.float64]

WORTHWHILE = 1.1
"""A headroom below it is nothing to gain: measurements differ by more."""

_MOVES = 4
_STEPS = 40
_CLOSE = 0.99

_by_queue = Function(envelopes.chain_by_queue)
_by_tree = Function(envelopes.chain_by_tree)
_members = Function(envelopes.chain_members)


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where snapshots are.

    Attributes
    ----------
    versions : int64 array
        Ascending.
    latency : float
        Seconds of a read on average, by the weights.
    size, write : float
        Bytes of all snapshots, and seconds to make them.
    price : float
        What a byte was charged, in seconds of the average read.
    """

    versions: Int64Array
    latency: float
    size: float
    write: float
    price: float


def optimal(
    weights: Float64Array,
    costs: Costs,
    *,
    size_price: float = 0.0,
    write_price: float = 0.0,
    max_gap: int | None = None,
    candidates: Int64Array | None = None,
) -> Placement:
    """The placement whose average read, with what its snapshots are charged, takes least time.

    With i < j neighbours, P_j the weight of all reads before j and D_j the least that reads before j cost::

        D_j = min over i < j of D_i + price_i + (restore_i - before_i) * (P_j - P_i)

    which are lines in P_j: O(n) where their slopes do not rise, O(n log n) always.

    Parameters
    ----------
    weights : float64 array, shape (n + 1,)
        How often each version is read; they need not sum to 1.
    costs : Costs
    size_price, write_price : float
        Seconds of the average read that a byte, and a second of making snapshots, is worth.
    max_gap : int, optional
        No read may fold more events than so many.
    candidates : int64 array, optional
        Ascending versions at which a snapshot may be; all by default.

    Raises
    ------
    SnapshotError
        Weights or costs that make none, or a gap that the candidates leave open.

    Examples
    --------
    >>> import numpy as np
    >>> line = np.arange(5.0)
    >>> costs = Costs(line, line, np.zeros(5), np.ones(5), np.zeros(5))
    >>> optimal(np.array([0.0, 0, 0, 1, 1]), costs, size_price=0.6).versions.tolist()
    [3]
    """
    problem = _Problem.of(weights, costs, max_gap, candidates)
    return problem.placed(size_price, write_price)


def within(
    weights: Float64Array,
    costs: Costs,
    *,
    size: float | None = None,
    count: int | None = None,
    write_price: float = 0.0,
    max_gap: int | None = None,
    candidates: Int64Array | None = None,
) -> Placement:
    """The best placement found that takes at most so many bytes, or snapshots.

    The price of a byte is bisected, so it is one on the lower convex hull of all placements: none of its size or less
    is better by more than the hull's next corner.

    Raises
    ------
    SnapshotError
        As `optimal`; or no budget, or two; or one below one snapshot, or below what `max_gap` needs.

    Examples
    --------
    >>> import numpy as np
    >>> line = np.arange(101.0)
    >>> costs = Costs(line, line, np.zeros(101), np.ones(101), np.zeros(101))
    >>> within(np.ones(101), costs, count=4).versions.tolist()
    [20, 40, 60, 81]
    """
    if (size is None) == (count is None):
        raise SnapshotError("a budget is of bytes or of snapshots", got=f"size={size!r}, count={count!r}")
    budget = float(size if size is not None else count or 0)
    charged = costs if size is not None else Costs(
        costs.replay, costs.before, costs.restore, np.ones(len(costs.size)), costs.write
    )  # fmt: skip
    problem = _Problem.of(weights, charged, max_gap, candidates)
    least = problem.least_size
    if not budget >= least:
        raise SnapshotError("a budget below one snapshot", got=budget, expected=f"at least {least:g}")
    found = _bisected(problem, budget, write_price)
    if size is not None:
        return found
    real = float(costs.size[found.versions].sum())
    return Placement(found.versions, found.latency, real, found.write, found.price)


def _bisected(problem: _Problem, budget: float, write_price: float) -> Placement:
    free = problem.placed(0.0, write_price)
    if free.size <= budget:
        return free
    # A snapshot saves no read more than the slopes differ by.
    low, high = 0.0, max(float(np.ptp(problem.slopes)), 1e-12) / budget
    best = problem.placed(high, write_price)
    for _ in range(_STEPS):
        if best.size <= budget:
            break
        low, high = high, high * 16
        best = problem.placed(high, write_price)
    if best.size > budget:
        raise SnapshotError("the budget does not allow for the gap", got=budget, expected=f"at least {best.size:g}")
    for _ in range(_STEPS):
        if best.size >= _CLOSE * budget or high - low <= 1e-9 * high:
            break
        middle = math.sqrt(low * high) if low else high / 16
        tried = problem.placed(middle, write_price)
        if tried.size <= budget:
            high, best = middle, min(best, tried, key=lambda placed: placed.latency)
        else:
            low = middle
    return best


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """Nodes of a chain: the beginning, the candidates, and the end behind the last version."""

    weights: Float64Array
    costs: Costs
    versions: Int64Array
    reads: Float64Array
    slopes: Float64Array
    reach: int | None

    @staticmethod
    def of(weights: Float64Array, costs: Costs, max_gap: int | None, candidates: Int64Array | None) -> _Problem:
        weights = _checked("weights", weights, None)
        total = float(weights.sum())
        if not total > 0.0 or (weights < 0.0).any():
            raise SnapshotError("weights must be positive or zero, and not all zero", got=f"a sum of {total:g}")
        for name in Costs.__slots__:
            _checked(name, getattr(costs, name), len(weights))
        if max_gap is not None and (isinstance(max_gap, bool) or not max_gap >= 1):
            raise SnapshotError("max_gap must be a positive number of events", got=max_gap)
        head = len(weights) - 1
        chosen = np.arange(1, head + 1) if candidates is None else np.asarray(candidates, np.int64)
        if len(chosen) and (chosen[0] < 1 or chosen[-1] > head or (chosen[1:] <= chosen[:-1]).any()):
            raise SnapshotError("candidates must be ascending versions", expected=f"within 1 to {head}")
        versions = np.concatenate([[0], chosen, [head + 1]])
        weights = weights / total
        before = np.concatenate([[0.0], np.cumsum(weights)])[versions]
        slopes = (costs.restore - costs.before)[versions[:-1]]
        reach = None if max_gap is None or max_gap >= head else int(max_gap) + 1
        if reach is not None and (np.diff(versions) > reach).any():
            raise SnapshotError("the candidates leave a wider gap open than max_gap", got=int(np.diff(versions).max()))
        return _Problem(weights, costs, versions, before, slopes, reach)

    @property
    def least_size(self) -> float:
        inside = self.versions[1:-1]
        return float(self.costs.size[inside].min()) if len(inside) else math.inf

    def placed(self, size_price: float, write_price: float) -> Placement:
        """The best chain at these prices."""
        costs, inside = self.costs, self.versions[1:-1]
        prices = np.zeros(len(self.versions))
        prices[1:-1] = size_price * costs.size[inside] + write_price * costs.write[inside]
        member = np.zeros(len(prices), np.int64)
        _members(self._bases(prices), member)
        versions = self.versions[member != 0]
        latency = float(self.weights @ latencies_of(costs, versions))
        size, write = float(costs.size[versions].sum()), float(costs.write[versions].sum())
        return Placement(versions, latency, size, write, size_price)

    def _bases(self, prices: Float64Array) -> Int64Array:
        """For each node the one before it on its cheapest chain."""
        count = len(prices)
        totals, bases = np.full(count, np.inf), np.full(count, -1)
        totals[0] = 0.0
        queue, since = np.zeros(count + 1, np.int64), np.zeros(count + 1)
        _by_queue(self.slopes, prices, self.reads, _MOVES * count, totals, bases, queue, since)
        if bases[-1] >= 0 and self._keeps_gap(bases):
            return bases
        totals[:], bases[:] = np.inf, -1
        totals[0] = 0.0
        reach = self.reach or int(self.versions[-1]) + 1
        _by_tree(self.slopes, prices, self.reads, self.versions, reach, totals, bases, np.zeros(4 * count, np.int64))
        return bases

    def _keeps_gap(self, bases: Int64Array) -> bool:
        """Whether the best of all chains is one of those that are allowed, too."""
        if self.reach is None:
            return True
        member = np.zeros(len(bases), np.int64)
        _members(bases, member)
        member[[0, -1]] = 1
        return bool(np.diff(self.versions[member != 0]).max() <= self.reach)


def _checked(name: str, values: Float64Array, length: int | None) -> Float64Array:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array) or (length is not None and len(array) != length):
        raise SnapshotError(f"{name} must have a number for each version", got=array.shape, expected=length)
    if not np.isfinite(array).all():
        raise SnapshotError(f"{name} must be finite", got=float(array[~np.isfinite(array)][0]))
    return array


def latencies_of(costs: Costs, versions: Int64Array) -> Float64Array:
    """Seconds that a read of each version takes with snapshots at ascending `versions`, shape (n + 1,)."""
    bases = np.concatenate([np.zeros(1, np.int64), versions])
    lengths = np.diff(np.append(bases, len(costs.replay)))
    begun: Float64Array = np.repeat((costs.restore - costs.before)[bases], lengths)
    return begun + costs.replay


def latency_of(weights: Float64Array, costs: Costs, versions: Int64Array) -> float:
    """Seconds of the average read with snapshots at ascending `versions`."""
    return float(weights @ latencies_of(costs, versions) / weights.sum())


def young(*, reads_per_event: float, event: float, size: float, size_price: float, write: float = 0.0) -> float:
    """The gap between evenly spaced snapshots that is best where all versions are read alike.

    ``sqrt(2 * (write + size_price * size) / (reads_per_event * event))``: J. W. Young, A first order approximation to
    the optimum checkpoint interval, CACM 17(9), 1974. Reads per event stand for his failures.

    Parameters
    ----------
    reads_per_event : float
        Reads for each event there is, over the life of a snapshot.
    event : float
        Seconds to fold one.
    size, size_price : float
        Bytes of a snapshot, and the seconds that each is worth.
    write : float
        Seconds to make one.

    Examples
    --------
    >>> young(reads_per_event=0.01, event=1e-8, size=100.0, size_price=5e-9)
    100.0
    """
    values = (reads_per_event, event, size, size_price, write)
    if not all(math.isfinite(value) and value >= 0.0 for value in values) or not reads_per_event * event > 0.0:
        raise SnapshotError("Young's interval needs positive rates", got=values)
    return math.sqrt(2.0 * (write + size_price * size) / (reads_per_event * event))


def density(weights: Float64Array, event: Float64Array | float, size: Float64Array | float) -> Float64Array:
    """How densely snapshots should lie at each version: as ``sqrt(weight * event / size)``, summing to 1."""
    found: Float64Array = np.sqrt(_checked("weights", weights, None) * event / size)
    found /= found.sum()
    return found


def headroom(weights: Float64Array) -> float:
    """How many times better than evenly spaced snapshots any placement can be that follows the reads.

    ``n * sum(p) / (sum of sqrt(p)) ** 2`` over versions 1 to n: with a density d of snapshots a read at v replays
    ``1 / (2 d(v))`` events on average, which is least for d in proportion to sqrt(p). At least 1, by Cauchy and
    Schwarz; below `WORTHWHILE` there is nothing to gain.

    Parameters
    ----------
    weights : float64 array, shape (n + 1,)

    Examples
    --------
    >>> import numpy as np
    >>> headroom(np.array([0.0, 1.0, 1.0, 1.0, 1.0]))
    1.0
    """
    weights = _checked("weights", weights, None)[1:]
    return float(len(weights) * weights.sum() / np.sqrt(weights).sum() ** 2)
