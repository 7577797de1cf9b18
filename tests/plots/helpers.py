"""Data and helpers of the tests of charts."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

EVIL = r"$x^$ \frac{$ <script>alert(1)</script>"
INTERVALS = pl.DataFrame(
    {
        "interval": [None, 1_000, 100],
        "bytes": [0, 4_096, 40_960],
        "latency_p50_ms": [9.0, 2.0, 1.0],
        "latency_p99_ms": [20.0, 4.0, 2.0],
    }
)
MARKED = INTERVALS.with_columns(
    reads=pl.lit(40), total_seconds=pl.Series([0.36, 0.1, 0.2]), young=pl.lit(100 * 10**0.5)
)
LENGTHS = pl.DataFrame({"version": [1_000, 10], "latency_ms": [2.0, 1.0], "events_per_second": [500_000.0, 10_000.0]})
WITH_SNAPSHOTS = LENGTHS.with_columns(latency_with_ms=pl.Series([0.2, 0.1]))
TRIALS = pl.DataFrame(
    {
        "policy": ["a", "a", "b", "c", EVIL, "a"],
        "workload": ["all", "all", "all", "all", "all", "late"],
        "budget": [None, None, None, 5_000, None, None],
        "seed": [0, 1, 0, 0, 0, 0],
        "bytes": [1_000, 3_000, 0, 4_000, 4_000, 2_000],
        "latency_p99_ms": [1.0, 3.0, 9.0, 4.0, 1.5, 0.5],
    }
)
DENSITY = np.array([0.0, 0.1, 0.2, 0.3, 0.4])


def line(axes: Any, label: str) -> Any:
    return next(line for line in axes.get_lines() if line.get_label() == label)
