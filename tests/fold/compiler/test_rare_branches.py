"""Running extremes, however they are written, are what they are when interpreted."""

from __future__ import annotations

import math
import re

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.fold.compiler.pipeline import HandlerCompiler
from tests.fold.helpers import compiled_only, folded, rows

PRICES = st.lists(st.floats(0.0, 3.0) | st.sampled_from([0.0, 1.0, 9.0, 5e-324]), max_size=40)


@el.reducer
class Extremes:
    high: float = -math.inf
    low: float = math.inf
    last_high: float = 0.5
    turned: float = 0.0
    above: float = 0.0
    highs: int = 0
    steps: int = 0

    def on_market_data(state, event):
        price = event.price
        if event.price > state.high:
            state.high = event.price
            state.highs += 1
        if price <= state.low:
            state.low = price
        if state.last_high < price:
            state.last_high = price
        if event.price >= state.turned:
            state.turned = event.price - 1.0
        if state.above > event.price:
            state.above = event.volume
        while state.steps < event.price:
            state.steps += 1


@given(PRICES)
def test_extremes_are_the_same_compiled_and_interpreted(prices):
    events = [el.MarketData("BTCUSDT", price, float(at)) for at, price in enumerate(prices)]
    cuts = [range(len(events) + 1)]
    with compiled_only():
        compiled = folded(Extremes, [events], interpret=False, cuts=cuts)
    interpreted = folded(Extremes, [events], interpret=True, cuts=cuts)
    assert rows(compiled.emitted) == rows(interpreted.emitted)


def test_the_compiler_is_told_which_branches_are_seldom_taken():
    @numba.njit(pipeline_class=HandlerCompiler)
    def running(record, value):
        if value > record.high:
            record.high = value
        if value < record.low:
            record.low = value + 1.0

    record = numba.from_dtype(np.dtype([("high", "f8"), ("low", "f8")]))
    running.compile((record, numba.float64))
    (text,) = running.inspect_llvm().values()
    (said,) = re.findall(r'^!(\d+) = !{!"branch_weights", i32 1, i32 1000}', text, re.MULTILINE)
    assert text.count(f"!prof !{said}\n") == 1
