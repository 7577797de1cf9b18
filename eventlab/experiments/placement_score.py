"""The score of a placement: its latency compared with the offline optimum and even spacing of the same bytes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from eventlab.events.frame import Float64Array, Int64Array
from eventlab.snapshots.placement import optimum
from eventlab.snapshots.placement.optimum import Costs

_MOST_CANDIDATES = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class PlacementScorer:
    """Scores placements for one workload by the measured cost model.

    Attributes
    ----------
    weights : float64 array, shape (head + 1,)
        The density of reads.
    headroom : float
        The factor by which the best placement can beat even spacing.
    """

    weights: Float64Array
    costs: Costs
    headroom: float

    @staticmethod
    def of(weights: Float64Array, costs: Costs) -> PlacementScorer:
        return PlacementScorer(weights, costs, optimum.headroom(weights[1:]))

    def score(self, versions: Int64Array) -> tuple[float, float | None]:
        """The modelled mean latency relative to the optimum, and the captured share of the possible gain.

        The share is 0 for even spacing and 1 for the optimum, both of at most the same bytes; None if the possible gain
        is negligible.
        """
        own = self._latency(versions)
        if not len(versions):
            return 1.0, None  # zero bytes allow no other placement
        size = float(self.costs.size[versions].sum())
        even = self._latency(self._even(size))
        # The search covers the convex hull of all placements, so a placement inside may be slightly better.
        best = min(self._best(size, versions), own, even)
        # If replay is a small part of a read, placement can gain little.
        worthwhile = self.headroom >= optimum.WORTHWHILE and even >= optimum.WORTHWHILE * best
        return own / best, (even - own) / (even - best) if worthwhile else None

    def _best(self, size: float, versions: Int64Array) -> float:
        head = len(self.weights) - 1
        step = max(head // _MOST_CANDIDATES, 1)
        candidates = np.union1d(np.arange(step, head + 1, step), versions)
        return optimum.within(self.weights, self.costs, size=size, candidates=candidates).latency

    def _even(self, size: float) -> Int64Array:
        """The most evenly spaced versions within the given bytes."""
        head = len(self.weights) - 1
        count = bisect_right(
            range(1, head + 1), size, key=lambda count: float(self.costs.size[_spaced(head, count)].sum())
        )
        return _spaced(head, count)

    def _latency(self, versions: Int64Array) -> float:
        return optimum.latency_of(self.weights, self.costs, versions)


def warm() -> None:
    """Compile the planning kernels, so that no policy's time includes it."""
    line = np.arange(9.0)
    costs = Costs(line, line, np.zeros(9), np.ones(9))
    optimum.optimal(np.ones(9), costs, size_price=100.0, max_gap=2)  # the gap makes both kernels run


def _spaced(head: int, count: int) -> Int64Array:
    """`count` versions that divide 0 to head evenly."""
    return np.unique(np.arange(1, count + 1, dtype=np.int64) * (head + 1) // (count + 1))
