"""Reads are recorded where that was asked for, of all processes, in bounds; and no read ever fails by it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import ReadOnlyStore, ReadsDropped, StoreLocked
from eventlab.store.catalog import read_log
from eventlab.store.event_log import EventLog
from eventlab.testing.events import batch

ROOT = Path(__file__).parents[3]
NAMES = ["reducer", "aggregate_id", "version", "head"]


@pytest.fixture
def path(tmp_path):
    where = tmp_path / "lab"
    with EventLog.open(where) as store:
        store.commit([batch(3)])
    return where


def recording(path, **more):
    return EventLog.open(path, record_reads=True, **more)


def fill(store, count, first=0):
    for number in range(first, first + count):
        store.read_log.record("Trades", f"m/{number % 3}", number, 2 * number)


def reads(count, first=0):
    return [("Trades", f"m/{number % 3}", number, 2 * number) for number in range(first, first + count)]


def tables(path):
    with sqlite3.connect(path / "catalog.sqlite") as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]


def batches(path):
    connection = sqlite3.connect(path / "catalog.sqlite")
    try:
        return [reads for (reads,) in connection.execute("SELECT reads FROM recorded_reads ORDER BY no")]
    finally:
        connection.close()


def test_what_is_recorded_is_there_at_once_and_after_reopening(path):
    with recording(path) as store:
        assert store.read_log.frame().schema == read_log.SCHEMA
        fill(store, 5)
        assert store.read_log.frame().rows() == reads(5)
        assert "recorded_reads" not in tables(path)
    with recording(path) as store:
        fill(store, 3, first=5)
        store.read_log.flush()
        fill(store, 2, first=8)
        assert store.read_log.frame().rows() == reads(10)
    with EventLog.open(path) as store:
        assert store.read_log.frame().columns == NAMES
        assert store.read_log.frame().rows() == reads(10)
        assert store.verify().ok
    assert batches(path) == [10]


@settings(max_examples=25)
@given(st.lists(st.integers(1, 12), max_size=12), st.integers(1, 5), st.integers(0, 25), st.booleans())
def test_the_newest_reads_are_kept_in_bounds_and_in_order(runs, size, more, flushing):
    most = size + more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_log, "BATCH", size)
        patch.setattr(read_log, "MOST_READS", most)
        with recording(":memory:") as store:
            done = 0
            for run in runs:
                fill(store, run, first=done)
                done += run
                if flushing:
                    store.read_log.flush()
            store.read_log.flush()
            kept = store.read_log.frame().rows()
            assert kept == reads(len(kept), first=done - len(kept))
            assert min(done, most - size + 1) <= len(kept) <= most


def test_full_batches_are_written_as_they_come(path):
    with recording(path) as store:
        fill(store, read_log.BATCH - 1)
        assert "recorded_reads" not in tables(path)
        fill(store, 1, first=read_log.BATCH - 1)
        assert batches(path) == [read_log.BATCH]
        fill(store, 10, first=read_log.BATCH)
    assert batches(path) == [read_log.BATCH, 10]


def test_nothing_is_recorded_unasked(path):
    with EventLog.open(path) as store:
        fill(store, 2_000)
        assert store.read_log.frame().is_empty()
    assert "recorded_reads" not in tables(path)


def test_a_store_opened_to_be_read_tells_and_does_not_record(path):
    with pytest.raises(ReadOnlyStore, match="opened read-only"):
        recording(path, read_only=True)
    with EventLog.open(path, read_only=True) as store:
        assert store.read_log.frame().is_empty()
        store.read_log.record("Trades", "m/0", 1, 1)
        store.read_log.flush()
    with recording(path) as store:
        fill(store, 3)
    with EventLog.open(path, read_only=True) as store:
        store.read_log.record("Trades", "m/0", 1, 1)
        assert store.read_log.frame().rows() == reads(3)
        with pytest.raises(ReadOnlyStore, match="cannot be removed"):
            store.read_log.clear()


def test_cleared_reads_are_gone_written_or_not(path):
    with recording(path) as store:
        store.read_log.clear()
        fill(store, 3)
        store.read_log.flush()
        fill(store, 3)
        store.read_log.clear()
        assert store.read_log.frame().is_empty()
        fill(store, 2)
    with EventLog.open(path) as store:
        assert store.read_log.frame().rows() == reads(2)


def test_a_backup_has_them(path, tmp_path):
    with recording(path) as store:
        fill(store, 4)
        store.read_log.flush()
        store.backup(tmp_path / "copy")
    with EventLog.open(tmp_path / "copy") as store:
        assert store.read_log.frame().rows() == reads(4)


def held(path):
    """A connection of somebody who writes to the catalog."""
    connection = sqlite3.connect(path / "catalog.sqlite", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_reads_do_not_wait_for_a_writer(path):
    with recording(path, wait=30.0) as store:
        other = held(path)
        fill(store, read_log.BATCH + 7)
        assert store.read_log.frame().height == read_log.BATCH + 7
        other.close()
        fill(store, read_log.BATCH - 7, first=read_log.BATCH + 7)
        assert batches(path) == [read_log.BATCH, read_log.BATCH]
        assert store.read_log.frame().rows() == reads(2 * read_log.BATCH)


def test_what_waits_for_a_writer_is_bounded(path, monkeypatch):
    monkeypatch.setattr(read_log, "MOST_BUFFERED", 2 * read_log.BATCH)
    with recording(path) as store:
        other = held(path)
        fill(store, 2 * read_log.BATCH)
        with pytest.warns(ReadsDropped, match=f"{read_log.BATCH} recorded reads were dropped"):
            fill(store, read_log.BATCH, first=2 * read_log.BATCH)
        other.close()
        assert store.read_log.frame().rows() == reads(2 * read_log.BATCH, first=read_log.BATCH)


def test_closing_warns_of_what_cannot_be_written(path):
    store = recording(path, wait=0.05)
    fill(store, 5)
    other = held(path)
    with pytest.raises(StoreLocked):
        store.read_log.flush()
    with pytest.warns(ReadsDropped, match="5 recorded reads were dropped: .*another writer"):
        store.close()
    assert store.closed
    other.close()
    with EventLog.open(path) as again:
        assert again.read_log.frame().is_empty()


def test_damaged_batches_are_left_out_and_damage_no_read(path):
    with recording(path) as store:
        fill(store, 3)
    connection = sqlite3.connect(path / "catalog.sqlite")
    connection.execute("UPDATE recorded_reads SET content = zeroblob(10)")
    connection.execute("INSERT INTO recorded_reads VALUES (7, 'many', 'x', 3.5)")
    connection.commit()
    connection.close()
    (path / "catalog.checksums").unlink()
    with recording(path) as store:
        with pytest.warns(ReadsDropped, match="2 batches of recorded reads are damaged"):
            assert store.read_log.frame().is_empty()
        store.read_log.record("Trades", "m/0", 0, 0)
        with pytest.warns(ReadsDropped, match="1 recorded reads were dropped"):
            store.read_log.close()
        store.read_log.clear()
        fill(store, 2)
        store.read_log.flush()
        assert store.read_log.frame().rows() == reads(2)
        assert store.verify().ok


def test_a_table_of_the_name_that_is_not_ours_costs_the_record_alone(path):
    connection = sqlite3.connect(path / "catalog.sqlite")
    connection.execute("CREATE TABLE recorded_reads (other TEXT)")
    connection.commit()
    connection.close()
    (path / "catalog.checksums").unlink()
    store = recording(path)
    fill(store, 3)
    assert store.heads()[0].version == 3
    with pytest.warns(ReadsDropped, match="3 recorded reads were dropped"):
        store.close()


def test_threads_lose_nothing(path, monkeypatch):
    monkeypatch.setattr(read_log, "BATCH", 16)
    with recording(path) as store:
        threads = [threading.Thread(target=fill, args=(store, 200, 1_000 * at)) for at in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            store.commit([batch(2)])
            store.seal()
        for thread in threads:
            thread.join()
        found = store.read_log.frame()
    assert sorted(found.rows()) == sorted(row for at in range(4) for row in reads(200, 1_000 * at))
    with EventLog.open(path) as store:
        assert store.read_log.frame().height == 800


CHILD = """
    import sys
    from eventlab.store.event_log import EventLog

    store = EventLog.open(sys.argv[1], record_reads=True)
    first, count = int(sys.argv[2]), int(sys.argv[3])
    for number in range(first, first + count):
        store.read_log.record("Trades", f"m/{number % 3}", number, 2 * number)
    print("recorded", flush=True)
    sys.stdin.readline()
    store.close()
