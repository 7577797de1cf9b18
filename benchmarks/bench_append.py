"""Durable commits of one event, of a thousand and of many, beside rows that SQLite alone inserts and syncs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import eventlab as el
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
        rounds=size(200, 1),
    )  # fmt: skip


def _frames(benchmark: Any, lab: el.Lab, insert: Callable[[], None], part: pl.DataFrame, rounds: int, row: str) -> None:
    part = part.drop("timestamp")  # the time of the commit, so that the same rows can be appended again
    compare(
        benchmark, lambda: lab.append_frame(el.MarketData, part), insert, row=row, events=len(part), against=AGAINST,
        against_events=_INSERTS, rounds=rounds,
    )  # fmt: skip


def test_commits_of_a_thousand(
    benchmark: Any, size: Size, lab: el.Lab, insert: Callable[[], None], trades: pl.DataFrame
) -> None:
    _frames(benchmark, lab, insert, trades.head(1_000), size(100, 1), "append: commits of 1,000 trades")


def test_bulk_commits(
    benchmark: Any, size: Size, lab: el.Lab, insert: Callable[[], None], trades: pl.DataFrame
) -> None:
    _frames(benchmark, lab, insert, trades.head(1_000_000), size(5, 1), "append: commits of 1,000,000 trades")
