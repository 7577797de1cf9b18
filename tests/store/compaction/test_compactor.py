"""Segments are rewritten while others read: the same events before, meanwhile, after, and when it fails half-way."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventlab.errors import DamagedSegment, StoreError, StoreFull, StoreLocked
from eventlab.storage import operations as disk
from eventlab.storage.memory import MemoryStorage
from eventlab.store.api import Selection
from eventlab.store.commit import seal as sealing
from eventlab.store.commit import writer
from eventlab.store.compaction import compactor as compaction
from eventlab.store.compaction import tiering as tiers
from eventlab.store.event_log import EventLog
from eventlab.store.segments import encodings as encoding
from eventlab.store.segments.segments import FORMATS
from eventlab.testing.events import CHANGE, SIGNAL, TRADE, batch, everything, folded, trade

ROOT = Path(__file__).parents[3]
ALL = Selection({"market_data": ["price"]}, others=True)
SIGNAL_ROW = {"symbol": "é", "action": "buy", "strength": -0.0, "strategy": "s"}
CODECS = list(FORMATS)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything small, so that a few events make several tiers and row groups."""
    monkeypatch.setattr(tiers, "FANOUT", 3)
    monkeypatch.setattr(tiers, "SMALL_ROWS", 81)
    monkeypatch.setattr(encoding, "ROW_GROUP", 16)


def seal_only(store: EventLog) -> None:
    """Seal the tail, and merge nothing."""
    with store._exclusive.held(), store._lock:
        store._writer.seal()


def filled(store: EventLog, seals: int = 9) -> None:
    """Segments with everything that an event may have, each type in some of them only."""
    for turn in range(seals):
        store.commit(
            [batch([trade(0.1 * turn, side="buy"), trade(5e-324, received_at=None)], ["a", f"m{turn}"])],
        )
        if turn % 2:
            store.commit(
                [batch([SIGNAL_ROW], "a", kind=SIGNAL, causes=[0], ids=[f"id{turn}"], metadata={"ü": str(turn)})]
            )
        seal_only(store)


def segments(store: EventLog) -> list[int]:
    return [segment.stop_position - segment.first_position for segment in store._manifest().segments]


def answers(store: EventLog) -> Any:
    frames = [everything(store, kind) for kind in (TRADE, SIGNAL)]
    return [frame.to_dict(as_series=False) for frame in frames], folded(store, ALL), store.verify().head, store.heads()


@pytest.mark.parametrize("codec", CODECS)
def test_merging_keeps_every_answer(kind: str, tmp_path: Path, codec: Any):
    path = ":memory:" if kind == "memory" else tmp_path / "lab"
    with EventLog.open(path, codec=codec) as store:
        filled(store)
        before = answers(store)
        assert len(segments(store)) == 9
        assert store.seal() == 0
        assert segments(store) == [22]
        assert answers(store) == before
        assert store.seal() == 0
        assert store.find("id3") is not None
    if kind == "directory":
        assert len(list((tmp_path / "lab" / "segments").iterdir())) == 2
        with EventLog.open(path, read_only=True) as store:
            assert answers(store) == before


def test_archiving_keeps_every_answer(kind: str, tmp_path: Path, ticking: Iterator[int]):
    path = ":memory:" if kind == "memory" else tmp_path / "lab"
    with EventLog.open(path, clock=lambda: next(ticking)) as store:
        filled(store, 4)
        middle = store.commit([batch(3)]).recorded_at
        store.commit([batch(2)])
        before = answers(store)
        assert store.archive(before=0) == 0
        assert store.archive(before=middle) == 10
        assert segments(store) == [10]
        assert answers(store) == before
        assert store.seal() == 5
        assert segments(store) == [10, 5]  # what is archived stays so
        assert store.archive() == 5
        assert segments(store) == [15]
        assert answers(store) == before
        assert store.archive() == 0
        store.commit([batch(4)])
        assert store.archive() == 4
        assert store.verify().events == 19


