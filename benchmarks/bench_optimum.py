"""The best placement of snapshots among a million versions, compared with evaluating one placement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.conftest import Size
from benchmarks.measure import compare
from eventlab.snapshots.placement.optimum import Costs, latency_of, optimal, within

_EVENT, _ROW_GROUP, _DECODE = 1e-8, 16_384, 1.2e-4
"""Seconds to fold an event, events of a row group, and seconds to decode it."""


def world(n: int, *, jitter: float) -> tuple[Any, Costs]:
    """Reads that favour the latest versions, and costs of a log in row groups; `jitter` seconds of loading a state."""
    version = np.arange(n + 1)
    groups = -(-version // _ROW_GROUP)
    replay, before = groups * _DECODE + version * _EVENT, np.maximum(groups - 1, 0) * _DECODE + version * _EVENT
    restore = 2e-4 + jitter * np.random.default_rng(1).random(n + 1)
    restore[0] = 0.0
    weights = 1.0 / (n + 1.0 - version)
    return weights, Costs(replay, before, restore, np.full(n + 1, 600.0))


@pytest.mark.parametrize(
    ("jitter", "gap", "row"),
    [
        (0.0, None, "best snapshots of a million versions"),
        (1e-4, None, "best snapshots of a million versions, states that take unequally long to load"),
        (1e-4, 10_000, "best snapshots of a million versions, at most 10,000 events apart"),
    ],
)
def test_optimal(benchmark: Any, size: Size, jitter: float, gap: int | None, row: str) -> None:
    n = size(1_000_000, 2_000)
    weights, costs = world(n, jitter=jitter)
    placed = [0]

    def best() -> None:
        placed[0] = len(optimal(weights, costs, size_price=1e-10, max_gap=gap).versions)

    wished = {} if gap else {"wanted_rate": 1e7}  # a million in 100 ms
    compare(
        benchmark, best, lambda: latency_of(weights, costs, range(100, n, 100)), row=row, events=n, unit="versions/s",
        against="one placement's mean latency", **wished,
    )  # fmt: skip
    assert placed[0] >= (n // 10_000 if gap else 0)


def test_within(benchmark: Any, size: Size) -> None:
    n = size(1_000_000, 2_000)
    weights, costs = world(n, jitter=1e-4)
    compare(
        benchmark, lambda: within(weights, costs, size=60_000.0), row="best snapshots of a million versions in 60 kB",
        events=n, unit="versions/s",
    )  # fmt: skip
