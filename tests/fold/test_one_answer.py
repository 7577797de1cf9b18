"""Laws 2 and 5: compiled, interpreted and naive folds give the same bits, after every single event."""

from __future__ import annotations

import pytest
from hypothesis import given

import eventlab as el
from tests.examples import examples
from tests.fold import kitchen
from tests.fold.helpers import check_one_answer
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
    @examples(25)
    @given(aggregates(*EVENTS[reducer.name]))
    def agree(events_of):
        check_one_answer(reducer, TWINS[reducer.name], events_of)

    agree()


@examples(40)
@given(aggregates(KNOWN_LEVELS))
def test_ladders_agree_where_every_price_is_an_events_price(events_of):
    check_one_answer(kitchen.Book, TWINS["Book"], events_of)


@examples(25)
@given(aggregates(LEVELS, TOCKS))
def test_ladders_agree_where_prices_are_unknown_or_missing(events_of):
    # `Tock` names no `price`, and `set_other` another one: such a fold starts over interpreted
    check_one_answer(kitchen.Book, TWINS["Book"], events_of, may_fall_back=True)
