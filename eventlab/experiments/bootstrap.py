"""How sure a ratio of two latencies is that were measured on the same reads: the paired percentile bootstrap.

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
class Interval:
    """A ratio, and the 95 % interval around it."""

    ratio: float
    low: float
    high: float


def paired_ratios(one: Int64Array, other: Int64Array, seed: int, resamples: int = RESAMPLES) -> tuple[Interval, ...]:
    """The mean and the 99th percentile of `one` over those of `other`.

    Each resample draws reads, with replacement, and takes both latencies of each.

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
    whole = _ratios(one[None], other[None])[:, 0]
    low, high = np.quantile(np.concatenate(found, axis=1), _TAILS, axis=1)
    return tuple(Interval(*map(float, three)) for three in zip(whole, low, high, strict=True))


def _ratios(one: Int64Array, other: Int64Array) -> Float64Array:
    """Ratios of means and of 99th percentiles, along the last axis: shape (2, rows)."""
    means = one.mean(axis=1) / other.mean(axis=1)
    return np.stack([means, _rare(one) / _rare(other)])


def _rare(values: Int64Array) -> Int64Array:
    """The smallest value that 99 in 100 do not exceed."""
    place = math.ceil(0.99 * values.shape[1]) - 1
    found: Int64Array = np.partition(values, place, axis=1)[:, place]
    return found
