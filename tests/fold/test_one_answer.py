"""Laws 2 and 5: compiled, interpreted and naive folds give the same bits, after every single event."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given, settings

import eventlab as el
from tests.fold import kitchen
from tests.fold.helpers import T0, bits, compiled_only, digests, folded, rows
from tests.fold.strategies import (
    BOOK_CHANGES,
    KNOWN_LEVELS,
    LEVELS,
    PORTFOLIO_CHANGES,
    SIGNALS,
    TICKS,
    TOCKS,
    TRADES,
    aggregates,
)
from tests.naive_folds import TWINS


def naive(reducer, events_of):
    """Final states, and the record and properties after every version from 0 on."""
    states, emitted = [], []
    position = 0
    for events in events_of:
        twin = TWINS[reducer.name]()
        emitted.append(bits({**twin.record(), **twin.properties()}))
        for version, event in enumerate(events, start=1):
            twin.apply(event, version, position, T0 + (version - 1) * 1_000_000_000)
            emitted.append(bits({**twin.record(), **twin.properties()}))
            position += 1
        states.append(bits({**twin.record(), **twin.tables()}))
    return states, emitted


def ordered(found, names):
    return [{name: row[name] for name in names} for row in found]


def check(reducer, events_of, may_fall_back=False):
    cuts = [list(range(len(events) + 1)) for events in events_of]
    with nullcontext() if may_fall_back else compiled_only():
        compiled = folded(reducer, events_of, interpret=False, cuts=cuts)
    interpreted = folded(reducer, events_of, interpret=True, cuts=cuts)
    assert digests(compiled.states) == digests(interpreted.states)
    assert rows(compiled.states) == rows(interpreted.states)
    assert rows(compiled.emitted) == rows(interpreted.emitted)
    states, emitted = naive(reducer, events_of)
    assert rows(compiled.states) == ordered(states, reducer.layout.arrow_schema.names)
    assert rows(compiled.emitted) == emitted


EVENTS = {
    "Numbers": (TICKS,),
    "Words": (TICKS,),
    "Tables": (TICKS,),
    "Merged": (TICKS, TOCKS, TRADES),
    "Trades": (TRADES,),
    "OrderBook": (BOOK_CHANGES,),
    "Signals": (SIGNALS,),
    "Portfolio": (PORTFOLIO_CHANGES,),
}
REDUCERS = [*kitchen.KITCHEN, el.Trades, el.OrderBook, el.Signals, el.Portfolio]


@pytest.mark.parametrize("reducer", [r for r in REDUCERS if r.name in EVENTS], ids=lambda reducer: reducer.name)
def test_compiled_interpreted_and_naive_folds_agree(reducer):
    @settings(max_examples=60)
    @given(aggregates(*EVENTS[reducer.name]))
    def agree(events_of):
        check(reducer, events_of)

    agree()


@settings(max_examples=80)
@given(aggregates(KNOWN_LEVELS))
def test_ladders_agree_where_every_price_is_an_events_price(events_of):
    check(kitchen.Book, events_of)


@settings(max_examples=60)
@given(aggregates(LEVELS, TOCKS))
def test_ladders_agree_where_prices_are_unknown_or_missing(events_of):
    # `Tock` names no `price`, and `set_other` another one: such a fold starts over interpreted
    check(kitchen.Book, events_of, may_fall_back=True)
