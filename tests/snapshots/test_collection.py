"""Snapshots change how long an answer takes, never the answer."""

from __future__ import annotations

import errno
import gc
import shutil
import warnings
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import (
    FoldError,
    ReadOnlyStore,
    ReducerError,
    SnapshotError,
    SnapshotSkipped,
    StoreError,
    StoreFull,
    UnknownAggregate,
)
from eventlab.lab.lab import Lab
from eventlab.snapshots import collection
from eventlab.snapshots.build import take_states
from eventlab.snapshots.policy.rules import Every
from eventlab.snapshots.states import Taken
from eventlab.snapshots.storage import records
from eventlab.snapshots.storage.files import DirectoryFiles
from eventlab.storage import operations as disk
from eventlab.store.event_log import EventLog
from tests.examples import examples
from tests.fold.kitchen import Book, Fragile, Merged, Tables, Tick, Tock, Words
from tests.fold.strategies import (
    BOOK_CHANGES,
    KNOWN_LEVELS,
    OTHERS,
    PORTFOLIO_CHANGES,
    SIGNALS,
    TICKS,
    TOCKS,
    TRADES,
)
from tests.timetravel.worlds import NAMES, SECOND, T0, World, clock, commits

BUILT_IN = (el.Trades, el.OrderBook, el.Signals, el.Portfolio)
REDUCERS = (*BUILT_IN, Tables, Merged, Words, Book)
EVENTS = st.one_of(TRADES, BOOK_CHANGES, SIGNALS, PORTFOLIO_CHANGES, TICKS, TOCKS, KNOWN_LEVELS, OTHERS)


def moments(world, name):
    head = len(world.of(name))
    return [None, *range(head + 1), *(el.AsOf(time=T0 + s * SECOND) for s in (-1, 0, 5, 17)),
            *(el.AsOf(position=p) for p in range(0, len(world.entries), 3)),
            *(el.AsOf(known_at=T0 + s * SECOND) for s in (3_599, 3_602, 3_605))]  # fmt: skip


def answers(world, reducer, name):
    found = []
    for moment in moments(world, name):
        state = world.lab.state(reducer, name, as_of=moment)
        found.append((state.version, state.position, state.timestamp, state.digest, str(state.to_dict())))
    found.append(str(world.lab.states(reducer).rows()))
    return found


@examples(8)
@given(commits(EVENTS), commits(EVENTS, most=3), st.integers(1, 7), st.integers(1, 7), st.booleans(), st.data())
def test_answers_are_the_same_with_any_snapshots(made, later, n, m, seal, data):
    world = World(el.open(":memory:", clock=clock()))
    for rows in made:
        world.commit(rows)
    if seal:
        world.lab.seal()
    reducer = data.draw(st.sampled_from(REDUCERS))
    name = world.entries[0].aggregate
    plain = answers(world, reducer, name)
    world.lab.snapshots.policy = Every(n)
    world.lab.snapshots.build(reducer)
    assert answers(world, reducer, name) == plain
    shift = made[-1][-1][1]
    for rows in later:
        world.commit([(aggregate, seconds + shift, event) for aggregate, seconds, event in rows])
    grown = answers(world, reducer, name)
    world.lab.snapshots.policy = Every(m)
    world.lab.snapshots.build(reducer, name)
    assert answers(world, reducer, name) == grown
    assert world.lab.snapshots.verify().equal == world.lab.snapshots.table().height
    world.lab.snapshots.drop(reducer)
    assert answers(world, reducer, name) == grown


def filled(path=":memory:", count=40):
    """A lab with events of every built-in reducer in each of three aggregates."""
    lab = el.open(path, durability="full" if path == ":memory:" else "relaxed", clock=clock())
    for number in range(count):
        for name in NAMES:
            events = [
                el.MarketData("A", 10.0 + number % 7, 1.0 + number),
                el.BookChange(
                    "A", "bid" if number % 3 else "ask", 10.0 + number % 5, float(number % 4), update_id=number
                ),
                el.TradingSignal("A", "buy", float(number), "s"),
                el.PortfolioChange("A", float(number % 5 - 2), 10.0 + number % 7, 0.1),
                Tick("a", "w", x=float(number), n=number),
            ]
            lab.append(name, events, timestamp=T0 + number * SECOND)
    lab.snapshots.policy = Every(100)
    return lab


