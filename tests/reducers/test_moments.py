"""Moments and correlation against the statistics module, exact fractions and NumPy, where naive sums would fail."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventlab as el
from eventlab.errors import FoldError
from tests.examples import examples

BOTH = pytest.mark.parametrize("interpret", [True, False], ids=["interpreted", "compiled"])
PAIRS = st.lists(
    st.tuples(st.floats(0.0, 1e5) | st.sampled_from([0.0, 1.0, 1e5]), st.floats(0.0, 1e3) | st.just(1.0)),
    min_size=1,
    max_size=60,
)
ROLLING, CORRELATING = el.RollingMoments(window=7), el.RollingCorrelation(window=7)


def opened(pairs):
    lab = el.open(":memory:")
    lab.append("m", [el.MarketData("A", price, volume) for price, volume in pairs])
    return lab


def exact(pairs):
    """Means, variances and covariance of a sample, rounded once each."""
    columns = [[Fraction(value) for value in column] for column in zip(*pairs, strict=True)]
    n = len(pairs)
    x, y = (sum(column) / n for column in columns)
    products = [
        sum((a - p) * (b - q) for a, b in zip(one, other, strict=True)) / max(n - 1, 1)
        for one, other, p, q in (
            (columns[0], columns[0], x, x),
            (columns[1], columns[1], y, y),
            (columns[0], columns[1], x, y),
        )
    ]
    return float(x), float(y), *(float(product) for product in products)


@examples(40)
@given(PAIRS)
def test_moments_agree_with_exact_fractions(pairs):
    with opened(pairs) as lab:
        moments = lab.state(el.Moments, "m", interpret=True)
        both = lab.state(el.Correlation, "m", interpret=True)
    prices = [price for price, _ in pairs]
    x, y, xx, yy, xy = exact(pairs)
    largest = max(prices)
    assert (moments.count, moments.min, moments.max) == (len(prices), min(prices), largest)
    assert moments.mean == pytest.approx(x, rel=1e-13, abs=1e-13 * largest)
    assert both.volume_mean == pytest.approx(y, rel=1e-12, abs=1e-9)
    if len(prices) == 1:
        assert all(math.isnan(value) for value in (moments.variance, moments.std, both.covariance, both.correlation))
        return
    assert moments.variance == pytest.approx(statistics.variance(prices), rel=1e-9, abs=1e-24 * largest * largest)
    assert moments.std == math.sqrt(moments.variance)
    assert both.covariance == pytest.approx(xy, rel=1e-9, abs=1e-12 * (math.sqrt(xx * yy) + 1e-9))
    if xx > 1e-6 and yy > 1e-6:
        assert both.correlation == pytest.approx(xy / math.sqrt(xx * yy), abs=1e-9)


@examples(40)
@given(PAIRS)
def test_rolling_moments_agree_with_those_of_each_window(pairs):
    with opened(pairs) as lab:
        moments = lab.history(ROLLING, "m", interpret=True)
        both = lab.history(CORRELATING, "m", interpret=True)
    for row in range(len(pairs)):
        window = pairs[max(0, row - 6) : row + 1]
        x, y, xx, yy, xy = exact(window)
        # what leaves a window leaves its rounding, for two windows at most
        recent = pairs[max(0, row - 14) : row + 1]
        price, volume = max(price for price, _ in recent), max(volume for _, volume in recent)
        assert moments["count"][row] == both["count"][row] == len(window)
        assert moments["mean"][row] == pytest.approx(x, abs=1e-13 * price)
        assert both["volume_mean"][row] == pytest.approx(y, abs=1e-13 * volume)
        if len(window) > 1:
            assert moments["variance"][row] == pytest.approx(xx, rel=1e-9, abs=1e-14 * price * price)
            assert both["covariance"][row] == pytest.approx(xy, rel=1e-9, abs=1e-14 * price * volume)
            if xx > 1e-6 * price * price and yy > 1e-6 * volume * volume:
                assert both["correlation"][row] == pytest.approx(xy / math.sqrt(xx) / math.sqrt(yy), abs=1e-6)


@BOTH
def test_a_million_on_top_costs_no_digits(interpret):
    prices = [1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0] * 50  # a sum of squares would have none left
    with opened([(price, 1.0) for price in prices]) as lab:
        assert lab.state(el.Moments, "m", interpret=interpret).variance == pytest.approx(22.5 * 200 / 199, rel=1e-9)
        rolling = lab.state(el.RollingMoments(window=20), "m", interpret=interpret)
    assert rolling.variance == pytest.approx(22.5 * 20 / 19, rel=1e-9)


@BOTH
def test_rolling_moments_forget_what_they_have_seen(interpret):
    # Prices that leave nothing of the others' digits, and even no numbers, are gone after two windows.
    with opened([(1e300, 1e300), (1.0, 5.0)] + [(float(p), float(p % 3)) for p in range(1, 15)]) as lab:
        moments = lab.state(ROLLING, "m", interpret=interpret)
        both = lab.state(CORRELATING, "m", interpret=interpret)
    window = [(float(p), float(p % 3)) for p in range(8, 15)]
    assert (moments.mean, moments.variance) == (11.0, pytest.approx(28.0 / 6.0, rel=1e-14))
    assert both.correlation == pytest.approx(np.corrcoef(np.array(window).T)[0, 1], abs=1e-14)


@BOTH
@pytest.mark.parametrize("window", [1, 2, 256])
def test_windows_of_every_length(interpret, window):
    rng = np.random.default_rng(7)
    pairs = [(float(p), float(v)) for p, v in zip(rng.uniform(1, 2, 700), rng.uniform(0, 1, 700), strict=True)]
    with opened(pairs) as lab:
        moments = lab.state(el.RollingMoments(window=window), "m", interpret=interpret)
        both = lab.state(el.RollingCorrelation(window=window), "m", interpret=interpret)
    x, _, xx, _, xy = exact(pairs[-window:])
    assert moments.mean == pytest.approx(x, rel=1e-14)
    assert len(moments.prices) == 256
    if window == 1:
        assert math.isnan(moments.variance)
        assert math.isnan(both.correlation)
    else:
        assert moments.variance == pytest.approx(xx, rel=1e-11)
        assert both.covariance == pytest.approx(xy, rel=1e-10)


@BOTH
@pytest.mark.parametrize("base", [el.RollingMoments, el.RollingCorrelation], ids=lambda base: base.name)
@pytest.mark.parametrize("window", [0, -3, 257])
def test_a_window_that_no_ring_holds_is_refused(interpret, base, window):
    with opened([(1.0, 1.0)]) as lab, pytest.raises(FoldError, match=f"{base.name}.*window must be 1 to 256 trades"):
        lab.state(base(window=window), "m", interpret=interpret)


@BOTH
def test_what_does_not_vary_has_no_correlation(interpret):
    with opened([(0.1, float(volume)) for volume in range(20)]) as lab:
        for reducer in (el.Correlation, CORRELATING):
            state = lab.state(reducer, "m", interpret=interpret)
            assert math.isnan(state.correlation)
            assert state.covariance == 0.0
    with opened([(float(p), 3.0 * p) for p in range(20)]) as lab:
        assert lab.state(el.Correlation, "m", interpret=interpret).correlation == pytest.approx(1.0, abs=1e-15)
        assert lab.state(CORRELATING, "m", interpret=interpret).correlation == pytest.approx(1.0, abs=1e-15)


def test_nothing_folded_has_no_moments():
    with opened([(1.0, 1.0)]) as lab:
        for reducer in (el.Moments, ROLLING):
            state = lab.state(reducer, "m", as_of=0)
            assert all(math.isnan(value) for value in (state.mean, state.variance, state.std))
        assert math.isnan(lab.state(el.Moments, "m", as_of=0).min)
        assert math.isnan(lab.state(el.Correlation, "m", as_of=0).correlation)
