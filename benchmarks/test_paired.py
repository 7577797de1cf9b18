from __future__ import annotations

import math

import pytest

from benchmarks import paired


@pytest.mark.parametrize(("pairs", "first"), [(6, 1), (8, 1), (9, 2), (15, 4), (25, 8)])
def test_the_interval_is_the_narrowest_that_covers_the_median_often_enough(pairs, first):
    def misses(below: int) -> float:
        return 2.0 * sum(math.comb(pairs, count) for count in range(below)) / 2.0**pairs

    assert misses(first) <= 0.05 < misses(first + 1)
    assert paired.interval(range(1, pairs + 1)) == (first, pairs + 1 - first)


def test_few_ratios_give_their_range():
    assert paired.interval([1.2, 0.8, 1.0]) == (0.8, 1.2)


def test_a_row_is_slower_where_median_and_interval_say_so():
    assert "SLOWER" in paired.judged([0.9] * 9)
    assert "SLOWER" not in paired.judged([0.96] * 9)
    assert "SLOWER" not in paired.judged([0.9] * 5)
    assert "SLOWER" not in paired.judged([0.9] * 7 + [1.1] * 2)


def test_rates_and_durations_and_sizes_compare_the_same_way():
    assert paired.rate({"unit": "events/s", "measured": 4.0}) == 4.0
    assert paired.rate({"unit": "ms", "measured": 4.0}) == 0.25
    assert paired.rate({"unit": "B/event", "measured": 4.0}) == 0.25
