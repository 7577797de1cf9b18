"""Reopening, two processes, killed writers, full disks and damaged files."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from eventlab.errors import (
    NotAStore,
    ReadOnlyStore,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
)
from eventlab.store.api import Selection
from eventlab.store.catalog import opening as catalog
from eventlab.store.catalog.database import Catalog
from eventlab.store.commit import writer
from eventlab.store.commit.writer import BULK_ROWS
from eventlab.store.event_log import EventLog
from eventlab.testing.events import CHANGE, SIGNAL, batch, everything, folded, trade

ROOT = Path(__file__).parents[2]


def child(code: str, *args: object, **more: object) -> subprocess.Popen[str]:
    """A real child process that runs some code beside this one."""
    script = (
        "import sys\nfrom eventlab.store.event_log import EventLog\nfrom eventlab.testing.events import batch, trade\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script + textwrap.dedent(code), *map(str, args)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


def test_reopening_gives_the_same(tmp_path: Path):
    with EventLog.open(tmp_path / "lab") as store:
        store.commit([batch(3, ["a", "b", "a"])])
        store.commit([batch(BULK_ROWS)])
        store.commit([batch(2)])
        before = (everything(store), store.head_digest, store.heads(), store.store_id)
    with EventLog.open(str(tmp_path / "lab")) as store:
        assert store.verify().ok
        after = (everything(store), store.head_digest, store.heads(), store.store_id)
        assert before[0].equals(after[0])
        assert before[1:] == after[1:]
        assert store.commit([batch(1)]).position == before[0].height
    names = sorted(path.name for path in (tmp_path / "lab").iterdir())
    assert names == ["catalog.checksums", "catalog.sqlite", "journal", "lock", "segments"]


def test_the_tail_seals_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writer, "UNSEALED_COMMITS", 50)
    with EventLog.open(tmp_path, durability="relaxed") as store:
        for _ in range(120):
            store.commit([batch(1)])
        assert len(list((tmp_path / "segments").iterdir())) == 2
        assert sum(len(frame) for frame in store.frames(Selection({"market_data": []}))) == 120
        assert store.verify().commits == 120


def test_a_segment_is_a_plain_parquet_file(tmp_path: Path):
    with EventLog.open(tmp_path) as store:
        store.commit(
            [batch([trade(61_000.25, trade_id=7), trade(61_000.5)], "market/BTC", timestamps=[1_000_000, 2_000_000])]
        )
        store.seal()
        (file,) = (tmp_path / "segments").iterdir()
    stranger = pl.read_parquet(file)
    assert stranger["aggregate_id"].cast(pl.String).to_list() == ["market/BTC"] * 2
    assert stranger["price"].cast(pl.Float64).to_list() == [61_000.25, 61_000.5]
    assert stranger["trade_id"].to_list() == [7, None]
    assert "side" not in stranger.columns
    assert stranger["timestamp"].dt.epoch("ns").to_list() == [1_000_000, 2_000_000]
    column = pq.ParquetFile(file).metadata.row_group(0).column(4)
    assert column.physical_type in ("INT64", "BYTE_ARRAY")


def test_a_reader_beside_a_writer_sees_whole_commits(tmp_path: Path):
    with (
        EventLog.open(tmp_path) as writer,
        EventLog.open(tmp_path) as reader,
        EventLog.open(tmp_path, read_only=True) as ro,
    ):
        for size in (1, BULK_ROWS, 3):
            writer.commit([batch(size, "a")])
            for other in (reader, ro):
                assert other.stop_position == writer.stop_position
                assert everything(other).equals(everything(writer))
        writer.seal()
        assert folded(reader, Selection({"market_data": ["price"]})) == folded(
            writer, Selection({"market_data": ["price"]})
        )
        reader.commit([batch(1, "b")])
        assert writer.commit([batch(1, "a")]).position == reader.stop_position - 1
        assert ro.verify().head == writer.head_digest
        with pytest.raises(ReadOnlyStore):
            ro.commit([batch(1)])
        with pytest.raises(ReadOnlyStore):
            ro.seal()


def test_a_seal_elsewhere_in_the_middle_of_what_is_known(tmp_path: Path):
    with EventLog.open(tmp_path) as one, EventLog.open(tmp_path) as two:
        one.commit([batch(2)])
        assert everything(two).height == 2
        one.commit([batch(1)])
        two.seal()
        one.commit([batch(2)])
        assert everything(one).equals(everything(two))
        assert everything(one)["position"].to_list() == [0, 1, 2, 3, 4]
        one.verify()


def test_types_registered_elsewhere(tmp_path: Path):
    with EventLog.open(tmp_path) as one, EventLog.open(tmp_path) as two:
        one.register(CHANGE)
        two.commit([batch(1)])
        one.commit([batch([{"symbol": "B", "action": "buy", "strength": 1.0, "strategy": "s"}], "s", kind=SIGNAL)])
        assert set(one.types()) == set(two.types()) == {"portfolio_change", "market_data", "trading_signal"}
        two.verify()


def test_an_interrupt_after_the_commit_leaves_it_standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(2)])

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(store._index, "learn_record", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.commit([batch(1, "new")])
        assert everything(store)["position"].to_list() == [0, 1, 2]
        assert store.commit([batch(1, "new")]).version == 2
        store.verify()


@pytest.mark.parametrize("write", ["bulk", "seal"])
def test_an_interrupt_during_the_commit_keeps_the_files_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(2)])
        commit = Catalog.commit

        def interrupted(opened: Catalog) -> None:
            commit(opened)
            raise KeyboardInterrupt  # Python runs signal handlers when SQLite returns

        with monkeypatch.context() as patched:
            patched.setattr(Catalog, "commit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.seal() if write == "seal" else store.commit([batch(BULK_ROWS)])
        rows = 2 if write == "seal" else 2 + BULK_ROWS
        assert everything(store).height == rows
        assert store.verify().events == rows
        assert store.commit([batch(1)]).position == rows


def test_an_interrupt_while_taking_the_lock_leaves_no_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with EventLog.open(tmp_path) as store, EventLog.open(tmp_path, wait=0.0) as other:
        begin = Catalog.begin_write

        def interrupted(opened: Catalog) -> None:
            begin(opened)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Catalog, "begin_write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.commit([batch(1)])
        assert other.commit([batch(1)]).position == 0
        assert everything(store).height == 1


def test_a_proof_is_not_disturbed_by_another_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with EventLog.open(tmp_path) as store, EventLog.open(tmp_path, wait=0.0) as other:
        store.commit([batch(3)])
        execute = store._catalog.execute
        done: list[bool] = []

        def meanwhile(statement: str, *values: object) -> sqlite3.Cursor:
            if statement.startswith("SELECT first_position, events") and not done:
                done.append(True)
                other.commit([batch(2)])
                other.seal()
            return execute(statement, *values)

        with monkeypatch.context() as patched:
            patched.setattr(store._catalog, "execute", meanwhile)
            assert store.verify().events == 3
        assert store.verify().events == 5


def test_a_second_writer_waits_and_then_says_so(tmp_path: Path):
    with EventLog.open(tmp_path) as store, EventLog.open(tmp_path, wait=0.05) as second:
        store.commit([batch(1)])
        with store._exclusive.held():
            with pytest.raises(StoreLocked, match="another writer"):
                second.commit([batch(1)])
            assert everything(second).height == 1
        assert second.commit([batch(1)]).position == 1


def test_writers_in_two_processes_take_turns(tmp_path: Path):
    code = """
        with EventLog.open(sys.argv[1]) as store:
            for number in range(30):
                store.commit([batch(2, sys.argv[2])])
    """
    EventLog.open(tmp_path).close()
    children = [child(code, tmp_path, name) for name in ("a", "b")]
    assert [process.wait(60) for process in children] == [0, 0]
    with EventLog.open(tmp_path) as store:
        report = store.verify()
        assert (report.events, report.commits) == (120, 60)
        assert [head.version for head in store.heads()] == [60, 60]
        for process in children:
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path, seed: int):
    code = f"""
        from eventlab.store.commit import writer
        writer.UNSEALED_COMMITS = 7
        small, large = batch(3, ["a", "b", "a"]), batch({BULK_ROWS}, "c")
        store = EventLog.open(sys.argv[1])
        number = 0
        while True:
            receipt = store.commit([large if number % 5 == 4 else small])
            print(receipt.position, flush=True)
            number += 1
    """
    process = child(code, tmp_path)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline())]
    time.sleep(random.Random(seed).uniform(0.0, 0.5))
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    process.stdout.close()
    with EventLog.open(tmp_path) as store:
        report = store.verify()
        assert report.events > acknowledged[-1]
        frame = everything(store)
        assert frame["position"].to_list() == list(range(report.events))
        whole = report.commits // 5
        assert report.events == 3 * (report.commits - whole) + BULK_ROWS * whole, (
            "a commit is there whole or not at all"
        )
        on_disk = (
            {path.name for path in (tmp_path / "segments").iterdir()} if (tmp_path / "segments").exists() else set()
        )
        named = {name for (name,) in store._catalog.execute("SELECT name FROM files")}
        assert on_disk == named, "what nobody names was swept"
        store.commit([batch(1)])


def test_orphans_are_swept_only_when_nobody_writes(tmp_path: Path):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(BULK_ROWS)])
        orphan = tmp_path / "segments" / ("0" * 16 + "-" + "f" * 16 + ".parquet")
        orphan.write_bytes(b"half")
        holder = sqlite3.connect(tmp_path / catalog.CATALOG_NAME, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        EventLog.open(tmp_path, wait=0.01).close()
        assert orphan.exists()
        holder.execute("ROLLBACK")
        holder.close()
        other = tmp_path / "segments" / "notes.txt"
        other.write_text("mine")
        EventLog.open(tmp_path).close()
        assert not orphan.exists()
        assert other.exists()
        store.verify()


def test_a_full_disk_keeps_nothing_of_the_commit(tmp_path: Path):
    code = """
        import resource
        from eventlab.errors import StoreFull
        store = EventLog.open(sys.argv[1])
        big = batch([trade(float(n) ** 0.5, volume=n ** 0.3) for n in range(20_000)])
        store.commit([batch(1)])
        before = store.head_digest
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        failures = 0
        for attempt in ([big], [batch(8_000)]) * 3:
            try:
                store.commit(attempt)
            except StoreFull:
                failures += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert failures, "the limit was met"
        receipt = store.commit([batch(1)])
        report = store.verify()
        assert report.events == receipt.position + 1
        print(failures, report.events, report.commits)
    """
    process = child(code, tmp_path, 200_000)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert int(output.split()[0]) > 0
    with EventLog.open(tmp_path) as store:
        assert store.verify().events == int(output.split()[1])


def test_a_full_catalog_keeps_nothing_of_the_commit(tmp_path: Path):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(1)])
        pages = store._catalog.execute("PRAGMA page_count").fetchone()[0]
        store._catalog.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreFull, match="full"):
            store.commit([batch(BULK_ROWS, [f"many/{n}" for n in range(BULK_ROWS)])])
        assert store.stop_position == 1
        assert not (tmp_path / "segments").exists() or not list((tmp_path / "segments").iterdir())
        store._catalog.execute("PRAGMA max_page_count = 1000000")
        store.commit([batch(2_000)])
        store.verify()


# -- what is not a store


def test_paths_that_hold_something_else(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with sqlite3.connect(foreign / catalog.CATALOG_NAME) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    garbage = tmp_path / "garbage"
    garbage.mkdir()
    (garbage / catalog.CATALOG_NAME).write_bytes(b"not a database" * 100)
    for path in (file, full, foreign, garbage):
        with pytest.raises(NotAStore, match=path.name):
            EventLog.open(path)
    with pytest.raises(NotAStore):
        EventLog.open(tmp_path / "absent", read_only=True)
    with pytest.raises(NotAStore):
        EventLog.open("nul\0")
    assert not (tmp_path / "absent").exists()
    assert (full / "notes.txt").read_text() == "mine"
    assert [path.name for path in full.iterdir()] == ["notes.txt"]


def test_an_unfinished_creation_is_finished(tmp_path: Path):
    (tmp_path / catalog.CATALOG_NAME).touch()
    with pytest.raises(NotAStore, match="never finished"):
        EventLog.open(tmp_path, read_only=True)
    with EventLog.open(tmp_path) as store:
        store.commit([batch(1)])


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "missing"])
def test_segments_are_not_swept_away_when_the_catalog_is_lost(tmp_path: Path, content):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(1)])
        store.seal()
    segments = sorted(file.name for file in (tmp_path / catalog.SEGMENTS_NAME).iterdir())
    lost = tmp_path / catalog.CATALOG_NAME
    lost.unlink() if content is None else lost.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(StoreError):
            EventLog.open(tmp_path, read_only=read_only)
    assert sorted(file.name for file in (tmp_path / catalog.SEGMENTS_NAME).iterdir()) == segments != []


@pytest.mark.parametrize("path", [5, None, "x" * 300], ids=str)
def test_what_is_no_path_is_no_store(path):
    with pytest.raises(NotAStore):
        EventLog.open(path)


def test_odd_paths(tmp_path: Path):
    for name in ("sp ace", "que?stion#hash%20", "ünï", "mode=memory&x"):
        with EventLog.open(tmp_path / name) as store:
            store.commit([batch(1)])
        with EventLog.open(tmp_path / name, read_only=True) as store:
            assert store.stop_position == 1


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert catalog.file_system(tmp_path) is not None or not Path("/proc/mounts").exists()
    monkeypatch.setattr(catalog, "file_system", lambda path: "nfs4")
    with pytest.raises(StoreError, match="network file system"):
        EventLog.open(tmp_path / "lab")
    assert not (tmp_path / "lab").exists()


# -- damage


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    with EventLog.open(tmp_path) as store:
        store.commit([batch([trade(float(n) ** 0.5) for n in range(500)])])
        store.seal()
        store.commit([batch(3, "tail")])
    return tmp_path


def _segment(path: Path) -> Path:
    (file,) = (path / "segments").iterdir()
    return file


def test_every_flipped_byte_of_a_segment_is_found(sealed: Path):
    file = _segment(sealed)
    sound = file.read_bytes()
    with EventLog.open(sealed) as store:
        truth = everything(store)
    for offset in random.Random(0).sample(range(len(sound)), 60):
        damaged = bytearray(sound)
        damaged[offset] ^= 0x10
        file.write_bytes(damaged)
        with EventLog.open(sealed) as store:
            try:
                assert everything(store).equals(truth), "damage is never returned as data"
            except StoreCorrupt as error:
                assert file.name in str(error)
            else:
                continue
            with pytest.raises(StoreCorrupt):
                store.verify()
    file.write_bytes(sound)
    with EventLog.open(sealed) as store:
        store.verify()


def test_torn_and_missing_segments_are_named(sealed: Path):
    file = _segment(sealed)
    sound = file.read_bytes()
    for content in (sound[:-1], sound[: len(sound) // 2], b"", sound + b"x", bytes(len(sound))):
        file.write_bytes(content)
        with EventLog.open(sealed) as store:
            with pytest.raises(StoreCorrupt, match=file.name):
                everything(store)
            with pytest.raises(StoreCorrupt, match=file.name):
                store.verify()
            assert store.commit([batch(1)]).count == 1
    file.unlink()
    with EventLog.open(sealed) as store, pytest.raises(StoreCorrupt, match="is missing"):
        everything(store)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE commits SET recorded_at = recorded_at + 1 WHERE first_position = 0",
        "UPDATE commits SET digest = zeroblob(32) WHERE first_position = 0",
        "UPDATE aggregates SET version = version + 1 WHERE name = 'market/BTC'",
        "UPDATE aggregates SET name = 'renamed' WHERE name = 'market/BTC'",
        "UPDATE commits SET events = events - 1 WHERE first_position = 0",
        "UPDATE runs SET first_version = 2, last_version = last_version + 1",
        "UPDATE event_types SET schema = replace(schema, '\"minimum\":0.0', '\"minimum\":1.0')",
    ],
)
def test_a_rewritten_catalog_is_found(sealed: Path, statement: str):
    connection = sqlite3.connect(sealed / catalog.CATALOG_NAME)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with EventLog.open(sealed) as store, pytest.raises(StoreCorrupt):
        store.verify()


def test_a_rewritten_event_breaks_the_chain(tmp_path: Path):
    """Someone replaces a small commit's events by others of the same shape, checksums and all."""
    with EventLog.open(tmp_path / "other") as store:
        store.commit([batch([trade(2.0)])])
        forged = store._index.unsealed.records[0].blob
    with EventLog.open(tmp_path / "lab") as store:
        store.commit([batch([trade(1.0)])])
        record = replace(store._index.unsealed.records[0], blob=forged)
        (journal,) = (tmp_path / "lab" / "journal").iterdir()
    content = bytearray(journal.read_bytes())
    packed = record.packed(bytes(8))
    content[128 : 128 + len(packed)] = packed
    journal.write_bytes(content)
    with EventLog.open(tmp_path / "lab") as store, pytest.raises(StoreCorrupt, match="digest"):
        store.verify()


READ_ONLY_DIRECTORY = """
with EventLog.open(":memory:") as store:  # everything is loaded before the rights are given up
    store.commit([batch(1)])
if os.geteuid() == 0:  # permissions do not bind root
    os.setgid(65534)
    os.setuid(65534)
with EventLog.open(sys.argv[1], read_only=True) as store:
    assert store.stop_position == 1
try:
    EventLog.open(sys.argv[1])
except ReadOnlyStore:
    print("refused")
"""


def test_a_read_only_directory():
    # Beside pytest's folders, which other users may not enter.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        with EventLog.open(path / "lab") as store:
            store.commit([batch(1)])
        (path / "lab").chmod(0o555)
        imports = (
            "import os, sys\nfrom eventlab.errors import ReadOnlyStore\nfrom eventlab.store.event_log import EventLog\n"
            "from eventlab.testing.events import batch\n"
        )
        command = [sys.executable, "-c", imports + READ_ONLY_DIRECTORY, str(path / "lab")]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60
        )
        (path / "lab").chmod(0o755)
        assert done.stdout == "refused\n", done.stderr