def test_segments_that_hold_much_are_not_rewritten_for_a_trickle(little: None):
    with EventLog.open(":memory:") as store:
        store.commit([batch(200)])
        store.seal()
        for _ in range(5):
            store.commit([batch(1)])
            store.seal()
        assert segments(store) == [200, 5]
        store.commit([batch(195)])
        store.seal()
        assert segments(store) == [400]
        store.verify()


def test_nothing_grows_beyond_a_segment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sealing, "SEGMENT_ROWS", 10)
    with EventLog.open(":memory:") as store:
        for _ in range(9):
            store.commit([batch(3)])
            seal_only(store)
        store.seal()
        assert segments(store) == [9, 9, 9]
        store.verify()


def test_each_event_is_written_a_few_times_only(little: None, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    write = MemoryStorage.write

    def counting(self: MemoryStorage, name: str, buffers: Iterable[pa.Buffer]) -> None:
        (content,) = buffers
        sizes.append(content.size)
        write(self, name, [content])

    monkeypatch.setattr(MemoryStorage, "write", counting)
    monkeypatch.setattr(writer, "BULK_ROWS", 3)
    once = 0
    with EventLog.open(":memory:") as store:
        for _ in range(150):
            before = len(sizes)
            store.commit([batch(3)])
            once += sizes[before]
        assert sum(sizes) <= once * (1 + tiers.tier(tiers.SMALL_ROWS) - tiers.tier(3))
        assert len(segments(store)) <= 450 // 81 + 2 * tiers.FANOUT
        store.verify()


def test_two_never_rewrite_at_once(tmp_path: Path):
    with EventLog.open(tmp_path) as one, EventLog.open(tmp_path, wait=0.02) as two:
        filled(one, 3)
        with one._compactor._alone(0.0) as alone:
            assert alone
            two.seal()
            assert len(segments(two)) == 3
            assert two.vacuum().files == 0
            with pytest.raises(StoreLocked, match="rewriting segments"):
                two._compactor.archive(7)
        two.seal()
        assert len(segments(one)) == 1


def test_a_reader_elsewhere_learns_of_merges(tmp_path: Path, little: None):
    with EventLog.open(tmp_path) as one, EventLog.open(tmp_path) as two, EventLog.open(tmp_path, read_only=True) as ro:
        for turn in range(12):
            store = (one, two)[turn % 2]
            store.commit([batch(turn + 1, ["a", "b", "c", "a"] * 3 if turn == 11 else "a")])
            store.seal()
            assert answers(one) == answers(two) == answers(ro)
        assert segments(one) == segments(two) == segments(ro)


# -- what goes wrong


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        content = bytearray(path.read_bytes())
        if how == "footer":
            content[-12] ^= 1
        else:
            content[100:400] = bytes(300)
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "short", "footer", "pages"])
def test_a_damaged_segment_stays_as_it_is(tmp_path: Path, how: str):
    with EventLog.open(tmp_path) as store:
        for _ in range(5):
            store.commit([batch(2)])
            seal_only(store)
        hurt = store._manifest().segments[2]
        intact = everything(store).filter(~everything(store)["position"].is_in([4, 5]))
    (file,) = hurt.files.values()
    content = (tmp_path / "segments" / file.name).read_bytes()
    damage(tmp_path / "segments" / file.name, how)
    with EventLog.open(tmp_path) as store:
        with pytest.warns(DamagedSegment, match=file.name):
            store.seal()
        assert segments(store) == [4, 2, 4]
        with pytest.raises(StoreError, match=file.name):
            store.verify()
    (tmp_path / "segments" / file.name).write_bytes(content)
    with EventLog.open(tmp_path) as store:
        assert everything(store).filter(~everything(store)["position"].is_in([4, 5])).equals(intact)
        store.seal()
        assert segments(store) == [10]
        store.verify()


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM runs WHERE file = 2 AND aggregate = 1",
        "DELETE FROM runs WHERE file = 2",
        "UPDATE runs SET aggregate = 99 WHERE file = 2 AND aggregate = 1",
        "UPDATE runs SET last_version = 9 WHERE file = 2 AND aggregate = 1",
        "UPDATE files SET rows = 1 WHERE no = 2",
        "UPDATE runs SET row = row + 1 WHERE file = 2",
    ],
)
def test_a_catalog_that_says_otherwise_loses_no_event(tmp_path: Path, edit: str):
    with EventLog.open(tmp_path) as store:
        for _ in range(3):
            store.commit([batch(4, ["a", "b", "b", "a"])])
            seal_only(store)
        name = next(iter(store._manifest().segments[1].files.values())).name
        content = (tmp_path / "segments" / name).read_bytes()
        store._catalog.execute("PRAGMA foreign_keys = OFF")
        store._catalog.execute(edit)
    (tmp_path / "catalog.checksums").unlink()  # else the store would be refused as a whole
    with EventLog.open(tmp_path) as store:
        with pytest.warns(DamagedSegment, match="left as it is"):
            store.seal()
        assert len(segments(store)) == 3
    assert (tmp_path / "segments" / name).read_bytes() == content


