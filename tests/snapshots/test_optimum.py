"""The placement of snapshots is the best one: against all subsets, and one algorithm against the other."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlab.errors import SnapshotError
from eventlab.fold.function import Function
from eventlab.snapshots import envelopes
from eventlab.snapshots.costs import Costs
from eventlab.snapshots.optimum import (
    density,
    headroom,
    latencies_of,
    latency_of,
    optimal,
    within,
    young,
)

NUMBERS = st.integers(0, 12).map(lambda number: number / 4.0)


@st.composite
def problems(draw, most=8, falling=False):
    n = draw(st.integers(1, most))
    column = st.lists(NUMBERS, min_size=n + 1, max_size=n + 1).map(np.array)
    weights = draw(column)
    weights[draw(st.integers(0, n))] += 1.0
    restore, before = draw(column), draw(column)
    if falling:
        restore, before = np.full(n + 1, 0.5), np.sort(before)
    costs = Costs(draw(column), before, restore, draw(column) + 0.25, draw(column))
    return weights, costs


def naive_latency(weights, costs, chosen):
    total = 0.0
    for version, weight in enumerate(weights):
        base = max([0, *(one for one in chosen if one <= version)])
        total += weight * (costs.restore[base] + costs.replay[version] - costs.before[base])
    return total / weights.sum()


def subsets(versions):
    versions = list(versions)
    return (chosen for count in range(len(versions) + 1) for chosen in combinations(versions, count))


def keeps(chosen, n, gap):
    ends = [0, *chosen, n + 1]
    return gap is None or all(after - before <= gap + 1 for before, after in pairwise(ends))


def least(weights, costs, candidates, gap, size_price, write_price):
    n = len(weights) - 1
    return min(
        (
            naive_latency(weights, costs, chosen)
            + sum(size_price * costs.size[v] + write_price * costs.write[v] for v in chosen)
            for chosen in subsets(candidates)
            if keeps(chosen, n, gap)
        ),
        default=None,
    )


@settings(max_examples=300)
@given(problems(), NUMBERS, NUMBERS, st.one_of(st.none(), st.integers(1, 8)), st.data())
def test_no_subset_is_better(problem, size_price, write_price, gap, data):
    weights, costs = problem
    n = len(weights) - 1
    candidates = None
    if data.draw(st.booleans()):
        candidates = np.array(sorted(data.draw(st.sets(st.integers(1, n), min_size=1))), np.int64)
    expected = least(
        weights, costs, range(1, n + 1) if candidates is None else candidates, gap, size_price / 8, write_price / 8
    )
    options = {"size_price": size_price / 8, "write_price": write_price / 8, "max_gap": gap, "candidates": candidates}
    if expected is None:
        with pytest.raises(SnapshotError, match="wider gap"):
            optimal(weights, costs, **options)
        return
    found = optimal(weights, costs, **options)
    assert keeps(found.versions.tolist(), n, gap)
    assert found.latency == pytest.approx(naive_latency(weights, costs, found.versions))
    assert found.size == pytest.approx(costs.size[found.versions].sum())
    assert found.latency + found.size * size_price / 8 + found.write * write_price / 8 == pytest.approx(expected)


@settings(max_examples=100)
@given(problems(most=60, falling=True), NUMBERS)
def test_the_queue_and_the_tree_find_the_same(problem, price):
    weights, costs = problem
    n = len(weights) - 1
    reads = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
    slopes = costs.restore - costs.before
    prices = np.concatenate([[0.0], price / 20 * costs.size[1:], [0.0]])
    found = []
    for kernel in ("queue", "tree"):
        totals, bases = np.full(n + 2, np.inf), np.full(n + 2, -1)
        totals[0] = 0.0
        if kernel == "queue":
            spare = np.zeros(n + 3, np.int64), np.zeros(n + 3)
            Function(envelopes.chain_by_queue)(slopes, prices, reads, 4 * n + 8, totals, bases, *spare)
        else:
            tree = np.zeros(4 * n + 8, np.int64)
            Function(envelopes.chain_by_tree)(slopes, prices, reads, np.arange(n + 2), n + 2, totals, bases, tree)
        found.append(totals[-1])
    assert found[0] == pytest.approx(found[1], abs=1e-12)


@settings(max_examples=100)
@given(problems(), st.integers(1, 12), st.one_of(st.none(), st.integers(1, 5)))
def test_a_budget_is_kept_and_nothing_on_its_hull_is_better(problem, budget, gap):
    weights, costs = problem
    n = len(weights) - 1
    all_of_them = [
        (sum(costs.size[v] for v in chosen), naive_latency(weights, costs, chosen))
        for chosen in subsets(range(1, n + 1))
        if keeps(chosen, n, gap)
    ]
    try:
        found = within(weights, costs, size=float(budget), max_gap=gap)
    except SnapshotError:
        assert min(costs.size[1:]) > budget or not any(size <= budget for size, _ in all_of_them)
        return
    assert found.size <= budget + 1e-9
    assert keeps(found.versions.tolist(), n, gap)
    assert min(latency for size, latency in all_of_them if size <= found.size + 1e-9) >= found.latency - 1e-9


def test_evenly_read_versions_get_evenly_spaced_snapshots():
    n = 10_000
    line = np.arange(n + 1.0) * 1e-8
    costs = Costs(line, line, np.zeros(n + 1), np.full(n + 1, 100.0), np.zeros(n + 1))
    placed = within(np.ones(n + 1), costs, count=99)
    assert len(placed.versions) == 99
    assert set(np.diff(placed.versions).tolist()) <= {99, 100, 101}
    gap = young(reads_per_event=1 / n, event=1e-8, size=100.0, size_price=placed.price / 100.0)
    assert gap == pytest.approx(100, rel=0.05)


def test_weights_draw_snapshots_as_their_square_root():
    n = 40_000
    line = np.arange(n + 1.0) * 1e-8
    costs = Costs(line, line, np.zeros(n + 1), np.ones(n + 1), np.zeros(n + 1))
    weights = np.ones(n + 1)
    weights[n // 2 :] = 9.0
    placed = within(weights, costs, count=400)
    halves = np.histogram(placed.versions, [0, n // 2, n + 1])[0]
    expected = density(weights, 1e-8, 1.0)
    assert halves[1] / halves[0] == pytest.approx(3.0, rel=0.05)
    assert expected[n // 2 :].sum() / expected[: n // 2].sum() == pytest.approx(3.0, rel=0.01)
    even = np.linspace(0, n, len(placed.versions) + 2).astype(np.int64)[1:-1]
    assert latency_of(weights, costs, even) / placed.latency == pytest.approx(headroom(weights), rel=0.02)


@given(problems())
def test_latencies_are_those_of_each_read(problem):
    weights, costs = problem
    n = len(weights) - 1
    chosen = np.arange(2, n + 1, 2)
    each = latencies_of(costs, chosen)
    one_at_a_time = [naive_latency(np.eye(n + 1)[v], costs, chosen) for v in range(n + 1)]
    assert each == pytest.approx(np.array(one_at_a_time))
    assert latency_of(weights, costs, chosen) == pytest.approx(naive_latency(weights, costs, chosen))


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=50).filter(lambda values: sum(values) > 0.0))
def test_there_is_never_less_than_no_headroom(values):
    assert headroom(np.array([0.0, *values])) >= 1.0 - 1e-9


LINE = np.arange(5.0)
GOOD = Costs(LINE, LINE, np.zeros(5), np.ones(5), np.ones(5))


@pytest.mark.parametrize(
    ("weights", "options", "match"),
    [
        (np.zeros(5), {"size": 2.0}, "not all zero"),
        (np.array([1.0, -1, 1, 1, 1]), {"size": 2.0}, "positive or zero"),
        (np.array([1.0, np.nan, 1, 1, 1]), {"size": 2.0}, "finite"),
        (np.ones(4), {"size": 2.0}, "a number for each version"),
        (np.ones(5), {"size": 0.5}, "below one snapshot"),
        (np.ones(5), {"count": 0}, "below one snapshot"),
        (np.ones(5), {"size": -1.0}, "below one snapshot"),
        (np.ones(5), {"size": 1.0, "max_gap": 1}, "does not allow for the gap"),
        (np.ones(5), {"size": 1.0, "max_gap": 0}, "max_gap"),
        (np.ones(5), {}, "a budget is"),
        (np.ones(5), {"size": 1.0, "count": 1}, "a budget is"),
        (np.ones(5), {"size": 1.0, "candidates": np.array([0, 1])}, "candidates"),
        (np.ones(5), {"size": 1.0, "candidates": np.array([2, 1])}, "candidates"),
    ],
)
def test_what_makes_no_sense_is_refused(weights, options, match):
    with pytest.raises(SnapshotError, match=match):
        within(weights, GOOD, **options)
