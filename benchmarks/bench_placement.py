"""Three placements of snapshots that take the same bytes, for reads that favour recent versions."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import eventlab as el
from benchmarks.conftest import Size
from benchmarks.measure import note
from eventlab.events.frame import Int64Array
from eventlab.fold.declare.layout import digest
from eventlab.fold.declare.reducer import Reducer
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.placement.optimum import within
from eventlab.snapshots.placement.workloads import Zipf
from eventlab.snapshots.storage.files import DirectoryFiles
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.calibration import calibrated, undisturbed
from eventlab.timetravel.reconstruct import reconstruct

MARKET, REDUCER = "market/3", el.Trades
COUNT = 32
"""Snapshots of each placement: 4 KiB, few enough for their places to matter."""
WIDER = 1.1
"""The hard maximum gap, in even ones."""


def placed(lab: el.Lab, reducer: Reducer) -> dict[str, Int64Array]:
    """Versions by placement, as many of each where all are worth making, as they are in a long history."""
    (head,) = lab.store.heads([MARKET])
    density = Zipf().density(head.version)
    costs = calibrated(lab.store, reducer, MARKET).costs(head.version, lab.store.first_versions(MARKET))
    even = head.version // COUNT
    gap, step = int(WIDER * even), max(even // 128, 1)
    candidates = np.arange(step, head.version + 1, step)

    def best(max_gap: int | None) -> Int64Array:
        return within(density, costs, count=COUNT, max_gap=max_gap, candidates=candidates).versions

    return {
        f"`Every({even})`": np.arange(1, COUNT + 1) * even,
        "least mean": best(None),
        f"least mean, gaps of at most {gap:,}": best(gap),
    }


def spread(head: int, count: int) -> Int64Array:
    """Reads at even steps of the distribution: what so many random ones would be, without their luck."""
    share = np.cumsum(Zipf().density(head))
    steps = (np.arange(count) + 0.5) / count * share[-1]
    return np.clip(np.searchsorted(share, steps, side="right"), 1, head)


def test_placements_of_the_same_bytes(benchmark: Any, size: Size, ten: el.Lab, tmp_path: Path) -> None:
    (head,) = ten.store.heads([MARKET])
    chosen = placed(ten, REDUCER)
    shelves = []
    for name, versions in chosen.items():
        shelf = Snapshots(ten.store, DirectoryFiles(tmp_path / str(len(shelves)), read_only=False))
        assert shelf.make(REDUCER, MARKET, versions).snapshots == len(versions), name
        shelves.append(shelf)
    reads, turns, draw = spread(head.version, size(2_000, 5)), size(7, 1), np.random.default_rng(0)
    seconds, answers = np.empty((turns, len(shelves), len(reads))), np.empty((len(shelves), len(reads)), object)

    def read(version: int, shelf: Snapshots) -> Any:
        return reconstruct(ten.store, REDUCER, [MARKET], AsOf(version=version), snapshots=shelf, interpret=False)

    def once(turn: int) -> None:
        for at in draw.permutation(len(reads)):
            for which in draw.permutation(len(shelves)):
                begin = perf_counter()
                found = read(int(reads[at]), shelves[which])
                seconds[turn, which, at] = perf_counter() - begin
                answers[which, at] = digest(found.states, 0)

    once(0)  # what happens once, and what stays decoded
    with undisturbed():
        benchmark.pedantic(lambda: [once(turn) for turn in range(turns)], rounds=1)
    assert (answers == answers[0]).all()
    note(
        benchmark, row=f"{COUNT} snapshots in {head.version:,} trades, reads by `{Zipf()!r}`", placements=[
            {
                "placement": name, "widest_gap": int(np.diff(np.concatenate([[0], versions, [head.version]])).max()),
                "bytes": round(shelf.table()["bytes"].sum()), "seconds": np.median(seconds[:, which], axis=0).tolist(),
            }
            for which, ((name, versions), shelf) in enumerate(zip(chosen.items(), shelves, strict=True))
        ],
    )  # fmt: skip