"""


def child(path, first, count):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(path), str(first), str(count)], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_two_processes_record_into_one_log(path):
    count = 2 * read_log.BATCH + 5
    with recording(path) as store:
        others = [child(path, 100_000 * at, count) for at in (1, 2)]
        fill(store, count)
        for other in others:
            assert other.stdout.readline() == "recorded\n"
            other.communicate("\n")
            assert other.returncode == 0
    with EventLog.open(path) as store:
        found = store.read_log.frame()
    for first in (0, 100_000, 200_000):
        rows = found.filter(pl.col("version").is_between(first, first + count))
        assert rows.rows() == reads(count, first)


def test_a_killed_process_loses_no_more_than_its_buffer(path):
    count = 3 * read_log.BATCH + 100
    process = child(path, 0, count)
    assert process.stdout.readline() == "recorded\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with EventLog.open(path) as store:
        assert store.read_log.frame().rows() == reads(3 * read_log.BATCH)
        assert store.verify().ok


def test_a_lab_records_the_versions_that_it_reconstructed(tmp_path):
    with el.open(tmp_path / "lab", record_reads=True) as lab:
        lab.append("p", [el.PortfolioChange("BTC", 1.0, 10.0)] * 3, timestamp=["2024-01-01T00:00:00Z"] * 2
                   + ["2024-01-02T00:00:00Z"])  # fmt: skip
        lab.append("m", el.MarketData("BTC", 10.0, 1.0))
        for as_of in (1, None, "2024-01-01T12:00:00Z", 0):
            lab.state(el.Portfolio, "p", as_of)
        lab.state(el.Portfolio, "p", mark_with="m")
        lab.states(el.Portfolio, "p")
        lab.append("p", el.PortfolioChange("BTC", 1.0, 10.0))
        lab.state(el.Portfolio, "p", 2)
        told = [("Portfolio", "p", version, head) for version, head in ((1, 3), (3, 3), (2, 3), (0, 3), (2, 4))]
        assert lab.read_log().rows() == told
    with el.open(tmp_path / "lab") as lab:
        lab.state(el.Portfolio, "p")
        assert lab.read_log().rows() == told