@pytest.mark.parametrize("step", ["create", "write_at", "sync", "sync_directory"])
def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    with EventLog.open(tmp_path) as store:
        filled(store, 5)
        before, files = answers(store), {path.name for path in (tmp_path / "segments").iterdir()}
        whole = getattr(disk, step)

        for allowed in range(2):
            calls = iter([whole] * allowed)

            def failing(*args: Any, calls: Any = calls) -> Any:
                action = next(calls, None)
                if action is None:
                    raise OSError(28, "No space left on device")
                return action(*args)

            monkeypatch.setattr(disk, step, failing)
            with pytest.raises(StoreFull):
                store.seal()
            monkeypatch.setattr(disk, step, whole)
            assert {path.name for path in (tmp_path / "segments").iterdir()} == files
            assert answers(store) == before
        store.seal()
        assert len(segments(store)) == 1
        assert answers(store) == before


def test_what_reads_back_otherwise_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Memory that changes a bit between reading and writing, where no checksum can tell."""
    with EventLog.open(tmp_path) as store:
        filled(store, 3)
        before = answers(store)
        write = compaction.write_segment

        def flipping(block: Any, name_of: Any, codec: str) -> Any:
            price = block.columns.get("price")
            if price is not None:
                values = price.to_numpy().copy()
                values[1] = -values[1]
                block = replace(block, columns={**block.columns, "price": pa.array(values)})
            return write(block, name_of, codec)

        monkeypatch.setattr(compaction, "write_segment", flipping)
        with pytest.raises(StoreError, match="'price' of a rewritten segment was read back otherwise"):
            store.seal()
        monkeypatch.undo()
        assert answers(store) == before
        assert len(segments(store)) == 3


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        ("disk", "write_at", 1),
        ("disk", "sync_directory", 1),
        ("database.Catalog", "add_file", 1),
        ("database.Catalog", "add_file", 2),
        ("database.Catalog", "merge_segments", 1),
        ("garbage.Garbage", "collect", 1),
        ("disk", "remove", 1),
        ("disk", "remove", 3),
        ("database.Catalog", "tidy", 1),
    ],
)
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, module: str, name: str, call: int):
    with EventLog.open(tmp_path) as store:
        filled(store, 4)
        before = answers(store)
    code = f"""
    import importlib, os, sys
    from eventlab.store.event_log import EventLog
    from eventlab.storage import operations as disk
    from eventlab.store.catalog import database
    from eventlab.store.compaction import garbage
    store = EventLog.open(sys.argv[1])
    whole, left = {module}.{name}, [{call}]
    def killing(*args, **more):
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)
        return whole(*args, **more)
    {module}.{name} = killing
    store.seal()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == 9
    with EventLog.open(tmp_path) as store:
        assert answers(store) == before
        store.seal()
        assert answers(store) == before
        named = {file.name for segment in store._manifest().segments for file in segment.files.values()}
        assert {path.name for path in (tmp_path / "segments").iterdir()} == named
        assert store.vacuum().files == 0


