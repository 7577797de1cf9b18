"""What placements of snapshots are held against: the offline optimum, and even spacing, at the same bytes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from eventlab.events.frame import Float64Array, Int64Array
from eventlab.snapshots.placement import optimum
from eventlab.snapshots.placement.optimum import Costs

_MOST_CANDIDATES = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """The reads of one workload, and what the versions cost by the model that was measured.

    Attributes
    ----------
    weights : float64 array, shape (head + 1,)
    headroom : float
        How many times better than even spacing any placement can be.
    """

    weights: Float64Array
    costs: Costs
    headroom: float

    @staticmethod
    def of(weights: Float64Array, costs: Costs) -> Yardstick:
        return Yardstick(weights, costs, optimum.headroom(weights[1:]))

    def held(self, versions: Int64Array) -> tuple[float, float | None]:
        """The modelled mean latency over the optimum's, and the share of what is to be gained that was.

        The share is 0 for even spacing and 1 for the optimum, both of at most the same bytes; null where there is next
        to nothing to gain.
        """
        own = self._latency(versions)
        if not len(versions):
            return 1.0, None  # nothing fits into no bytes
        size = float(self.costs.size[versions].sum())
        even = self._latency(self._even(size))
        # The optimum is found on the hull of all placements, so one between its corners may be a little better.
        best = min(self._best(size, versions), own, even)
        # What is replayed may be little beside the rest of a read, and then so is all that placement can gain.
        worthwhile = self.headroom >= optimum.WORTHWHILE and even >= optimum.WORTHWHILE * best
        return own / best, (even - own) / (even - best) if worthwhile else None

    def _best(self, size: float, versions: Int64Array) -> float:
        head = len(self.weights) - 1
        step = max(head // _MOST_CANDIDATES, 1)
        candidates = np.union1d(np.arange(step, head + 1, step), versions)
        return optimum.within(self.weights, self.costs, size=size, candidates=candidates).latency

    def _even(self, size: float) -> Int64Array:
        """As many evenly spaced versions as take no more bytes."""
        head = len(self.weights) - 1
        count = bisect_right(
            range(1, head + 1), size, key=lambda count: float(self.costs.size[_spaced(head, count)].sum())
        )
        return _spaced(head, count)

    def _latency(self, versions: Int64Array) -> float:
        return optimum.latency_of(self.weights, self.costs, versions)


def warm() -> None:
    """Compile what plans need, so that no policy is charged with it."""
    line = np.arange(9.0)
    costs = Costs(line, line, np.zeros(9), np.ones(9), np.zeros(9))
    optimum.optimal(np.ones(9), costs, size_price=100.0, max_gap=2)  # without the gap it has none: both kernels run


def _spaced(head: int, count: int) -> Int64Array:
    """So many versions that part 0 to head evenly."""
    return np.unique(np.arange(1, count + 1, dtype=np.int64) * (head + 1) // (count + 1))
