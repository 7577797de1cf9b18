"""A store is of the format of before until its first back-dated event; then who knows of none must not open it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

import eventlab as el
from eventlab.errors import InvalidEvent, LateEvent, StoreCorrupt, StoreFull, StoreTooNew
from eventlab.storage import operations as disk
from eventlab.store.catalog import database as catalog
from eventlab.store.commit import writer
from eventlab.store.event_log import EventLog
from tests.store.helpers import batch

FORMAT_2 = Path(__file__).parent / "format2" / "store"
T, SECOND = 1_700_000_000_000_000_000, 1_000_000_000
FILL = el.PortfolioChange("S", 4.0, 5.0)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FORMAT_2, tmp_path / "lab"))


def format_of(folder: Path) -> int:
    connection = sqlite3.connect(folder / "catalog.sqlite")
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def cash(lab: el.Lab, seconds: int) -> float:
    return float(lab.state(el.Portfolio, "p", el.AsOf(time=T + seconds * SECOND)).cash)


def open_as_before(monkeypatch: pytest.MonkeyPatch, folder: Path, *, read_only: bool) -> None:
    """Open and close a store as an eventlab does whose newest format is the one before."""
    with monkeypatch.context() as patched:
        patched.setattr(catalog, "FORMAT", 2)
        EventLog.open(folder, read_only=read_only).close()


def test_a_store_of_before_opens_as_it_is_and_keeps_back_dated_events_from_then_on(old: Path):
    with el.open(old, read_only=True) as lab:
        assert [cash(lab, at) for at in (0, 9, 10, 29, 30)] == [-10.0, -10.0, -140.0, -140.0, -390.0]
        assert lab.verify().ok
    with el.open(old) as lab:
        with pytest.raises(LateEvent):
            lab.append("p", FILL, timestamp=T + 5 * SECOND)
        assert format_of(old) == 2
        lab.append("p", FILL, timestamp=T + 5 * SECOND, late="accept")
        assert format_of(old) == 3
    for _ in range(2):
        with el.open(old) as lab:
            assert [cash(lab, at) for at in (0, 9, 10, 29, 30)] == [-10.0, -30.0, -160.0, -160.0, -410.0]
            assert lab.store.times_ascend_in("m")
            assert not lab.store.times_ascend_in("p")
            assert lab.verify().ok
            lab.seal()


@pytest.mark.parametrize("count", [1, 5])
def test_who_knows_of_no_back_dated_events_refuses_in_clear_words(tmp_path: Path, monkeypatch, count: int):
    """In small commits as in bulk ones."""
    monkeypatch.setattr(writer, "BULK_ROWS", 4)
    with EventLog.open(tmp_path) as store:
        store.commit([batch(count, "a", timestamps=[*range(100, 100 + count)])], late="accept")
        store.commit([batch(1, "a", timestamps=[90])], late="clamp")
        with pytest.raises(LateEvent):
            store.commit([batch(count, "a", timestamps=[9] * count)])
        with pytest.raises(InvalidEvent, match="cause"):
            store.commit([batch(2, "a", timestamps=[9, 8], causes=[None, 99])], late="accept")
    for read_only in (False, True):
        open_as_before(monkeypatch, tmp_path, read_only=read_only)
    with EventLog.open(tmp_path) as store:
        store.commit([batch(count, "a", timestamps=[9] * count)], late="accept")
    for read_only in (False, True):
        with pytest.raises(StoreTooNew, match=r"written by a newer eventlab.*format 3.*Upgrade"):
            open_as_before(monkeypatch, tmp_path, read_only=read_only)


def test_a_copy_is_refused_by_the_same(tmp_path: Path, monkeypatch):
    with el.open(tmp_path / "lab") as lab:
        lab.append("p", [FILL, FILL], timestamp=[T, T - 1], late="accept")
        lab.backup(tmp_path / "copy")
    with pytest.raises(StoreTooNew):
        open_as_before(monkeypatch, tmp_path / "copy", read_only=True)
    with el.open(tmp_path / "copy") as copy:
        assert not copy.store.times_ascend_in("p")


def test_the_format_is_there_before_the_event(tmp_path: Path, monkeypatch):
    """Where the event cannot be written, an ordinary store is left, of whichever format."""
    with EventLog.open(tmp_path) as store:
        store.commit([batch(1, "a", timestamps=[100])])
        with monkeypatch.context() as patched:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patched.setattr(disk, "write_at", full)
            with pytest.raises(StoreFull):
                store.commit([batch(1, "a", timestamps=[9])], late="accept")
        assert store.times_ascend_in("a")
        assert store.commit([batch(1, "a", timestamps=[9])], late="accept").backdated == 1
        assert not store.times_ascend_in("a")
    with EventLog.open(tmp_path) as store:
        assert store.verify().ok


def test_an_aggregate_with_back_dated_events_is_known_as_such_wherever_they_lie(tmp_path: Path):
    """In a bulk commit, in small ones of one type and of two, beside one without; to another process, too."""
    wanted = {"bulk": False, "plain": True, "rows": False, "small": False}
    tick = el.MarketData("B", 1.0, 1.0)

    def ascend(lab: el.Lab) -> dict[str, bool]:
        return {name: lab.store.times_ascend_in(name) for name in lab.store.aggregate_ids()}

    with pytest.MonkeyPatch.context() as patched, el.open(tmp_path / "lab") as lab:
        patched.setattr(writer, "BULK_ROWS", 9)
        lab.append("plain", tick, timestamp=4, late="accept")
        lab.append("rows", tick, timestamp=5)
        lab.append("rows", tick, timestamp=4, late="accept")
        with el.open(tmp_path / "lab", read_only=True) as other:
            assert ascend(other) == {"plain": True, "rows": False}
            lab.append("bulk", [tick] * 9, timestamp=[*range(10, 18), 3], late="accept")
            lab.append("small", [tick, el.TradingSignal("B", "buy", 1.0, "s")], timestamp=[5, 4], late="accept")
            lab.append("plain", tick, timestamp=4, late="accept")
            assert ascend(lab) == ascend(other) == wanted
    for _ in range(2):
        with el.open(tmp_path / "lab") as lab:
            assert ascend(lab) == wanted
            assert lab.verify().ok
            lab.seal()
            assert ascend(lab) == wanted


def test_a_catalog_that_does_not_say_that_times_go_back_is_damaged(tmp_path: Path):
    with EventLog.open(tmp_path) as store:
        store.commit([batch(2, "a", timestamps=[9, 7])], late="accept")
        store.seal()
    connection = sqlite3.connect(tmp_path / "catalog.sqlite")
    connection.execute("DELETE FROM backdated")
    connection.commit()
    connection.close()
    (tmp_path / "catalog.sums").unlink()
    with EventLog.open(tmp_path, read_only=True) as store, pytest.raises(StoreCorrupt, match="go back") as caught:
        store.verify()
    assert [(one.first_position, one.stop_position) for one in caught.value.report.damage] == [(0, 2)]
