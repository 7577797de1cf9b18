"""Ranks of prices: a ladder keeps the level of a price in an array, under the price's rank."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.events.frame import Int64Array
from eventlab.fold.native import tick_kernels as ticks
from eventlab.fold.native.function import Function

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]

_fit_ticks = Function(ticks.fit_ticks)
_rank_ticks = Function(ticks.rank_ticks)


@dataclass
class Ranks:
    """The prices that each aggregate can have as levels, and the rank of every event's price.

    Aggregate a's prices are ``ascending[base[a]:base[a + 1]]``; `event` holds ranks per event type, meaningless in rows
    that are not folded.
    """

    base: Int64Array
    ascending: Floats
    descending: Floats
    event: dict[str, Codes]

    @staticmethod
    def of(
        prices: Mapping[str, Floats],
        starts: Mapping[str, Int64Array],
        stops: Mapping[str, Int64Array],
        levels: Sequence[tuple[Int64Array, Floats]],
    ) -> Ranks:
        """Rank the prices of events, by type, and of the levels that ladders already have.

        `levels` holds, per ladder, offsets per aggregate and prices.
        """
        count = len(levels[0][0]) - 1
        columns = [*prices.values(), *(level for _, level in levels if len(level))]
        if not count or not columns:
            return Ranks(np.zeros(count + 1, np.int64), np.empty(0), np.empty(0), {})
        offsets = list(itertools.accumulate(map(len, columns), initial=0))
        runs = [(starts[name], np.maximum(stops[name], starts[name])) for name in prices]
        runs += [(bounds[:-1], bounds[1:]) for bounds, level in levels if len(level)]
        first, last = (
            np.concatenate([bounds + at for bounds, at in zip(side, offsets, strict=False)])
            for side in zip(*runs, strict=True)
        )
        values = columns[0] if len(columns) == 1 else np.concatenate(columns)
        base, ascending, descending, ranks = _ranked(values, first, last, count, len(prices))
        event = {name: ranks[low:high] for name, (low, high) in zip(prices, itertools.pairwise(offsets), strict=False)}
        return Ranks(base, ascending, descending, event)


def _ranked(
    values: Floats, first: Int64Array, last: Int64Array, count: int, columns: int
) -> tuple[Int64Array, Floats, Floats, Codes]:
    """Offsets per aggregate, its distinct prices, ascending and descending, and the ranks of events' prices.

    The first `columns` sources are columns of events, the others levels.
    """
    powers, ranks = np.empty(count), np.empty(len(values), np.int32)
    origins, lowest, words = (np.empty(count, np.int64) for _ in range(3))
    _fit_ticks(values, first, last, powers, origins, lowest, words, ranks)
    most = int((last - first).sum())
    base, ascending, descending = np.zeros(count + 1, np.int64), np.empty(most), np.empty(most)
    bitmap = np.empty(2 * int(words.max(initial=0)), np.uint64)
    _rank_ticks(first, last, powers, origins, lowest, words, bitmap, ranks, base, ascending, descending)
    others = np.flatnonzero(powers == 0.0)
    if not len(others):
        return base, ascending[: base[-1]], descending[: base[-1]], ranks
    distinct = [ascending[low:high] for low, high in itertools.pairwise(base.tolist())]
    first, last = first.reshape(-1, count), last.reshape(-1, count)
    for a in others.tolist():
        spans = [slice(low, high) for low, high in zip(first[:, a].tolist(), last[:, a].tolist(), strict=True)]
        named = np.concatenate([np.empty(0), *(values[span] for span in spans[:columns])])
        distinct[a], found = _hashed(named, [values[span] for span in spans[columns:]])
        for span in spans[:columns]:
            ranks[span], found = np.split(found, [span.stop - span.start])
    base = np.cumsum([0, *map(len, distinct)])
    return base, np.concatenate(distinct), np.concatenate([prices[::-1] for prices in distinct]), ranks


def _hashed(prices: Floats, levels: Sequence[Floats]) -> tuple[Floats, Codes]:
    """Distinct prices of events and levels, ascending, and the ranks of the events' prices, for prices without ticks.

    Prices of events repeat: hashing them and sorting the distinct ones is five times as fast as sorting all. Levels are
    in order, and a stable sort merges runs: for ten thousand levels that is ten times as fast as hashing them, too.
    """
    coded = pa.array(prices + 0.0).dictionary_encode()  # -0.0 and 0.0 are one level
    named = coded.dictionary.to_numpy()
    order = np.argsort(named)
    every = np.sort(np.concatenate([named[order], *levels]) + 0.0, kind="stable")
    distinct = every[np.append(True, (every[1:] != every[:-1]) & ~np.isnan(every[:-1]))[: len(every)]]
    rank = np.empty(len(order), np.int32)
    rank[order] = np.searchsorted(distinct, named[order])
    return distinct, rank[coded.indices.to_numpy()]
