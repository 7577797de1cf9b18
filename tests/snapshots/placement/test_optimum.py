"""The optimum is the best of all placements there are, and both kernels find it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventlab.errors import SnapshotError
from eventlab.fold.native.function import Function
from eventlab.snapshots.placement import envelope_kernels as envelopes
from eventlab.snapshots.placement import shortest_paths as paths
from eventlab.snapshots.placement.optimum import (
    WORTHWHILE,
    Costs,
    headroom,
    latencies_of,
    latency_of,
    optimal,
    within,
)
from tests import naive_placements as naive
from tests.examples import examples

NO_LIMIT = 10**6


def arrays(draw, length, most=9):
    return np.array(draw(st.lists(st.integers(0, most), min_size=length, max_size=length)), np.float64)


@st.composite
def worlds(draw, most=9, slopes_fall=False):
    """Weights and costs of few versions: whole numbers, whose sums floats hold exactly, so that best means best."""
    length = draw(st.integers(1, most + 1))
    weights = arrays(draw, length, 4)
    assume(weights.sum() > 0)
    replay, before, restore, size = (arrays(draw, length) for _ in range(4))
    if slopes_fall:
        falling = np.sort(restore - before)[::-1]
        restore, before = np.maximum(falling, 0.0), np.maximum(-falling, 0.0)
    return weights, Costs(replay, before, restore, size)


def limits(draw, last):
    gap = draw(st.none() | st.integers(1, last + 1))
    chosen = draw(st.none() | st.sets(st.integers(1, max(last, 1)), max_size=last)) if last else None
    return {"max_gap": gap, "candidates": None if chosen is None else sorted(chosen)}


def check(placement, weights, costs):
    """What a placement says of itself."""
    at = placement.versions
    assert at.dtype == np.int64
    assert placement.size == costs.size[at].sum()
    reads = zip(weights, naive.latencies(costs, at.tolist()), strict=True)
    assert placement.latency == pytest.approx(sum(w * latency for w, latency in reads) / weights.sum(), rel=1e-14)


@examples(50)
@given(worlds(), st.integers(0, 3), st.data())
def test_no_placement_costs_less(world, size_price, data):
    weights, costs = world
    last = len(weights) - 1
    limit = limits(data.draw, last)
    ways = list(naive.allowed(last, limit["candidates"], limit["max_gap"]))
    if not ways:
        with pytest.raises(SnapshotError, match="no placement keeps every version within max_gap"):
            optimal(weights, costs, size_price=size_price, **limit)
        return
    found = optimal(weights, costs, size_price=size_price, **limit)
    check(found, weights, costs)
    assert found.price == size_price
    versions = tuple(found.versions.tolist())
    assert versions in ways
    least = min(naive.cost(weights, costs, way, size_price) for way in ways)
    assert naive.cost(weights, costs, versions, size_price) == least


def hull_below(ways, budget):
    """Least cost of the placements on the lower convex hull that are within the budget."""
    best = {}
    for units, cost in ways:
        best[units] = min(cost, best.get(units, math.inf))
    corners = []
    for units, cost in sorted(best.items()):
        if corners and cost >= corners[-1][1]:
            continue
        while len(corners) > 1 and (corners[-1][1] - corners[-2][1]) * (units - corners[-2][0]) >= (
            cost - corners[-2][1]
        ) * (corners[-1][0] - corners[-2][0]):
            corners.pop()
        corners.append((units, cost))
    return min((cost for units, cost in corners if units <= budget), default=math.inf)


@examples(50)
@given(worlds(most=8), st.sampled_from(["size", "count"]), st.integers(1, 30), st.data())
def test_within_a_budget_nothing_on_the_convex_hull_is_better(world, kind, budget, data):
    weights, costs = world
    last = len(weights) - 1
    limit = limits(data.draw, last)
    units = costs.size if kind == "size" else np.ones(last + 1)
    where = range(1, last + 1) if limit["candidates"] is None else limit["candidates"]
    ways = [
        (units[list(way)].sum(), naive.cost(weights, costs, way, 0))
        for way in naive.allowed(last, limit["candidates"], limit["max_gap"])
    ]
    affordable = [cost for taken, cost in ways if taken <= budget]
    if not affordable or (where and units[list(where)].min() > budget):
        with pytest.raises(SnapshotError, match=r"below one snapshot|no placement"):
            within(weights, costs, **{kind: budget}, **limit)
        return
    found = within(weights, costs, **{kind: budget}, **limit)
    check(found, weights, costs)
    assert units[found.versions].sum() <= budget
    cost = naive.cost(weights, costs, found.versions.tolist(), 0)
    assert min(affordable) <= cost <= hull_below(ways, budget)


@examples(50)
@given(worlds(slopes_fall=True), st.integers(1, 9), st.none() | st.integers(1, 9))
def test_no_so_many_snapshots_are_better_where_each_saves_more_than_those_before(world, count, max_gap):
    weights, costs = world
    ways = [way for way in naive.allowed(len(weights) - 1, None, max_gap) if len(way) <= count]
    assume(ways)
    found = within(weights, costs, count=count, max_gap=max_gap)
    least = min(naive.cost(weights, costs, way, 0) for way in ways)
    assert naive.cost(weights, costs, found.versions.tolist(), 0) == least


@examples(50)
@given(worlds(most=30), st.data())
def test_latencies_are_of_the_newest_snapshot_at_or_below(world, data):
    weights, costs = world
    last = len(weights) - 1
    versions = sorted(data.draw(st.sets(st.integers(1, last)))) if last else []
    assert latencies_of(costs, versions).tolist() == naive.latencies(costs, versions)
    expected = naive.cost(weights, costs, versions, 0) / weights.sum()
    assert latency_of(weights, costs, versions) == pytest.approx(expected, rel=1e-14)


def by_queue(slopes, prices, reads, most=NO_LIMIT, kernel=envelopes.chain_by_queue):
    count = len(reads)
    totals, bases = np.empty(count), np.empty(count, np.int32)
    kernel(slopes, prices, reads, most, totals, bases, np.empty(count, np.int32), np.empty(count))
    return totals, bases


def by_tree(slopes, prices, reads, versions, reach=NO_LIMIT, kernel=envelopes.chain_by_tree):
    count = len(reads)
    totals, bases = np.append(0.0, np.full(count - 1, np.inf)), np.full(count, -1, np.int32)
    kernel(slopes, prices, reads, versions, reach, totals, bases, np.empty(4 * count, np.int32))
    return totals, bases


@st.composite
def lines(draw, numbers, most=60):
    count = draw(st.integers(1, most))
    rows = st.lists(numbers, min_size=count, max_size=count)
    slopes, prices, steps = (np.array(draw(rows), np.float64) for _ in range(3))
    shape = draw(st.sampled_from(["any", "falling", "rising"]))
    slopes = slopes if shape == "any" else np.sort(slopes)[:: -1 if shape == "falling" else 1].copy()
    gaps = np.array(draw(st.lists(st.integers(1, 4), min_size=count, max_size=count)), np.int64)
    return slopes - 20.0, prices, np.append(0.0, np.cumsum(steps)), np.append(0, np.cumsum(gaps))


@examples(50)
@given(lines(st.integers(0, 40)), st.integers(1, 40))
def test_both_kernels_find_the_cheapest_chain_to_every_node(given_lines, reach):
    slopes, prices, reads, versions = given_lines
    expected = naive.totals(slopes, prices, reads, versions, math.inf)
    totals, bases = by_queue(slopes, prices, reads)
    assert bases[-1] >= 0
    assert totals.tolist() == expected
    assert by_tree(slopes, prices, reads, versions)[0].tolist() == expected
    near = naive.totals(slopes, prices, reads, versions, reach)
    totals, bases = by_tree(slopes, prices, reads, versions, reach)
    assert totals.tolist() == near
    assert (bases >= 0).tolist() == [False, *(total < math.inf for total in near[1:])]
    starts = bases[bases >= 0]
    assert (versions[bases >= 0] - versions[starts] <= reach).all()


@examples(50)
@given(lines(st.floats(0.0, 40.0), most=40), st.integers(1, 40))
def test_of_any_numbers_they_find_it_but_for_rounding(given_lines, reach):
    slopes, prices, reads, versions = given_lines
    close = {"rtol": 1e-12, "atol": 1e-9}
    expected = naive.totals(slopes, prices, reads, versions, math.inf)
    np.testing.assert_allclose(by_queue(slopes, prices, reads)[0], expected, **close)
    near = naive.totals(slopes, prices, reads, versions, reach)
    np.testing.assert_allclose(by_tree(slopes, prices, reads, versions, reach)[0], near, **close)


@pytest.mark.parametrize("seed", range(4))
def test_compiled_kernels_choose_as_their_python_does(seed):
    rng = np.random.default_rng(seed)
    count = 3_000
    slopes = rng.normal(size=count) - np.arange(count) * rng.choice([0.0, 0.01])
    prices, reads = rng.exponential(30.0, count), np.append(0.0, np.cumsum(rng.exponential(size=count) ** 3))
    versions = np.append(0, np.cumsum(rng.integers(1, 4, count)))
    for plain, compiled in (
        (
            by_queue(slopes, prices, reads),
            by_queue(slopes, prices, reads, kernel=Function(envelopes.chain_by_queue)),
        ),
        (
            by_tree(slopes, prices, reads, versions, 100),
            by_tree(slopes, prices, reads, versions, 100, kernel=Function(envelopes.chain_by_tree)),
        ),
    ):
        assert plain[0].tobytes() == compiled[0].tobytes()
        assert plain[1].tobytes() == compiled[1].tobytes()


def in_front(count):
    """Lines each less steep than all before, and lower at first, but for node 0's: each is put before all others."""
    at = np.arange(1.0, count)
    reads = np.concatenate([[0.0], at * 1e-9, [4.0 * count]])
    return np.append(0.0, at - count), np.append(0.0, (count - at) ** 2 + count), reads


