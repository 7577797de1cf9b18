"""The policy that weighs what snapshots cost against what they save, as measured on this machine."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eventlab.errors import BudgetTooSmall, SnapshotError
from eventlab.events.clock import duration_ns
from eventlab.events.frame import Int64Array
from eventlab.snapshots.policy.cost_model import Model
from eventlab.snapshots.policy.history import Past
from eventlab.snapshots.policy.rules import Policy

if TYPE_CHECKING:  # a process that asks for a state plans no snapshots
    from eventlab.snapshots.placement.workloads import Workload

LEAST_GAP = 2_048
"""Closer together snapshots save next to nothing: to fold so many trades takes a few hundredths of a read."""

_MOST_CANDIDATES = 65_536


@dataclass(frozen=True, slots=True)
class CostOptimal(Policy):
    """Snapshots where they are worth their room, as measured on this machine, and a hard maximum gap between them.

    Without `workload` they are evenly spaced, by a power of two: as densely as the storage budget allows, but always so
    densely that a read keeps to the latency budget, and never closer than 2,048 events. With it, `build` places them
    where reads of that kind take least time on average, by dynamic programming, under the same two bounds, as far as
    the gap leaves room to choose; what is appended later is spaced evenly.

    Parameters
    ----------
    latency_budget : str or timedelta
        What a read should take, nearly always: it bounds the gap. Where even the shortest read takes longer, the gap is
        the one whose events take as long to fold as all the rest of a read.
    storage_budget : float or int
        A float is a part of what the events of an aggregate take, an int bytes for each aggregate.
    workload : Workload, optional
        How past states are asked for: ``el.workloads``.

    Raises
    ------
    AsOfError, SnapshotError
        A budget that is not above zero.
    BudgetTooSmall
        When snapshots are made: a budget of bytes that is below one snapshot.

    Examples
    --------
    >>> CostOptimal(latency_budget="2ms", storage_budget=0.05)
    CostOptimal(latency_budget='2ms', storage_budget=0.05, workload=None)
    """

    latency_budget: str | dt.timedelta = "1ms"
    storage_budget: float | int = 0.1
    workload: Workload | None = None

    def __post_init__(self) -> None:
        duration_ns(self.latency_budget, what="latency_budget")
        size = self.storage_budget
        if isinstance(size, bool) or not isinstance(size, int | float) or not size > 0:
            raise SnapshotError(
                "a storage budget must be an int or float above zero", got=size, expected="e.g. 0.1, or 1_000_000"
            )
        if self.workload is not None:
            from eventlab.snapshots.placement.workloads import Workload

            if not isinstance(self.workload, Workload):
                raise SnapshotError("not a workload", got=self.workload, expected="e.g. el.workloads.Uniform()")

    def should_snapshot(self, version: int) -> bool:
        """Whether one may be made at this version: without events at hand nothing is measured."""
        return version > 0 and version % LEAST_GAP == 0

    def versions(self, past: Past) -> Int64Array:
        if past.head // LEAST_GAP == past.after // LEAST_GAP:  # most appends end here
            return np.empty(0, np.int64)
        model = past.model
        self._check_budget(past, model)
        budget, longest = self.storage_budget, self._longest(model)
        room = budget if isinstance(budget, int) else budget * past.stored_bytes
        gap = _even(past.head, float(model.sizes(np.array([past.head]))[0]), room, longest)
        step = max(LEAST_GAP // 4, past.head // _MOST_CANDIDATES)
        # So much an even placement among the candidates takes that keeps to the bound on the gap.
        needed = past.head / max(longest - step, step) * float(model.size.max())
        if self.workload is None or past.after or room < needed:
            return np.arange(past.after // gap + 1, past.head // gap + 1, dtype=np.int64) * gap
        candidates = np.arange(step, past.head + 1, step)
        if room < float(model.sizes(candidates).min()):
            return np.empty(0, np.int64)
        from eventlab.snapshots.placement.optimum import within

        placed = within(
            self.workload.density(past.head), model.costs(past.head, past.starts), size=room,
            max_gap=longest, candidates=candidates,
        )  # fmt: skip
        return np.asarray(placed.versions, np.int64)

    def _check_budget(self, past: Past, model: Model) -> None:
        """Of bytes; a part of the events' own grows until a snapshot fits in."""
        least = math.ceil(model.sizes(np.array([past.head]))[0])
        if isinstance(self.storage_budget, int) and self.storage_budget < least:
            raise BudgetTooSmall(
                f"{self!r} has a storage budget below one snapshot", got=f"{self.storage_budget:,} bytes",
                expected=f"at least {least:,}", hint=f"Give it storage_budget={least}, or more for more snapshots.",
            )  # fmt: skip

    def _longest(self, model: Model) -> int:
        """The hard bound on the gap. Where no gap keeps to the budget, folding must not take longer than the rest."""
        longest = model.gap(duration_ns(self.latency_budget, what="latency_budget") / 1e9)
        return longest if longest >= LEAST_GAP else max(model.balanced_gap, LEAST_GAP)


def _even(head: int, size: float, room: float, longest: int) -> int:
    """Events between evenly spaced snapshots of a size that take so much room."""
    wanted = min(head * size / room, longest)
    gap = 1 << max(int(wanted), 1).bit_length() - 1  # powers of two: a gap measured anew mostly keeps old places
    gap *= 2 if gap < wanted <= longest / 2 else 1
    if gap > head and room >= size:  # rounded beyond the one snapshot that there is room for
        gap //= 2
    return max(gap, LEAST_GAP)
