"""A difference is what a comparison of the two states says, value by value, and names the events that made it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import AsOfError, UnknownAggregate
from eventlab.fold.declare.layout import Ladder, Queue
from eventlab.snapshots.states import Marks
from eventlab.store.api import Selection
from eventlab.timetravel.asof import AsOf
from eventlab.timetravel.diff import diff as diffs
from tests.fold.helpers import bits
from tests.fold.kitchen import Book, Merged, Numbers, Tables, Tick, Tock, Unheard, Words
from tests.fold.strategies import LEVELS, OTHERS, PORTFOLIO_CHANGES, TICKS, TOCKS
from tests.timetravel.worlds import SECOND, T0, built, commits

EVENTS = st.one_of(TICKS, TICKS, TOCKS, LEVELS, OTHERS)


def moments(world, head):
    return st.one_of(
        st.none(),
        st.integers(0, head),
        st.integers(-1, 60).map(lambda s: el.AsOf(time=T0 + s * SECOND)),
        st.integers(0, len(world.entries) - 1).map(lambda p: el.AsOf(position=p)),
        st.integers(3_599, 3_610).map(lambda s: el.AsOf(known_at=T0 + s * SECOND)),
        st.integers(3_599, 3_610).map(lambda s: el.AsOf(time=T0 + 7 * SECOND, known_at=T0 + s * SECOND)),
    )


def scalars(state):
    """Each number, flag or text of a state that is in no table, by field and place."""
    names = [table.name for table in state.reducer.layout.tables]
    found = {}
    for name, value in state.to_dict().items():
        if name in ("version", "position", "timestamp", *names):
            continue
        if isinstance(value, list):
            found |= {(name, at): item for at, item in enumerate(value)}
        else:
            found[name, None] = value
    return found


def rows_of(state, table):
    """A keyed table's or ladder's rows by key, without it."""
    key = "price" if isinstance(table, Ladder) else table.key
    return {row[key]: {n: v for n, v in row.items() if n != key} for row in state.to_dict()[table.name]}


def read(text, like):
    """What a value was before it was told as text."""
    if text is None or isinstance(like, str):
        return text
    return text == "true" if isinstance(like, bool) else type(like)(text)


def delta(before, after):
    if isinstance(before, bool) or not isinstance(before, int | float) or not isinstance(after, int | float):
        return None
    with np.errstate(all="ignore"):
        return float(after - before)


def expected_changes(before, after):
    """From plain values: {(field, key, place, column): (change, before, after, delta)}, queues left out."""
    told: dict[Any, Any] = {}
    one, other = scalars(before), scalars(after)
    for name, place in one:
        values = one[name, place], other[name, place]
        if bits(values[0]) != bits(values[1]):
            told[name, None, place, None] = ("changed", *values, delta(*values))
    for table in before.reducer.layout.tables:
        if isinstance(table, Queue):
            continue
        old, new = rows_of(before, table), rows_of(after, table)
        for key in {**old, **new}:
            shown = key if isinstance(key, str) else float(key)
            for column in old.get(key) or new[key]:
                if key not in new:
                    told[table.name, shown, None, column] = ("removed", old[key][column], None, None)
                elif key not in old:
                    told[table.name, shown, None, column] = ("added", None, new[key][column], None)
                elif bits(old[key][column]) != bits(new[key][column]):
                    values = old[key][column], new[key][column]
                    told[table.name, shown, None, column] = ("changed", *values, delta(*values))
    return told


def told_changes(difference):
    layout = difference.before.reducer.layout
    queues = [table.name for table in layout.tables if isinstance(table, Queue)]
    ladders = [table.name for table in layout.tables if isinstance(table, Ladder)]
    expected = expected_changes(difference.before, difference.after)
    told = {}
    for row in difference.changes.iter_rows(named=True):
        if row["field"] in queues:
            continue
        key = float(row["key"]) if row["field"] in ladders else row["key"]
        name = row["field"], key, row["place"], row["column"]
        _, before, after, _ = expected[name]
        like = before if before is not None else after
        told[name] = row["change"], read(row["before"], like), read(row["after"], like), row["delta"]
    return told, expected


def queues_of(state, table):
    found = {}
    for row in state.to_dict()[table.name]:
        found.setdefault(row[table.key], []).append({n: v for n, v in row.items() if n != table.key})
    return found


def check_queues(difference):
    """Applied to the rows before, the changes give the rows after."""
    for table in difference.before.reducer.layout.tables:
        if not isinstance(table, Queue):
            continue
        before, after = queues_of(difference.before, table), queues_of(difference.after, table)
        told = difference.changes.filter(pl.col("field") == table.name)
        for key in {**before, **after}:
            rows = {place: dict(row) for place, row in enumerate(before.get(key, []))}
            for row in told.filter(pl.col("key") == key).iter_rows(named=True):
                like = next(r for r in [*before.get(key, []), *after.get(key, [])])[row["column"]]
                if like is None:
                    like = ""
                if row["change"] == "removed":
                    rows.pop(row["place"], None)
                else:
                    rows.setdefault(row["place"], {})[row["column"]] = read(row["after"], like)
            assert bits([rows[place] for place in sorted(rows)]) == bits(after.get(key, []))


@settings(max_examples=60)
@given(commits(EVENTS), st.data(), st.sampled_from([Numbers, Words, Tables, Merged, Book]), st.booleans())
def test_a_difference_is_that_of_the_plain_states(made, data, reducer, interpret):
    world = built(made)
    aggregate = world.entries[0].aggregate
    own = world.of(aggregate)
    a, b = (data.draw(moments(world, len(own)), label=name) for name in "ab")
    difference = world.lab.diff(reducer, aggregate, a, b, interpret=interpret)
    assert difference.before == world.lab.state(reducer, aggregate, as_of=a)
    assert difference.after == world.lab.state(reducer, aggregate, as_of=b)
    told, expected = told_changes(difference)
    assert bits(list(told.items())) == bits([(name, expected[name]) for name in told])
    assert told.keys() == expected.keys()
    check_queues(difference)

    low, high = sorted((difference.before.version, difference.after.version))
    between = own[low:high]
    assert difference.count == len(between)
    assert difference.events["version"].to_list() == [entry.version for entry in between]
    assert difference.events["position"].to_list() == [entry.position for entry in between]
    for entry, row in zip(between, difference.events.iter_rows(named=True), strict=True):
        assert row["event_type"] == type(entry.event).__event_type__.name
        if isinstance(entry.event, Tick):
            assert bits([row[n] for n in ("symbol", "word", "x", "n")]) == bits(
                [getattr(entry.event, n) for n in ("symbol", "word", "x", "n")]
            )

    steps = [scalars(world.lab.state(reducer, aggregate, as_of=version)) for version in range(low, high + 1)]
    for row in difference.changes.iter_rows(named=True):
        name = row["field"], row["place"]
        if name not in steps[0]:
            assert (row["changed_by"], row["first_position"], row["last_position"]) == (None, None, None)
            continue
        by = [
            entry.position
            for entry, one, other in zip(between, steps[:-1], steps[1:], strict=True)
            if bits(one[name]) != bits(other[name])
        ]
        assert (row["changed_by"], row["first_position"], row["last_position"]) == (len(by), by[0], by[-1])


@settings(max_examples=30)
@given(st.lists(PORTFOLIO_CHANGES, min_size=1, max_size=30), st.data())
def test_lots_of_a_portfolio_can_be_followed(changes, data):
    lab = el.open(":memory:")
    lab.append("p", changes)
    a, b = (data.draw(st.integers(0, len(changes)), label=name) for name in "ab")
    difference = lab.diff(el.Portfolio, "p", a, b)
    check_queues(difference)
    told, expected = told_changes(difference)
    assert told.keys() == expected.keys()


def test_a_lot_sold_from_the_front_is_one_removed_and_one_changed():
    lab = el.open(":memory:")
    fill = [el.PortfolioChange("BTC", quantity, price) for quantity, price in ((1.0, 10.0), (2.0, 20.0), (3.0, 30.0))]
    lab.append("p", [*fill, el.PortfolioChange("BTC", -2.0, 50.0), el.PortfolioChange("BTC", 4.0, 40.0)])
    lots = lab.diff(el.Portfolio, "p", 3, 5).changes.filter(pl.col("field") == "lots")
    assert sorted(lots.select("place", "column", "change", "before", "after").rows()) == [
        (0, "price", "removed", "10.0", None),
        (0, "quantity", "removed", "1.0", None),
        (1, "quantity", "changed", "2.0", "1.0"),
        (3, "price", "added", None, "40.0"),
        (3, "quantity", "added", None, "4.0"),
    ]


def test_the_size_of_what_is_emitted_at_once_decides_nothing(monkeypatch):
    lab = el.open(":memory:")
    events = [Tick("x", x=float(n % 3), n=n) if n % 4 else Tock("x", 0.5) for n in range(50)]
    lab.append("a", events)
    whole = [lab.diff(reducer, "a", 3, 47).changes for reducer in (Tables, Merged)]
    monkeypatch.setattr(diffs, "_EMITTED_BYTES", 1)
    for reducer, frame in zip((Tables, Merged), whole, strict=True):
        assert lab.diff(reducer, "a", 3, 47).changes.equals(frame)


def test_what_was_learned_between_two_moments_of_knowledge():
    ticking = iter(range(T0, T0 + 100 * SECOND, SECOND))
    lab = el.open(":memory:", clock=lambda: next(ticking))
    trades = [el.MarketData("BTC", price, 1.0) for price in (100.0, 101.0, 99.0)]
    for trade in trades:
        lab.append("m", trade, timestamp=T0)
    known = [int(at.timestamp()) * SECOND for at in lab.events(el.MarketData, columns=["recorded_at"])["recorded_at"]]
    difference = lab.diff(el.Trades, "m", el.AsOf(time=T0, known_at=known[0]), el.AsOf(time=T0, known_at=known[2]))
    assert difference.events["price"].to_list() == [101.0, 99.0]
    by = {row["field"]: row["changed_by"] for row in difference.changes.iter_rows(named=True)}
    assert by["high"], by["low"] == (1, 1)
    assert by["count"] == 2


def test_events_in_the_middle_are_found_where_times_go_back():
    """What one moment includes need not be a beginning of what the other does."""
    version = np.arange(1, 7)
    position, timestamp = 10 * version, np.array([1, 5, 2, 5, 3, 9])
    found = diffs.Reconstructed(["a"], None, None, _marks(5))
    early, late = (diffs._Side(AsOf(time=time, position=99), 100, found) for time in (3, 5))

    class Log:
        def frames(self, selection: Selection):
            for low, high in ((selection.after_version.get("a", 0), 3), (3, 6)):
                some, offsets = slice(low, high), np.array([0, high - low])
                table = diffs.EventTable(
                    Tock.__event_type__, offsets, position[some], version[some], timestamp[some],
                    {"y": pa.array(version[some] / 2.0)},
                )  # fmt: skip
                yield diffs.EventFrame(["a"], {"tock": table})

    assert diffs._shared(Log(), "a", early, late) == 1
    assert diffs._shared(Log(), "a", early, early) == 5
    for side, other, count in ((late, early, 2), (early, late, 0)):
        trace = diffs._Attribution(Summed, "a", None, ["total", "seen"])
        state = Summed.layout.initial(1)
        trace.follow(Log(), diffs.Reconstructed(["a"], state, state, _marks(1)), side, other)
        assert trace.count == count
        told = trace.attached(pl.DataFrame({"field": ["seen"], "place": [None]}, schema_overrides={"place": pl.Int64}))
        assert told.row(0)[2:] == ((2, 20, 40) if count else (0, None, None))
        assert (trace.first, trace.stop) == ((20, 41) if count else (diffs.UNBOUND, 0))


@el.reducer
class Summed:
    total: float = 0.0
    seen: int = 0

    def on_tock(state, event):
        state.total += event.y
        state.seen += 1


def _marks(version):
    return replace(Marks.none(1), version=np.array([version]))


@pytest.fixture(scope="module")
def lab():
    made = el.open(":memory:")
    made.append("a", [Tick("x", "<script>", x=1.0, n=1), Unheard(), Tick("y", "w", x=2.0, n=2)])
    return made


def test_nothing_between_is_no_change(lab):
    for a, b in ((None, None), (3, None), (0, 0), (1, 2)):
        difference = lab.diff(Tables, "a", a, b)
        assert len(difference.changes) == 0
        assert len(difference.events) == difference.count == (1 if a == 1 else 0)
        assert difference.changes.schema == lab.diff(Tables, "a", 0, 3).changes.schema
        assert "0 changes" in repr(difference)


def test_what_is_appended_later_is_in_no_difference(lab):
    made = el.open(":memory:")
    made.append("a", [Tock("x", 1.0), Tock("x", 2.0)])
    difference = made.diff(Summed, "a", 1)
    made.append("a", Tock("x", 3.0))
    assert difference.events["y"].to_list() == [2.0]


def test_it_is_shown_bounded_and_escaped(lab):
    difference = lab.diff(Tables, "a", 0)
    assert repr(difference).startswith("Tables of a: version 0 to 3, 3 events, ")
    assert len(repr(difference).splitlines()) < 25
    html = difference._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html or "script" not in html
    assert len(html) < 20_000


def test_columns_of_two_types_are_told_as_text():
    @el.event
    class Sized:
        y: int
        side: str

    made = el.open(":memory:")
    made.append("a", [Tock("x", 1.0), Sized(2, "left"), Tick("x", side="buy")])
    events = made.diff(Summed, "a", 0).events
    assert events["y"].to_list() == ["1.0", "2", None]
    assert events["side"].to_list() == [None, "left", "buy"]
    assert events["version"].to_list() == [1, 2, 3]


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        (("b", 0, 1), UnknownAggregate, "got b"),
        (("a", 4, 1), AsOfError, "past the head of 'a'; got 4; expected at most 3"),
        (("a", 1, True), AsOfError, "bool"),
        (
            (
                "a",
                dt.datetime(2024, 1, 1),  # noqa: DTZ001  naive on purpose
                1,
            ),
            AsOfError,
            "naive",
        ),
        (("a", el.AsOf(position=99), 1), AsOfError, "past the end"),
    ],
)
def test_what_makes_no_difference_is_refused(lab, asked, error, says):
    with pytest.raises(error, match=says):
        lab.diff(Tables, *asked)
