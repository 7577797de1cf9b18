"""Durable commits of one event, a thousand and many, compared with rows that SQLite alone inserts and syncs."""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import eventlab as el
from benchmarks import arctic
from benchmarks.conftest import Size
from benchmarks.measure import compare

AGAINST = "bare SQLite, one row a synced transaction"
_INSERTS = 5


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[el.Lab]:
    with el.open(tmp_path / "lab") as opened:
        yield opened


@pytest.fixture
def insert(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A few rows of the same content, each its own transaction in the mode that the store's catalog uses."""
    connection = sqlite3.connect(tmp_path / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE events (position INTEGER PRIMARY KEY, aggregate TEXT, version INTEGER, timestamp INTEGER, "
        "symbol TEXT, quantity REAL, price REAL, fee REAL, kind TEXT)"
    )
    row = ("portfolio/alpha", 1, 1, "BTCUSDT", 1.0, 60_000.0, 0.5, "fill")

    def rows() -> None:
        for _ in range(_INSERTS):
            connection.execute("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    yield rows
    connection.close()


def test_single_appends(benchmark: Any, size: Size, lab: el.Lab, insert: Callable[[], None]) -> None:
    fill = el.PortfolioChange("BTCUSDT", 1.0, 60_000.0, fee=0.5)

    def append() -> None:
        for _ in range(_INSERTS):
            lab.append("portfolio/alpha", fill)

    compare(
        benchmark, append, insert, row="append: single events, each durable", events=_INSERTS, against=AGAINST,
        rounds=size(200, 1), wanted_ratio=0.8,
    )  # fmt: skip


def test_single_appends_beside_eventsourcing(benchmark: Any, size: Size, lab: el.Lab, tmp_path: Path) -> None:
    domain = pytest.importorskip("eventsourcing.domain", reason="eventsourcing is one of the peers")
    from eventsourcing.application import Application

    class Account(domain.Aggregate):  # type: ignore[name-defined]
        @domain.event("Filled")
        def fill(self, symbol: str, quantity: float, price: float, fee: float) -> None:
            self.last = price

    application: Any = Application(
        env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(tmp_path / "peer.sqlite")}
    )
    account: Any = Account()
    fill = el.PortfolioChange("BTCUSDT", 1.0, 60_000.0, fee=0.5)

    def ours() -> None:
        for _ in range(_INSERTS):
            lab.append("portfolio/alpha", fill)

    def theirs() -> None:
        for _ in range(_INSERTS):
            account.fill("BTCUSDT", 1.0, 60_000.0, 0.5)
            application.save(account)

    compare(
        benchmark, ours, theirs, row="append: single events, each durable", events=_INSERTS,
        against="eventsourcing on SQLite, saving one event", rounds=size(100, 1),
    )  # fmt: skip
    application.close()


def test_commits_of_a_thousand_beside_eventsourcing(
    benchmark: Any, size: Size, lab: el.Lab, trades: pl.DataFrame, tmp_path: Path
) -> None:
    """Its recorder alone, with events that are serialised already: the least that saving them costs."""
    sqlite = pytest.importorskip("eventsourcing.sqlite", reason="eventsourcing is one of the peers")
    from eventsourcing.persistence import StoredEvent

    datastore = sqlite.SQLiteDatastore(str(tmp_path / "peer.sqlite"))
    recorder = sqlite.SQLiteApplicationRecorder(datastore)
    recorder.create_table()
    part = trades.head(1_000).drop("timestamp")
    states = [json.dumps(row).encode() for row in part.iter_rows(named=True)]
    market, commits = uuid.UUID(int=1), itertools.count()

    def theirs() -> None:
        first = next(commits) * len(states)
        recorder.insert_events([
            StoredEvent(market, first + row, "trade", state) for row, state in enumerate(states)
        ])  # fmt: skip

    compare(
        benchmark, lambda: lab.append_frame(el.MarketData, part), theirs, row="append: commits of 1,000 trades",
        events=len(part), against="eventsourcing on SQLite, its recorder alone", rounds=size(100, 1),
    )  # fmt: skip
    datastore.close()


_THREADS, _EACH = 4, 5


def test_appends_from_threads(benchmark: Any, size: Size, lab: el.Lab, insert: Callable[[], None]) -> None:
    fill = el.PortfolioChange("BTCUSDT", 1.0, 60_000.0, fee=0.5)

    def append(thread: int) -> None:
        for _ in range(_EACH):
            lab.append(f"portfolio/{thread}", fill)

    with ThreadPoolExecutor(_THREADS) as pool:
        compare(
            benchmark, lambda: list(pool.map(append, range(_THREADS))), insert, events=_THREADS * _EACH,
            row="append: single events from four threads, each durable", against=AGAINST, against_events=_INSERTS,
            rounds=size(200, 1),
        )  # fmt: skip


@pytest.mark.parametrize("rows", [1, 1_000])
def test_appends_beside_arcticdb(
    benchmark: Any, size: Size, lab: el.Lab, trades: pl.DataFrame, tmp_path: Path, rows: int
) -> None:
    commits = size(50, 2)
    seconds = arctic.ask("append", str(tmp_path / "arctic"), str(rows), str(commits))
    part = trades.head(rows).drop("timestamp")
    fill = el.MarketData("BTCUSDT", 60_000.5, 0.01)

    def append() -> None:
        if rows == 1:
            lab.append("market/BTCUSDT", fill)
        else:
            lab.append_frame(el.MarketData, part)

    turns = iter(seconds)
    compare(
        benchmark, append, row=f"append: commits of {rows:,}, each durable", events=rows, rounds=commits - 1,
    )  # fmt: skip
    benchmark.extra_info.update(
        against="ArcticDB on LMDB, appending as many rows", against_seconds=statistics.median(seconds),
        against_events=rows, against_rounds=[next(turns) for _ in range(commits - 1)] if benchmark.enabled else [],
    )  # fmt: skip


def _frames(
    benchmark: Any, lab: el.Lab, insert: Callable[[], None], part: pl.DataFrame, rounds: int, row: str, wanted: float
) -> None:
    part = part.drop("timestamp")  # the time of the commit, so that the same rows can be appended again
    compare(
        benchmark, lambda: lab.append_frame(el.MarketData, part), insert, row=row, events=len(part), against=AGAINST,
        against_events=_INSERTS, rounds=rounds, wanted_rate=wanted,
    )  # fmt: skip


def test_commits_of_a_thousand(
    benchmark: Any, size: Size, lab: el.Lab, insert: Callable[[], None], trades: pl.DataFrame
) -> None:
    _frames(benchmark, lab, insert, trades.head(1_000), size(100, 1), "append: commits of 1,000 trades", 2e6)


def test_bulk_commits(
    benchmark: Any, size: Size, lab: el.Lab, insert: Callable[[], None], trades: pl.DataFrame
) -> None:
    _frames(benchmark, lab, insert, trades.head(1_000_000), size(5, 1), "append: commits of 1,000,000 trades", 5e6)
