"""Placements of snapshots as plainly as they can be said: each read by itself, and every subset tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any


def latencies(costs: Any, versions: Sequence[int]) -> list[float]:
    found = []
    for version in range(len(costs.replay)):
        base = max([0, *(snapshot for snapshot in versions if snapshot <= version)])
        found.append(costs.restore[base] + costs.replay[version] - costs.before[base])
    return found


def cost(weights: Sequence[float], costs: Any, versions: Sequence[int], size_price: float) -> float:
    reads = sum(weight * latency for weight, latency in zip(weights, latencies(costs, versions), strict=True))
    return reads + sum(size_price * costs.size[v] for v in versions)


def allowed(last: int, candidates: Sequence[int] | None, max_gap: int | None) -> Iterator[tuple[int, ...]]:
    """Every placement there may be."""
    where = range(1, last + 1) if candidates is None else candidates
    for count in range(len(where) + 1):
        for versions in combinations(where, count):
            starts = [0, *versions]
            ends = [*(version - 1 for version in versions), last]
            if max_gap is None or all(end - start <= max_gap for start, end in zip(starts, ends, strict=True)):
                yield versions


def totals(
    slopes: Sequence[float], prices: Sequence[float], reads: Sequence[float], versions: Sequence[int], reach: float
) -> list[float]:
    """Of the cheapest chain to each node, every node before it tried."""
    found = [0.0]
    for j in range(1, len(reads)):
        ways = [
            found[i] + prices[i] + slopes[i] * (reads[j] - reads[i])
            for i in range(j)
            if versions[j] - versions[i] <= reach
        ]
        found.append(min(ways, default=float("inf")))
    return found
