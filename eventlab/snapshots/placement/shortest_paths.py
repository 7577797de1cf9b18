"""Cheapest paths through the versions at which reads may start, without and with a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eventlab.errors import SnapshotError
from eventlab.events.frame import Float64Array, Int64Array
from eventlab.fold.native.function import Function
from eventlab.snapshots.placement import envelope_kernels as envelopes

_MOVES = 64
"""Moves in the queue a version; with more, the tree is cheaper."""
_MOST_SOLVES = 100
"""Prices to try for one budget. With a million versions at most 21 were needed."""

_chain_by_queue = Function(envelopes.chain_by_queue)
_chain_by_tree = Function(envelopes.chain_by_tree)
_chain_members = Function(envelopes.chain_members)


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Paths through the versions at which reads may start. `nodes` begins with 0 and ends with n + 1.

    A *chain* has the nodes of a path between these two, as indices of `nodes`. `slopes` are the costs of a read that
    starts at a node, beyond those of a full replay; `reads` has the weight of all reads before each node.
    """

    nodes: Int64Array
    slopes: Float64Array
    reads: Float64Array
    reach: int | None

    @property
    def starts(self) -> Int64Array | slice:
        """The versions of all nodes but the last, as an index: a slice, where it has all, since that copies nothing."""
        count = len(self.nodes) - 1
        return slice(count) if self.nodes[-1] == count else self.nodes[:-1]

    def cheapest(self, prices: Float64Array) -> Int64Array:
        """The chain with the least sum of reads and prices of its nodes."""
        count, slopes = len(self.nodes), self.slopes
        totals, bases = np.empty(count), np.empty(count, np.int32)
        queue, since = np.empty(count, np.int32), np.empty(count)
        _chain_by_queue(slopes, prices, self.reads, _MOVES * count, totals, bases, queue, since)
        if bases[-1] >= 0:
            chain = self._members(bases)
            if self.reach is None or np.diff(self.nodes[self.path(chain)]).max() <= self.reach:
                return chain
        totals.fill(np.inf)
        totals[0] = 0.0
        bases.fill(-1)
        reach = int(self.nodes[-1]) + 1 if self.reach is None else self.reach
        _chain_by_tree(slopes, prices, self.reads, self.nodes, reach, totals, bases, np.empty(4 * count, np.int32))
        if bases[-1] < 0:
            raise SnapshotError(
                "no placement keeps every version within max_gap events of a snapshot", got=reach - 1,
                hint="Give more candidates, or a larger max_gap.",
            )  # fmt: skip
        return self._members(bases)

    @staticmethod
    def _members(bases: npt.NDArray[np.int32]) -> Int64Array:
        member = np.zeros(len(bases), np.uint8)
        _chain_members(bases, member)
        return np.flatnonzero(member)

    def path(self, chain: Int64Array) -> Int64Array:
        """The path of a chain: with both ends."""
        return np.concatenate([[0], chain, [len(self.nodes) - 1]])


@dataclass(frozen=True, slots=True, eq=False)
class Budgeted:
    """Paths whose nodes take `units` of a budget."""

    paths: Paths
    units: Float64Array

    def best(self, budget: float) -> tuple[Int64Array, float]:
        """The best chain found within a budget, and the price of a unit at which it was found."""
        over = self.paths.cheapest(np.zeros_like(self.units))
        if self._taken(over) <= budget:
            return over, 0.0
        under = replace(self.paths, slopes=np.zeros_like(self.paths.slopes)).cheapest(self.units)
        if self._taken(under) > budget:
            raise SnapshotError(
                "no placement within the budget keeps every version within max_gap events of a snapshot",
                got=budget, expected=f"{self._taken(under):,.0f} or more",
            )  # fmt: skip
        price = 0.0
        for _ in range(_MOST_SOLVES):
            price = max((self._cost(under) - self._cost(over)) / (self._taken(over) - self._taken(under)), 0.0)
            found = self.paths.cheapest(price * self.units)
            taken = self._taken(found)
            if budget < taken < self._taken(over):
                over = found
            elif taken <= budget and (taken > self._taken(under) or self._cost(found) < self._cost(under)):
                under = found
            else:  # no chain is below the line between the two
                break
        chains = [under, *self._combined(over, under, budget), *self._combined(under, over, budget)]
        return min(chains, key=self._cost), price

    def _taken(self, chain: Int64Array) -> float:
        return float(self.units[chain].sum())

    def _cost(self, chain: Int64Array) -> float:
        return float(self._steps(chain).sum())

    def _steps(self, chain: Int64Array) -> Float64Array:
        """The costs of each step of a path."""
        path = self.paths.path(chain)
        steps: Float64Array = self.paths.slopes[path[:-1]] * np.diff(self.paths.reads[path])
        return steps

    def _combined(self, head: Int64Array, tail: Int64Array, budget: float) -> list[Int64Array]:
        """The best chain within the budget that begins as `head` does and ends as `tail` does, if there is one."""
        paths = self.paths
        cut = np.union1d(head, tail)
        of_head, of_tail = (np.searchsorted(chain, cut, side="right") for chain in (head, tail))
        last, then = np.concatenate([[0], head])[of_head], np.append(tail, len(paths.nodes) - 1)[of_tail]
        head_taken, tail_taken = (np.concatenate([[0.0], np.cumsum(self.units[chain])]) for chain in (head, tail))
        taken = head_taken[of_head] + tail_taken[-1] - tail_taken[of_tail]
        head_steps, tail_steps = self._steps(head), self._steps(tail)
        begun = np.concatenate([[0.0], np.cumsum(head_steps)])[of_head]
        ended = np.cumsum(np.append(tail_steps[1:], 0.0)[::-1])[::-1][of_tail]
        cost = begun + paths.slopes[last] * (paths.reads[then] - paths.reads[last]) + ended
        cost[taken > budget] = np.inf
        if paths.reach is not None:
            cost[paths.nodes[then] - paths.nodes[last] > paths.reach] = np.inf
        at = int(np.argmin(cost))
        chain = np.concatenate([head[: of_head[at]], tail[of_tail[at] :]])
        return [chain] if cost[at] < np.inf and self._taken(chain) <= budget else []
