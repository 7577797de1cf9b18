"""Leases protect what is being read, in every process, and end with whoever held them."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventlab.errors import StoreError
from eventlab.events.frame import EventFrame
from eventlab.store.api import Selection
from eventlab.store.disk import range_locks as ofd
from eventlab.store.disk.read_leases import FileLeases, Leases, MemoryLeases, leased
from eventlab.store.event_log import EventLog
from eventlab.testing.events import batch, everything, trade

ROOT = Path(__file__).parents[3]
TRADES = Selection({"market_data": ["price"]})


@pytest.fixture(params=["memory", "file"])
def leases(request: pytest.FixtureRequest, tmp_path: Path) -> Leases:
    return MemoryLeases() if request.param == "memory" else FileLeases(tmp_path / "lock")


def seal_only(store: EventLog) -> None:
    """Seal the tail, and merge nothing."""
    with store._exclusive.held(), store._lock:
        store._writer.seal()


def test_a_lease_protects_what_later_generations_dropped(leases: Leases):
    with leases.hold(5):
        assert [leases.is_leased(dropped) for dropped in (1, 5, 6, 7, 2**40)] == [False, False, True, True, True]
        with leases.hold(2):
            assert [leases.is_leased(dropped) for dropped in (2, 3, 5)] == [False, True, True]
        assert not leases.is_leased(5)
    assert not leases.is_leased(2**40)


def test_many_hold_the_same_generation(leases: Leases):
    one, two = leases.hold(0), leases.hold(0)
    one.release()
    one.release()
    assert leases.is_leased(1)
    two.release()
    assert not leases.is_leased(1)


@pytest.mark.parametrize("how", ["exhausted", "closed", "collected", "collected before it began", "failed"])
def test_a_lease_ends_with_its_iterator(leases: Leases, how: str):
    def items() -> Iterator[int]:
        yield 1
        if how == "failed":
            raise ValueError("no more")
        yield 2

    held = leased(leases, 3, items)
    assert leases.is_leased(4)
    if how == "exhausted":
        assert list(held) == [1, 2]
    elif how == "failed":
        with pytest.raises(ValueError, match="no more"):
            list(held)
    elif how == "closed":
        next(held)
        held.close()
    else:
        if how == "collected":
            next(held)
        del held
        gc.collect()
    assert not leases.is_leased(4)


def test_what_fails_to_begin_holds_nothing(leases: Leases):
    def begin() -> Iterator[int]:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more") as caught:  # the traceback keeps every frame alive
        leased(leases, 1, begin)
    assert not leases.is_leased(2)
    del caught


def test_a_killed_process_leaves_no_lease(tmp_path: Path):
    code = f"""
    import sys
    from pathlib import Path
    from eventlab.store.disk.read_leases import FileLeases
    lease = FileLeases(Path({str(tmp_path / "lock")!r})).hold(7)
    print("held", flush=True)
    sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        here = FileLeases(tmp_path / "lock")
        assert (here.is_leased(7), here.is_leased(8)) == (False, True)
        child.kill()
        child.wait()
        assert not here.is_leased(8)


def test_closing_one_descriptor_leaves_the_locks_of_others(tmp_path: Path):
    one, two = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert ofd.try_lock(one, 3)
    assert not ofd.try_lock(two, 3)
    assert not ofd.try_lock(two, 0, 10, shared=True)
    assert ofd.is_locked(two, 0, 10)
    assert not ofd.is_locked(two, 4, 10)
    assert not ofd.is_locked(one, 0, 10)  # one's own locks are in nobody's way
    os.close(two)
    three = os.open(tmp_path / "lock", os.O_RDWR)
    assert ofd.is_locked(three, 3)
    ofd.unlock(one, 3)
    assert ofd.try_lock(three, 3, shared=True)
    assert ofd.try_lock(one, 3, shared=True)
    os.close(one)
    os.close(three)


def test_a_copy_without_the_lock_file_is_read(tmp_path: Path):
    with EventLog.open(tmp_path / "lab") as store:
        store.commit([batch(3)])
        seal_only(store)
    (tmp_path / "lab" / "lock").unlink()
    with EventLog.open(tmp_path / "lab", read_only=True) as store:
        assert everything(store).height == 3
    assert not FileLeases(tmp_path / "nowhere" / "lock").is_leased(9)
    FileLeases(tmp_path / "nowhere" / "lock").hold(1).release()


def test_no_reading_without_protection(tmp_path: Path):
    here = FileLeases(tmp_path / "lock")
    here.hold(1).release()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(StoreError, match="cannot be protected"):
            here.hold(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


READS: dict[str, Callable[[EventLog], Iterator[object]]] = {
    "frames": lambda store: store.frames(TRADES),
    "rows": lambda store: store.rows(store.types()["market_data"]),
    "one aggregate": lambda store: store.frames(Selection({"market_data": ["price"]}, aggregates=["b"])),
}


@pytest.mark.parametrize("steps", range(3))
@pytest.mark.parametrize("read", READS)
def test_nothing_is_removed_under_a_reader(kind: str, tmp_path: Path, read: str, steps: int):
    with EventLog.open(":memory:" if kind == "memory" else tmp_path / "lab") as store:
        for _ in range(3):
            store.commit([batch(4, ["a", "b", "b", "c"])])
            seal_only(store)
        whole = [content(piece) for piece in READS[read](store)]
        half = READS[read](store)
        found = [content(next(half)) for _ in range(min(steps, len(whole)))]  # small pieces come as one
        store.commit([batch(1)])
        store.seal()
        kept = store.vacuum()
        assert (kept.files, kept.leased_files) == (0, 4)
        assert kept.leased_bytes > 0
        assert found + [content(piece) for piece in half] == whole
        done = store.vacuum()
        assert (done.files, done.leased_files) == (4, 0)
        assert done.bytes >= kept.leased_bytes
        assert store.vacuum().files == 0
        assert everything(store).height == 13
        store.verify()


def content(piece: object) -> object:
    if isinstance(piece, EventFrame):
        table = piece.tables["market_data"]
        return piece.aggregates, table.position.tolist(), table.columns["price"].to_pylist()
    return repr(piece)


def test_a_reader_elsewhere_keeps_what_it_reads(tmp_path: Path):
    with EventLog.open(tmp_path) as writer, EventLog.open(tmp_path, read_only=True) as reader:
        for price in range(4):
            writer.commit([batch([trade(float(price))])])
            seal_only(writer)
        half = reader.frames(TRADES)
        first = next(half)
        writer.seal()
        assert writer.vacuum().leased_files == 4
        rest = list(half)
        frames = [frame.tables["market_data"] for frame in (first, *rest)]
        prices = [price for table in frames for price in table.columns["price"].to_pylist()]
        assert prices == [0.0, 1.0, 2.0, 3.0]
        assert writer.vacuum().files == 4
        assert everything(reader)["price"].to_list() == prices
        assert len(list((tmp_path / "segments").iterdir())) == 1
