"""Where the time of states and histories goes, written into docs/performance.md.

python -m benchmarks.profile
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl

import eventlab as el
from benchmarks.bench_fold import fills_of
from eventlab.fold.native.call import Native
from eventlab.fold.run import encode, kernel_call, price_ranks
from eventlab.lab import lab as lab_module
from eventlab.store.event_log import EventLog
from eventlab.timetravel.history.fold_to_stops import Emission

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- profile:begin -->", "<!-- profile:end -->"
ROUNDS = 7
STAGES = ("decoding", "ranking prices", "laying out", "kernel", "columns out", "rest")


class Clock:
    """Time by stage. The time of a stage inside another counts for the inner one only."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(STAGES, 0.0)
        self._stage, self._since = "rest", time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        outer = self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, name: str) -> str:
        now, before = time.perf_counter(), self._stage
        self.spent[before] += now - self._since
        self._stage, self._since = name, now
        return before

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **named)

        return call

    def iterated(self, name: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def call(*arguments: Any, **named: Any) -> Iterator[Any]:
            with self.stage(name):
                items = function(*arguments, **named)
            while True:
                with self.stage(name):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return call


def spent(work: Callable[[], object]) -> Mapping[str, float]:
    """Seconds by stage, the median of several rounds."""
    work()
    rounds = []
    for _ in range(ROUNDS):
        clock = Clock()
        stages = [
            (kernel_call.Run, "__init__", clock.timed("laying out", kernel_call.Run.__init__)),
            (price_ranks.Ranks, "of", staticmethod(clock.timed("ranking prices", price_ranks.Ranks.of))),
            (Native, "run", clock.timed("kernel", Native.run)),
            (kernel_call.Run, "run", clock.timed("columns out", kernel_call.Run.run)),
            (encode.KeyedScratch, "in_order", clock.timed("columns out", encode.KeyedScratch.in_order)),
            (lab_module, "frame_of_states", clock.timed("columns out", lab_module.frame_of_states)),
            (Emission, "frame", clock.timed("columns out", Emission.frame)),
            (EventLog, "frames", clock.iterated("decoding", EventLog.frames)),
        ]
        with ExitStack() as patches:
            for owner, name, timed in stages:
                patches.enter_context(patch.object(owner, name, timed))
            clock._since = time.perf_counter()
            work()
            clock._switch("rest")
        rounds.append(clock.spent)
    return {name: statistics.median(one[name] for one in rounds) for name in STAGES}


def _trades(rows: int, markets: int) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    return pl.DataFrame({
        "symbol": pl.Series(rng.integers(0, markets, rows)).cast(pl.String),
        "price": (60_000 + np.cumsum(rng.integers(-1, 2, rows)) * 0.01).round(2),
        "volume": rng.integers(1, 1_000, rows) * 0.001,
        "timestamp": pl.Series(1_700_000_000_000_000_000 + np.arange(rows) * 1_000_000).cast(pl.Datetime("ns", "UTC")),
    })  # fmt: skip


def profiled(path: Path, rows: int = 4_000_000) -> list[tuple[str, int, Mapping[str, float]]]:
    """Calls, the number of events they fold, and their seconds by stage."""
    with el.open(path) as lab:
        lab.append_frame(el.MarketData, _trades(rows, 1_000), aggregate_id="many/{symbol}")
        lab.append_frame(el.MarketData, _trades(rows, 1), aggregate_id="one/{symbol}")
        lab.append_frame(el.PortfolioChange, fills_of(rows // 2), aggregate_id="portfolio/demo")
        feed = el.feeds.simulate(symbols=("BTCUSDT",), trades=rows // 4, seed=3, books=True)
        lab.ingest(feed, progress=False)
        lab.seal()
        changes = lab.state(el.OrderBook, "book/BTCUSDT").version
        at = lab.events(el.MarketData, "one/0", columns=["timestamp"])["timestamp"].gather_every(4)
        return [
            ("`lab.states(el.Trades)` of 1,000 markets", rows, spent(lambda: lab.states(el.Trades, "many/*"))),
            ("`lab.state(el.Trades)` of one market", rows, spent(lambda: lab.state(el.Trades, "one/0"))),
            ("`lab.history(el.Trades, at=…)` at a million times", rows,
             spent(lambda: lab.history(el.Trades, "one/0", at=at))),
            ("`lab.state(el.OrderBook)`", changes, spent(lambda: lab.state(el.OrderBook, "book/BTCUSDT"))),
            ("`lab.state(el.Portfolio)`, average cost and FIFO", rows // 2,
             spent(lambda: lab.state(el.Portfolio, "portfolio/demo"))),
        ]  # fmt: skip


def table(found: list[tuple[str, int, Mapping[str, float]]]) -> str:
    """The profile as Markdown: nanoseconds an event."""
    said = f"medians of {ROUNDS} rounds on {os.cpu_count()} cores; the store is on disk, sealed, in the page cache."
    lines = [
        f"Nanoseconds an event, {said}",
        "",
        f"| what | events | {' | '.join(STAGES)} | in all |",
        f"|---|---|{'---|' * len(STAGES)}---|",
    ]
    for what, events, by_stage in found:
        figures = [f"{by_stage[name] / events * 1e9:.2f}" for name in STAGES]
        whole = sum(by_stage.values()) / events * 1e9
        lines.append(f"| {what} | {events:,} | {' | '.join(figures)} | **{whole:.1f}** |")
    return "\n".join(lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        block = table(profiled(Path(folder) / "lab"))
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(block)


if __name__ == "__main__":
    main()
