"""A follower meets every commit of every process, and ends when it is told to."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import eventlab as el
from eventlab.errors import StoreError
from eventlab.store.commit.writer import BULK_ROWS
from tests.projections.conftest import Child
from tests.projections.helpers import assert_is_replay, checkpoints, fill


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[el.Lab]:
    with el.open(tmp_path / "lab") as opened:
        yield opened


def test_it_begins_with_what_is_there_and_ends_when_nothing_comes(lab: el.Lab):
    lab.append("p", [fill(), fill()])
    projection = lab.projection(el.Portfolio)
    assert list(projection.follow(timeout=0.05)) == [2]
    assert list(projection.follow(timeout=0.0)) == []
    assert checkpoints(lab)[0][2] == 2


def test_appends_of_this_process_wake_it(lab: el.Lab):
    projection = lab.projection(el.Portfolio)
    with projection.follow() as news:
        for number in range(1, 6):
            threading.Thread(target=lab.append, args=("p", fill())).start()
            assert next(news) == 1
            assert projection.position == number
    assert_is_replay(lab, projection)
    assert checkpoints(lab)[0][2] == 5
    assert next(news, None) is None


def test_in_memory_too():
    with el.open(":memory:") as lab:
        news = lab.projection(el.Portfolio).follow()
        threading.Thread(target=lab.append, args=("p", fill())).start()
        assert next(news) == 1


@pytest.mark.parametrize("reading", [False, True])
def test_commits_of_another_process_wake_it(tmp_path: Path, child: Child, reading: bool):
    """One at a time: each must be seen before the next is made, so that none can hide one that was missed."""
    el.open(tmp_path).close()
    writer = child(
        f"""
        lab = el.open(sys.argv[1])
        for number, line in enumerate(sys.stdin):
            if number % 5 == 4:
                lab.append_frame(el.PortfolioChange, bulk({BULK_ROWS}), aggregate_id="p")
            elif number % 5 == 3:
                lab.seal()
                lab.append("p", fill())
            else:
                lab.append("p", fill())
        """,
        tmp_path,
    )
    assert writer.stdin is not None
    with el.open(tmp_path, read_only=reading) as lab:
        projection = lab.projection(el.Portfolio)
        with projection.follow(timeout=30.0) as news:
            for number in range(10):
                writer.stdin.write("go\n")
                writer.stdin.flush()
                assert next(news) == (BULK_ROWS if number % 5 == 4 else 1)
        assert_is_replay(lab, projection)
        assert len(checkpoints(lab)) == (0 if reading else 1)
        writer.stdin.close()
        assert writer.wait(60) == 0


def test_commits_that_come_as_fast_as_they_can_are_all_seen(tmp_path: Path, child: Child):
    el.open(tmp_path).close()
    writers = [
        child(
            """
            with el.open(sys.argv[1], durability="relaxed") as lab:
                sys.stdin.readline()
                for number in range(300):
                    lab.append(sys.argv[2], fill())
            """,
            tmp_path,
            name,
        )
        for name in "ab"
    ]
    with el.open(tmp_path) as lab:
        projection = lab.projection(el.Portfolio)
        total = 0
        with projection.follow(timeout=30.0) as news:
            for writer in writers:
                assert writer.stdin is not None
                writer.stdin.write("go\n")
                writer.stdin.flush()
            while total < 600:
                total += next(news)
        assert projection.position == total == 600
        assert_is_replay(lab, projection)
        assert [writer.wait(60) for writer in writers] == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_what_a_killed_writer_had_committed_is_seen(tmp_path: Path, child: Child, seed: int):
    el.open(tmp_path).close()
    writer = child(
        f"""
        lab = el.open(sys.argv[1])
        sys.stdin.readline()
        number = 0
        while True:
            if number % 7 == {seed}:
                receipt = lab.append_frame(el.PortfolioChange, bulk({BULK_ROWS}), aggregate_id="p")
            else:
                receipt = lab.append("p", fill())
            print(receipt.position, flush=True)
            number += 1
        """,
        tmp_path,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    with el.open(tmp_path) as lab:
        projection = lab.projection(el.Portfolio)
        with projection.follow(timeout=30.0) as news:
            writer.stdin.write("go\n")
            writer.stdin.flush()
            next(news)
            begin = time.monotonic()
            while time.monotonic() - begin < 0.1 * (seed + 1):
                next(news)
            writer.kill()
            acknowledged = [int(line) for line in writer.stdout.read().splitlines()]
            while projection.position <= acknowledged[-1]:
                next(news)
        assert_is_replay(lab, projection)


def in_a_moment(act: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(0.1, act)
    timer.start()
    return timer


def test_any_thread_may_close_it(lab: el.Lab):
    lab.append("p", fill())
    news = lab.projection(el.Portfolio).follow()
    assert next(news) == 1
    timer = in_a_moment(news.close)
    assert list(news) == []
    timer.join()
    news.close()
    assert checkpoints(lab)[0][2] == 1


def test_it_ends_with_its_lab(lab: el.Lab):
    lab.append("p", fill())
    projection = lab.projection(el.Portfolio)
    news = projection.follow()
    assert next(news) == 1
    timer = in_a_moment(lab.close)
    assert list(news) == []
    timer.join()
    with pytest.raises(StoreError, match="closed"):
        projection.follow()


def test_nothing_is_left_behind_by_one_that_is_dropped(lab: el.Lab):
    before = threading.active_count()
    lab.append("p", fill())
    projection = lab.projection(el.Portfolio)
    for count in projection.follow():
        assert count == 1
        break
    assert threading.active_count() == before
    assert checkpoints(lab)[0][2] == 1


def test_several_may_follow_one_store(lab: el.Lab):
    one, two = lab.projection(el.Portfolio), lab.projection(el.Signals)
    with one.follow(timeout=10.0) as first, two.follow(timeout=10.0) as second:
        lab.append("p", [fill(), el.TradingSignal("BTC", "buy", 1.0, "s")])
        assert (next(first), next(second)) == (2, 2)
        first.close()
        lab.append("p", fill())
        assert (next(first, None), next(second)) == (None, 1)


def test_an_interrupt_ends_it_and_keeps_its_checkpoint(tmp_path: Path, child: Child):
    process = child(
        """
        with el.open(sys.argv[1]) as lab:
            lab.append("p", fill())
            projection = lab.projection(el.Portfolio)
            try:
                for count in projection.follow():
                    print(count, flush=True)
            except KeyboardInterrupt:
                print("interrupted", checkpoints(lab)[0][2])
        """,
        tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "interrupted 1\n"
    assert process.wait(60) == 0
