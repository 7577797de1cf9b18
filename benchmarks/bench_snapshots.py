"""Snapshots: the cost of making and storing them, and the latency of past states with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import eventlab as el
from benchmarks.bench_fold import fills_of
from benchmarks.conftest import Size, store_of
from benchmarks.measure import compare, note
from benchmarks.peers import eventsourced_application, eventsourced_portfolio
from eventlab.fold.declare.layout import digest
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.policy.cost_based import CostOptimal
from eventlab.snapshots.states import Marks, Taken
from eventlab.snapshots.storage.files import DirectoryFiles
from eventlab.snapshots.storage.index import Shelf
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.calibration import calibrated
from eventlab.timetravel.reconstruct import reconstruct

MARKET = "market/3"


def _shelf(lab: el.Lab, place: Path, policy: el.snapshots.Policy) -> Snapshots:
    """Snapshots of the market by a policy, in a separate folder."""
    shelf = Snapshots(lab.store, DirectoryFiles(place, read_only=False), calibrated)
    shelf.policy = policy
    shelf.build(el.Trades, MARKET)
    return shelf


def _reads(lab: el.Lab) -> Callable[[], AsOf]:
    (head,) = lab.store.heads([MARKET])
    chosen = random.Random(2)
    return lambda: AsOf(version=chosen.randint(1, head.version))


def _read(lab: el.Lab, shelf: Snapshots | None, moment: AsOf) -> Any:
    return reconstruct(lab.store, el.Trades, [MARKET], moment, snapshots=shelf, interpret=False)


@pytest.mark.parametrize("aided", [True, False], ids=["default policy", "no snapshots"])
def test_any_past_state(benchmark: Any, size: Size, ten: el.Lab, tmp_path: Path, aided: bool) -> None:
    shelf = _shelf(ten, tmp_path / "snapshots", CostOptimal()) if aided else None
    moment = _reads(ten)
    for _ in range(size(500, 2)):
        _read(ten, shelf, moment())
    benchmark.pedantic(
        lambda at: _read(ten, shelf, at), setup=lambda: ((moment(),), {}), rounds=size(4_000 if aided else 500, 3)
    )
    one = moment()
    assert digest(_read(ten, shelf, one).states, 0) == ten.state(el.Trades, MARKET, one).digest
    what = "the default policy" if aided else "no snapshots"
    note(
        benchmark, row=f"state: a past version of a million, among ten million trades, {what}", percentiles=True,
        wanted_p99_ms=1 if aided else 100,
    )  # fmt: skip


def test_default_beside_every_hundred(benchmark: Any, size: Size, ten: el.Lab, tmp_path: Path) -> None:
    ours = _shelf(ten, tmp_path / "ours", CostOptimal())
    theirs = _shelf(ten, tmp_path / "theirs", el.snapshots.Every(100))
    moment = _reads(ten)
    for _ in range(size(500, 2)):
        _read(ten, ours, moment())
        _read(ten, theirs, moment())
    at = [moment()]

    def one() -> None:
        _read(ten, ours, at[0])

    def other() -> None:
        at[0] = moment()  # each version is read with both
        _read(ten, theirs, at[0])

    compare(
        benchmark, one, other, rounds=size(4_000, 3), events=1, percentiles=True,
        row="snapshots: reads with the default policy", against="with Every(100)", wanted_p99_ratio=1.0,
    )  # fmt: skip


def test_room_beside_every_hundred(benchmark: Any, ten: el.Lab, tmp_path: Path) -> None:
    numbers = count()
    made = benchmark.pedantic(lambda: _shelf(ten, tmp_path / str(next(numbers)), CostOptimal()), rounds=1)
    every = _shelf(ten, tmp_path / "every", el.snapshots.Every(100))
    (head,) = ten.store.heads([MARKET])
    note(
        benchmark, row="snapshots: room of the default policy", events=head.version, against="Every(100)",
        stored_bytes=made.table()["bytes"].sum(), raw_bytes=every.table()["bytes"].sum(), wanted_share=0.1,
    )  # fmt: skip


def _building(benchmark: Any, path: Path, place: Path, reducer: Any, *, row: str, rounds: int) -> None:
    """Fold the aggregate of a store, and fold it while making the snapshots of the default policy."""
    with el.open(path, read_only=True) as lab:
        (aggregate,) = lab.store.aggregate_ids()
        shelf = Snapshots(lab.store, DirectoryFiles(place, read_only=False), calibrated)
        shelf.build(reducer, aggregate)  # measures what reads cost, once
        compare(
            benchmark, lambda _: shelf.build(reducer, aggregate), lambda: lab.state(reducer, aggregate),
            prepare=shelf.drop, rounds=rounds, events=lab.store.heads([aggregate])[0].version,
            row=f"snapshots: building those of {row}", against="only folding them", wanted_ratio=0.91,
        )  # fmt: skip


def test_building_beside_a_fold(benchmark: Any, size: Size, long_path: Path, tmp_path: Path) -> None:
    _building(benchmark, long_path, tmp_path, el.Trades, row="ten million trades", rounds=size(15, 1))


def test_building_portfolios_beside_a_fold(benchmark: Any, size: Size, tmp_path: Path) -> None:
    fills = fills_of(size(1_000_000, 2_000))
    store_of(tmp_path / "lab", [fills], el.PortfolioChange, aggregate_id="portfolio/one")
    _building(
        benchmark, tmp_path / "lab", tmp_path / "snapshots", el.Portfolio,
        row="a million fills, 1,600 open lots", rounds=size(15, 1),
    )  # fmt: skip


def test_building_books_beside_a_fold(benchmark: Any, size: Size, book_path: Path, tmp_path: Path) -> None:
    _building(benchmark, book_path, tmp_path, el.OrderBook, row="a real book, 7,000 levels", rounds=size(15, 1))


def _wide(fields: int) -> Any:
    return el.reducer(
        type(
            "Wide", (), {
                "__annotations__": {"window": el.Array}, "window": el.Array(float, fields),
                "on_market_data": _on_market_data,
            },
        )
    )  # fmt: skip


def _on_market_data(state: Any, event: Any) -> None:
    state.window[0] = event.price


@pytest.mark.parametrize("kilobytes", [1, 16, 1_000])
def test_one_snapshot(benchmark: Any, size: Size, ten: el.Lab, tmp_path: Path, kilobytes: int) -> None:
    reducer = _wide(kilobytes * 128)
    shelf = Shelf(DirectoryFiles(tmp_path, read_only=False), reducer.fingerprint[:32], ten.store)
    states, versions = reducer.layout.initial(1), count(1)

    def marks() -> tuple[tuple[Marks], dict[str, Any]]:
        found = Marks.none(1)
        found.version[:] = next(versions)
        return (found,), {}

    benchmark.pedantic(
        lambda mark: shelf.add(reducer, [Taken([MARKET], mark, states)]),
        setup=marks,
        rounds=size(500, 2),
        warmup_rounds=5,
    )
    note(benchmark, row=f"snapshots: one of {kilobytes:,} KB, durable", percentiles=True, wanted_p99_ms=5)


def test_a_past_portfolio_beside_eventsourcing(benchmark: Any, size: Size, tmp_path: Path) -> None:
    pytest.importorskip("eventsourcing", reason="eventsourcing is not installed: it is among the peers")
    fills = fills_of(size(10_000, 100))
    aggregate = eventsourced_portfolio()
    for fill in fills.iter_rows():
        aggregate.fill(*fill)
    application = eventsourced_application(aggregate)
    chosen, other = random.Random(3), random.Random(3)
    with el.open(tmp_path) as lab:
        lab.append_frame(el.PortfolioChange, fills, aggregate_id="portfolio/one")
        lab.state(el.Portfolio, "portfolio/one", interpret=False)
        compare(
            benchmark,
            lambda: lab.state(el.Portfolio, "portfolio/one", chosen.randint(1, len(fills)), interpret=False),
            lambda: application.repository.get(aggregate.id, version=other.randint(1, len(fills))),
            row="state: a past version of a portfolio of 10,000 fills, no snapshots", events=1, unit="states/s",
            against="eventsourcing", rounds=size(50, 1),
        )  # fmt: skip
