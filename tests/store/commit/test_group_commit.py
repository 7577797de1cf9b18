"""Threads that append through one store: they share syncs, and fail, are interrupted and closed upon together."""

from __future__ import annotations

import errno
import faulthandler
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import eventlab as el
from eventlab.errors import EventlabError, StoreError, StoreFull, StoreLocked, WrongVersion
from eventlab.storage import operations as disk
from eventlab.store.commit import group_commit, writer
from eventlab.store.disk import writer_lock as exclusive
from eventlab.store.event_log import EventLog
from eventlab.testing.events import SIGNAL, TRADE, batch, everything, trade

PACKAGE = str(Path(writer.__file__).parents[1])
MANY = 8


@pytest.fixture(autouse=True)
def _no_hanging() -> Iterator[None]:
    faulthandler.dump_traceback_later(240, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


class Syncs:
    """Counts syncs of the journal; the first one waits until `others` commits are prepared behind it, and may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.others = 0
        self.error: BaseException | None = None
        self._began, self._prepared = threading.Event(), threading.Semaphore(0)
        self._plainly = disk.sync_content
        monkeypatch.setattr(disk, "sync_content", self)
        monkeypatch.setattr(exclusive, "_WHOLE_TURN", 1_000.0)  # all share one turn, however busy the machine is

    def __call__(self, descriptor: int) -> None:
        self.count += 1
        self._plainly(descriptor)
        if self.others:
            waited, self.others = self.others, 0
            self._began.set()
            for _ in range(waited):
                assert self._prepared.acquire(timeout=60)
            if self.error is not None:
                error, self.error = self.error, None
                raise error

    def gather(self, store: EventLog, first: Callable[[], Any], *others: Callable[[], Any]) -> list[Any]:
        """Run calls in threads: one writes, the others are prepared meanwhile. Gives what each gave or raised."""
        group = store._writer._group
        prepare = group._add

        def prepared(*args: Any) -> Any:
            made = prepare(*args)
            if self._began.is_set():
                self._prepared.release()
            return made

        group._add = prepared
        self._began.clear()
        self.others = len(others)
        found: list[Any] = [None] * (1 + len(others))

        def run(index: int, call: Callable[[], Any]) -> None:
            try:
                found[index] = call()
            except BaseException as error:  # noqa: BLE001  compared by the test
                found[index] = error

        threads = [threading.Thread(target=run, args=(0, first))]
        threads[0].start()
        assert self._began.wait(60)
        threads += [threading.Thread(target=run, args=(index, call)) for index, call in enumerate(others, 1)]
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
        del group._add
        return found


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


def commits(store: EventLog, count: int, **more: Any) -> list[Callable[[], Any]]:
    return [lambda name=f"m{number}": store.commit([batch(2, name)], **more) for number in range(count)]


def test_commits_prepared_during_a_sync_share_the_next(tmp_path: Path, syncs: Syncs):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(1, "before")])
        before = syncs.count
        receipts = syncs.gather(store, *commits(store, MANY))
        assert syncs.count == before + 2
        assert sorted(receipt.first_position for receipt in receipts) == list(range(1, 2 * MANY + 1, 2))
        assert [receipt.version for receipt in receipts] == [2] * MANY
        assert store.verify().commits == MANY + 1
    with EventLog.open(tmp_path) as store:
        frame = everything(store)
        for number, receipt in enumerate(receipts):
            mine = frame.filter(frame["aggregate_id"] == f"m{number}")
            assert mine["position"].to_list() == [receipt.first_position, receipt.position]
        assert store.verify().events == 2 * MANY + 1


def test_many_threads_make_one_gapless_log(tmp_path: Path, syncs: Syncs):
    """Rows and frames, one aggregate and many, by turns."""
    rounds = 40
    receipts: list[tuple[str, Any]] = []
    with el.open(tmp_path / "lab") as lab:

        def work(number: int) -> None:
            for turn in range(rounds):
                name = "shared" if turn % 2 else f"own{number}"
                event = el.TradingSignal(symbol="BTC", action="buy", strength=float(turn), strategy=f"s{number}")
                receipts.append((name, lab.append(name, [event] * (1 + turn % 3))))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ordered = sorted((receipt for _, receipt in receipts), key=lambda receipt: receipt.position)
        assert [receipt.first_position for receipt in ordered] == [
            0, *(receipt.position + 1 for receipt in ordered[:-1])
        ]  # fmt: skip
        assert all(later.recorded_at > sooner.recorded_at for sooner, later in itertools.pairwise(ordered))
        versions: dict[str, int] = {}
        for name, receipt in sorted(receipts, key=lambda pair: pair[1].position):
            assert receipt.version == versions.get(name, 0) + receipt.count
            versions[name] = receipt.version
        assert syncs.count <= len(receipts) + 2
        assert lab.verify().commits == 4 * rounds
        frame = lab.events(el.TradingSignal)
        assert frame["position"].to_list() == list(range(len(frame)))


def test_an_expected_version_has_one_winner(tmp_path: Path, syncs: Syncs):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(3, "a")])
        contest = [lambda: store.commit([batch(1, "a")], expected={"a": 3}) for _ in range(MANY - 1)]

        def kept() -> Any:
            try:
                return contest[0]()
            except WrongVersion:
                syncs._prepared.release()  # it was refused when prepared: there is nothing to wait for
                raise

        found = syncs.gather(store, lambda: store.commit([batch(1, "b")]), *[kept] * (MANY - 1))
        assert sum(isinstance(one, WrongVersion) for one in found) == MANY - 2
        assert store.verify().events == 5


@pytest.mark.parametrize("durability", ["full"])
def test_a_failing_sync_fails_its_commits_and_those_that_stand_on_them(tmp_path: Path, syncs: Syncs, durability):
    with EventLog.open(tmp_path, durability=durability) as store:
        store.commit([batch(2, "kept")])
        syncs.error = OSError(errno.EIO, "the disk fails")
        found = syncs.gather(store, *commits(store, MANY))
        assert all(isinstance(error, StoreFull) for error in found)
        assert everything(store)["aggregate_id"].unique().to_list() == ["kept"]
        assert store.verify().events == 2
        receipt = store.commit([batch(2, "m3")])
        assert (receipt.first_position, receipt.version) == (2, 2)
        with EventLog.open(tmp_path, read_only=True) as reader:
            assert reader.verify().events == 4
    with EventLog.open(tmp_path) as store:
        assert store.verify().events == 4
        assert store.aggregate_ids() == ["kept", "m3"]


def test_an_interrupt_of_who_writes_reaches_all_whose_commits_were_with_it(tmp_path: Path, syncs: Syncs):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(2, "kept")])
        syncs.error = KeyboardInterrupt()
        first, *others = syncs.gather(store, *commits(store, MANY))
        assert isinstance(first, KeyboardInterrupt)
        assert all(isinstance(error, StoreError) and "interrupted" in str(error) for error in others)
        assert store.verify().events == 2
        assert store.commit([batch(1, "m1")]).version == 1
        assert store.verify().events == 3
    with EventLog.open(tmp_path) as store:
        assert store.verify().events == 3


def test_what_is_prepared_is_known_though_many_aggregates_are_in_use(
    tmp_path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
):
    """Heads that are kept for speed may be let go only once they are known elsewhere."""
    monkeypatch.setattr(group_commit, "_MOST_HEADS", 1)
    with EventLog.open(tmp_path) as store:
        store.commit([batch(1, "a")])
        calls = [lambda name=name: store.commit([batch(1, name)]) for name in "abcabcabc"]
        receipts = syncs.gather(store, *calls)
        assert sorted(receipt.version for receipt in receipts) == [1, 1, 2, 2, 2, 3, 3, 3, 4]
        assert store.verify().aggregates == 3


def test_a_foreign_checkpoint_during_a_sync_does_not_trouble_readers(tmp_path: Path, syncs: Syncs):
    """It changes the catalog, though nothing of the log."""
    with EventLog.open(tmp_path) as store, EventLog.open(tmp_path) as other:
        stop = store.commit([batch(2, "a")]).position + 1

        def meanwhile() -> Any:
            saved = other.checkpoints.save(
                "p", "f", stop, memoryview(b"state"), had=False, discard=None, supersede=False
            )
            seen = everything(store, aggregates=["a"]).height
            heads = store.heads()
            syncs._prepared.release()
            return saved, seen, [head.version for head in heads]

        _, answer = syncs.gather(store, lambda: store.commit([batch(1, "a")]), meanwhile)
        assert answer == (True, 2, [2])
        assert everything(store, aggregates=["a"]).height == 3


def test_handlers_are_called_in_position_order(tmp_path: Path, syncs: Syncs):
    seen: list[int] = []
    with EventLog.open(tmp_path) as store:
        store.subscribe("market_data", lambda frame: seen.extend(frame["position"].to_list()))
        store.commit([batch(1, "a")])
        syncs.gather(store, *commits(store, MANY))
        assert seen == list(range(1 + 2 * MANY))


def test_small_and_large_commits_seals_and_reads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer, "BULK_ROWS", 30)
    monkeypatch.setattr(writer, "UNSEALED_COMMITS", 20)
    rounds, failures = 25, []
    with EventLog.open(tmp_path) as store:
        running = threading.Event()
        running.set()

        def guarded(call: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    call()
                except BaseException as error:  # noqa: BLE001  told by the test
                    failures.append(error)

            return run

        def small(name: str) -> Callable[[], None]:
            def call() -> None:
                for turn in range(rounds):
                    store.commit([batch(1 + turn % 3, name), batch(0 if turn % 2 else 1, f"{name}x")])

            return call

        def large() -> None:
            for _ in range(rounds // 3):
                store.commit([batch(40, ["s0", "big"] * 20)])

        def seal() -> None:
            for _ in range(5):
                store.seal()

        def read() -> None:
            stop = 0
            while running.is_set():
                frame = everything(store)
                assert frame["position"].to_list() == list(range(len(frame)))
                assert len(frame) >= stop
                stop = len(frame)
                assert sum(head.version for head in store.heads()) >= stop

        writers = [guarded(call) for call in (small("s0"), small("s1"), small("s2"), large, seal)]
        threads = [threading.Thread(target=call) for call in writers]
        reader = threading.Thread(target=guarded(read))
        reader.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        running.clear()
        reader.join()
        assert failures == []
        events = 3 * sum(1 + turn % 3 + (1 - turn % 2) for turn in range(rounds)) + 40 * (rounds // 3)
        assert store.verify().events == events
    with EventLog.open(tmp_path) as store:
        assert store.verify().events == events


def _append_for_ever(
    store: EventLog, kept: list[int], failures: list[BaseException], begun: threading.Semaphore
) -> None:
    try:
        while True:
            kept.append(store.commit([batch(1, "a")]).position)
            begun.release()
    except BaseException as error:  # noqa: BLE001  told by the test
        failures.append(error)


def test_closing_while_threads_append_is_told_clearly(tmp_path: Path):
    for _ in range(8):
        store = EventLog.open(tmp_path)
        kept: list[int] = []
        failures: list[BaseException] = []
        begun = threading.Semaphore(0)
        threads = [threading.Thread(target=_append_for_ever, args=(store, kept, failures, begun)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(12):
            assert begun.acquire(timeout=60)
        store.close()
        for thread in threads:
            thread.join()
        assert [(type(error), "closed" in str(error)) for error in failures] == [(StoreError, True)] * 4
        with EventLog.open(tmp_path, wait=0.0) as again:
            assert set(kept) <= set(everything(again)["position"].to_list()), "acknowledged is kept"
            assert again.commit([batch(1, "a")]).version > len(kept)
            assert again.verify().ok


# -- an interrupt anywhere


class Interrupt:
    """Raises KeyboardInterrupt at one of the places where Python itself does: as a function begins, or after a call."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.done = False

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "c_return") or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if frame.f_code.co_name == "<genexpr>" or in_finalizer(frame):
            return  # Python drops what a finalizer, or a generator that ends early, raises
        if self.left == 0:
            self.done = True
            sys.setprofile(None)
            raise KeyboardInterrupt
        self.left -= 1

    def during(self, call: Callable[[], object]) -> bool:
        """Whether it was interrupted."""
        sys.setprofile(self._profile)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return self.done


