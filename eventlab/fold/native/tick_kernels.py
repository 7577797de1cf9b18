"""Kernels that rank prices which are decimals: by marking ticks in a bitmap, without sorting or hashing any.

A *source* is a run of prices per aggregate: a column of an event type, or the levels that a ladder already has.
Aggregate a's prices in source s are ``prices[starts[s * count + a]:stops[s * count + a]]``.
"""

from __future__ import annotations

import numpy as np

_MOST = 1e12
_EXACT = 2.0**53
_LIMIT = np.int64(2**53)
_LOOKS = 64
_FEWEST_WORDS, _MOST_WORDS = 4_096, 2**24


def fit_ticks(prices, starts, stops, powers, origins, lowest, words, ticks):
    """The power of ten that makes each aggregate's prices whole numbers, these, and the bitmap that they need.

    `powers` is 0 where there is none up to 10**12, or where the bitmap would be far larger than the prices are many.
    `ticks` and `lowest`, the tick in the bitmap's first place, count from `origins`; `words` is the bitmap's length.
    """
    count = len(powers)
    sources = len(starts) // count
    for a in range(count):
        power, origin, low, high, wrong, total = 1.0, np.int64(0), _LIMIT, -_LIMIT, 1, 0
        while wrong and power <= _MOST:
            # First a few prices here and there, then all. Neither loop ends early: so processors take eight at a time.
            for looks in range(2):
                wrong, total, low, high = 0, 0, _LIMIT, -_LIMIT
                for source in range(sources):
                    start, stop = starts[source * count + a], stops[source * count + a]
                    if total == 0 and start < stop:
                        origin = np.int64(np.rint(prices[start] * power))
                    total += stop - start
                    step = 1 if looks else max((stop - start) // _LOOKS, 1)
                    for at in range(np.uint64(start), np.uint64(stop), np.uint64(step)):
                        tick = np.rint(prices[at] * power)
                        # Both operands are exact, so the quotient is the price it came from, or tells that it is not.
                        wrong += not (tick / power == prices[at] and abs(tick) <= _EXACT)
                        place = np.int64(tick) - origin
                        low, high = min(low, place), max(high, place)
                        ticks[at] = place
                if wrong:
                    break
            if wrong:
                power *= 10.0
        needed = (high - low) // 64 + 1 if total and not wrong else 0
        # A place takes 32 bits.
        fits = not wrong and needed <= min(2 * total + _FEWEST_WORDS, _MOST_WORDS)
        powers[a] = power if fits else 0.0
        origins[a] = origin
        lowest[a] = low if needed else 0
        words[a] = needed if fits else 0


def rank_ticks(starts, stops, powers, origins, lowest, words, bitmap, ranks, base, ascending, descending):
    """The rank of every price among its aggregate's, and the distinct prices, ascending and descending.

    `ranks` holds ticks at first. Aggregate a's distinct prices are put at ``base[a]:base[a + 1]``, none where its power
    is 0. `bitmap` is twice as long as the longest: each word stands beside how many bits are set before it, or at first
    in it.
    """
    one, two, six, last = np.uint64(1), np.uint64(2), np.uint64(6), np.uint64(63)

    def ones(word):
        """How many bits are set, in the form that compilers know and make one instruction of."""
        word -= (word >> one) & np.uint64(0x5555555555555555)
        word = (word & np.uint64(0x3333333333333333)) + ((word >> two) & np.uint64(0x3333333333333333))
        word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)

    count = len(powers)
    sources = len(starts) // count
    for a in range(count):
        low, first = lowest[a], base[a]
        length = two * np.uint64(words[a])
        for word in range(length):
            bitmap[word] = 0
        if length:
            for source in range(sources):
                for at in range(np.uint64(starts[source * count + a]), np.uint64(stops[source * count + a])):
                    place = np.uint64(ranks[at] - low)
                    pair, bit = (place >> six) << one, one << (place & last)
                    bitmap[pair + one] += (bitmap[pair] & bit) == 0
                    bitmap[pair] |= bit
        found = np.uint64(0)
        for word in range(np.uint64(0), length, two):
            left, there = bitmap[word], bitmap[word + one]
            bitmap[word + one] = found
            found += there
            at = first + np.int64(found) - np.int64(there)
            while left != 0:
                tick = origins[a] + low + np.int64((word << np.uint64(5)) + ones((left & (~left + one)) - one))
                ascending[at] = np.float64(tick) / powers[a]
                left &= left - one
                at += 1
        base[a + 1] = first + np.int64(found)
        if length:
            for source in range(sources):
                for at in range(np.uint64(starts[source * count + a]), np.uint64(stops[source * count + a])):
                    place = np.uint64(ranks[at] - low)
                    pair = (place >> six) << one
                    ranks[at] = bitmap[pair + one] + ones(bitmap[pair] & ((one << (place & last)) - one))
        for at in range(first, base[a + 1]):
            descending[first + base[a + 1] - 1 - at] = ascending[at]
