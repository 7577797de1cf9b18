from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlab.experiments.placement_score import PlacementScorer
from eventlab.snapshots.placement.optimum import Costs, latency_of
from eventlab.snapshots.placement.workloads import Uniform, Zipf


def line(head: int, size: float = 1.0) -> Costs:
    replay = np.arange(head + 1.0)
    return Costs(replay, replay, np.zeros(head + 1), np.full(head + 1, size))


def test_even_spacing_captures_nothing_and_the_optimum_everything():
    head = 400
    scorer = PlacementScorer.of(Zipf(1.2).density(head), line(head))
    assert scorer.headroom > 1.1
    even = np.arange(1, 10) * (head + 1) // 10
    ratio, captured = scorer.score(even)
    assert captured == pytest.approx(0.0)
    assert ratio > 1.5
    from eventlab.snapshots.placement.optimum import within

    best = within(scorer.weights, scorer.costs, size=9.0)
    ratio, captured = scorer.score(best.versions)
    assert (ratio, captured) == (pytest.approx(1.0), pytest.approx(1.0))
    assert scorer.score(np.array([1]))[1] <= 0.0


def test_there_is_nothing_to_capture_where_the_rest_of_a_read_outweighs_what_is_replayed():
    head = 400
    costs = line(head)
    slow = Costs(costs.replay + 1e6, costs.before, costs.restore + 1e6, costs.size)
    scorer = PlacementScorer.of(Zipf(1.2).density(head), slow)
    even = np.arange(1, 10) * (head + 1) // 10
    assert scorer.headroom > 1.1
    ratio, captured = scorer.score(even)
    assert captured is None
    assert ratio == pytest.approx(1.0, abs=1e-3)


def test_there_is_nothing_to_capture_without_headroom_or_snapshots():
    scorer = PlacementScorer.of(Uniform().density(100), line(100))
    assert scorer.headroom == pytest.approx(1.0)
    assert scorer.score(np.array([3, 50]))[1] is None
    assert scorer.score(np.empty(0, np.int64)) == (1.0, None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.01, 10.0), min_size=8, max_size=9), st.sets(st.integers(1, 8), min_size=1, max_size=3),
)  # fmt: skip
def test_no_placement_of_as_many_bytes_is_much_better_than_the_scorer_says(weights, versions):
    weights = np.array([0.0, *weights])
    costs = line(len(weights) - 1)
    chosen = np.array(sorted(versions))
    ratio, captured = PlacementScorer.of(weights, costs).score(chosen)
    own = latency_of(weights, costs, chosen)
    tried = [np.array(some) for some in itertools.combinations(range(1, len(weights)), len(chosen))]
    best = min(latency_of(weights, costs, some) for some in tried)
    assert 1.0 <= ratio <= own / best * (1 + 1e-12)
    assert captured is None or captured <= 1.0 + 1e-12