def in_finalizer(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def quick(store: EventLog) -> None:
    from eventlab.events.rows import rows_of
    from eventlab.store.api import Batch

    rows = rows_of(TRADE, [TRADE.cls(**trade(7.0))])
    assert rows is not None
    store.commit([Batch(TRADE, rows, "a")])


CHANGES: dict[str, Callable[[EventLog], object]] = {
    "a quick append": quick,
    "an append to two aggregates, one new": lambda store: store.commit(
        [batch(3, ["a", f"n{store.stop_position}", "a"])]
    ),
    "a bulk append": lambda store: store.commit([batch(30, ["a", f"b{store.stop_position}"] * 15)]),
    "a seal": lambda store: store.seal(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_interrupt_anywhere_leaves_a_whole_log_and_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    monkeypatch.setattr(writer, "BULK_ROWS", 20)
    store, other = EventLog.open(tmp_path, wait=5.0), EventLog.open(tmp_path, wait=5.0)
    try:
        store.commit([batch(1, "a")])
        places = Interrupt(sys.maxsize)
        assert not places.during(lambda: CHANGES[what](store))
        count = sys.maxsize - places.left
        for at in range(0, count, max(count // 100, 1)):
            store.commit([batch(1, "a")])
            before = store.stop_position
            Interrupt(at).during(lambda: CHANGES[what](store))
            for one in (other, store):
                positions = [p for frame in one.rows(TRADE, columns=["position"]) for p in frame["position"].to_list()]
                assert positions == list(range(len(positions)))
                assert len(positions) >= before
            version = {head.aggregate_id: head.version for head in store.heads()}["a"]
            try:
                assert other.commit([batch(1, "a")]).version == version + 1
            except StoreLocked:
                pytest.fail(f"place {at}: the lock was kept")
            assert store.commit([batch(1, "a")]).version == version + 2
        assert store.verify().events == other.verify().events
    finally:
        store.close()
        other.close()
    with EventLog.open(tmp_path) as again:
        assert again.verify().ok


@pytest.mark.parametrize("where", ["_add", "_finish"])
def test_what_an_interrupted_thread_left_prepared_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    """It is written by whoever is next in the same turn, or dropped with it; another process may write in between."""
    with EventLog.open(tmp_path) as store, EventLog.open(tmp_path) as other:
        store.commit([batch(2, "a")])
        plainly = getattr(store._writer._group, where)

        def interrupted(*args: Any) -> Any:
            if where == "_add":
                plainly(*args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(store._writer._group, where, interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.commit([batch(2, "a")])
        assert other.commit([batch(1, "a")]).version == 3
        assert store.commit([batch(1, "a")]).version == 4
        assert store.seal() == 4
        assert store.verify().events == other.verify().events == 4


def test_errors_of_one_thread_are_its_own(tmp_path: Path, syncs: Syncs):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(2, "a", timestamps=[10, 20])])

        def late() -> Any:
            try:
                return store.commit([batch(1, "a", timestamps=[5])])
            except EventlabError:
                syncs._prepared.release()
                raise

        found = syncs.gather(store, *commits(store, 2), late, *commits(store, 1))
        assert [isinstance(one, EventlabError) for one in found] == [False, False, True, False]
        assert store.verify().events == 8
        assert everything(store, SIGNAL).is_empty()
