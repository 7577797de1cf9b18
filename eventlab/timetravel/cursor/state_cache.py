"""A cache of one aggregate's states, which a cursor's moves begin at."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

from eventlab.events.clock import MAX_NS
from eventlab.snapshots.states import Base

BYTES = 32 * 2**20
"""Size of the cache: two hundred states of a book with ten thousand levels."""

_OVERHEAD = 4_096
"""Bytes that a state takes in addition to its values."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a state may include: versions up to `version`, positions below `stop`, event times (ns) up to `time`."""

    version: int
    stop: int
    time: int = MAX_NS

    def allows(self, base: Base) -> bool:
        """Whether all events of a state are within the limit."""
        marks = base.marks
        version, position, latest = int(marks.version[0]), int(marks.position[0]), int(marks.latest[0])
        return version == 0 or (version <= self.version and position < self.stop and latest <= self.time)


class Waypoints:
    """States of one aggregate by version, up to `BYTES`.

    When the cache is full, states near the cursor stay dense and distant ones become sparse: the way from a cached
    state to any version stays short compared to its distance from the cursor.

    Attributes
    ----------
    size : int
        In bytes.
    """

    def __init__(self) -> None:
        self._versions: list[int] = []
        self._bases: list[Base] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._versions)

    def newest(self, limit: Limit) -> Base | None:
        """The last state within a limit."""
        at = bisect_left(self._bases, True, key=lambda base: not limit.allows(base))
        return self._bases[at - 1] if at else None

    def beyond(self, version: int) -> int | None:
        """The first version after this one at which there is a state."""
        at = bisect_right(self._versions, version)
        return self._versions[at] if at < len(self._versions) else None

    def keep(self, base: Base, *, near: int) -> None:
        """Cache a state; when the cache is full, states far from the version `near` go first."""
        version = version_of(base)
        at = bisect_left(self._versions, version)
        if self.beyond(version - 1) == version:
            return
        self._versions.insert(at, version)
        self._bases.insert(at, base)
        self.size += _size(base)
        while self.size > BYTES:
            # That whose removal leaves the smallest gap in relation to its distance.
            versions = np.array([0, *self._versions], np.int64)
            gap = np.append(versions[2:], 2 * versions[-1]) - versions[:-1]
            gone = int(np.argmin(gap / (1 + np.abs(versions[1:] - near))))
            del self._versions[gone]
            self.size -= _size(self._bases.pop(gone))


def version_of(base: Base) -> int:
    """The last version that the one state includes."""
    return int(base.marks.version[0])


def _size(base: Base) -> int:
    return _OVERHEAD + int(base.states.nbytes)
