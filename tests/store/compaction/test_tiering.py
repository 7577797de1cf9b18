"""Which segments are merged: adjacent ones, not too many together, and no event often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlab.store.compaction import tiering as tiers

SIZES = st.lists(st.none() | st.integers(1, 300) | st.sampled_from([1, 2, 7, 8, 64]), max_size=60)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    before = tiers.FANOUT, tiers.SMALL_ROWS
    tiers.FANOUT, tiers.SMALL_ROWS = 4, 256
    yield
    tiers.FANOUT, tiers.SMALL_ROWS = before


def test_tiers_are_powers():
    assert [tiers.tier(rows) for rows in (1, 3, 4, 15, 16, 63, 64)] == [0, 0, 1, 1, 2, 2, 3]


def merged(sizes, stretch):
    start, stop = stretch
    return [*sizes[:start], sum(sizes[start:stop]), *sizes[stop:]]


@pytest.mark.parametrize("choose", [tiers.due, tiers.wanted])
@given(sizes=SIZES, limit=st.sampled_from([4, 50, 512, 10_000]))
def test_merges_are_of_neighbours_that_fit_and_come_to_an_end(choose, sizes, limit):
    for _ in range(len(sizes) + 1):
        stretch = choose(sizes, limit)
        if stretch is None:
            return
        start, stop = stretch
        assert stop - start > 1
        assert None not in sizes[start:stop]
        assert sum(sizes[start:stop]) <= limit
        assert all(2 * size < limit for size in sizes[start:stop])
        sizes = merged(sizes, stretch)
    pytest.fail("a merge makes fewer of them")


@given(arrivals=st.lists(st.integers(1, 400), min_size=1, max_size=200))
def test_no_event_is_rewritten_by_itself_more_often_than_there_are_tiers(arrivals):
    # Of each segment: the tiers in which the arrivals it holds came, and how often each was rewritten.
    sizes: list[int] = []
    members: list[list[tuple[int, int]]] = []
    for rows in arrivals:
        sizes.append(rows)
        members.append([(tiers.tier(rows), 0)])
        while (stretch := tiers.due(sizes, 10_000)) is not None:
            sizes = merged(sizes, stretch)
            start, stop = stretch
            members[start:stop] = [[(level, often + 1) for held in members[start:stop] for level, often in held]]
    for held in members:
        for level, often in held:
            assert often <= max(tiers.tier(tiers.SMALL_ROWS) - level, 0)


@given(rows=st.integers(1, 20), seals=st.integers(1, 400))
def test_equal_seals_leave_few_segments(rows, seals):
    sizes = []
    for _ in range(seals):
        sizes.append(rows)
        while (stretch := tiers.due(sizes, 10_000)) is not None:
            sizes = merged(sizes, stretch)
    small = [size for size in sizes if size < tiers.SMALL_ROWS]
    assert len(small) < tiers.FANOUT * (tiers.tier(tiers.SMALL_ROWS) + 1)
    assert sum(sizes) == rows * seals


@given(sizes=SIZES)
def test_a_thorough_merge_rewrites_what_is_large_only_to_double_it(sizes):
    while (stretch := tiers.wanted(sizes, 2_000)) is not None:
        chosen = sizes[slice(*stretch)]
        assert max(chosen) < tiers.SMALL_ROWS or sum(chosen) >= 2 * max(chosen)
        sizes = merged(sizes, stretch)
