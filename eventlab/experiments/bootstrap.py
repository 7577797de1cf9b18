"""Confidence intervals of ratios of paired latencies: the percentile bootstrap.

B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eventlab.events.frame import Float64Array, Int64Array

RESAMPLES = 2_000
_TAILS = (0.025, 0.975)
_MOST_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class ConfidenceInterval:
    """A ratio and its 95 % confidence interval."""

    ratio: float
    low: float
    high: float


def paired_ratios(
    one: Int64Array, other: Int64Array, seed: int, resamples: int = RESAMPLES
) -> tuple[ConfidenceInterval, ...]:
    """Ratios of the means and of the 99th percentiles of `one` and `other`.

    Each resample draws reads with replacement, and uses both latencies of a read.

    Parameters
    ----------
    one, other : int64 array, shape (reads,)
        Nanoseconds of the same reads in the same order.

    Examples
    --------
    >>> one = np.array([10, 20, 30, 40])
    >>> mean, rare = paired_ratios(one, 2 * one, seed=0)
    >>> (mean.ratio, mean.low, mean.high)
    (0.5, 0.5, 0.5)
    """
    generator = np.random.default_rng(seed)
    most = max(_MOST_CELLS // len(one), 1)
    found = []
    for begin in range(0, resamples, most):
        rows = generator.integers(0, len(one), (min(most, resamples - begin), len(one)))
        found.append(_ratios(one[rows], other[rows]))
    point = _ratios(one[None], other[None])[:, 0]
    low, high = np.quantile(np.concatenate(found, axis=1), _TAILS, axis=1)
    return tuple(ConfidenceInterval(*map(float, three)) for three in zip(point, low, high, strict=True))


def _ratios(one: Int64Array, other: Int64Array) -> Float64Array:
    """Ratios of means and of 99th percentiles, along the last axis: shape (2, rows)."""
    means = one.mean(axis=1) / other.mean(axis=1)
    return np.stack([means, _p99(one) / _p99(other)])


def _p99(values: Int64Array) -> Int64Array:
    """The 99th percentile along the last axis, as a measured value."""
    place = math.ceil(0.99 * values.shape[1]) - 1
    found: Int64Array = np.partition(values, place, axis=1)[:, place]
    return found
