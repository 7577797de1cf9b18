from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlab.experiments.bootstrap import paired_ratios


def plain_ratios(one, other, seed, resamples):
    """The bootstrap, one resample after the other."""
    generator = np.random.default_rng(seed)
    place = math.ceil(0.99 * len(one)) - 1
    means, rares = [], []
    for _ in range(resamples):
        rows = generator.integers(0, len(one), len(one)).tolist()
        ours, theirs = [one[row] for row in rows], [other[row] for row in rows]
        means.append((sum(ours) / len(ours)) / (sum(theirs) / len(theirs)))
        rares.append(sorted(ours)[place] / sorted(theirs)[place])
    return [np.quantile(values, (0.025, 0.975)) for values in (means, rares)]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), min_size=1, max_size=40), st.integers(0, 9),
    st.integers(10, 700),
)  # fmt: skip
def test_intervals_are_those_of_a_plain_bootstrap(pairs, seed, cells):
    one, other = (np.array(values) for values in zip(*pairs, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventlab.experiments.bootstrap._MOST_CELLS", cells)  # however it is cut
        mean, rare = paired_ratios(one, other, seed, resamples=50)
    expected = plain_ratios(one.tolist(), other.tolist(), seed, 50)
    for found, (low, high) in zip((mean, rare), expected, strict=True):
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert mean.ratio == pytest.approx(one.mean() / other.mean())
