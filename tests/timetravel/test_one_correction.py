"""One back-dated fill, asked for in every way: by who knows of it and who does not, wherever it lies.

Five fills of one symbol; the fourth to be recorded happened between the second and the third.

=======  ====  ========  =====  ==========================
version  time  quantity  price  cash after it, by version
=======  ====  ========  =====  ==========================
1        0     1         10     -10
2        10    2         20     -50
3        20    3         30     -140
4        15    4         5      -160
5        30    5         50     -410
=======  ====  ========  =====  ==========================
"""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

import eventlab as el
from eventlab.snapshots import Every, OnRead
from eventlab.timetravel.cursor.cursor import Cursor
from tests.fold.helpers import bits

T0, SECOND = 1_723_161_600_000_000_000, 1_000_000_000
FILLS = [(0, 1.0, 10.0), (10, 2.0, 20.0), (20, 3.0, 30.0), (15, 4.0, 5.0), (30, 5.0, 50.0)]
BY_VERSION = [0.0, -10.0, -50.0, -140.0, -160.0, -410.0]
LAYOUTS = ("tail", "sealed", "archived", "reopened", "copied", "memory")


def known(version: int) -> int:
    """When a version was recorded."""
    return T0 + 1_000 * SECOND + version


def at(seconds: int, version: int | None = None) -> el.AsOf:
    """A moment: events up to a time, known when a version was recorded or now."""
    return el.AsOf(time=T0 + seconds * SECOND, known_at=None if version is None else known(version))


def fill(lab: el.Lab, version: int) -> None:
    seconds, quantity, price = FILLS[version - 1]
    change = el.PortfolioChange("S", quantity, price)
    lab.append("p", change, timestamp=T0 + seconds * SECOND, late="accept")


def opened(path) -> el.Lab:
    """A lab whose clock stands still, so that commits are recorded a nanosecond apart."""
    return el.open(path, clock=lambda: known(1))


