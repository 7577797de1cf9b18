"""The right to write: between processes, between threads, and what is left where somebody gives up or dies."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from eventlab.errors import ReadOnlyStore, StoreError, StoreLocked, WrongVersion
from eventlab.store.disk.writer_lock import Exclusive, FileLock
from eventlab.store.event_log import EventLog
from eventlab.testing.events import batch, everything

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def _no_hanging() -> Iterator[None]:
    faulthandler.dump_traceback_later(240, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def locks(tmp_path: Path, count: int = 2) -> list[FileLock]:
    return [FileLock(tmp_path / "lock", read_only=False) for _ in range(count)]


# -- the lock


def test_one_has_it_and_the_other_does_not(tmp_path: Path):
    one, other = locks(tmp_path)
    assert one.is_free()
    assert other.acquire(0.0)
    assert not one.is_free()
    assert other.is_free(), "its own hold is no other's"
    assert not one.acquire(0.0)
    assert not one.acquire(0.01)
    other.release()
    assert one.acquire(10.0)
    assert not other.acquire(0.0)
    one.close()
    assert other.acquire(10.0)
    other.close()


def test_waits_that_were_given_up_do_not_pile_up(tmp_path: Path):
    one, other = locks(tmp_path)
    assert one.acquire(0.0)
    before = threading.active_count()
    for _ in range(20):
        assert not other.acquire(0.001)
    assert threading.active_count() <= before + 1
    one.release()
    assert other.acquire(10.0), "its own given-up wait is not in its way"
    assert not one.acquire(0.0)
    other.release()
    assert one.acquire(10.0)
    one.close()
    other.close()


def test_a_process_that_asks_again_and_again_lets_who_waits_have_its_turn(tmp_path: Path):
    """Without a line, who asks at once after giving back is always first."""
    one, other = locks(tmp_path)
    counts = [0, 0]
    ends = time.monotonic() + 60

    def write(index: int, lock: FileLock) -> None:
        while min(counts) < 3 and time.monotonic() < ends:
            held = time.monotonic() + 0.06
            while time.monotonic() < held:  # a turn is over in time, whatever is asked in between
                assert lock.acquire(30.0)
                lock.release()
            counts[index] += 1

    threads = [threading.Thread(target=write, args=pair) for pair in enumerate((one, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(counts) >= 3
    one.close()
    other.close()


# -- threads of one process


def test_threads_share_a_turn_and_it_ends(tmp_path: Path):
    exclusive = Exclusive(FileLock(tmp_path / "lock", read_only=False), 30.0, "here")
    other = FileLock(tmp_path / "lock", read_only=False)
    begun, stop = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with exclusive.held():
                begun.set()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    got = []
    for _ in range(3):
        assert begun.wait(60.0)
        got.append(other.acquire(60.0))
        begun.clear()
        other.release()
    stop.set()
    for worker in workers:
        worker.join()
    assert got == [True, True, True]
    assert other.acquire(10.0)
    exclusive.close()
    other.close()


def test_who_waits_in_vain_leaves_nothing_behind(tmp_path: Path):
    other = FileLock(tmp_path / "lock", read_only=False)
    exclusive = Exclusive(FileLock(tmp_path / "lock", read_only=False), 0.05, "here")
    assert other.acquire(0.0)
    told: list[float] = []

    def wait() -> None:
        began = time.monotonic()
        with pytest.raises(StoreLocked, match="another writer"), exclusive.held():
            pass
        told.append(time.monotonic() - began)

    waiting = [threading.Thread(target=wait) for _ in range(4)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert len(told) == 4
    assert min(told) >= 0.05, "not before its time"
    assert not exclusive.try_enter()
    other.release()
    with Exclusive(FileLock(tmp_path / "lock", read_only=False), 30.0, "here").held():
        pass
    with exclusive.held():
        assert not other.acquire(0.0)
    assert other.acquire(10.0)
    other.close()
    exclusive.close()


def test_an_own_long_turn_is_no_reason_to_give_up(tmp_path: Path):
    exclusive = Exclusive(FileLock(tmp_path / "lock", read_only=False), 0.0, "here")
    entered = threading.Event()

    def late() -> None:
        with exclusive.held():
            entered.set()

    with exclusive.held():
        time.sleep(0.06)
        thread = threading.Thread(target=late)
        thread.start()
        assert not entered.wait(0.05), "the turn is over: it waits for its end"
    thread.join()
    assert entered.is_set()
    exclusive.close()


class _Interrupted(FileLock):
    """The interrupt comes just after the lock."""

    def acquire(self, wait: float) -> bool:
        super().acquire(wait)
        raise KeyboardInterrupt


def test_an_interrupt_after_the_lock_gives_it_back(tmp_path: Path):
    exclusive = Exclusive(_Interrupted(tmp_path / "lock", read_only=False), 1.0, "here")
    other = FileLock(tmp_path / "lock", read_only=False)
    with pytest.raises(KeyboardInterrupt), exclusive.held():
        pass
    assert other.acquire(0.0)
    other.close()
    exclusive.close()


def test_closing_waits_for_nobody_and_takes_the_lock_from_nobody(tmp_path: Path):
    exclusive = Exclusive(FileLock(tmp_path / "lock", read_only=False), 1.0, "here")
    other = FileLock(tmp_path / "lock", read_only=False)
    with exclusive.held():
        exclusive.close()
        assert not other.acquire(0.0)
    assert other.acquire(0.0)
    other.close()


def test_a_turn_has_a_number_of_its_own(tmp_path: Path):
    exclusive = Exclusive(FileLock(tmp_path / "lock", read_only=False), 1.0, "here")
    seen = [exclusive.turn]
    for _ in range(2):
        with exclusive.held():
            seen.append(exclusive.turn)
            with exclusive.held():
                assert exclusive.turn == seen[-1]
        seen.append(exclusive.turn)
    assert len(set(seen)) == len(seen)
    exclusive.close()


# -- processes


def _hold(path: str, pipe: Connection) -> None:
    with EventLog.open(path) as store:
        store.commit([batch(2)])
        with store._exclusive.held():
            pipe.send("held")
            pipe.recv()


def test_readers_go_on_while_another_process_has_the_lock_and_a_thread_waits_for_it(tmp_path: Path):
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_hold, args=(str(tmp_path), there))
    process.start()
    assert here.recv() == "held"
    with EventLog.open(tmp_path, wait=60.0) as store:
        made = []
        waiting = threading.Thread(target=lambda: made.append(store.commit([batch(1)])))
        waiting.start()
        for _ in range(5):
            assert everything(store).height == 2
            assert [head.version for head in store.heads()] == [2]
        assert not made
        with (
            EventLog.open(tmp_path, wait=0.05) as impatient,
            pytest.raises(StoreLocked, match="another writer"),
        ):
            impatient.commit([batch(1)])
        here.send("go on")
        waiting.join()
        assert made[0].position == 2
        assert store.verify().events == 3
    process.join()
    assert process.exitcode == 0


def test_a_killed_holder_leaves_no_lock(tmp_path: Path):
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_hold, args=(str(tmp_path), there))
    process.start()
    assert here.recv() == "held"
    with EventLog.open(tmp_path, wait=60.0) as store:
        made = []
        waiting = threading.Thread(target=lambda: made.append(store.commit([batch(1)])))
        waiting.start()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        waiting.join()
        assert made[0].position == 2
        assert store.verify().events == 3
    process.join()


def _race(path: str, name: str, rounds: int, pipe: Connection) -> None:
    """Raise a counter: read its version, append expecting it, again where another was first."""
    won = []
    with EventLog.open(path, wait=60.0) as store:
        pipe.recv()
        while len(won) < rounds:
            version = max((head.version for head in store.heads(["counter"])), default=0)
            try:
                receipt = store.commit([batch(1, "counter", metadata={"by": name})], expected={"counter": version})
            except WrongVersion:
                continue
            assert receipt.version == version + 1
            won.append((receipt.version, receipt.position))
    pipe.send(won)


def test_expected_versions_have_one_winner_among_processes(tmp_path: Path):
    EventLog.open(tmp_path).close()
    pipes = [SPAWN.Pipe() for _ in range(3)]
    children = [
        SPAWN.Process(target=_race, args=(str(tmp_path), f"p{index}", 40, there))
        for index, (_, there) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    for here, _ in pipes:
        here.send("go")
    won = [here.recv() for here, _ in pipes]
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert sorted(version for mine in won for version, _ in mine) == list(range(1, 121))
    with EventLog.open(tmp_path) as store:
        frame = everything(store).sort("position")
        assert frame["version"].to_list() == list(range(1, 121))
        by = dict(zip(frame["position"], frame["metadata"], strict=True))
        for index, mine in enumerate(won):
            assert all(by[position] == f'{{"by":"p{index}"}}' for _, position in mine)
        assert store.verify().commits == 120


def _churn(path: str, name: str, rounds: int) -> None:
    """Small and bulk commits and seals, in turn; each commit is of one aggregate and three events or many."""
    from eventlab.store.commit import writer

    writer.BULK_ROWS, writer.UNSEALED_COMMITS = 40, 25
    with EventLog.open(path, wait=60.0) as store:
        for number in range(rounds):
            store.commit([batch(40 if number % 9 == 8 else 3, f"{name}{number % 4}")])
            if number % 13 == 12:
                store.seal()
            if number % 29 == 28:
                store.vacuum()


def test_two_processes_in_turn_make_one_log_that_readers_always_see_whole(tmp_path: Path):
    EventLog.open(tmp_path).close()
    children = [SPAWN.Process(target=_churn, args=(str(tmp_path), name, 90)) for name in "ab"]
    for child in children:
        child.start()
    stop, reads = 0, 0
    with EventLog.open(tmp_path, read_only=True) as reader, EventLog.open(tmp_path) as other:
        while any(child.is_alive() for child in children):
            for store in (reader, other):
                frame = everything(store)
                positions = frame["position"].to_list()
                assert positions == list(range(len(positions)))
                assert len(positions) >= stop, "a reader never sees less than before"
                stop = len(positions)
                sizes = set(frame.group_by("recorded_at").len()["len"])
                assert sizes <= {3, 40}, "whole commits only"
                heads = {head.aggregate_id: head.version for head in store.heads()}
                counts = dict(frame.group_by("aggregate_id").len().iter_rows())
                assert all(heads[name] >= count for name, count in counts.items())
                assert store.count_commits() >= frame["recorded_at"].n_unique()
                reads += 1
        assert reads > 2
        for child in children:
            child.join()
            assert child.exitcode == 0
        assert other.verify().events == reader.verify().events == 2 * (10 * 40 + 80 * 3)


def _append_until(path: str, name: str, goal: int, seconds: float) -> None:
    with EventLog.open(path, wait=60.0) as store:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            store.commit([batch(1, name)])
            counts = {head.aggregate_id: head.version for head in store.heads()}
            if len(counts) == 2 and min(counts.values()) >= goal:
                break


def test_two_processes_that_append_without_pause_both_get_on(tmp_path: Path):
    """Each goes on until both have made some commits: one that starved would keep both here."""
    EventLog.open(tmp_path).close()
    children = [SPAWN.Process(target=_append_until, args=(str(tmp_path), name, 30, 60.0)) for name in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    with EventLog.open(tmp_path) as store:
        assert min(head.version for head in store.heads()) >= 30
        assert store.verify().ok


def test_a_reader_cannot_take_the_lock_from_anybody(tmp_path: Path):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(1)])
        with EventLog.open(tmp_path, read_only=True) as reader:
            with pytest.raises(ReadOnlyStore):
                reader.commit([batch(1)])
            assert store.commit([batch(1)]).position == 1
            assert everything(reader).height == 2
    with pytest.raises(StoreError, match="closed"):
        reader.commit([batch(1)])
