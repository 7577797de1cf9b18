"""A reducer with other initial values is the same reducer with a parameter set."""

from __future__ import annotations

import math

import numpy as np
import pytest

import eventlab as el
from eventlab.errors import ReducerError


@el.reducer
class Above:
    limit: float = 0.0
    name: str = "all"
    count: int = 0

    def on_market_data(state, event):
        if event.price > state.limit and event.symbol != state.name:
            state.count += 1


@pytest.fixture
def lab():
    with el.open(":memory:") as opened:
        opened.append("m", [el.MarketData("A", price, 1.0) for price in (1.0, 2.0, 3.0)])
        yield opened


@pytest.mark.parametrize("interpret", [True, False])
@pytest.mark.parametrize(("limit", "count"), [(0.5, 3), (1.5, 2), (np.float64(2.5), 1), (3, 0), (math.inf, 0)])
def test_a_parameter_is_an_initial_value(lab, limit, count, interpret):
    state = lab.state(Above(limit=limit), "m", interpret=interpret)
    assert (state.count, state.limit) == (count, limit)
    assert lab.state(Above, "m", interpret=interpret).limit == 0.0


def test_a_text_parameter_is_compared_like_a_constant(lab):
    for interpret in (True, False):
        assert lab.state(Above(name="A"), "m", interpret=interpret).count == 0
        assert lab.state(Above(name="B"), "m", interpret=interpret).count == 3


def test_parameters_are_part_of_the_fingerprint():
    made = [Above, Above(limit=1.0), Above(limit=2.0), Above(name="A")]
    assert len({reducer.fingerprint for reducer in made}) == 4
    assert Above(limit=1.0).fingerprint == Above(limit=1).fingerprint
    assert Above(limit=0.0).fingerprint == Above.fingerprint


@pytest.mark.parametrize("wrong", [{"limits": 1.0}, {"limit": "1"}, {"count": 1.5}, {"limit": None}, {"name": 3}])
def test_what_is_no_parameter_is_refused(wrong):
    with pytest.raises(ReducerError, match="Above"):
        Above(**wrong)