# -- everything at once


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Does not wait for a process in vain when the test failed."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def test_a_process_that_reads_all_the_time_sees_whole_moments(tmp_path: Path, little: None):
    code = """
    import sys
    from eventlab.store.api import Selection
    from eventlab.store.event_log import EventLog
    selection = Selection({"market_data": ["price"]})
    reads, last = 0, 0
    with EventLog.open(sys.argv[1], read_only=True) as store:
        print("reading", flush=True)
        while last < int(sys.argv[2]):
            position = 0
            for frame in store.frames(selection):
                table = frame.tables["market_data"]
                places = sorted(zip(table.position.tolist(), table.columns["price"].to_pylist()))
                for at, price in places:
                    assert (at, price) == (position, float(position)), (at, price, position)
                    position += 1
            assert position >= last
            last, reads = position, reads + 1
    print(reads, flush=True)
    """
    rounds, rows = 60, 5
    with EventLog.open(tmp_path, durability="relaxed") as store:
        store.commit([batch([trade(float(row)) for row in range(rows)])])
        reader = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), str(rounds * rows)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with reader, ended(reader):
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            for turn in range(1, rounds):
                first = turn * rows
                store.commit([batch([trade(float(first + row)) for row in range(rows)], ["a", "b", "a", "c", "a"])])
                if turn % 3:
                    seal_only(store)
                    store._compactor.merge_due()
                else:
                    store.seal()
                if turn % 20 == 0:
                    store.archive()
                store.vacuum()
            assert int(reader.stdout.read()) >= 1
        assert reader.returncode == 0
        assert store.verify().events == rounds * rows
        assert store.vacuum().leased_files == 0


