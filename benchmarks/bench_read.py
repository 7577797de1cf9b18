"""Reading back: events as frames, and the state at any past version with and without snapshots."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import eventlab as el
from benchmarks.conftest import Size, dealt, store_of
from benchmarks.measure import compare, note
from eventlab.store.api import Selection
from eventlab.timetravel.state import State

MARKET = "market/BTCUSDT"


@pytest.fixture
def lab(market_path: Path) -> Iterator[el.Lab]:
    with el.open(market_path, read_only=True) as opened:
        yield opened


def test_decoding_for_a_fold(benchmark: Any, lab: el.Lab) -> None:
    wanted = Selection({"market_data": ("price", "volume")})
    compare(
        benchmark, lambda: sum(len(frame) for frame in lab.store.frames(wanted)), rounds=7,
        row="read: price, volume and envelope, ready to fold", events=lab.store.stop_position,
    )  # fmt: skip


def test_frame_of_all_events(benchmark: Any, lab: el.Lab, tmp_path: Path) -> None:
    plain = tmp_path / "plain.parquet"
    lab.events(el.MarketData).write_parquet(plain)
    compare(
        benchmark, lambda: lab.events(el.MarketData), lambda: pl.read_parquet(plain), rounds=7,
        row="read: lab.events, all columns", events=lab.store.stop_position,
        against="Polars reading them from plain Parquet",
    )  # fmt: skip


def test_scan_of_two_columns(benchmark: Any, lab: el.Lab) -> None:
    query = lab.scan(el.MarketData).select((pl.col("price") * pl.col("volume")).sum())
    compare(
        benchmark, query.collect, rounds=7, row="read: lab.scan, one sum over two columns",
        events=lab.store.stop_position,
    )  # fmt: skip


@pytest.fixture(scope="session")
def wide_path(repeated: list[pl.DataFrame], size: Size, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with all of them, dealt out to 10,000 markets."""
    return store_of(tmp_path_factory.mktemp("wide") / "lab", dealt(repeated, size(10_000, 100), seed=5))


@pytest.mark.parametrize("codec", ["parquet", "archive"])
def test_scan_of_three_columns(benchmark: Any, long_path: Path, tmp_path: Path, codec: str) -> None:
    path = long_path
    if codec == "archive":
        path = tmp_path / "lab"
        shutil.copytree(long_path, path)
        with el.open(path) as lab:
            lab.archive()
    with el.open(path, read_only=True) as lab:
        query = lab.scan(el.MarketData).select(pl.col("timestamp").max(), pl.col("price", "volume").sum())
        compare(
            benchmark, query.collect, rounds=7, events=lab.store.stop_position,
            row=f"read: lab.scan, three columns of ten million trades, {codec}",
            **({"wanted_rate": 50e6} if codec == "parquet" else {}),
        )  # fmt: skip


def test_point_reads(benchmark: Any, size: Size, wide_path: Path) -> None:
    choose = random.Random(6)
    with el.open(wide_path, read_only=True) as lab:
        names = lab.store.aggregate_ids()

        def one() -> tuple[tuple[str], dict[str, Any]]:
            return (choose.choice(names),), {}

        def read(name: str) -> pl.DataFrame:
            return lab.events(el.MarketData, name)

        found = benchmark.pedantic(read, setup=one, rounds=size(500, 1))
        assert found["version"].to_list() == list(range(1, len(found) + 1))
    row = "read: all events of one of 10,000 markets in ten million trades"
    note(benchmark, row=row, percentiles=True, wanted_p99_ms=5)


def test_open(benchmark: Any, size: Size, wide_path: Path) -> None:
    def opened() -> int:
        with el.open(wide_path, read_only=True) as lab:
            return lab.store.stop_position

    opened()
    assert benchmark.pedantic(opened, rounds=size(100, 1)) > 0
    note(benchmark, row="read: opening that store", percentiles=True, wanted_p99_ms=50)


def _past_states(benchmark: Any, size: Size, lab: el.Lab, row: str) -> None:
    head = lab.store.stop_position
    versions = random.Random(4)
    lab.state(el.Trades, MARKET, 1, interpret=False)

    def version() -> int:
        return versions.randint(1, head)

    def state(at: int) -> State:
        return lab.state(el.Trades, MARKET, at, interpret=False)

    rounds = size(300, 1) if benchmark.enabled else 1
    found = benchmark.pedantic(state, setup=lambda: ((version(),), {}), rounds=rounds)
    assert found.count == found.version
    note(benchmark, row=row, percentiles=True)


def test_past_state_by_replay(benchmark: Any, size: Size, lab: el.Lab) -> None:
    _past_states(benchmark, size, lab, "state: el.Trades at a random version of a million, full replay")


@pytest.fixture
def with_snapshots(market_path: Path, tmp_path: Path, size: Size) -> Iterator[Callable[[int], el.Lab]]:
    """A copy of the market with snapshots every so many events."""
    opened: list[el.Lab] = []

    def build(every: int) -> el.Lab:
        shutil.copytree(market_path, tmp_path / "lab")
        lab = el.open(tmp_path / "lab")
        opened.append(lab)
        lab.snapshots.policy = el.snapshots.Every(every)
        lab.snapshots.build(el.Trades)
        return lab

    yield build
    for lab in opened:
        lab.close()


@pytest.mark.parametrize("every", [10_000, 1_000])
def test_past_state_from_snapshots(
    benchmark: Any, size: Size, with_snapshots: Callable[[int], el.Lab], every: int
) -> None:
    row = f"state: the same, a snapshot every {every:,} events"
    _past_states(benchmark, size, with_snapshots(size(every, every // 100)), row)
