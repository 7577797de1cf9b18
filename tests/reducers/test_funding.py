"""Funding rates by hand and in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from tests.examples import examples

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])


@BOTH
def test_funding_rates(interpret):
    with el.open(":memory:") as lab:
        lab.append("f", [el.Funding(*f) for f in (("B", 0.5), ("A", -0.25), ("B", 1.0), ("B", 0.0))])
        state = lab.state(el.FundingRate, "f", interpret=interpret)
        before = lab.state(el.FundingRate, "f", as_of=0, interpret=interpret)
    assert (state.rate, state.cumulative, state.count, state.mean) == (0.0, 1.25, 4, 0.3125)
    assert state.by_symbol.rows() == [("B", 0.0, 1.5, 3, 0.5), ("A", -0.25, -0.25, 1, -0.25)]
    assert (before.cumulative, before.count, before.by_symbol.height) == (0.0, 0, 0)
    assert math.isnan(before.rate)
    assert math.isnan(before.mean)


@examples(25)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(-5_000, 5_000)), min_size=1, max_size=60))
def test_sums_and_means_agree_with_exact_fractions(millionths):
    with el.open(":memory:") as lab:
        lab.append("f", [el.Funding(symbol, number / 1e6) for symbol, number in millionths])
        state = lab.state(el.FundingRate, "f", interpret=True)
    total = Fraction(sum(number for _, number in millionths), 10**6)
    assert state.cumulative == pytest.approx(float(total), abs=1e-15)
    assert state.mean == pytest.approx(float(total / len(millionths)), abs=1e-15)
    for symbol, rate, cumulative, count, mean in state.by_symbol.rows():
        own = [number for name, number in millionths if name == symbol]
        assert (count, rate) == (len(own), own[-1] / 1e6)
        assert cumulative == pytest.approx(sum(own) / 1e6, abs=1e-15)
        assert mean == pytest.approx(sum(own) / 1e6 / len(own), abs=1e-15)
    assert state.by_symbol["count"].sum() == state.count
