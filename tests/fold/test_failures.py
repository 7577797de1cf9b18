"""A handler that fails, and a fold that outgrows the space planned for it."""

from __future__ import annotations

import pytest

import eventlab as el
from eventlab.errors import FoldError
from eventlab.fold import fold as drive
from eventlab.fold.native import cache
from tests.fold.helpers import digests, folded, rows
from tests.fold.kitchen import Book, Fragile, Level, Tick, Tock
from tests.naive_folds import TWINS

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])


GOOD = Tick("a", "w", x=1.0, n=0)


@BOTH
@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Tick("a", "w", x=0.0, n=0), "ZeroDivisionError"),
        (Tick("a", "w", side="sell", x=1.0, n=0), "RuntimeError: no selling here"),
        (Tick("a", "w", x=13.0, n=0), "AssertionError: unlucky"),
        (Tick("a", "w", x=1.0, n=3), "IndexError"),
        (Tick("a", "w", x=1.0, n=-4), "IndexError"),
        (Tick("a", None, x=1.0, n=0), "KeyError: 'missing text cannot be a key'"),
        (Tick("a", "w", x=1.0, n=0, flag=True), "KeyError: 'nobody'"),
        (Tock("empty", 1.0), "KeyError: 'empty'"),
        (Tock("a", -2.0), "RuntimeError: keys were added or deleted while iterating"),
        (Tock("a", -0.5), "RuntimeError: keys were added or deleted while iterating"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failing_handler_is_named_with_aggregate_and_version(interpret, event, reason):
    with pytest.raises(FoldError, match=rf"Fragile failed on (tick|tock) of 'a/1', version 3: .*{reason}.*version 2"):
        folded(Fragile, [[GOOD] * 3, [Tock("x", 0.0), GOOD, event, GOOD]], interpret=interpret)


@BOTH
def test_states_before_the_failure_can_still_be_had(interpret):
    events = [GOOD, Tick("a", "w", x=4.0, n=-1), Tick("a", "w", x=0.0, n=0)]
    found = folded(Fragile, [events[:2]], interpret=interpret).states.to_pylist()
    assert found == [{"total": 1.25, "ring": [1.0, 0.0, 4.0], "by": [{"word": "w", "n": 2}], "lots": []}]


@BOTH
def test_a_failing_property_is_named_with_aggregate_and_version(interpret):
    with pytest.raises(FoldError, match="Fragile.inverse failed on 'a/0' after version 2: ZeroDivisionError"):
        folded(Fragile, [[GOOD, GOOD]], interpret=interpret)


@el.reducer
class Greedy:
    """Pushes five rows an event, where space for two is planned, and touches keys that it makes up of nothing."""

    lots = el.Queue("word", n=int)
    by = el.Keyed("word", n=int)
    count: int = 0

    def on_tick(state, event):
        for number in range(5):
            state.lots.push(event.symbol).n = state.count + number
        for _ in range(20):
            del state.by[event.symbol]
            state.by[event.symbol].n += 1
        state.count += 1

    def on_tock(state, event):
        state.by[event.symbol].n = 1


def fallbacks(monkeypatch):
    """Counts how often a fold was interpreted."""
    found = []
    interpreted = drive.interpreted

    def counted(*given, **more):
        found.append(1)
        return interpreted(*given, **more)

    monkeypatch.setattr(drive, "interpreted", counted)
    return found


def test_a_fold_that_outgrows_its_space_starts_over_interpreted_and_is_right(monkeypatch):
    events = [Tock("a", 0.0), Tock("b", 0.0), *[Tick(symbol) for symbol in "abab"]]
    expected = folded(Greedy, [events, events[:3]], interpret=True)
    started_over = fallbacks(monkeypatch)
    found = folded(Greedy, [events, events[:3]], interpret=False)
    assert len(started_over) == 1
    assert digests(found.states) == digests(expected.states)
    assert [row["count"] for row in found.states.to_pylist()] == [4, 1]
    assert len(found.states.to_pylist()[0]["lots"]) == 20


def test_a_ladder_price_that_no_event_has_starts_over_interpreted_and_is_right(monkeypatch):
    events = [Level("set", 1.0, 5.0), Level("set_other", None, 7.0, other=0.5), Tock("x", 3.0)]
    started_over = fallbacks(monkeypatch)
    found = folded(Book, [events], interpret=False)
    assert len(started_over) == 1
    twin = TWINS["Book"]()
    for event in events:
        twin.apply(event, 0, 0, 0)
    assert found.states.to_pylist() == [{**twin.record(), **twin.tables()}]


@el.reducer
class Nan:
    bids = el.Ladder("bid")

    def on_level(state, event):
        state.bids.set(event.price, event.size)


@BOTH
def test_a_missing_price_cannot_be_a_ladder_level(interpret):
    with pytest.raises(FoldError, match="version 2: ValueError: NaN cannot be a ladder's price"):
        folded(Nan, [[Level("set", 1.0, 1.0), Level("set", None, 1.0)]], interpret=interpret)


@el.reducer
class Constant:
    """Reads nothing of its events, holds nothing but a count."""

    count: int = 0

    def on_tick(state, event):
        state.count += 1


@el.reducer
class OnlyTables:
    by = el.Keyed("word", n=int)

    def on_tick(state, event):
        state.by[event.symbol].n += 1


@BOTH
@pytest.mark.parametrize("reducer", [Constant, OnlyTables], ids=lambda reducer: reducer.name)
def test_the_smallest_reducers_fold(interpret, reducer):
    events = [[Tick("a"), Tick("a")], [], [Tock("a", 1.0)]]
    found = folded(reducer, events, interpret=interpret, cuts=[[0, 1, 2], [0], [1]])
    assert found.states.num_rows == 3
    assert found.emitted is not None
    assert found.emitted.num_rows == 5
    if reducer is Constant:
        assert rows(found.states) == [{"count": 2}, {"count": 0}, {"count": 0}]
    else:
        assert found.emitted.schema.names == []


def test_short_folds_are_interpreted_and_long_ones_compiled(monkeypatch, tmp_path):
    @el.reducer
    class Fresh:
        count: int = 0

        def on_tick(state, event):
            state.count += 1

    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    monkeypatch.setattr(drive, "WORTH_LOADING", 1)
    monkeypatch.setattr(drive, "WORTH_COMPILING", 5)
    interpreted = fallbacks(monkeypatch)
    for events in (3, 3, 1):
        assert folded(Fresh, [[Tick("a")] * events], interpret=None).states.to_pylist() == [{"count": events}]
    assert len(interpreted) == 1  # 3 events were; 6 are worth compiling; once compiled it stays so


@el.reducer
class Curious:
    by = el.Keyed("word", n=int)
    count: int = 0

    def on_tick(state, event):
        state.by[event.symbol].n += 1
        state.count += state.wanted if "wanted" in state.by else 0

    @property
    def wanted(state) -> int:
        return state.by["wanted"].n

    @property
    def safe(state) -> int:
        return state.by["wanted"].n if "wanted" in state.by else 0


@BOTH
def test_looking_at_a_state_does_not_change_it(interpret):
    with pytest.raises(FoldError, match="Curious.wanted failed on 'a/0' after version 1: KeyError.*cannot add a row"):
        folded(Curious, [[Tick("a")]], interpret=interpret)
    found = folded(Curious, [[Tick("wanted"), Tick("a")]], interpret=interpret, cuts=[[1, 2]])
    assert found.states.to_pylist() == [{"count": 2, "by": [{"word": "wanted", "n": 1}, {"word": "a", "n": 1}]}]
    assert rows(found.emitted) == [{"count": 1, "wanted": 1, "safe": 1}, {"count": 2, "wanted": 1, "safe": 1}]


@el.event
class Labelled:
    price: str
    level: float


@el.reducer
class TextPrice:
    """Its events' `price` is text, and no level."""

    bids = el.Ladder("bid")
    last: str = ""

    def on_labelled(state, event):
        state.last = event.price
        state.bids.set(price=event.level, size=1.0)


def test_a_price_that_is_text_is_no_level():
    events = [Labelled("cheap", 1.0), Labelled("dear", 2.0)]
    found = [folded(TextPrice, [events], interpret=interpret).states.to_pylist() for interpret in (True, False)]
    assert found[0] == found[1]
    assert found[0][0]["last"] == "dear"
    assert [level["price"] for level in found[0][0]["bids"]] == [2.0, 1.0]
