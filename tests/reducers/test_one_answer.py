"""Laws 2 and 5 for the library of reducers: compiled, interpreted and naive folds agree after every single event."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from tests import naive_reducers
from tests.examples import examples
from tests.fold.helpers import T0, check_one_answer, digests, folded
from tests.fold.strategies import BOOK_CHANGES, FLOATS, PORTFOLIO_CHANGES, PRICES, SIZES, SYMBOLS, aggregates

TRADES = st.builds(el.MarketData, SYMBOLS, PRICES | st.floats(0.0, 1e6), SIZES | st.floats(0.0, 1e3))
FUNDINGS = st.builds(el.Funding, st.sampled_from(["A", "B", "C"]), FLOATS)
QUOTE_PRICES = st.sampled_from([0.0, 1.0, 1.5, 2.0])
QUOTES = st.builds(el.Quote, st.just("A"), QUOTE_PRICES, SIZES, QUOTE_PRICES, SIZES)
STEPS = st.sampled_from([0, 0, 1, 999, 1_000_000_000, 3_000_000_000, 3_500_000_000, 70_000_000_000, 10**15])

CASES = [
    (el.TimeBars, {"width_ns": 3_000_000_000}, TRADES),
    (el.TickBars, {"size": 3}, TRADES),
    (el.VolumeBars, {"size": 7.0}, TRADES),
    (el.DollarBars, {"size": 7.0}, TRADES),
    (el.Vwap, {}, TRADES),
    (el.Twap, {}, TRADES),
    (el.Ewma, {"alpha": 0.3}, TRADES),
    (el.EwmaTime, {"half_life_ns": 2_000_000_000}, TRADES),
    (el.Moments, {}, TRADES),
    (el.RollingMoments, {"window": 4}, TRADES),
    (el.Correlation, {}, TRADES),
    (el.RollingCorrelation, {"window": 3}, TRADES),
    (el.RealizedVolatility, {}, TRADES),
    (el.BookDepth, {"levels": 2}, BOOK_CHANGES),
    (el.OrderFlowImbalance, {}, QUOTES),
    (el.Risk, {}, PORTFOLIO_CHANGES),
    (el.FundingRate, {}, FUNDINGS),
]
NAMES = [base.name for base, _, _ in CASES]


@st.composite
def timed(draw, events):
    """Aggregates of events, and event times that never fall, many of them equal."""
    drawn = draw(aggregates(events))
    steps = [draw(st.lists(STEPS, min_size=len(one), max_size=len(one))) for one in drawn]
    return drawn, [list(accumulate(own, initial=T0))[1:] for own in steps]


@pytest.mark.parametrize(("base", "parameters", "events"), CASES, ids=NAMES)
def test_compiled_interpreted_and_naive_folds_agree(base, parameters, events):
    reducer = base(**parameters) if parameters else base
    twin = getattr(naive_reducers, base.name)

    @examples(25)
    @given(timed(events))
    def agree(drawn):
        events_of, times = drawn
        check_one_answer(reducer, lambda: twin(**parameters), events_of, times=times)

    agree()


@pytest.mark.parametrize(("base", "parameters", "events"), CASES, ids=NAMES)
def test_a_fold_resumed_anywhere_gives_the_same_state(base, parameters, events):
    reducer = base(**parameters) if parameters else base

    @examples(12)
    @given(timed(events), st.integers(0, 25))
    def resume(drawn, cut):
        events_of, times = drawn
        head, tail = ([one[where] for one in events_of] for where in (slice(cut), slice(cut, None)))
        before, after = ([one[where] for one in times] for where in (slice(cut), slice(cut, None)))
        half = folded(reducer, head, interpret=True, times=before).states
        resumed = folded(reducer, tail, interpret=True, times=after, states=half)
        assert digests(resumed.states) == digests(folded(reducer, events_of, interpret=True, times=times).states)

    resume()
