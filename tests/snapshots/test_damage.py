"""What is cut, flipped, replaced or removed in the files of snapshots never changes an answer."""

from __future__ import annotations

import errno
import gc
import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import (
    SnapshotError,
    SnapshotSkipped,
    StoreError,
    StoreFull,
)
from eventlab.lab.lab import Lab
from eventlab.snapshots.policy.rules import Every
from eventlab.snapshots.storage import records
from eventlab.snapshots.storage.files import DirectoryFiles
from eventlab.storage import operations as disk
from eventlab.store.event_log import EventLog
from tests.examples import examples
from tests.snapshots.labs import counting, files, filled
from tests.timetravel.worlds import NAMES, SECOND, T0


def test_snapshots_survive_reopening(tmp_path):
    path = tmp_path / "lab"
    with filled(path) as lab:
        lab.snapshots.build(el.Portfolio)
        expected = lab.state(el.Portfolio, NAMES[0]).digest
    with el.open(path) as lab:
        assert lab.snapshots.build(el.Portfolio).snapshots == 0
        assert lab.snapshots.table().height == 6
        assert lab.state(el.Portfolio, NAMES[0]).digest == expected
        assert lab.snapshots.verify().equal == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:7],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:-250] + bytes([content[-250] ^ 1]) + content[-249:],
        lambda content: content[:-300] + b"\0" * 300,
        lambda content: content + b"more",
        lambda content: b"not arrow at all",
    ],
    ids=["seven bytes", "half", "last byte", "flipped bit", "zeroed tail", "longer", "other"],
)
@pytest.mark.parametrize("loaded", [False, True], ids=["before loading", "after loading"])
def test_a_damaged_file_is_left_aside_with_a_warning(tmp_path, damage, loaded):
    path = tmp_path / "lab"
    with filled(path, count=25) as lab:
        expected = [lab.state(el.Portfolio, name).digest for name in NAMES]
        lab.snapshots.build(el.Portfolio)
        if loaded:  # what was read whole and right may be used on
            assert [lab.state(el.Portfolio, name).digest for name in NAMES] == expected
        (file,) = files(path)
        file.write_bytes(damage(file.read_bytes()))
        if not loaded:
            with pytest.warns(UserWarning, match="a snapshot is left aside, and replayed instead"):
                assert [lab.state(el.Portfolio, name).digest for name in NAMES] == expected
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert [lab.state(el.Portfolio, name).digest for name in NAMES] == expected
            with pytest.raises(SnapshotError, match=r"is damaged|is cut short"):
                lab.snapshots.verify()
        assert lab.snapshots.drop() == 1
        assert lab.snapshots.build(el.Portfolio).snapshots == 3
        assert lab.snapshots.verify().equal == 3
        assert [lab.state(el.Portfolio, name).digest for name in NAMES] == expected


def test_what_is_cut_off_between_records_is_only_missing(tmp_path):
    path = tmp_path / "lab"
    with filled(path, count=25) as lab:
        expected = [lab.state(el.Portfolio, name).digest for name in NAMES]
        lab.snapshots.build(el.Portfolio)
        files(path)[0].write_bytes(b"")
        assert [lab.state(el.Portfolio, name).digest for name in NAMES] == expected
        assert lab.snapshots.build(el.Portfolio).snapshots == 3
        assert lab.snapshots.verify().equal == 3


def test_damage_costs_only_the_snapshots_that_it_hits(tmp_path):
    path = tmp_path / "lab"
    with filled(path) as lab:
        for version in (50, 100, 150, 200):
            assert lab.snapshot(el.Portfolio, NAMES[0], version).snapshots == 1
        expected = [lab.state(el.Portfolio, NAMES[0], as_of=v).digest for v in range(0, 201, 10)]
    (file,) = files(path)
    content = file.read_bytes()
    heads = [at for at in range(0, len(content), 64) if content[at : at + 8] == b"EVLABSNP"]
    assert len(heads) == 9  # the reducer's name, then for each snapshot the end of the log and its states
    for what, at in (("head", heads[4] + 9), ("states", heads[5] - 70)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 8]) + content[at + 1 :])
        with el.open(path) as lab, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert [lab.state(el.Portfolio, NAMES[0], as_of=v).digest for v in range(0, 201, 10)] == expected, what
            assert lab.snapshots.table()["version"].to_list() == [50, 150, 200]
            assert [str(one.message).split(":")[0] for one in told] == [
                "a snapshot is left aside, and replayed instead"
            ]
            assert lab.snapshot(el.Portfolio, NAMES[0], 100).snapshots == 1
        with el.open(path) as lab, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert lab.snapshots.table()["version"].to_list() == [50, 100, 150, 200]


@pytest.fixture(scope="module")
def snapshotted(tmp_path_factory):
    """A store with one snapshot file, its content, and the right answer."""
    path = tmp_path_factory.mktemp("flip") / "lab"
    with filled(path, count=21) as lab:
        expected = lab.state(el.OrderBook, NAMES[0]).digest
        lab.snapshots.build(el.OrderBook)
    (file,) = files(path)
    with EventLog.open(path, read_only=True) as store:
        yield store, file, file.read_bytes(), expected


