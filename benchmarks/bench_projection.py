"""Read models: an update compared with a replay, and how soon a follower sees a commit of another process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import eventlab as el
from benchmarks.conftest import Size
from benchmarks.measure import compare, note

_NEW = 1_000
_WRITER = """
import sys, time
import eventlab as el
with el.open(sys.argv[1]) as lab:
    for _ in sys.stdin:
        begin = time.monotonic_ns()
        lab.append("portfolio/alpha", el.PortfolioChange("BTCUSDT", 1.0, 60_000.0))
        print(begin, time.monotonic_ns(), flush=True)
"""


def test_update_beside_a_replay(
    benchmark: Any, size: Size, market_path: Path, trades: pl.DataFrame, tmp_path: Path
) -> None:
    shutil.copytree(market_path, tmp_path / "lab")
    part = trades.head(_NEW).drop("timestamp")
    with el.open(tmp_path / "lab") as lab:
        projection = lab.projection(el.Trades)
        projection.update()
        lab.state(el.Trades, "market/BTCUSDT", interpret=False)  # compiled for both

        def replay() -> None:
            lab.states(el.Trades, interpret=False)

        def update() -> None:
            assert projection.update() == _NEW

        compare(
            benchmark, lambda _: update(), replay, row="read model: 1,000 new events behind a million, saved",
            events=_NEW, against="replay of all", rounds=size(50, 1),
            prepare=lambda: lab.append_frame(el.MarketData, part),
        )  # fmt: skip
        assert projection.frame().equals(lab.states(el.Trades))


def test_latency_of_following(benchmark: Any, size: Size, tmp_path: Path) -> None:
    """From before another process's append, durable, to the state here; and from after it."""
    el.open(tmp_path / "lab").close()
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "lab")]
    whole, after = [], []
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer,
        el.open(tmp_path / "lab", read_only=True) as lab,
        lab.projection(el.Portfolio).follow(timeout=60.0) as news,
    ):
        assert writer.stdin is not None
        assert writer.stdout is not None

        def one() -> None:
            print(file=writer.stdin, flush=True)
            next(news)
            seen = time.monotonic_ns()
            begin, done = map(int, writer.stdout.readline().split())
            whole.append((seen - begin) / 1e9)
            after.append(max(seen - done, 0) / 1e9)

        for _ in range(3):
            one()
        whole.clear()
        after.clear()
        benchmark.pedantic(one, rounds=size(500, 3))
        writer.stdin.close()
    shown = {
        f"{name}_p{percent}": float(np.percentile(times, percent))
        for name, times in (("append_and_follow", whole), ("follow", after))
        for percent in (50, 99)
    }
    note(benchmark, row="read model: another process's durable append, followed", events=1, **shown)