def test_a_queue_in_which_too_much_moves_gives_up_and_the_tree_finds_the_same(monkeypatch):
    slopes, prices, reads = in_front(1_000)
    totals, bases = by_queue(slopes, prices, reads)
    assert bases[-1] >= 0
    assert by_queue(slopes, prices, reads, most=64 * 1_000)[1][-1] == -1
    assert by_tree(slopes, prices, reads, np.arange(1_001))[0].tolist() == totals.tolist()
    found = paths.Paths(np.arange(1_001), slopes, reads, None)
    chain = found.cheapest(prices)
    monkeypatch.setattr(paths, "_MOVES", NO_LIMIT)
    assert found.cheapest(prices).tolist() == chain.tolist() == [bases[-1]]


def test_where_slopes_never_rise_nothing_moves():
    rng = np.random.default_rng(1)
    slopes = -np.sort(rng.integers(0, 500, 2_000)).astype(np.float64)
    reads = np.append(0.0, np.cumsum(rng.exponential(size=2_000)))
    totals, bases = by_queue(slopes, np.full(2_000, 100.0), reads, most=2_000)
    assert bases[-1] >= 0
    assert np.allclose(totals, by_tree(slopes, np.full(2_000, 100.0), reads, np.arange(2_001))[0], rtol=1e-13)


