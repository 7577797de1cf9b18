"""A projection's states are those of its log at its position, however it came there; its checkpoint is disposable."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import FoldError, InvalidEvent, StoreError, UnknownAggregate
from eventlab.projections import projection as module
from eventlab.projections.projection import Lag, Projection
from eventlab.store.catalog.checkpoints import _crc
from eventlab.store.commit import seal as sealing
from tests.fold.kitchen import Book, Fragile, Merged, Numbers, Tables, Tick, Words
from tests.fold.strategies import LEVELS, OTHERS, TICKS, TOCKS
from tests.projections.conftest import Child
from tests.projections.helpers import assert_is_replay, checkpoints, fill
from tests.timetravel.worlds import SECOND, T0, commits

EVENTS = st.one_of(TICKS, TICKS, TOCKS, LEVELS, OTHERS)
STEPS = st.sampled_from(["update", "update", "reopen", "seal", "another", "forget"])


def append(lab: el.Lab, rows: list[tuple[str, int, Any]]) -> None:
    with lab.commit() as group:
        for aggregate, seconds, event in rows:
            group.append(aggregate, event, timestamp=T0 + seconds * SECOND)


@pytest.mark.parametrize("reducer", [Numbers, Words, Tables, Book, Merged], ids=lambda reducer: reducer.name)
@settings(max_examples=25)
@given(
    made=commits(EVENTS, most=8),
    steps=st.lists(STEPS, min_size=8, max_size=8),
    pattern=st.sampled_from(["*", "a/*"]),
)
def test_any_way_to_a_position_gives_the_states_there(reducer: Any, made: list[Any], steps: list[str], pattern: str):
    with tempfile.TemporaryDirectory() as place:
        lab, other = el.open(place, durability="relaxed"), el.open(place, durability="relaxed")
        projection = lab.projection(reducer, pattern)
        try:
            for rows, step in zip(made, steps, strict=False):
                append(other if step == "another" else lab, rows)
                if step == "update":
                    before = projection.position
                    assert projection.update() <= lab.store.stop_position - before
                    assert projection.position == lab.store.stop_position
                elif step == "reopen":
                    lab.close()
                    lab = el.open(place, durability="relaxed")
                    projection = lab.projection(reducer, pattern)
                elif step == "seal":
                    lab.seal()
                elif step == "forget":
                    lab.store._catalog.execute("DELETE FROM checkpoints")
                    projection = lab.projection(reducer, pattern)
                    assert projection.position == 0
                assert_is_replay(lab, projection, pattern)
            projection.update()
            assert projection.lag == Lag(0, 0.0)
            assert projection.frame().equals(lab.states(reducer, pattern))
            again = lab.projection(reducer, pattern)
            assert again.position == projection.position
            assert_is_replay(lab, again, pattern)
        finally:
            lab.close()
            other.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[el.Lab]:
    with el.open(tmp_path / "lab") as opened:
        yield opened


def test_a_checkpoint_without_aggregates_keeps_its_position(lab: el.Lab):
    lab.append("q", fill())
    assert lab.projection(el.Portfolio, "p/*").update() == 0
    assert lab.projection(el.Portfolio, "p/*").position == 1


def test_an_update_folds_only_what_is_new(lab: el.Lab):
    lab.append("p", [fill(), fill()])
    projection = lab.projection(el.Portfolio)
    assert (projection.position, projection.lag.events, projection.update()) == (0, 2, 2)
    assert projection.update() == 0
    lab.append("p", fill())
    lab.append("q", el.TradingSignal("BTC", "buy", 1.0, "s"))  # not handled, and still an event of an aggregate
    assert (projection.position, projection.lag.events, projection.update()) == (2, 2, 2)
    assert projection.state("q").version == 1
    reopened = lab.projection(el.Portfolio)
    assert (reopened.position, reopened.update()) == (4, 0)


def test_without_events_there_is_nothing(lab: el.Lab):
    projection = lab.projection(el.Portfolio)
    assert (projection.update(), projection.position, projection.lag) == (0, 0, Lag(0, 0.0))
    assert projection.frame().is_empty()
    assert projection.frame().columns == lab.states(el.Portfolio).columns
    assert checkpoints(lab) == []
    with pytest.raises(UnknownAggregate):
        projection.state("p")


def test_the_lag_counts_events_and_the_time_between_commits():
    now = iter(range(T0, T0 + 100 * SECOND, 10 * SECOND))
    with el.open(":memory:", clock=lambda: next(now)) as lab:
        projection = lab.projection(el.Portfolio)
        lab.append("p", fill())
        assert projection.lag == Lag(1, 0.0)
        lab.append("p", fill())
        assert projection.lag == Lag(2, 10.0)
        projection.update()
        lab.append("p", [fill(), fill()])
        lab.append("q", fill())
        assert projection.lag == Lag(3, 20.0)


def test_a_pattern_takes_in_aggregates_that_come_later(lab: el.Lab):
    lab.append("book/a", el.TradingSignal("A", "buy", 1.0, "s"))
    projection = lab.projection(el.Portfolio, "portfolio/*")
    assert projection.update() == 0
    assert projection.frame().is_empty()
    lab.append("portfolio/a", fill())
    lab.append("book/a", el.TradingSignal("A", "buy", 1.0, "s"))
    assert projection.update() == 1
    assert projection.frame()["aggregate_id"].to_list() == ["portfolio/a"]
    assert (projection.position, projection.name) == (3, "Portfolio of portfolio/*")
    with pytest.raises(UnknownAggregate):
        projection.state("book/a")
    with pytest.raises(UnknownAggregate):
        projection.frame("book/a")
    assert projection.frame("book/*").is_empty()
    lab.projection(el.Portfolio).update()
    assert [row[0] for row in checkpoints(lab)] == ["Portfolio", "Portfolio of portfolio/*"]


@pytest.mark.parametrize(("aggregate_id", "name"), [("", None), (7, None), ("*", ""), ("*", 7)])
def test_names_are_text(lab: el.Lab, aggregate_id: Any, name: Any):
    with pytest.raises(InvalidEvent):
        lab.projection(el.Portfolio, aggregate_id, name)


# -- checkpoints

DAMAGE = {
    "other bytes": "UPDATE checkpoints SET state = zeroblob(length(state))",
    "a shorter state": "UPDATE checkpoints SET state = substr(state, 1, length(state) / 2)",
    "no state": "UPDATE checkpoints SET state = x''",
    "a state that is text": "UPDATE checkpoints SET state = 'text'",
    "another position": "UPDATE checkpoints SET position = position - 1",
    "a position that is none": "UPDATE checkpoints SET position = 'here'",
    "another digest": "UPDATE checkpoints SET digest = zeroblob(32)",
    "another name": "UPDATE checkpoints SET name = 'other'",
}


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_reported_and_rebuilt(lab: el.Lab, statement: str):
    lab.append("p", fill())
    lab.append("p", [fill(), fill()])
    lab.projection(el.Portfolio).update()
    lab.store._catalog.execute(statement)
    with pytest.warns(UserWarning, match="ignored and rebuilt.*damaged"):
        projection = lab.projection(el.Portfolio, name="other" if "'other'" in statement else None)
    assert projection.position == 0
    assert projection.update() == 3
    assert_is_replay(lab, projection)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lab.projection(el.Portfolio, name=projection.name).position == 3


def test_a_checkpoint_with_an_honest_sum_and_other_content_is_not_used(lab: el.Lab):
    lab.append("p", fill())
    lab.projection(el.Portfolio).update()
    catalog = lab.store._catalog
    name, fingerprint, digest = catalog.execute("SELECT name, fingerprint, digest FROM checkpoints").fetchone()
    for state in (b"no Arrow", bytes(lab.projection(Tables)._folded.encode(Tables))):
        crc = _crc(name, fingerprint, 1, digest, state)
        catalog.execute("UPDATE checkpoints SET state = ?, crc = ?", (state, crc))
        with pytest.warns(UserWarning, match="cannot be read"):
            assert lab.projection(el.Portfolio).position == 0


def test_a_store_put_back_to_an_older_copy_tells_that_the_checkpoint_is_not_its_own(tmp_path: Path):
    with el.open(tmp_path / "lab") as lab:
        lab.append("p", fill())
        lab.projection(el.Portfolio).update()
    shutil.copytree(tmp_path / "lab", tmp_path / "copy")
    with el.open(tmp_path / "lab") as lab, el.open(tmp_path / "copy") as copy:
        lab.append("p", [fill(2.0), fill(3.0)])
        lab.projection(el.Portfolio).update()
        row = lab.store._catalog.execute("SELECT * FROM checkpoints").fetchone()
        for behind in range(4):
            if behind:
                copy.append("p", fill(7.0))
            copy.store._catalog.execute("DELETE FROM checkpoints")
            copy.store._catalog.execute(f"INSERT INTO checkpoints VALUES ({', '.join('?' * len(row))})", row)
            with pytest.warns(UserWarning, match="other events"):
                projection = copy.projection(el.Portfolio)
            assert projection.update() == 1 + behind
            assert_is_replay(copy, projection)
            assert checkpoints(copy)[0][2] == 1 + behind


def counting(step: int) -> Any:
    @el.reducer
    class Counted:
        n: int = 0

        def on_portfolio_change(state, event):
            state.n += step

    return Counted


def test_another_reducer_under_the_name_keeps_the_old_checkpoint_meanwhile(lab: el.Lab):
    one, two = counting(1), counting(2)
    for _ in range(4):
        lab.append("p", fill())
        lab.seal()
    old = lab.projection(one)
    old.update()
    assert not old.rebuilding
    new = lab.projection(two)
    assert (new.position, new.rebuilding) == (0, True)
    for frame in new._frames(0, 2):
        new._folded = new._folded.advanced(two, frame)
    new._save(finished=False)
    # Half-way, and after a crash there: both are there, and each goes on from its own.
    assert sorted(row[2] for row in checkpoints(lab)) == [2, 4]
    assert lab.projection(one).state("p").n == 4
    again = lab.projection(two)
    assert (again.position, again.rebuilding, again.update()) == (2, True, 2)
    assert (again.rebuilding, again.state("p").n) == (False, 8)
    assert [row[1:] for row in checkpoints(lab)] == [(two.fingerprint, 4)]
    # Whoever still runs the old one goes on in memory, and does not take the name back.
    lab.append("p", fill())
    assert (old.update(), old.state("p").n) == (1, 5)
    assert [row[1] for row in checkpoints(lab)] == [two.fingerprint]
    # Asked for anew it does: that is how one goes back to it.
    back = lab.projection(one)
    assert (back.rebuilding, back.update(), back.rebuilding) == (True, 5, False)
    assert [row[1] for row in checkpoints(lab)] == [one.fingerprint]


def test_a_new_reducer_takes_over_also_where_its_own_checkpoint_was_complete(lab: el.Lab):
    lab.append("p", fill())
    one, two = counting(1), counting(2)
    lab.projection(one).update()
    new = lab.projection(two)
    new._catch_up(progress=False)
    new._save(finished=False)
    assert len(checkpoints(lab)) == 2
    again = lab.projection(two)
    assert (again.rebuilding, again.update(), again.rebuilding) == (True, 0, False)
    assert [row[1] for row in checkpoints(lab)] == [two.fingerprint]


def test_the_slower_of_two_updaters_does_not_move_the_checkpoint_back(tmp_path: Path):
    with el.open(tmp_path) as one, el.open(tmp_path) as two:
        one.append("p", fill())
        slow, fast = one.projection(el.Portfolio), two.projection(el.Portfolio)
        slow._catch_up(progress=False)
        two.append("p", fill())
        fast.update()
        slow._save(finished=True)
        assert checkpoints(one)[0][2] == 2
        assert_is_replay(one, slow)
        assert (slow.update(), slow.position) == (1, 2)
        one.append("p", fill())
        slow.update()
        assert checkpoints(two)[0][2] == 3
        assert one.projection(el.Portfolio).state("p").digest == slow.state("p").digest


def test_threads_may_share_a_projection(lab: el.Lab):
    projection = lab.projection(el.Portfolio)
    counts: list[int] = []

    def work() -> None:
        for _ in range(10):
            lab.append("p", fill())
            counts.append(projection.update())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == projection.position == 40
    assert_is_replay(lab, projection)


def test_a_long_catch_up_saves_on_its_way_at_ends_of_commits(lab: el.Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(sealing, "SEGMENT_ROWS", 5_000)  # so that one commit is several frames
    reducer = counting(1)
    rows = pl.DataFrame(
        {"symbol": ["A", "B"] * 6_000, "quantity": 1.0, "price": 2.0, "aggregate_id": ["a", "b"] * 6_000}
    )
    for _ in range(3):
        lab.append_frame(el.PortfolioChange, rows)
        lab.append("c", el.TradingSignal("A", "buy", 1.0, "s"))
        lab.seal()
    for pattern, events in (("*", 36_003), ("a", 18_000), ("c", 3)):
        seen: set[int] = set()
        projection = lab.projection(reducer, pattern)
        for frame in projection._frames(0, lab.store.stop_position):
            if projection.position:
                projection._save_before(frame)
                seen |= {row[2] for row in checkpoints(lab) if row[0] == projection.name}
                again = lab.projection(reducer, pattern)
                assert again.position in (0, *seen)
                assert_is_replay(lab, again, pattern)
            projection._folded = projection._folded.advanced(reducer, frame)
        assert len(seen) >= 2
        assert seen <= {12_000, 12_001, 24_001, 24_002, 36_002}
        whole = lab.projection(reducer, pattern, name="from the beginning")
        assert whole.update() == events
        assert_is_replay(lab, whole, pattern)


def test_a_failing_reducer_keeps_what_was_folded_before(lab: el.Lab):
    lab.append("a", Tick("s", word="w", x=1.0, n=0))
    projection = lab.projection(Fragile)
    projection.update()
    lab.append("b", Tick("s", word="w", x=1.0, n=0))
    lab.seal()
    lab.append("c", Tick("s", side="sell", x=1.0, n=0))
    for _ in range(2):
        with pytest.raises(FoldError, match="no selling"):
            projection.update()
        assert projection.position == 2
        assert [projection.state(name).version for name in "ab"] == [1, 1]
        with pytest.raises(UnknownAggregate):
            projection.state("c")


def test_reading_only_it_keeps_to_memory(tmp_path: Path):
    with el.open(tmp_path) as lab:
        lab.append("p", fill())
        lab.projection(el.Portfolio).update()
        lab.append("p", fill())
        with el.open(tmp_path, read_only=True) as reader:
            projection = reader.projection(el.Portfolio)
            assert (projection.position, projection.update(), projection.position) == (1, 1, 2)
            assert_is_replay(reader, projection)
        assert checkpoints(lab)[0][2] == 1


def test_a_closed_lab_says_so(lab: el.Lab):
    lab.append("p", fill())
    projection: Projection = lab.projection(el.Portfolio)
    lab.close()
    with pytest.raises(StoreError, match="closed"):
        projection.update()


@pytest.mark.parametrize("seed", range(5))
def test_killed_updaters_leave_a_checkpoint_that_is_the_states_there(tmp_path: Path, child: Child, seed: int):
    updater = """
        lab = el.open(sys.argv[1], durability="relaxed")
        projection = lab.projection(el.Portfolio)
        print(projection.position, flush=True)
        while True:
            lab.append(f"p/{projection.position % 5}", [fill(), fill(-2.0, "ETH")])
            if projection.position % 6 == 0:
                lab.seal()
            projection.update()
    """
    chance = random.Random(seed)
    reached = 0
    for _ in range(2):
        process = child(updater, tmp_path)
        assert process.stdout is not None
        assert int(process.stdout.readline()) >= reached
        time.sleep(chance.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        with el.open(tmp_path) as lab:
            projection = lab.projection(el.Portfolio)
            reached = projection.position
            assert_is_replay(lab, projection)
            projection.update()
            assert_is_replay(lab, projection)
