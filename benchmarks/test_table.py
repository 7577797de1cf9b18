from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import table


def _raw(*benchmarks: dict[str, Any]) -> dict[str, Any]:
    machine = {"node": "somewhere", "python_version": "3.11.0", "cpu": {"count": 2}}
    return {"machine_info": machine, "benchmarks": list(benchmarks)}


def _benchmark(median: float, **info: Any) -> dict[str, Any]:
    return {"stats": {"median": median, "data": [median] * 100}, "extra_info": info}


def test_rates_ratios_and_wishes():
    raw = _raw(
        _benchmark(0.5, row="fold", events=1_000_000, against="sum", against_seconds=0.25, against_events=1_000_000,
                   against_rounds=[0.25] * 100,
                   wanted_ratio=0.5),
        _benchmark(2.0, row="ingest", events=1_000_000, wanted_rate=1e6),
        _benchmark(1.0, row="disk", events=10, stored_bytes=40, raw_bytes=500, against="raw", wanted_share=0.2),
        _benchmark(0.002, row="state", percentiles=True),
        _benchmark(0.9, row="start", events=1, seconds=True, against="imports", against_seconds=0.7,
                   wanted_above_seconds=0.15),
        _benchmark(5.0, row="in all", wanted_within=0.3, predictions=[
            {"measured_p50_ms": 2.0 * turn, "predicted_p50_ms": 1.8 * turn, "ratio_p50": 0.9,
             "measured_p95_ms": 4.0, "predicted_p95_ms": 4.0 + turn, "ratio_p95": 1.0 + turn / 4.0}
            for turn in (1, 0, 2)
        ]),
        _benchmark(3.5e6 / 1e12, row="moments", events=100, unit="moments/s", wanted_rate=20e6),
    )  # fmt: skip
    kept = table.results(raw)
    assert "somewhere" not in json.dumps(kept)
    assert table.table(kept).splitlines()[4:] == [
        "| fold | 2.00 M events/s | sum: 4.00 M events/s | 0.5 | ratio at least 0.5: **met** |",
        "| ingest | 500,000 events/s |  |  | at least 1.00 M events/s: **not met** |",
        "| disk | 4.00 B/event | raw: 50.0 B/event | 0.08 | ratio at most 0.2: **met** |",
        "| state | p50 2.00 ms, p99 2.00 ms |  |  |  |",
        "| start | 0.90 s | imports: 0.70 s |  | at most 0.15 s more: **not met** |",
        "| in all | p50 2.00 ms, p95 4.00 ms | predicted: p50 1.80 ms, p95 5.00 ms | 1.25 | both within 30%: **met** |",
        "| moments | 28.6 M moments/s |  |  | at least 20.0 M moments/s: **met** |",
    ]


def test_placements_have_a_table_of_their_own():
    seconds = [0.001] * 98 + [0.002, 0.003]
    one = {"placement": "least mean", "widest_gap": 12_345, "bytes": 4_096, "seconds": seconds}
    kept = table.results(_raw(
        _benchmark(1.0, row="1,000 trades", placements=[one]),
        _benchmark(0.002, row="state", percentiles=True),
    ))  # fmt: skip
    assert "seconds" not in kept["rows"][0]["placements"][0]
    assert table.table(kept).splitlines()[4:] == ["| state | p50 2.00 ms, p99 2.00 ms |  |  |  |"]
    assert table.placements(kept).splitlines() == [
        "| 1,000 trades | widest gap | bytes | mean | p50 | p99 | max |",
        "|---|---|---|---|---|---|---|",
        "| least mean | 12,345 | 4,096 | 1.03 ms | 1.00 ms | 2.01 ms | 3.00 ms |",
    ]
    assert table.placements({"rows": kept["rows"][1:]}) == ""


def test_only_the_block_changes():
    readme = "# a\n<!-- b:begin -->\nold\n<!-- b:end -->\n<!-- c:begin -->\nold\n<!-- c:end -->\nz\n"
    once = table.placed(readme, "b", "new")
    assert once == readme.replace("old", "new", 1)
    assert table.placed(once, "b", "new") == once
    assert table.placed(once, "c", "new") == readme.replace("old", "new")


def test_a_readme_without_markers_is_left_alone():
    with pytest.raises(ValueError, match="must have"):
        table.placed("# a\n", "b", "new")
