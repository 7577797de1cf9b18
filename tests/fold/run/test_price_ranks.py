"""Prices are ranked as sorting all of an aggregate's would."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eventlab.fold.run import price_ranks as ranks
from eventlab.fold.run.price_ranks import Ranks

ANY = st.floats(allow_infinity=False) | st.just(-0.0)
TICKS = st.builds(lambda n, digits: n / 10**digits, st.integers(-(10**4), 10**4), st.integers(0, 5))
HUGE = st.sampled_from([0.0, 2.0**53, -(2.0**53), 2.0**53 + 2, 1e300, 1e-300, 0.1, 123.456])
RUN = st.lists(TICKS) | st.lists(ANY | TICKS) | st.lists(HUGE)
BOOKS = st.lists(st.tuples(RUN, RUN, RUN), min_size=1, max_size=5)
"""For each aggregate prices of two event types, and those of the levels it has."""


@given(BOOKS)
def test_ranks_are_those_of_a_sort(books):
    check(books)


@given(st.lists(TICKS, min_size=1), st.lists(ANY | st.just(np.nan) | st.just(np.inf) | TICKS, max_size=2))
def test_what_is_odd_is_found_where_few_look(drawn, odd):
    check([(drawn * 100 + odd, [], []), (drawn, [], odd)])


def test_ticks_of_a_real_range_are_marked_not_hashed(monkeypatch):
    monkeypatch.delattr(ranks, "_hashed")
    walk = np.round(60_000 + np.cumsum(np.random.default_rng(3).integers(-3, 4, 20_000)) * 0.1, 1)
    far = [560.0, 200_000.0]
    check([(walk.tolist(), far, [60_000.1]), ([0.25, -0.5], [], [])])


def test_prices_far_apart_take_no_bitmap_of_all_between():
    check([([1e-9, 1e9], [0.5], [])])


def test_rows_before_the_first_and_between_folds_take_no_rank():
    prices = {"trade": np.array([9.0, 1.0, 2.0, 9.0, 1.0])}
    found = Ranks.of(prices, {"trade": np.array([1, 4])}, {"trade": np.array([3, 5])}, [levels([[], []])])
    np.testing.assert_array_equal(found.base, [0, 2, 3])
    np.testing.assert_array_equal(found.ascending, [1.0, 2.0, 1.0])
    np.testing.assert_array_equal(found.event["trade"][[1, 2, 4]], [0, 1, 0])


def levels(rows):
    return np.cumsum([0, *map(len, rows)]), np.array([price for row in rows for price in row])


def check(books) -> None:
    columns = [levels([book[at] for book in books]) for at in range(3)]
    names = ("trade", "change")
    found = Ranks.of(
        {name: prices for name, (_, prices) in zip(names, columns, strict=False)},
        {name: offsets[:-1] for name, (offsets, _) in zip(names, columns, strict=False)},
        {name: offsets[1:] for name, (offsets, _) in zip(names, columns, strict=False)},
        [columns[2]],
    )
    assert len(found.ascending) == len(found.descending) == found.base[-1]
    for a, book in enumerate(books):
        distinct = np.unique(np.concatenate([np.empty(0), *map(np.array, book)]) + 0.0)
        span = slice(found.base[a], found.base[a + 1])
        np.testing.assert_array_equal(found.ascending[span], distinct)
        np.testing.assert_array_equal(found.descending[span], distinct[::-1])
        for at, name in enumerate(names):
            offsets, prices = columns[at]
            of_events = prices[offsets[a] : offsets[a + 1]]
            expected = [
                np.flatnonzero((distinct == price) | (np.isnan(distinct) & np.isnan(price))) for price in of_events
            ]
            assert found.event[name][offsets[a] : offsets[a + 1]].tolist() == [int(rank[0]) for rank in expected]
            assert found.event[name].dtype == np.int32
    assert not np.signbit(found.ascending[found.ascending == 0.0]).any()