@examples(20)
@given(st.data())
def test_no_flipped_byte_changes_an_answer(snapshotted, data):
    store, file, content, expected = snapshotted
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = content[at] ^ data.draw(st.integers(1, 255))
    file.write_bytes(content[:at] + bytes([flipped]) + content[at + 1 :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a byte that fills up a record nothing needs to be told
        state = Lab(store).state(el.OrderBook, NAMES[0])
    assert state.digest == expected


def test_a_folder_in_place_of_a_file_costs_the_snapshots_alone(tmp_path):
    path = tmp_path / "lab"
    with filled(path, count=25) as lab:
        expected = lab.state(el.Trades, NAMES[0]).digest
        lab.snapshots.build(el.Trades)
        (file,) = files(path)
        file.unlink()
        file.mkdir()
        with pytest.warns(UserWarning, match="cannot be read"):
            assert lab.state(el.Trades, NAMES[0]).digest == expected
        with pytest.raises(StoreFull, match="could not be written"):
            lab.snapshots.build(el.Trades)
        assert lab.snapshots.drop() == 0
        file.rmdir()
        assert lab.snapshots.build(el.Trades).snapshots == 3


def test_a_file_that_cannot_be_removed_is_named_in_an_error(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with filled(tmp_path / "lab", count=25) as lab:
        lab.snapshots.build(el.Trades)
        with monkeypatch.context() as patched:
            patched.setattr(disk, "remove", fail)
            with pytest.raises(StoreError, match="could not be removed"):
                lab.snapshots.drop()
        assert lab.snapshots.table().height == 3
        assert lab.snapshots.drop() == 1


def test_what_a_killed_rewrite_left_goes_with_the_snapshots(tmp_path):
    with filled(tmp_path / "lab", count=25) as lab:
        lab.snapshots.build(el.Trades)
        left = tmp_path / "lab" / "snapshots" / f".{'0' * 32}.part"
        left.write_bytes(b"half of it")
        assert lab.snapshots.table().height == 3
        lab.snapshots.drop()
        assert not left.exists()


@pytest.mark.parametrize("finer", [7, 20, 100])
def test_a_file_that_another_lab_drops_and_builds_anew_is_seen_as_it_is(tmp_path, finer):
    """File systems give the number of a file that is gone to the next one that is made."""
    path = tmp_path / "lab"
    with filled(path) as lab, el.open(path) as other:
        expected = [lab.state(el.Trades, name, as_of=v).digest for name in NAMES for v in range(0, 201, 9)]
        lab.snapshots.build(el.Trades)
        assert lab.snapshots.table().height == 6
        other.snapshots.drop()
        other.snapshots.policy = Every(finer)
        other.snapshots.build(el.Trades)
        assert lab.snapshots.table().equals(other.snapshots.table())
        assert [lab.state(el.Trades, name, as_of=v).digest for name in NAMES for v in range(0, 201, 9)] == expected
        lab.snapshots.policy = Every(3)
        lab.snapshots.build(el.Trades)
        assert other.snapshots.verify().equal == lab.snapshots.table().height


def test_a_file_that_another_lab_drops_during_a_read_is_only_missing(tmp_path, monkeypatch):
    path = tmp_path / "lab"
    with filled(path, count=25) as lab:
        lab.snapshots.build(el.Trades)
        (file,) = files(path)
        content = file.read_bytes()
    for when in ("state", "opened"):
        file.write_bytes(content)

        found = getattr(DirectoryFiles, when)

        def gone(self, name, found=found):
            answer = found(self, name)
            file.unlink(missing_ok=True)
            return answer

        with el.open(path) as lab, monkeypatch.context() as patched:
            patched.setattr(DirectoryFiles, when, gone)
            assert lab.state(el.Trades, NAMES[0]).version == 125
            assert not file.exists()
            assert lab.snapshots.table().height == 0


def test_a_file_that_was_copied_over_is_read_anew(tmp_path):
    path = tmp_path / "lab"
    with filled(path) as lab:
        lab.snapshots.policy = Every(30)
        lab.snapshots.build(el.Trades)
        (file,) = files(path)
        content = file.read_bytes()
        lab.snapshots.drop()
        lab.snapshots.policy = Every(100)
        lab.snapshots.build(el.Trades)
        file.write_bytes(content)
        assert lab.snapshots.table().height == 18
        assert lab.snapshots.verify().equal == 18


def test_what_another_is_just_adding_is_no_damage(tmp_path):
    path = tmp_path / "lab"
    with filled(path, count=25) as lab:
        lab.snapshots.build(el.Trades)
        (file,) = files(path)
        content = file.read_bytes()
        for cut in (len(content) - 1, len(content) - 100, 300, 7):
            file.write_bytes(content[:cut])
            with el.open(path) as other, DirectoryFiles(path / "snapshots", read_only=False).writing(file.name):
                assert other.state(el.Trades, NAMES[0]).version == 125
                file.write_bytes(content)
                assert other.snapshots.table().height == 3


def test_a_closed_lab_holds_no_snapshots_open(tmp_path):
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system does not list the files that a process has open")
    with filled(tmp_path / "lab", count=25) as lab:
        lab.snapshots.build(el.Trades)
        lab.state(el.Trades, NAMES[0])
    held = [str(link.readlink()) for link in folder.iterdir() if link.is_symlink()]
    assert not [one for one in held if one.endswith(".snapshots")]


def test_a_file_of_another_store_is_left_aside(tmp_path):
    for name, count in (("one", 30), ("two", 25)):
        with filled(tmp_path / name, count=count) as lab:
            lab.snapshots.build(el.Portfolio)
    shutil.copy(files(tmp_path / "one")[0], tmp_path / "two" / "snapshots")
    with el.open(tmp_path / "two") as lab:
        with pytest.warns(UserWarning, match="of another store or reducer"):
            found = lab.state(el.Portfolio, NAMES[0]).digest
        lab.snapshots.drop()
        assert lab.state(el.Portfolio, NAMES[0]).digest == found


def test_snapshots_of_a_future_format_are_left_aside(tmp_path, monkeypatch):
    path = tmp_path / "lab"
    with filled(path, count=25) as lab:
        expected = [lab.state(el.Portfolio, name).digest for name in NAMES]
        with monkeypatch.context() as later:
            later.setattr(records, "FORMAT", records.FORMAT + 1)
            lab.snapshots.build(el.Portfolio)
    with el.open(path) as lab:
        with pytest.warns(UserWarning, match="is of format 2, which this eventlab does not read"):
            assert [lab.state(el.Portfolio, name).digest for name in NAMES] == expected
        assert lab.snapshots.table().height == 0
        with pytest.raises(SnapshotError, match=r"is of format 2, which .*drop\(\) removes it"):
            lab.snapshots.verify()
        lab.snapshots.policy = Every(100)
        assert lab.snapshots.build(el.Portfolio).snapshots == 3
        assert [lab.state(el.Portfolio, name).digest for name in NAMES] == expected
        assert lab.snapshots.drop() == 1


def test_a_full_disk_costs_a_snapshot_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "lab"
    written, full = disk.write_at, True

    def write_at(descriptor, content, offset):
        if full and Path(f"/proc/self/fd/{descriptor}").readlink().suffix in {".snapshots", ".part"}:
            written(descriptor, content[: len(content) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        written(descriptor, content, offset)

    with filled(path, count=25) as lab:
        expected = lab.state(el.Portfolio, NAMES[0]).digest
        assert lab.snapshot(el.Portfolio, NAMES[0], 50).snapshots == 1
        (file,) = files(path)
        content = file.read_bytes()
        monkeypatch.setattr(disk, "write_at", write_at)
        told = "a snapshot could not be written; got .*No space left on device.*Free some space"
        for make in (
            lambda: lab.snapshot(el.Portfolio, NAMES[0], 60),
            lambda: lab.snapshots.build(el.Portfolio),
            lambda: lab.snapshots.build(el.Trades),
        ):
            with pytest.raises(StoreFull, match=told):
                make()
            assert file.read_bytes() == content
        with pytest.warns(SnapshotSkipped, match=told):
            lab.append(NAMES[0], [el.PortfolioChange("A", 1.0, 10.0)] * 10, timestamp=T0 + 30 * SECOND)
        lab.snapshots.policy = el.snapshots.OnRead()
        with pytest.warns(SnapshotSkipped, match=told):
            assert lab.state(el.Portfolio, NAMES[0], 125).digest == expected
        assert lab.store.heads([NAMES[0]])[0].version == 135
        full = False
        lab.state(el.Portfolio, NAMES[0], 125)
        assert lab.snapshots.table()["version"].to_list() == [50, 125]
    with el.open(path) as lab:
        assert lab.state(el.Portfolio, NAMES[0], 125).digest == expected
        assert lab.snapshots.verify().equal == 2


def test_a_reducer_that_changed_between_runs_starts_from_the_events(tmp_path):
    path = tmp_path / "lab"
    with filled(path, count=25) as lab:
        assert lab.snapshots.build(counting(1.0)).snapshots == 3
    with el.open(path) as lab, warnings.catch_warnings():
        warnings.simplefilter("error")
        changed = counting(2.0)
        assert lab.state(changed, NAMES[0]).total == 50.0
        lab.snapshots.policy = Every(50)
        assert lab.snapshots.build(changed).snapshots == 6
        assert lab.state(changed, NAMES[0], 110).total == 44.0
        gc.collect()
        assert sorted(lab.snapshots.table()["usable"].to_list()) == [False] * 3 + [True] * 6
        assert lab.snapshots.drop(changed) == 1
        assert lab.state(counting(1.0), NAMES[0]).total == 25.0


def test_strange_files_in_the_folder_are_not_touched(tmp_path):
    path = tmp_path / "lab"
    with filled(path, count=21) as lab:
        lab.snapshots.build(el.Trades)
        stranger = path / "snapshots" / "notes.txt"
        stranger.write_text("mine")
        (path / "snapshots" / f"{'0' * 32}.part").write_text("unfinished")
        assert lab.snapshots.table().height == 3
        assert lab.snapshots.drop() == 1
        assert stranger.read_text() == "mine"