@pytest.mark.parametrize("reducer", BUILT_IN, ids=lambda reducer: reducer.name)
def test_a_state_comes_from_the_newest_snapshot_within_its_moment(reducer):
    lab = filled()
    plain = [lab.state(reducer, NAMES[0], as_of=v).digest for v in (99, 100, 101, 199, 200)]
    lab.snapshots.policy = Every(100)
    assert lab.snapshots.build(reducer).snapshots == 6
    assert [lab.state(reducer, NAMES[0], as_of=v).digest for v in (99, 100, 101, 199, 200)] == plain
    base = lab.snapshots.latest(reducer, [NAMES[0]], version=199, time=None, stop_position=10**9)
    assert base.marks.version.tolist() == [100]
    seconds = lab.snapshots.latest(reducer, list(NAMES), version=None, time=T0 + 20 * SECOND, stop_position=10**9)
    assert seconds.marks.version.tolist() == [100] * 3
    early = lab.snapshots.latest(reducer, list(NAMES), version=99, time=None, stop_position=10**9)
    assert early.marks.version.tolist() == [0] * 3
    first = lab.snapshots.latest(reducer, list(NAMES), version=None, time=None, stop_position=290)
    assert first.marks.version.tolist() == [100, 0, 0]


def test_building_twice_adds_nothing_and_a_finer_policy_only_what_is_missing():
    lab = filled()
    lab.snapshots.policy = Every(50)
    built = lab.snapshots.build(el.Portfolio)
    assert (built.snapshots, built.bytes > 0) == (12, True)
    again = lab.snapshots.build(el.Portfolio)
    assert (again.snapshots, again.bytes) == (0, 0)
    lab.snapshots.policy = Every(25)
    assert lab.snapshots.build(el.Portfolio).snapshots == 12
    assert lab.snapshots.table().height == 24
    assert lab.snapshots.verify().equal == 24


def test_building_some_aggregates_leaves_the_others():
    lab = filled()
    lab.snapshots.policy = Every(100)
    assert lab.snapshots.build(el.Trades, "a/*").snapshots == 4
    assert lab.snapshots.table()["aggregate_id"].unique().sort().to_list() == ["a/one", "a/two"]
    assert lab.snapshots.build(el.Trades, "b/three").snapshots == 2
    assert lab.snapshots.build(el.Trades, "nothing/*").snapshots == 0
    with pytest.raises(UnknownAggregate, match="got b/four"):
        lab.snapshots.build(el.Trades, "b/four")


def test_the_table_lists_every_snapshot():
    lab = filled()
    columns = {
        "reducer": pl.String, "aggregate_id": pl.String, "version": pl.Int64, "position": pl.Int64,
        "timestamp": pl.Datetime("ns", "UTC"), "bytes": pl.Float64, "usable": pl.Boolean,
    }  # fmt: skip
    assert lab.snapshots.table().schema == columns
    lab.snapshots.policy = Every(100)
    built = [lab.snapshots.build(reducer) for reducer in (el.Trades, el.Portfolio)]
    table = lab.snapshots.table()
    assert table.schema == columns
    assert table.height == sum(one.snapshots for one in built)
    assert table["bytes"].sum() == pytest.approx(sum(one.bytes for one in built))
    assert table["usable"].all()
    assert table.equals(table.sort("reducer", "aggregate_id", "version"))
    for row in table.iter_rows(named=True):
        reducer = el.Trades if row["reducer"] == "Trades" else el.Portfolio
        state = lab.state(reducer, row["aggregate_id"], as_of=row["version"])
        assert (state.version, state.position) == (row["version"], row["position"])


