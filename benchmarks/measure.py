"""Runs a benchmark in turns with what it is compared with, and adds the numbers that `table.py` needs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

Round = Callable[..., object]


def compare(
    benchmark: Any,
    ours: Round,
    theirs: Round | None = None,
    *,
    row: str,
    events: int,
    against: str = "",
    against_events: int | None = None,
    rounds: int = 5,
    prepare: Callable[[], Any] | None = None,
    **noted: object,
) -> Any:
    """Time `ours`, with a round of `theirs` before each of its rounds, so that other load on the machine slows both.

    Parameters
    ----------
    ours : callable
        Called with the result of `prepare`, if given.
    theirs : callable, optional
        Called without arguments.
    row, against : str
        Names of the two in the table.
    events, against_events : int
        Events that one round of each handles; equal by default.
    noted
        Further numbers for the table: `wanted_ratio`, `wanted_rate` (a second), `wanted_above_seconds` (than the
        other takes), `wanted_p99_ms`; and `unit`, where rates are not of events.
    """
    other: list[float] = []

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        if theirs is not None:
            begin = time.perf_counter()
            theirs()
            other.append(time.perf_counter() - begin)
        return ((), {}) if prepare is None else ((prepare(),), {})

    if benchmark.enabled:
        first, _ = setup()
        ours(*first)  # what happens once (compiling, the first touch of memory) is timed in bench_start.py
        other.clear()
    result = benchmark.pedantic(ours, setup=setup, rounds=rounds if benchmark.enabled else 1)
    note(benchmark, row=row, events=events, **noted)
    if other:
        benchmark.extra_info.update(
            against=against, against_seconds=statistics.median(other), against_events=against_events or events,
            against_rounds=other,
        )  # fmt: skip
    return result


def note(benchmark: Any, **noted: object) -> None:
    """Add numbers to a benchmark's result."""
    benchmark.extra_info.update(noted)
