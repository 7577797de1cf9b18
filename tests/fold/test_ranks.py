"""Prices ranked by hashing are ranked as sorting all of them would."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eventlab.fold.scratch import _ranked, _ranked_ticks

prices = st.lists(
    st.floats(min_value=0, allow_infinity=False) | st.integers(0, 20).map(lambda n: n / 10) | st.just(np.nan)
)


@given(prices)
def test_ranks_are_those_of_a_sort(drawn: list[float]):
    check(np.array(drawn) + 0.0)


TICKS = st.builds(lambda n, digits: n / 10**digits, st.integers(-(10**4), 10**4), st.integers(0, 5))


@given(st.lists(TICKS, min_size=1), st.lists(st.floats(allow_nan=True, allow_infinity=True) | TICKS, max_size=2))
def test_ticks_are_ranked_as_any_prices_are(drawn: list[float], odd: list[float]):
    check(np.array(drawn) + 0.0)
    check(np.array(drawn * 100 + odd) + 0.0)  # what is odd lies where few look


def test_ticks_of_a_real_range_are_marked_not_hashed():
    values = np.round(60_000 + np.cumsum(np.random.default_rng(3).integers(-3, 4, 20_000)) * 0.1, 1)
    assert _ranked_ticks(values) is not None
    check(values)


def check(values: np.ndarray) -> None:
    ascending, ranks = _ranked(values)
    distinct, inverse = np.unique(values, return_inverse=True)
    np.testing.assert_array_equal(ascending, distinct)
    np.testing.assert_array_equal(ranks, inverse)
    assert ranks.dtype == np.int32
