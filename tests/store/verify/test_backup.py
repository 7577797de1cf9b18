"""Copies of stores, made while others write, seal and merge; each is proven and holds all that was acknowledged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import eventlab as el
from eventlab.errors import NotAStore, StoreCorrupt, StoreFull
from eventlab.storage import operations as disk
from eventlab.store.event_log import EventLog
from eventlab.testing.events import batch, everything

WRITER = """
import sys
from eventlab.store.event_log import EventLog
from eventlab.store.compaction import tiering as tiers
from eventlab.testing.events import batch

with EventLog.open(sys.argv[1]) as store:
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        receipt = store.commit([batch(9_000 if number % 7 == 0 else 3, f"market/{number % 5}")])
        print(receipt.position + 1, flush=True)
        if number % 4 == 0:
            store.seal()
"""


@pytest.fixture
def filled(tmp_path: Path) -> EventLog:
    store = EventLog.open(tmp_path / "lab")
    store.commit([batch(5)])
    store.commit([batch(9_000, "bulk")])
    store.seal()
    store.commit([batch(3)])
    return store


def test_a_copy_is_a_store_of_its_own(filled: EventLog, tmp_path: Path):
    report = filled.backup(tmp_path / "copies" / "one")
    assert (report.events, report.head) == (filled.stop_position, filled.head_digest)
    with EventLog.open(tmp_path / "copies" / "one") as copy:
        assert everything(copy).equals(everything(filled))
        assert copy.store_id == filled.store_id
        copy.commit([batch(2)])
        copy.seal()
        assert copy.verify().events == filled.stop_position + 2
    assert filled.verify().events == report.events
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["one"]


def test_a_read_only_and_a_memory_store_can_be_copied(filled: EventLog, tmp_path: Path):
    with EventLog.open(tmp_path / "lab", read_only=True) as store:
        assert store.backup(tmp_path / "copy").events == filled.stop_position
    with EventLog.open(":memory:") as store:
        store.commit([batch(4)])
        store.commit([batch(9_000)])
        assert store.backup(tmp_path / "kept").events == 9_004
    with EventLog.open(tmp_path / "kept") as kept:
        assert kept.verify().events == 9_004


def test_an_empty_store_and_an_empty_folder(tmp_path: Path):
    (tmp_path / "copy").mkdir()
    with EventLog.open(tmp_path / "lab") as store:
        assert store.backup(tmp_path / "copy").events == 0


def test_what_is_there_is_left_alone(filled: EventLog, tmp_path: Path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "notes.txt").write_text("mine")
    with pytest.raises(NotAStore, match="something already"):
        filled.backup(tmp_path / "copy")
    with pytest.raises(NotAStore, match="inside"):
        filled.backup(tmp_path / "lab" / "copy")
    assert (tmp_path / "copy" / "notes.txt").read_text() == "mine"


def test_garbage_stays_behind(filled: EventLog, tmp_path: Path):
    reader = filled.rows(filled.types()["market_data"])
    next(reader)
    filled.commit([batch(9_000, "bulk")])
    filled.seal()  # its old files are garbage that the reader leases
    filled.backup(tmp_path / "copy")
    reader.close()
    with EventLog.open(tmp_path / "copy") as copy:
        assert everything(copy).equals(everything(filled))
        assert copy.vacuum().files == 0


@pytest.mark.parametrize("name", ["create", "write_at", "sync", "sync_directory", "rename", "make_directory"])
def test_a_failure_leaves_nothing(filled: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(disk, name, failing)
        with pytest.raises((StoreFull, OSError)):
            filled.backup(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["lab"]
    assert filled.backup(tmp_path / "copy").events == filled.stop_position


def test_damage_is_not_copied_in_silence(filled: EventLog, tmp_path: Path):
    (segment, *_) = sorted((tmp_path / "lab" / "segments").iterdir())
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        filled.backup(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["lab"]


def test_copies_while_another_process_writes_and_seals(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "lab")],
        cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        with el.open(tmp_path / "lab", read_only=True) as lab:
            for number in range(6):
                acknowledged = int(process.stdout.readline())
                report = lab.backup(tmp_path / f"copy{number}")
                assert report.events >= acknowledged
                with EventLog.open(tmp_path / f"copy{number}") as copy:
                    assert everything(copy)["position"].to_list() == list(range(report.events))
    finally:
        process.kill()
        process.communicate()