def test_dropping_one_reducers_snapshots_keeps_the_others():
    lab = filled()
    for reducer in (el.Trades, el.Portfolio):
        lab.snapshots.build(reducer)
    assert lab.snapshots.drop(el.Trades) == 1
    assert lab.snapshots.table()["reducer"].unique().to_list() == ["Portfolio"]
    assert lab.snapshots.drop() == 1
    assert lab.snapshots.drop() == 0
    assert lab.snapshots.table().height == 0


def files(path):
    return sorted((path / "snapshots").glob("*.snapshots"))


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


def counting(step):
    """A reducer of one name whose constant differs."""

    def on_market_data(state, event):
        state.total += step

    return el.reducer(
        type("Counting", (), {"__annotations__": {"total": float}, "total": 0.0, "on_market_data": on_market_data})
    )


def test_another_fingerprint_never_uses_a_snapshot():
    lab = filled()
    one, two = counting(1.0), counting(2.0)
    lab.snapshots.build(one)
    assert lab.state(one, NAMES[0]).total == 40.0
    assert lab.state(two, NAMES[0]).total == 80.0
    assert lab.snapshots.latest(
        two, [NAMES[0]], version=None, time=None, stop_position=10**9
    ).marks.version.tolist() == [0]
    assert lab.snapshots.drop(two) == 0
    assert lab.state(counting(1.0), NAMES[0]).total == 40.0


