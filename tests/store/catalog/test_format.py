"""The format of a store: one number opens, every other is refused without a change to the directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import eventlab as el
from eventlab.errors import NotAStore, StoreTooNew, StoreTooOld
from eventlab.store.catalog import format as formats
from eventlab.store.commit import writer
from eventlab.store.event_log import EventLog
from eventlab.testing.events import batch

NOW, EARLIER = formats.APPLICATION_ID, formats.EARLIER_APPLICATION_ID
OTHERS = [
    pytest.param(EARLIER, 1, StoreTooOld, id="earlier series, 1"),
    pytest.param(EARLIER, 2, StoreTooOld, id="earlier series, 2"),
    pytest.param(EARLIER, 3, StoreTooOld, id="earlier series, 3"),
    pytest.param(NOW, 1, StoreTooOld, id="older"),
    pytest.param(NOW, 3, StoreTooNew, id="newer"),
]
Contents = dict[str, tuple[int, int, bytes | None]]


@pytest.fixture(autouse=True)
def second_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take 2 for the present format, so that there is an older one."""
    monkeypatch.setattr(formats, "FORMAT", 2)


def write_store(path: Path, state: str, application: int, version: int) -> None:
    """A store as an eventlab of that format leaves it: closed, or killed before or after its first checkpoint."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(formats, "APPLICATION_ID", application)
        patched.setattr(formats, "EARLIER_APPLICATION_ID", 0)
        patched.setattr(formats, "FORMAT", version)
        patched.setattr(writer, "BULK_ROWS", 2)
        origin = path.with_name("origin")
        with EventLog.open(origin) as store:
            store.commit([batch(1)])
            if state != "killed at once":
                store.seal()
                store.commit([batch(3)])
            if state == "closed":
                store.close()
            shutil.copytree(origin, path)


def contents(path: Path) -> Contents:
    """Times, inode and bytes of a directory and of everything in it."""
    return {
        str(file): (file.stat().st_mtime_ns, file.stat().st_ino, file.read_bytes() if file.is_file() else None)
        for file in (path, *path.rglob("*"))
    }


@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read only"])
@pytest.mark.parametrize("state", ["closed", "killed at once", "killed"])
@pytest.mark.parametrize(("application", "version", "error"), OTHERS)
def test_another_format_is_refused_and_nothing_is_written(
    tmp_path: Path, application: int, version: int, error: type[Exception], state: str, read_only: bool
):
    path = tmp_path / "lab"
    write_store(path, state, application, version)
    (path / "catalog.sqlite-shm").unlink(missing_ok=True)
    before = contents(path)
    assert (path / "catalog.sqlite-wal").exists() is (state != "closed")
    with pytest.raises(error, match="ngest the data again"):
        el.open(path, read_only=read_only)
    assert contents(path) == before


@pytest.mark.parametrize("state", ["closed", "killed at once", "killed"])
def test_the_present_format_opens(tmp_path: Path, state: str):
    write_store(tmp_path / "lab", state, NOW, formats.FORMAT)
    for read_only in (True, False):
        with el.open(tmp_path / "lab", read_only=read_only) as lab:
            assert lab.store.stop_position == (1 if state == "killed at once" else 4)
            assert lab.verify().ok


def test_a_refusal_leaves_the_locks_of_a_store_in_use(tmp_path: Path):
    """SQLite's locks belong to the process, which holds the store and is refused it."""
    with EventLog.open(tmp_path) as store:
        store.commit([batch(1)])
        store._catalog.execute(f"PRAGMA user_version = {formats.FORMAT + 1}")
        for read_only in (False, True):
            with pytest.raises(StoreTooNew):
                EventLog.open(tmp_path, read_only=read_only)
        store.commit([batch(1)])
        store.seal()
        assert store.verify().events == 2


@pytest.mark.parametrize(
    ("application", "version", "error", "words"),
    [
        (NOW, 1, StoreTooOld, r"older eventlab; got format 1; expected format 2\. Ingest the data again into a new"),
        (EARLIER, 3, StoreTooOld, r"format 3 of the series before.*Ingest the data again"),
        (NOW, 3, StoreTooNew, r"newer eventlab; got format 3; expected format 2\. Upgrade eventlab, or ingest"),
        (NOW, 0, StoreTooOld, "older eventlab"),
        (0x1234, 2, NotAStore, "application id 0x1234"),
        (0, 0, NotAStore, "application id 0x0"),
    ],
)
def test_the_decision(application: int, version: int, error: type[Exception], words: str):
    with pytest.raises(error, match=f"place: .*{words}"):
        formats.check_format("place", application, version)
    formats.check_format("place", NOW, formats.FORMAT)
