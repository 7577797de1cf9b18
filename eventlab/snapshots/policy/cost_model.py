"""The cost of a reconstruction on this machine, measured and then predicted.

    latency(s, v) = fixed + byte * size(s) + given * size(v) + event * (v - s) + decode(row groups between)

The store caches decoded row groups for reads of one or two of them; such reads only pay for joining two. Longer reads
decode all of theirs. `timetravel.calibration` measures. The model keeps the residuals of the fit as factors, apart for
long reads, of which a disturbance is a smaller part: predicted percentiles are those of the fit times the residuals.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eventlab.events.frame import Float64Array, Int64Array
from eventlab.store.api import MOST_GROUPS

if TYPE_CHECKING:
    from eventlab.snapshots.placement.optimum import Costs

_SPREAD = 101

PIECES = np.array([0.0, 8.0, 32.0, np.inf])
"""The cost of decoding is linear between these numbers of row groups: many use more memory, and several cores."""


@dataclass(frozen=True, slots=True, eq=False)
class Reads:
    """The work of reads of versions, each from a snapshot at its base, or from the beginning where the base is 0.

    Attributes
    ----------
    base, version : int64 array
    decoded : int64 array
        Row groups to decode.
    joined : bool array
        Whether events come from more than one cached row group.
    """

    base: Int64Array
    version: Int64Array
    decoded: Int64Array
    joined: npt.NDArray[np.bool_]

    @staticmethod
    def of(base: Int64Array, version: Int64Array, starts: Int64Array, kept: int | None = None) -> Reads:
        """Reads of an aggregate whose row groups begin at the versions `starts`.

        For short reads all row groups are cached, or, with `kept`, the `kept` that the reads before used last.
        """
        first, last = np.searchsorted(starts, base + 1, "right") - 1, np.searchsorted(starts, version, "right") - 1
        groups = np.where(version > base, last - first + 1, 0)
        short = groups <= MOST_GROUPS
        decoded = np.where(short, 0, groups)
        if kept is not None and kept < len(starts):
            decoded[short] = _missed(first[short], groups[short], kept)
        return Reads(base, version, decoded, short & (groups > 1))

    def where(self, chosen: npt.NDArray[np.bool_]) -> Reads:
        """A selection of the reads."""
        return Reads(self.base[chosen], self.version[chosen], self.decoded[chosen], self.joined[chosen])


def _missed(first: Int64Array, count: Int64Array, kept: int) -> Int64Array:
    """The number of row groups of each read that are not among the `kept` used last."""
    there: OrderedDict[int, None] = OrderedDict()
    missed = np.zeros(len(first), np.int64)
    for at, (begin, many) in enumerate(zip(first.tolist(), count.tolist(), strict=True)):
        groups = range(begin, begin + many)
        missing = [group for group in groups if group not in there]
        missed[at] = len(missing)
        for group in groups:
            if group in there:
                there.move_to_end(group)
        there.update(dict.fromkeys(missing))
        while len(there) > kept:
            there.popitem(last=False)
    return missed


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """The cost of reading a state of a reducer, in seconds.

    Attributes
    ----------
    fixed, event, byte, given, joining, opening : float
        For every read; for each event folded; for each byte of the snapshot begun from, and of the state that comes
        out; for joining events of two row groups; and for going to a file at all, where row groups are decoded.
    group : float64 array
        For each row group decoded, on each piece between `PIECES`.
    rest, long_rest : float64 array
        Measured over predicted seconds of the reads that the model was fitted to: reads of up to `MOST_GROUPS` row
        groups, and longer ones.
    at, size : int64 array, float64 array
        Versions of the aggregate measured, and bytes of a snapshot at each.
    length : float
        Events of a row group.
    kept : int
        How many row groups the store keeps decoded.
    """

    fixed: float
    event: float
    byte: float
    given: float
    joining: float
    opening: float
    group: Float64Array
    rest: Float64Array = field(repr=False)
    long_rest: Float64Array = field(repr=False)
    at: Int64Array = field(repr=False)
    size: Float64Array = field(repr=False)
    length: float
    kept: int

    def sizes(self, versions: Int64Array) -> Float64Array:
        """Bytes of a snapshot at each version, interpolated between those measured."""
        found: Float64Array = np.interp(versions, self.at, self.size)
        return found

    def latencies(self, reads: Reads) -> Float64Array:
        """Expected seconds of each read."""
        one = [self.fixed, self.event, self.byte, self.given, self.joining, self.opening]
        found: Float64Array = features(reads, self.sizes(reads.base), self.sizes(reads.version)) @ [*one, *self.group]
        return found

    def quantiles(self, reads: Reads, q: tuple[float, ...]) -> list[float]:
        """Percentiles of the seconds of such reads: each read takes its prediction times every residual of its kind."""
        expected, long = self.latencies(reads), reads.decoded > MOST_GROUPS
        several = []
        for kind, rest in ((~long, self.rest), (long, self.long_rest)):
            # Every read gets the same number of residuals, and so the same weight.
            spread = np.quantile(rest, np.linspace(0.0, 1.0, _SPREAD))
            several.append(np.multiply.outer(expected[kind], spread).ravel())
        return np.quantile(np.concatenate(several), q).tolist()  # type: ignore[no-any-return]

    def costs(self, head: int, starts: Int64Array) -> Costs:
        """The costs of every version of a history, for planning. All row groups between count as decoded."""
        from eventlab.snapshots.placement.optimum import Costs

        versions = np.arange(head + 1)
        groups = np.searchsorted(starts, versions, "right")  # the group of a version, from 1
        size, group = self.sizes(versions), self.decode(len(starts)) / len(starts)
        replay = self.event * versions + group * groups
        before = self.event * versions + group * (np.searchsorted(starts, versions + 1, "right") - 1)
        restore = self.fixed + self.byte * size
        restore[0] = self.fixed
        return Costs(replay, before, restore, size)

    def decode(self, groups: float) -> float:
        """Seconds to decode a number of row groups, without opening their file."""
        return float(_pieces(np.array([groups]))[0] @ self.group)

    def gap(self, seconds: float) -> int:
        """The largest gap in events with which nearly all reads keep to these seconds; 1 where no gap does.

        A gap of more events than a row group may need more row groups than are cached, and reads then decode them.
        """
        least = self.least
        event = max(self.event, 1e-12)
        near = (seconds / float(np.quantile(self.rest, 0.99)) - least - self.joining) / event
        if near <= self.length:
            return max(int(near), 1)
        spare = seconds / float(np.quantile(self.long_rest, 0.99)) - least - self.opening
        low, high = int(self.length), int(near)
        while low < high:
            middle = (low + high + 1) // 2
            groups = math.ceil((middle - 1) / self.length) + 1
            if self.event * middle + self.decode(groups) <= spare:
                low = middle
            else:
                high = middle - 1
        return max(low, 1)

    @property
    def balanced_gap(self) -> int:
        """The events that take as long to fold as the rest of a read."""
        return int(self.least / max(self.event, 1e-12))

    @property
    def least(self) -> float:
        """Seconds of a read without events, of the largest state."""
        return self.fixed + (self.byte + self.given) * float(self.size.max(initial=0.0))


def features(reads: Reads, begun: Float64Array, given: Float64Array) -> Float64Array:
    """The columns that a model's coefficients multiply, in order; sizes are those of both ends of each read."""
    decoded = reads.decoded.astype(np.float64)
    begun = np.where(reads.base > 0, begun, 0.0)
    columns = [
        np.ones(len(decoded)), reads.version - reads.base, begun, given, reads.joined, decoded > 0, *_pieces(decoded).T,
    ]  # fmt: skip
    return np.column_stack(columns).astype(np.float64)


def _pieces(groups: Float64Array) -> Float64Array:
    """The part of each number of row groups on each piece."""
    on_each: Float64Array = np.clip(groups[:, None] - PIECES[:-1], 0.0, np.diff(PIECES))
    return on_each
