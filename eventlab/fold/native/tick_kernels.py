"""Kernels that rank decimal prices by marking ticks in a bitmap, without sorting or hashing.

A *source* is a run of prices per aggregate: a column of an event type, or the levels that a ladder already has.
Aggregate a's prices in source s are ``prices[starts[s * count + a]:stops[s * count + a]]``.
"""

import numpy as np

_MOST = 1e12
_EXACT = 2.0**53
_LIMIT = np.int64(2**53)
_LOOKS = 64
_FEWEST_WORDS, _MOST_WORDS = 4_096, 2**24


def fit_ticks(prices, starts, stops, powers, origins, lowest, words, ticks):
    """For each aggregate the power of ten that makes its prices integers (ticks), the ticks, and the bitmap's size.

    `powers` is 0 where no power up to 10**12 does, or where the bitmap would be far larger than the number of prices.
    `ticks` and `lowest`, the tick of the bitmap's first bit, count from `origins`; `words` is the bitmap's length.
    """
    count = len(powers)
    sources = len(starts) // count
    for a in range(count):
        power, origin, low, high, wrong, total = 1.0, np.int64(0), _LIMIT, -_LIMIT, 1, 0
        while wrong and power <= _MOST:
            # First a sample of the prices, then all. Neither loop ends early, so that LLVM vectorises both.
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
                        # Both operands are exact: the quotient is the price, or the price has more digits.
                        wrong += not (tick / power == prices[at] and abs(tick) <= _EXACT)
                        place = np.int64(tick) - origin
                        low, high = min(low, place), max(high, place)
                        ticks[at] = place
                if wrong:
                    break
            if wrong:
                power *= 10.0
        needed = (high - low) // 64 + 1 if total and not wrong else 0
        # `_MOST_WORDS` also keeps places within the 32 bits of `ticks`.
        fits = not wrong and needed <= min(2 * total + _FEWEST_WORDS, _MOST_WORDS)
        powers[a] = power if fits else 0.0
        origins[a] = origin
        lowest[a] = low if needed else 0
        words[a] = needed if fits else 0


def rank_ticks(starts, stops, powers, origins, lowest, words, bitmap, ranks, base, ascending, descending):
    """The rank of every price among its aggregate's, and the distinct prices, ascending and descending.

    `ranks` comes in with ticks. Aggregate a's distinct prices go to ``base[a]:base[a + 1]``, none where its power is 0.
    `bitmap` holds pairs: a word of the bitmap and the number of bits set in it, later in all words before it.
    """
    one, two, six, last = np.uint64(1), np.uint64(2), np.uint64(6), np.uint64(63)

    def ones(word):
        """The number of set bits, in the form that LLVM turns into one instruction."""
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
