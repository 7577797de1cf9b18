"""Scrubbing through a real order book: single steps, pages and jumps, exact at every stop."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eventlab as el
from benchmarks.conftest import BOOK, Size
from benchmarks.measure import compare, note
from eventlab.timetravel.cursor.cursor import Cursor
from eventlab.timetravel.state import State

PAGE = 1_000


@pytest.fixture
def lab(book_path: Path) -> Iterator[el.Lab]:
    with el.open(book_path, read_only=True) as opened:
        yield opened


def _onward(n: int) -> Callable[[Cursor], int]:
    """Steps of `n` among the newest versions, 400 of them at most and then from the same end again."""

    def step(cursor: Cursor) -> int:
        if not max(cursor.head - 400 * abs(n), 0) <= cursor.version + n <= cursor.head:
            cursor.seek(cursor.head if n < 0 else max(cursor.head - 400 * n, 0))
        return n

    return step


def _moves(
    benchmark: Any, size: Size, lab: el.Lab, row: str, choose: Callable[[Cursor], Any], move: Callable[..., State]
) -> None:
    cursor = lab.cursor(el.OrderBook, BOOK)
    found = benchmark.pedantic(move, setup=lambda: ((cursor, choose(cursor)), {}), rounds=size(1_000, 5))
    assert found.digest == lab.state(el.OrderBook, BOOK, found.version).digest
    note(benchmark, row=f"cursor: el.OrderBook with thousands of levels, {row}", percentiles=True, wanted_p99_ms=16)


@pytest.mark.parametrize("way", [-1, 1], ids=["back", "on"])
@pytest.mark.parametrize(("n", "row"), [(1, "one version"), (PAGE, "a page of 1,000 versions")])
def test_steps(benchmark: Any, size: Size, lab: el.Lab, n: int, row: str, way: int) -> None:
    _moves(benchmark, size, lab, f"{row} {'on' if way > 0 else 'back'}", _onward(way * n), Cursor.step)


def test_random_jumps(benchmark: Any, size: Size, lab: el.Lab) -> None:
    draw = random.Random(8)
    _moves(
        benchmark, size, lab, "a jump to any of 445,262 versions", lambda cursor: draw.randint(0, cursor.head),
        Cursor.seek,
    )  # fmt: skip


def test_random_times(benchmark: Any, size: Size, lab: el.Lab) -> None:
    draw = random.Random(9)
    first, last = (lab.state(el.OrderBook, BOOK, version).timestamp for version in (1, None))
    times = np.datetime64(0, "ns")
    _moves(benchmark, size, lab, "a jump to any event time", lambda _: times + draw.randint(first, last), Cursor.seek)


def test_opening(benchmark: Any, size: Size, lab: el.Lab) -> None:
    """Opening a cursor, which keeps states on the way, compared with the newest state alone."""
    (head,) = lab.store.heads([BOOK])
    compare(
        benchmark, lambda: lab.cursor(el.OrderBook, BOOK), lambda: lab.state(el.OrderBook, BOOK),
        rounds=size(20, 1), row="cursor: opened on it, states kept on the way", events=head.version,
        against="lab.state",
    )  # fmt: skip
