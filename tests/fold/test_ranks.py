"""Prices ranked by hashing are ranked as sorting all of them would."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eventlab.fold.scratch import _ranked

prices = st.lists(
    st.floats(min_value=0, allow_infinity=False) | st.integers(0, 20).map(lambda n: n / 10) | st.just(np.nan)
)


@given(prices)
def test_ranks_are_those_of_a_sort(drawn: list[float]):
    values = np.array(drawn) + 0.0
    ascending, ranks = _ranked(values)
    distinct, inverse = np.unique(values, return_inverse=True)
    np.testing.assert_array_equal(ascending, distinct)
    np.testing.assert_array_equal(ranks, inverse)
    assert ranks.dtype == np.int32
