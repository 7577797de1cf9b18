"""Predicted and measured latencies of versions that the model was not fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import eventlab as el
from benchmarks.bench_fold import fills_of
from benchmarks.conftest import Size, store_of
from benchmarks.measure import note


@pytest.fixture(scope="module")
def fills_path(size: Size, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with a million fills of twenty symbols."""
    fills = fills_of(size(1_000_000, 2_000))
    path = tmp_path_factory.mktemp("fills") / "lab"
    return store_of(path, [fills], el.PortfolioChange, aggregate_id="portfolio/one")


@pytest.fixture(scope="module")
def levels_path(size: Size, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with the changes of a book of some thousand levels."""
    draw, rows = np.random.default_rng(5), size(500_000, 2_000)
    side = draw.integers(0, 2, rows)
    ticks = np.ceil(draw.exponential(1_500.0, rows)) * np.where(side, 1, -1)
    changes = pl.DataFrame({
        "symbol": "BTCUSDT", "side": np.where(side, "ask", "bid"), "price": (6_000_000 + ticks) / 100,
        "size": draw.integers(0, 200, rows) * 0.01,
    })  # fmt: skip
    return store_of(tmp_path_factory.mktemp("levels") / "lab", [changes], el.BookChange, aggregate_id="book/BTCUSDT")


ROUNDS = 3

# With Every(50_000) half of the reads find all row groups decoded: their median would be that of neither kind.
POLICIES = {
    "no snapshots": None,
    "the default policy": el.snapshots.CostOptimal(),
    "Every(100_000)": el.snapshots.Every(100_000),
}


def _predicted(benchmark: Any, size: Size, path: Path, reducer: Any, policy: str, what: str) -> None:
    """Each round fits the model again and compares it with other reads of the same minutes."""
    rounds: list[dict[str, Any]] = []

    def once(seed: int) -> None:
        asked = POLICIES[policy] or el.snapshots.CostOptimal()
        found = el.experiments.predicted_latencies(
            lab, reducer, [asked], reads=size(150, 5), seed=seed, progress=False
        ).rows(named=True)
        rounds.append(found[policy != "no snapshots"])

    with el.open(path, read_only=True) as lab:
        lab.state(reducer, lab.store.aggregate_ids()[0], interpret=False)
        seeds = iter(range(ROUNDS))
        benchmark.pedantic(
            once, setup=lambda: ((next(seeds),), {}), rounds=ROUNDS if benchmark.enabled else 1, iterations=1
        )
    note(benchmark, row=f"predicted latency: {what}, {policy}", predictions=rounds, wanted_within=0.2)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_record(benchmark: Any, size: Size, market_path: Path, policy: str) -> None:
    _predicted(benchmark, size, market_path, el.Trades, policy, "a million trades")


def test_more_than_is_kept_decoded(benchmark: Any, size: Size, long_path: Path) -> None:
    _predicted(benchmark, size, long_path, el.Trades, "the default policy", "ten million trades of one market")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_table(benchmark: Any, size: Size, fills_path: Path, policy: str) -> None:
    _predicted(benchmark, size, fills_path, el.Portfolio, policy, "a portfolio of a million fills")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_big_state(benchmark: Any, size: Size, levels_path: Path, policy: str) -> None:
    _predicted(benchmark, size, levels_path, el.OrderBook, policy, "a book of thousands of levels")