def even(n, size=400.0):
    zero = np.zeros(n + 1)
    return Costs(1e-6 * np.arange(n + 1), 1e-6 * np.arange(n + 1), zero, zero + size)


def test_where_all_is_even_the_optimum_is_youngs_interval():
    n = 10_000
    costs = even(n)
    distance = math.sqrt(2 * (2e-6 * 400.0) / (0.01 * 1e-6))
    found = optimal(np.full(n + 1, 0.01), costs, size_price=2e-6)
    gaps = np.diff(found.versions)
    assert gaps.max() - gaps.min() <= 1
    assert gaps.mean() == pytest.approx(distance, rel=0.02)


def test_a_budget_is_used_up_where_the_convex_hull_has_no_corner_near_it():
    """Of 20 equally distant versions that are read, each one without a snapshot of its own costs the same."""
    n, hot = 2_000, np.arange(100, 2_001, 100)
    costs = even(n)
    weights = np.zeros(n + 1)
    weights[hot] = 1.0
    for count in (10, 13, 17, 19, 20, 21):
        for budget in ({"count": count}, {"size": 400.0 * count + 399.0}):
            found = within(weights, costs, **budget)
            assert len(found.versions) == min(count, 20)
            assert set(found.versions.tolist()) <= set(hot.tolist())
            assert found.latency == pytest.approx(1e-4 * max(20 - count, 0) / 20, abs=1e-12)