@pytest.fixture(scope="module", params=LAYOUTS)
def lab(request, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp(request.param)
    made = opened(":memory:" if request.param == "memory" else tmp_path / "lab")
    for version in range(1, 6):
        fill(made, version)
        if request.param in ("sealed", "archived", "memory"):
            made.seal()
    if request.param == "archived":
        assert made.archive() == 5
    elif request.param == "reopened":
        made.close()
        made = opened(tmp_path / "lab")
    elif request.param == "copied":
        made.backup(tmp_path / "copy")
        made = opened(tmp_path / "copy")
    yield made
    assert made.verify().ok
    made.close()


@pytest.fixture
def growing():
    """The first three fills, in memory."""
    lab = opened(":memory:")
    for version in range(1, 4):
        fill(lab, version)
    return lab


MOMENTS = [
    # moment, version, cash
    (at(14), 2, -50.0),
    (at(15), 4, -70.0),
    (at(19), 4, -70.0),
    (at(20), 4, -160.0),
    (at(29), 4, -160.0),
    (at(30), 5, -410.0),
    (at(15, 3), 2, -50.0),
    (at(20, 3), 3, -140.0),
    (at(30, 3), 3, -140.0),
    (at(15, 4), 4, -70.0),
    (at(30, 4), 4, -160.0),
    (el.AsOf(version=3, time=T0 + 15 * SECOND), 2, -50.0),
    (el.AsOf(position=3), 4, -160.0),
    (el.AsOf(known_at=known(3)), 3, -140.0),
    (el.AsOf(known_at=known(4)), 4, -160.0),
]


def test_states_and_histories(lab):
    asked = [moment for moment, _, _ in MOMENTS]
    wanted = [(version, cash) for _, version, cash in MOMENTS]
    states = [lab.state(el.Portfolio, "p", moment) for moment in asked]
    assert [(state.version, state.cash) for state in states] == wanted
    assert lab.history(el.Portfolio, "p", asked).select("version", "cash").rows() == wanted
    every = lab.history(el.Portfolio, "p", every="10s").select("version", "cash").rows()
    assert every == [(1, -10.0), (2, -50.0), (4, -160.0), (5, -410.0)]
    assert lab.history(el.Portfolio, "p")["cash"].to_list() == BY_VERSION[1:]  # a row per event: as it was recorded


def test_states_beside_a_frame(lab):
    times = [dt.datetime.fromtimestamp(T0 // SECOND + seconds, dt.UTC) for seconds in (20, 14, 15, -1, 60)]
    found = lab.join_asof(pl.DataFrame({"timestamp": times}), el.Portfolio, "p")
    assert found["cash"].to_list() == [-160.0, -50.0, -70.0, 0.0, -410.0]
    assert found["version"].to_list() == [4, 2, 4, 0, 5]
    assert found["timestamp"].to_list() == times


def test_states_beside_a_frame_are_of_what_is_known_when_they_are_joined(growing):
    frame = pl.DataFrame({"at": [dt.datetime.fromtimestamp(T0 // SECOND + s, dt.UTC) for s in (12, 16, 25)]})
    moments = [at(seconds, 3) for seconds in (12, 16, 25)]
    before = growing.join_asof(frame, el.Portfolio, "p", on="at")
    assert before["cash"].to_list() == [-50.0, -50.0, -140.0]
    fill(growing, 4)
    assert growing.join_asof(frame, el.Portfolio, "p", on="at")["cash"].to_list() == [-50.0, -70.0, -160.0]
    then = growing.history(el.Portfolio, "p", moments)
    assert then.drop("at", "position", "timestamp").equals(before.drop("at"))


@pytest.mark.parametrize(
    ("a", "b", "before", "after", "events"),
    [
        (el.AsOf(known_at=known(3)), el.AsOf(known_at=known(4)), -140.0, -160.0, [4]),  # what was learned
        (at(20, 3), at(20), -140.0, -160.0, [4]),  # of one time
        (at(16, 3), at(16, 4), -50.0, -70.0, [4]),
        (at(14, 3), at(14, 4), -50.0, -50.0, []),  # of a time before it: nothing
        (3, 4, -140.0, -160.0, [4]),  # what was recorded
        (2, 5, -50.0, -410.0, [3, 4, 5]),
        (at(14), at(16), -50.0, -70.0, [4]),  # what happened
        (at(10), at(20), -50.0, -160.0, [3, 4]),
        (at(16), at(30), -70.0, -410.0, [3, 5]),
        (at(20), at(16), -160.0, -70.0, [3]),
        (3, at(16), -140.0, -70.0, [3, 4]),  # one has one, the other the other
        (at(30, 3), at(15), -140.0, -70.0, [3, 4]),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_a_difference_names_the_events_between_and_what_they_did(lab, a, b, before, after, events, swap):
    if swap:
        a, b, before, after = b, a, after, before
    found = lab.diff(el.Portfolio, "p", a, b)
    assert (found.before.cash, found.after.cash) == (before, after)
    assert (found.count, found.events["version"].to_list()) == (len(events), events)
    cash = found.changes.filter(field="cash")
    assert cash.select("before", "after", "delta").rows() == [(str(before), str(after), after - before)] * bool(events)
    if events:
        told = cash.select("changed_by", "first_position", "last_position").row(0)
        assert told == (len(events), events[0] - 1, events[-1] - 1)
        times = [T0 + FILLS[version - 1][0] * SECOND for version in events]
        assert found.events["timestamp"].to_physical().to_list() == times


def test_a_cursor_passes_over_it_in_both_directions(lab):
    cursor: Cursor = lab.cursor(el.Portfolio, "p")
    for version in (4, 3, 2, 1, 0):
        assert (cursor.step(-1).cash, cursor.version) == (BY_VERSION[version], version)
    for version in (1, 2, 3, 4, 5):
        assert (cursor.step().cash, cursor.version) == (BY_VERSION[version], version)
    for moments in (MOMENTS, MOMENTS[::-1]):
        for moment, version, cash in moments:
            assert (cursor.seek(moment).cash, cursor.version) == (cash, version)
            for step in (-1, 1):  # from wherever it is: versions, not times
                if 0 <= version + step <= 5:
                    assert cursor.step(step).cash == BY_VERSION[version + step]
                    assert cursor.step(-step).cash == BY_VERSION[version]


def test_a_cursor_that_was_there_before_it_learns_of_it(growing):
    cursor = growing.cursor(el.Portfolio, "p")
    assert [cursor.seek(at(seconds)).cash for seconds in (20, 16, 10)] == [-140.0, -50.0, -50.0]
    fill(growing, 4)
    assert [cursor.seek(at(seconds)).cash for seconds in (10, 16, 20)] == [-50.0, -70.0, -160.0]
    assert [cursor.seek(at(seconds, 3)).cash for seconds in (20, 16, 10)] == [-140.0, -50.0, -50.0]
    assert (cursor.seek(3).cash, cursor.step().cash, cursor.head) == (-140.0, -160.0, 4)


@pytest.mark.parametrize("name", ["all.pb", "folder"])
def test_a_stream_and_a_folder_of_several_types_bring_it_along(tmp_path, name):
    lab = opened(":memory:")
    for version in range(1, 6):
        fill(lab, version)
        signal = el.TradingSignal("S", "buy", float(version), "s")
        lab.append("p", signal, timestamp=T0 + (40 - version) * SECOND, late="accept")
    lab.export(tmp_path / name, progress=False)
    times = [at(seconds) for seconds in (-1, 0, 14, 15, 20, 30, 35, 38, 39)]
    with opened(tmp_path / "other") as other:
        receipt = other.ingest(el.feeds.exported(tmp_path / name), late="accept", progress=False)
        assert (receipt.count, receipt.backdated) == (10, 8)
        for _ in range(2):
            for reducer in (el.Portfolio, el.Signals):
                found, wanted = (one.history(reducer, "p", times, tables=True) for one in (other, lab))
                assert found.equals(wanted)
            assert other.verify().ok
            other.seal()


def test_a_projection_takes_it_in_as_it_is_recorded(tmp_path):
    lab = opened(tmp_path / "lab")
    projection = lab.projection(el.Portfolio, "p")
    for version in range(1, 6):
        fill(lab, version)
        if version in (3, 4):
            projection.update()
            assert projection.state("p").cash == BY_VERSION[version]
    lab.close()
    with opened(tmp_path / "lab") as lab:
        again = lab.projection(el.Portfolio, "p")
        assert again.position == 4
        assert again.update() == 1
        assert bits(again.state("p").to_dict()) == bits(lab.state(el.Portfolio, "p").to_dict())


def served(lab: el.Lab, moment: el.AsOf) -> int:
    """The version of the snapshot that a state as of a moment begins at."""
    stop = 2**62 if moment.known_at is None else lab.store.position_at(moment.known_at)
    found = lab.snapshots.latest(el.Portfolio, ["p"], version=moment.version, time=moment.time, stop_position=stop)
    return int(found.marks.version[0])


def check(lab: el.Lab, expected: dict[el.AsOf, tuple[int, float]]) -> None:
    for moment, (version, cash) in expected.items():
        assert (served(lab, moment), lab.state(el.Portfolio, "p", moment).cash) == (version, cash)
    lab.snapshots.verify()


def test_only_the_snapshots_that_it_touches_are_spoiled_for_its_time(growing):
    lab = growing
    lab.snapshots.policy = Every(1)
    assert lab.snapshots.build(el.Portfolio).snapshots == 3
    untouched = {at(0): (1, -10.0), at(14): (2, -50.0), el.AsOf(version=3): (3, -140.0)}
    unknowing = {at(16, 3): (2, -50.0), at(20, 3): (3, -140.0), el.AsOf(known_at=known(3)): (3, -140.0)}
    check(lab, untouched | {at(16): (2, -50.0), at(20): (3, -140.0)})
    fill(lab, 4)  # its own snapshot is made as it is appended
    assert lab.snapshots.table()["version"].to_list() == [1, 2, 3, 4]
    check(lab, untouched | unknowing | {at(16): (2, -70.0), at(20): (4, -160.0), el.AsOf(): (4, -160.0)})
    fill(lab, 5)
    check(lab, untouched | unknowing | {at(16): (2, -70.0), at(29): (4, -160.0), at(30): (5, -410.0)})
    lab.snapshots.drop()
    assert lab.snapshots.build(el.Portfolio).snapshots == 5  # the same where all are made afterwards
    check(lab, untouched | unknowing | {at(16): (2, -70.0), at(29): (4, -160.0), at(30): (5, -410.0)})


def test_reads_keep_states_of_versions_and_no_others(growing):
    lab = growing
    fill(lab, 4)
    lab.append("q", [el.PortfolioChange("S", 1.0, 1.0)] * 2, timestamp=[T0, T0 + SECOND])
    lab.snapshots.policy = OnRead()

    def kept(aggregate: str = "p") -> list[int]:
        table = lab.snapshots.table()
        return table.filter(aggregate_id=aggregate)["version"].to_list()

    assert lab.state(el.Portfolio, "p", at(16)).cash == -70.0
    assert kept() == []  # without the third fill it is the state of no version
    assert lab.state(el.Portfolio, "p", at(16, 3)).cash == -50.0
    assert kept() == [2]
    assert lab.state(el.Portfolio, "p", at(20)).cash == -160.0
    assert kept() == [2, 4]
    assert lab.state(el.Portfolio, "p", 3).cash == -140.0
    assert kept() == [2, 3, 4]
    assert lab.state(el.Portfolio, "q", at(0)).cash == -1.0
    assert kept("q") == [1]
    check(lab, {at(16): (2, -70.0), at(16, 3): (2, -50.0), at(20): (4, -160.0), at(20, 3): (3, -140.0)})
