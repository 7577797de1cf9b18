"""Marks beside back-dated events: routed ones stand where they happened, and own ones are refused who know of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import AsOfError
from tests import naive_marks
from tests.fold.kitchen import Tick
from tests.timetravel.desks import Desk
from tests.timetravel.worlds import SECOND, T0, World, clock

ROWS = st.one_of(
    st.tuples(st.just("desk"), st.integers(0, 9), st.builds(Tick, st.sampled_from("xy"))),
    st.tuples(
        st.sampled_from(["m/1", "m/2"]),
        st.integers(0, 9),
        st.builds(el.MarketData, st.sampled_from("xyz"), st.sampled_from([1.0, 2.5, 0.1]), st.just(1.0)),
    ),
)
BOUNDS = st.tuples(
    st.none() | st.integers(0, 30),
    st.none() | st.integers(-1, 13),
    st.none() | st.integers(0, 60),
    st.none() | st.integers(-1, 12),
)


def moment_of(world, version, time, position, known_at):
    return el.AsOf(
        None if version is None else version % (len(world.of("desk")) + 1),
        None if time is None else T0 + time * SECOND,
        None if position is None else position % len(world.entries),
        None if known_at is None else T0 + (3_600 + known_at) * SECOND,
    )


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=20), BOUNDS, st.booleans())
@example([("desk", 1, Tick("x")), ("desk", 0, Tick("x"))], (None, None, None, 0), False)  # before all that is known
def test_marks_are_those_of_what_a_moment_knows(rows, bounds, seal):
    world = World(el.open(":memory:", clock=clock()))
    world.commit([("desk", 0, Tick("x")), ("m/1", 5, el.MarketData("x", 1.0, 1.0))])
    for at in range(0, len(rows), 4):
        world.commit(rows[at : at + 4], late="accept")
        if seal:
            world.lab.seal()
    moment, own = moment_of(world, *bounds), world.of("desk")
    late = next((b for a, b in itertools.pairwise(own) if b.timestamp < a.timestamp), None)
    knows = (
        late is not None
        and (moment.version is None or moment.version >= late.version)
        and (moment.position is None or moment.position >= late.position)
        and (moment.known_at is None or moment.known_at >= late.recorded_at)
    )
    if knows:
        for ask in (
            lambda: world.lab.state(Desk, "desk", moment, mark_with="m/*"),
            lambda: world.lab.history(Desk, "desk", [moment], mark_with="m/*"),
            lambda: world.lab.history(Desk, "desk", every="1s", mark_with="m/*"),
            lambda: world.lab.history(Desk, "desk", mark_with="m/*"),
        ):
            with pytest.raises(AsOfError, match="back-dated events"):
                ask()
        return
    entries = world.entries
    if late is not None:
        entries = [e for e in entries if e.aggregate != "desk" or e.version < late.version]
        if moment.version is not None:
            moment = replace(moment, version=min(moment.version, late.version - 1))
    twin, version = naive_marks.marked(naive_marks.Desk, entries, "desk", {"m/1", "m/2"}, moment)
    state = world.lab.state(Desk, "desk", moment, mark_with="m/*")
    assert state.version == version
    assert {name: getattr(state, name) for name in twin.record()} == twin.record()
    assert state.by.sort("symbol").to_dicts() == sorted(twin.by, key=lambda row: row["symbol"])
    (row,) = world.lab.history(Desk, "desk", [moment], mark_with="m/*").to_dicts()
    assert {name: row[name] for name in twin.record()} == twin.record()