@pytest.mark.parametrize("count", [20, 80])
def test_headroom_is_what_placing_by_density_or_at_best_wins_over_even_distances(count):
    n = 8_000
    weights = 1.0 + 60.0 * np.exp(-(((np.arange(n + 1) - 5_000) / 600.0) ** 2))
    costs = even(n)
    spaced = latency_of(weights, costs, np.unique(np.arange(1, count + 1) * n // (count + 1)))
    dense = np.cumsum(np.sqrt(weights))
    dense /= dense[-1]
    by_density = np.searchsorted(dense, (np.arange(count) + 0.5) / count)
    best = within(weights, costs, count=count)
    assert len(best.versions) == count
    assert headroom(weights) > WORTHWHILE
    assert spaced / best.latency == pytest.approx(headroom(weights), rel=0.15)
    assert best.latency <= latency_of(weights, costs, by_density) <= 1.1 * best.latency


@examples(50)
@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_headroom_is_at_least_one_and_one_where_all_weights_are_equal(weights, factor):
    assume(sum(weights) > 1e-100)
    assert headroom(weights) >= 1.0
    assert headroom(weights) <= len(weights) * (1 + 1e-12)
    assert headroom([factor * weight for weight in weights]) == pytest.approx(headroom(weights), rel=1e-9)
    assert headroom([factor] * len(weights)) == pytest.approx(1.0, rel=1e-12)


def test_a_larger_budget_is_never_worse():
    rng = np.random.default_rng(5)
    n = 3_000
    weights = rng.exponential(size=n + 1) ** 4
    replay = np.cumsum(rng.exponential(1e-6, n + 1))
    restore = rng.uniform(1e-5, 3e-4, n + 1)
    restore[0] = 0.0
    costs = Costs(replay, replay, restore, rng.uniform(100, 900, n + 1))
    found = [within(weights, costs, size=float(size)) for size in np.geomspace(1_000, 1e6, 30)]
    latencies = [one.latency for one in found]
    assert latencies == sorted(latencies, reverse=True)
    assert all(one.size <= size for one, size in zip(found, np.geomspace(1_000, 1e6, 30), strict=True))
    tight = [one.size / size for one, size in zip(found, np.geomspace(1_000, 1e6, 30), strict=True) if one.price]
    assert min(tight) > 0.6
    gap = within(weights, costs, size=1e5, max_gap=50)
    assert np.diff(np.concatenate([[0], gap.versions, [n + 1]])).max() <= 51
    assert gap.latency >= within(weights, costs, size=1e5).latency


COSTS = even(4)
ONES = [1.0] * 5


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([1.0] * 4, "weights does not have one number for each version; got 4; expected 5"),
        ([[1.0] * 5], "weights must have one dimension"),
        ([0.0] * 5, "no sum to speak of"),
        ([1e308] * 5, "no sum to speak of"),
        ([1.0, -1.0, 1.0, 1.0, 1.0], r"weights has a number that makes no sense; got -1.0 at index 1"),
        ([1.0, math.nan, 1.0, 1.0, 1.0], "got nan at index 1"),
        ([1.0, math.inf, 1.0, 1.0, 1.0], "got inf at index 1"),
        (["a"] * 5, "weights must be numbers"),
        (1.0, "weights must have one dimension"),
        ([], "weights must have one dimension"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_bad_weights_are_refused(weights, match):
    for call in (optimal, lambda w, c: within(w, c, count=1), lambda w, c: latency_of(w, c, [])):
        with pytest.raises(SnapshotError, match=match):
            call(weights, COSTS)


@pytest.mark.parametrize("name", ["replay", "before", "restore", "size"])
@pytest.mark.parametrize("numbers", [[0.0] * 4, [0.0, 1.0, -1.0, 0.0, 0.0], [0.0, math.nan, 0.0, 0.0, 0.0], None])
def test_bad_costs_are_refused(name, numbers):
    columns = {column: np.zeros(5) for column in ("replay", "before", "restore", "size")}
    with pytest.raises(SnapshotError, match=r"does not have one number|makes no sense|must"):
        Costs(**{**columns, name: numbers})


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"size_price": -1.0}, "size_price makes no sense; got -1.0"),
        ({"size_price": math.nan}, "size_price makes no sense; got nan"),
        ({"size_price": "much"}, "size_price makes no sense; got much"),
        ({"max_gap": 0}, "max_gap must be a whole number from 1 on; got 0"),
        ({"max_gap": 2.5}, "max_gap must be a whole number"),
        ({"max_gap": True}, "max_gap must be a whole number"),
        ({"candidates": [2, 2]}, "candidates must be ascending, each once"),
        ({"candidates": [3, 2]}, "candidates must be ascending"),
        ({"candidates": [0, 2]}, "versions from 1 to 4"),
        ({"candidates": [5]}, "versions from 1 to 4"),
        ({"candidates": [1.5]}, "candidates must be whole numbers"),
        ({"candidates": [[1, 2]]}, "candidates must be whole numbers in one dimension"),
        ({"candidates": [4], "max_gap": 1}, "no placement keeps every version within max_gap events"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(SnapshotError, match=match):
        optimal(ONES, COSTS, **arguments)


@pytest.mark.parametrize(
    ("budget", "match"),
    [
        ({}, "takes one budget; got size=None, count=None"),
        ({"size": 1_000.0, "count": 2}, "takes one budget"),
        ({"size": 399.0}, "the budget is below one snapshot; got 399 bytes; expected from 400 on"),
        ({"size": 0.0}, "below one snapshot"),
        ({"size": -5.0}, "size makes no sense; got -5.0"),
        ({"size": math.nan}, "size makes no sense"),
        ({"count": 0}, "count must be a whole number from 1 on; got 0"),
        ({"count": -1}, "count must be a whole number"),
        ({"count": 1, "max_gap": 1}, "no placement within the budget keeps every version within max_gap"),
    ],
)
def test_bad_budgets_are_refused(budget, match):
    with pytest.raises(SnapshotError, match=match):
        within(ONES, COSTS, **budget)


def test_versions_that_are_none_are_refused():
    for versions in ([0], [5], [2, 1], [1.0], "no"):
        with pytest.raises(SnapshotError, match="versions must be"):
            latencies_of(COSTS, versions)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: headroom([]), "must have one dimension"),
        (lambda: headroom([0.0]), "no sum to speak of"),
    ],
)
def test_bad_rules_of_thumb_are_refused(call, match):
    with pytest.raises(SnapshotError, match=match):
        call()


def test_an_aggregate_without_events_has_no_snapshots():
    costs = Costs([0.0], [0.0], [0.5], [0.0])
    for found in (optimal([1.0], costs), within([1.0], costs, count=3), optimal([1.0], costs, max_gap=1)):
        assert found.versions.tolist() == []
        assert found.latency == 0.5


def test_a_candidate_that_is_needed_for_the_gap_alone_is_taken():
    found = optimal(ONES, COSTS, size_price=1e9, max_gap=2, candidates=np.array([2, 3], np.uint8))
    assert found.versions.tolist() == [2]
    assert optimal(ONES, COSTS, size_price=1e9, max_gap=10**30).versions.tolist() == []
    assert optimal(ONES, COSTS, candidates=[]).versions.tolist() == []
    assert within(ONES, COSTS, count=1, candidates=()).versions.tolist() == []
