"""A store knows which aggregates have back-dated events."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import eventlab as el
from eventlab.errors import InvalidEvent, LateEvent, StoreCorrupt, StoreFull
from eventlab.storage import operations as disk
from eventlab.store.commit import writer
from eventlab.store.event_log import EventLog
from eventlab.testing.events import batch

T = 1_700_000_000_000_000_000
FILL = el.PortfolioChange("S", 4.0, 5.0)


@pytest.mark.parametrize("count", [1, 5])
def test_late_events_are_refused_or_raised_unless_they_are_accepted(tmp_path: Path, monkeypatch, count: int):
    """In small commits and in bulk ones; what is refused changes nothing."""
    monkeypatch.setattr(writer, "BULK_ROWS", 4)
    with EventLog.open(tmp_path) as store:
        store.commit([batch(count, "a", timestamps=[*range(100, 100 + count)])], late="accept")
        store.commit([batch(1, "a", timestamps=[90])], late="clamp")
        with pytest.raises(LateEvent):
            store.commit([batch(count, "a", timestamps=[9] * count)])
        with pytest.raises(InvalidEvent, match="cause"):
            store.commit([batch(2, "a", timestamps=[9, 8], causes=[None, 99])], late="accept")
        assert store.times_ascend_in("a")
        assert store.commit([batch(count, "a", timestamps=[9] * count)], late="accept").backdated == count
        assert not store.times_ascend_in("a")


def test_a_copy_knows_back_dated_aggregates(tmp_path: Path):
    with el.open(tmp_path / "lab") as lab:
        lab.append("p", [FILL, FILL], timestamp=[T, T - 1], late="accept")
        lab.backup(tmp_path / "copy")
    with el.open(tmp_path / "copy") as copy:
        assert not copy.store.times_ascend_in("p")


def test_a_back_dated_event_that_cannot_be_written_leaves_no_trace(tmp_path: Path, monkeypatch):
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
    (tmp_path / "catalog.checksums").unlink()
    with EventLog.open(tmp_path, read_only=True) as store, pytest.raises(StoreCorrupt, match="go back") as caught:
        store.verify()
    assert [(one.first_position, one.stop_position) for one in caught.value.report.damage] == [(0, 2)]