def test_snapshots_of_a_reducer_that_is_gone_are_listed_and_come_back_with_it():
    lab = filled()
    reducer = counting(3.0)
    lab.snapshots.build(reducer)
    lab.append("c/no snapshot", el.MarketData("A", 1.0, 1.0), timestamp=T0)
    expected = str(lab.states(reducer).rows())
    del reducer
    gc.collect()
    lab.snapshots._shelves.clear()  # the shelf is read anew, as another process would
    table = lab.snapshots.table()
    assert table["reducer"].unique().to_list() == ["Counting"]
    assert table["usable"].any() is False
    assert lab.snapshots.verify().unknown == 6
    again = counting(3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(lab.states(again).rows()) == expected
    assert lab.snapshots.build(again).snapshots == 0
    assert lab.snapshots.verify().equal == 6


def test_a_snapshot_that_its_events_do_not_add_up_to_is_found():
    lab = filled()
    lab.snapshots.build(el.Trades)
    shelf = lab.snapshots._shelf(el.Trades)
    marks = shelf.line("a/one").marks
    lab.snapshots.drop()
    shelf.refresh()
    shelf.add(el.Trades, [Taken(["a/one"] * len(marks.version), marks, el.Trades.layout.initial(len(marks.version)))])
    with pytest.raises(
        SnapshotError, match="the snapshot of Trades for 'a/one' at version 100 differs from its events"
    ):
        lab.snapshots.verify()


def test_a_store_opened_to_be_read_uses_snapshots_but_makes_and_drops_none(tmp_path):
    path = tmp_path / "lab"
    with filled(path, count=21) as lab:
        lab.snapshots.build(el.Portfolio)
        expected = lab.state(el.Portfolio, NAMES[0]).digest
    with el.open(path, read_only=True) as lab:
        lab.snapshots.policy = Every(100)
        assert lab.state(el.Portfolio, NAMES[0]).digest == expected
        assert lab.snapshots.build(el.Portfolio).snapshots == 0
        with pytest.raises(ReadOnlyStore, match="cannot be made"):
            lab.snapshots.build(el.Trades)
        with pytest.raises(ReadOnlyStore, match="cannot be dropped"):
            lab.snapshots.drop()
        assert len(files(path)) == 1


@pytest.mark.parametrize("name", [None, 5, ["a/one"]])
def test_what_is_no_aggregate_id_is_refused(name):
    lab = filled(count=1)
    with pytest.raises(UnknownAggregate, match="not an aggregate id"):
        lab.snapshots.build(el.Trades, name)
    asking = (lab.snapshot, lab.state, lab.history, lab.cursor, lambda *of: lab.diff(*of, 0, 1))
    for ask in asking:
        with pytest.raises(UnknownAggregate, match="not an aggregate id"):
            ask(el.Trades, name)


def test_what_is_no_reducer_gets_no_snapshots():
    with pytest.raises(ReducerError, match="not a reducer"):
        el.open(":memory:").snapshots.build(Tick)


def test_an_empty_lab_has_no_snapshots():
    lab = el.open(":memory:")
    assert lab.snapshots.build(el.Portfolio).snapshots == 0
    assert lab.snapshots.table().height == 0
    assert lab.snapshots.verify().equal == 0


def test_a_build_that_fails_leaves_nothing_behind():
    lab = el.open(":memory:")
    lab.append("f", [Tick("a", "w", x=1.0, n=0), Tock("a", 0.0), Tick("a", "w", x=0.0, n=0)])
    lab.snapshots.policy = Every(1)
    with pytest.raises(FoldError, match="'f', version 3"):
        lab.snapshots.build(Fragile)
    assert lab.snapshots.table().height == 0
    lab.snapshots.policy = Every(2)
    assert lab.snapshots.build(Fragile).snapshots == 1
    assert lab.state(Fragile, "f", as_of=2).total == 1.0


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_snapshots_of_events_that_were_lost_are_not_used(tmp_path, durability):
    """A store that was put back to an older copy, or lost its last commits with the power, goes on differently."""
    path, copy = tmp_path / "lab", tmp_path / "copy"

    def append(lab, price, count):
        lab.append("a", [el.MarketData("A", price, 1.0)] * count)

    with el.open(path, durability=durability) as lab:
        append(lab, 1.0, 50)
    shutil.copytree(path, copy)
    with el.open(path, durability=durability) as lab:
        lab.snapshots.policy = Every(20)
        append(lab, 2.0, 60)
        assert lab.snapshots.build(el.Trades).snapshots == 5
    shutil.copytree(path / "snapshots", copy / "snapshots")
    with el.open(copy, durability=durability) as lab:
        append(lab, 3.0, 60)
        with pytest.warns(UserWarning, match="of events that this log does not have"):
            state = lab.state(el.Trades, "a")
        assert state.notional == 50 * 1.0 + 60 * 3.0
        assert lab.snapshots.table().height == 0
        lab.snapshots.policy = Every(20)
        with pytest.raises(SnapshotError, match="of events that this log does not have"):
            lab.snapshots.verify()
        assert lab.snapshots.build(el.Trades).snapshots == 5
        assert lab.state(el.Trades, "a").digest == state.digest
    with el.open(copy) as lab, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert lab.snapshots.table()["version"].to_list() == [20, 40, 60, 80, 100]
        assert lab.state(el.Trades, "a", 100).notional == 50 * 1.0 + 50 * 3.0


@pytest.mark.parametrize("seal", [False, True], ids=["in the tail", "in segments"])
def test_aggregates_without_handled_events_get_no_snapshots_and_are_not_folded(tmp_path, monkeypatch, seal):
    folded = []

    def watched(store, reducer, aggregates, *given):
        folded.extend(aggregates)
        return take_states(store, reducer, aggregates, *given)

    monkeypatch.setattr(collection, "take_states", watched)
    with el.open(tmp_path, durability="relaxed") as lab:
        lab.snapshots.policy = Every(5)
        lab.append("market", [el.MarketData("A", 1.0, 1.0)] * 12)
        lab.append("book", [el.BookChange("A", "bid", 1.0, 1.0)] * 12)
        lab.append("both", [el.BookChange("A", "bid", 1.0, 1.0)] * 12)
        lab.append("both", el.MarketData("A", 1.0, 1.0))
        if seal:
            lab.seal()
        assert lab.snapshots.build(el.Trades).snapshots == 4
        assert sorted(folded) == ["both", "market"]
        assert set(lab.snapshots.table()["aggregate_id"]) == {"both", "market"}
        for pattern in ("*", "book", "b*"):
            assert lab.snapshots.build(el.Trades, pattern).snapshots == 0
        assert len(folded) == 2
        lab.append("book", el.MarketData("A", 1.0, 1.0))
        assert lab.snapshots.build(el.Trades).snapshots == 2
        assert lab.snapshots.verify().equal == 6