class ReadersBesideMerges(RuleBasedStateMachine):
    """Appends, seals, merges, archivings and vacuums in any order beside readers that stopped half-way."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.events: list[tuple[int, str, str]] = []
        self.readers: list[tuple[Iterator[Any], list[Any], int]] = []
        self.stores: list[EventLog] = []
        self.saved = (tiers.FANOUT, tiers.SMALL_ROWS, sealing.SEGMENT_ROWS, writer.BULK_ROWS, encoding.ROW_GROUP)

    @initialize(in_memory=st.booleans(), codec=st.sampled_from(CODECS), most=st.sampled_from([9, 30, 1_000]))
    def open(self, in_memory: bool, codec: Any, most: int) -> None:
        tiers.FANOUT, tiers.SMALL_ROWS, sealing.SEGMENT_ROWS, writer.BULK_ROWS, encoding.ROW_GROUP = 2, 16, most, 6, 4
        self.path: Any = ":memory:" if in_memory else Path(self.folder.name) / "lab"
        self.codec = codec
        self.stores = [self.opened() for _ in range(1 if in_memory else 2)]

    def opened(self) -> EventLog:
        return EventLog.open(self.path, codec=self.codec, durability="relaxed")

    def one(self, which: int) -> EventLog:
        return self.stores[which % len(self.stores)]

    @rule(which=st.integers(0, 1), names=st.lists(st.sampled_from("abc"), min_size=1, max_size=9), kind=st.booleans())
    def append(self, which: int, names: list[str], kind: bool) -> None:
        first = len(self.events)
        if kind:
            made = batch([trade(float(first + row)) for row in range(len(names))], names)
        else:
            made = batch([{"symbol": "S", "quantity": float(first + row), "price": 1.0, "fee": 0.0, "kind": "fill"}
                          for row in range(len(names))], names, kind=CHANGE)  # fmt: skip
        self.one(which).commit([made])
        self.events += [(first + row, name, made.type.name) for row, name in enumerate(names)]

    @rule(which=st.integers(0, 1), how=st.sampled_from(["seal", "seal_only", "merge_due", "vacuum"]))
    def care(self, which: int, how: str) -> None:
        store = self.one(which)
        if how == "seal_only":
            seal_only(store)
        elif how == "merge_due":
            store._compactor.merge_due()
        else:
            getattr(store, how)()

    @rule(which=st.integers(0, 1), before=st.none() | st.integers(0, 100))
    def archive(self, which: int, before: int | None) -> None:
        store = self.one(which)
        stop = len(self.events) if before is None else min(before, len(self.events))
        store._compactor.archive(stop)

    @rule(which=st.integers(0, 1))
    @precondition(lambda self: self.path != ":memory:")
    def reopen(self, which: int) -> None:
        store = self.one(which)
        self.readers = [reader for reader in self.readers if reader[2] != which % 2]
        store.close()
        self.stores[which % 2] = self.opened()

    @rule(which=st.integers(0, 1))
    def begin_to_read(self, which: int) -> None:
        selection = Selection({"market_data": ["price"], "portfolio_change": ["quantity"]})
        wanted = list(self.events)
        self.readers.append((self.one(which).frames(selection), wanted, which % len(self.stores)))

    @rule(steps=st.integers(1, 3))
    @precondition(lambda self: self.readers)
    def read_on(self, steps: int) -> None:
        frames, wanted, which = self.readers.pop(0)
        for _ in range(steps):
            frame = next(frames, None)
            if frame is None:
                assert wanted == []
                return
            found = []
            for name, table in frame.tables.items():
                column = table.columns["price" if name == "market_data" else "quantity"].to_pylist()
                names = np.repeat(np.array(frame.aggregates, dtype=object), np.diff(table.offsets))
                assert column == [float(position) for position in table.position]
                found += zip(table.position.tolist(), names.tolist(), [name] * len(table), strict=True)
            found.sort()
            assert found == wanted[: len(found)]
            wanted = wanted[len(found) :]
        self.readers.append((frames, wanted, which))

    @rule()
    @precondition(lambda self: self.readers)
    def stop_reading(self) -> None:
        self.readers.pop()

    @invariant()
    def nothing_is_lost(self) -> None:
        for store in self.stores:
            assert store.stop_position == len(self.events)
            assert all(size <= sealing.SEGMENT_ROWS for size in segments(store))

    def teardown(self) -> None:
        while self.readers:
            self.read_on(3)
        for store in self.stores:
            assert store.verify().events == len(self.events)
        for store in self.stores[:1]:
            store.vacuum()
            assert store.vacuum().leased_files == 0
            files = [file for segment in store._manifest().segments for file in segment.files.values()]
            assert set(store._open_store.storage.list()) == {file.name for file in files}
            rows = store._catalog.execute("SELECT count(*) FROM runs").fetchone()[0]
            assert rows == sum(len(store._index.runs_of_file(file.no)) for file in files)
        for store in self.stores:
            store.close()
        tiers.FANOUT, tiers.SMALL_ROWS, sealing.SEGMENT_ROWS, writer.BULK_ROWS, encoding.ROW_GROUP = self.saved
        self.folder.cleanup()


TestReadersBesideMerges = ReadersBesideMerges.TestCase
TestReadersBesideMerges.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


UNLIKE = (60_000 + np.cumsum(np.sign(np.random.default_rng(5).standard_normal(30_000))) * 0.5,
          60_000 + np.random.default_rng(5).standard_normal(30_000))  # fmt: skip
"""Prices in ticks and any floats: in one file, both would have to be kept as floats."""


@pytest.mark.parametrize(("symbols", "segments"), [(("BTC", "ETH"), 2), (("BTC", "BTC"), 1)])
def test_unlike_markets_stay_apart_and_one_market_is_joined_for_some_room(
    tmp_path: Path, symbols: tuple[str, str], segments: int
):
    with EventLog.open(tmp_path) as store:
        for symbol, prices in zip(symbols, UNLIKE, strict=True):
            rows = [{"symbol": symbol, "price": float(price), "volume": 1.0} for price in prices]
            store.commit([batch(rows, f"market/{symbol}")])
        before = everything(store)
        assert store.seal() == 0
        assert len(store._index.manifest().segments) == segments
        assert everything(store).equals(before)
        assert store.vacuum().files == 0
        store.verify()
