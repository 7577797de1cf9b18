"""Price ladders in kernels: one size per price rank, the best rank tracked.

All prices of an aggregate's events are known before the fold and sorted, so a level is an array element. Handlers pass
prices. The rank of the event's own price comes along as a hint and is checked before use: the common call needs no
search, and any other price is searched for.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import overload_attribute, overload_method

from eventlab.fold.compiler.state_view import TableView, viewed
from eventlab.fold.declare.layout import Ladder
from eventlab.fold.native.constants import LADDER_META

BEST, LEVELS = range(LADDER_META)

_float64s = types.CPointer(types.float64)
_int64s = types.CPointer(types.int64)


@viewed
class LadderView(TableView):
    """`Ladder` as a handler sees it. Ranks grow away from the best price on both sides."""

    members = (
        ("prices", _float64s),  # best first
        ("sizes", _float64s),  # 0 where there is no level
        ("meta", _int64s),
        ("base", types.int64),
        ("ranks", types.int64),
        ("sign", types.float64),  # -1 where a better price is a higher one
        ("hint", types.int64),
    )
    count_word = LEVELS

    def __init__(self, ladder: Ladder) -> None:
        super().__init__(ladder.name)


@njit
def _rank(ladder, price):
    """Rank of a price, or -1."""
    hint = ladder._hint
    if hint >= 0 and ladder._prices[ladder._base + hint] == price:
        return hint
    low, high = 0, ladder._ranks
    while low < high:
        middle = (low + high) >> 1
        if ladder._prices[ladder._base + middle] * ladder._sign < price * ladder._sign:
            low = middle + 1
        else:
            high = middle
    if low < ladder._ranks and ladder._prices[ladder._base + low] == price:
        return low
    return -1


@njit
def _next_level(ladder, rank):
    """First rank from `rank` on that has a level, or one past the last."""
    while rank < ladder._ranks and ladder._sizes[ladder._base + rank] == 0.0:
        rank += 1
    return rank


@njit
def _nth(ladder, values, index):
    """A value of the index-th best level, or NaN."""
    if index < 0 or index >= ladder._meta[LEVELS]:
        return math.nan
    rank = ladder._meta[BEST]
    for _ in range(index):
        rank = _next_level(ladder, rank + 1)
    return values[ladder._base + rank]


@njit
def _best(ladder, values):
    return values[ladder._base + ladder._meta[BEST]] if ladder._meta[LEVELS] else math.nan


@overload_method(LadderView, "set")
def _set(ladder, price, size):
    def write(ladder, price, size):
        rank = _rank(ladder, price)
        if rank < 0:
            raise KeyError("a ladder's price must be one that an event of this aggregate has")
        place, meta = ladder._base + rank, ladder._meta
        had, has = ladder._sizes[place] != 0.0, size != 0.0
        ladder._sizes[place] = size
        meta[LEVELS] += np.int64(has) - np.int64(had)
        if rank <= meta[BEST]:  # away from the best price all updates take this one, well predicted branch
            if has:
                meta[BEST] = rank
            elif had:
                meta[BEST] = _next_level(ladder, rank + 1) if meta[LEVELS] else ladder._ranks

    return write


@overload_method(LadderView, "clear")
def _clear(ladder):
    def clear(ladder):
        for rank in range(ladder._meta[BEST], ladder._ranks):
            ladder._sizes[ladder._base + rank] = 0.0
        ladder._meta[BEST] = ladder._ranks
        ladder._meta[LEVELS] = 0

    return clear


@overload_method(LadderView, "price")
def _price(ladder, index):
    return lambda ladder, index: _nth(ladder, ladder._prices, index)


@overload_method(LadderView, "size")
def _size(ladder, index):
    return lambda ladder, index: _nth(ladder, ladder._sizes, index)


@overload_attribute(LadderView, "best_price")
def _best_price(ladder):
    return lambda ladder: _best(ladder, ladder._prices)


@overload_attribute(LadderView, "best_size")
def _best_size(ladder):
    return lambda ladder: _best(ladder, ladder._sizes)


@njit
def load_levels(ladder):
    """Set best and count from the sizes, on entering an aggregate."""
    levels = 0
    for rank in range(ladder._ranks):
        if ladder._sizes[ladder._base + rank] != 0.0:
            levels += 1
    ladder._meta[LEVELS] = levels
    ladder._meta[BEST] = _next_level(ladder, 0)


SIGN = {"bid": -1.0, "ask": 1.0}
