"""States kept along the way, from which others are near."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

from eventlab.events.clock import MAX_NS
from eventlab.snapshots.states import Base

BYTES = 32 * 2**20
"""Of states that are kept: two hundred of a book with ten thousand levels."""

_OVERHEAD = 4_096
"""What a state takes beside its values."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a state may include: up to `version`, positions below `stop`, event times (ns) up to `time`."""

    version: int
    stop: int
    time: int = MAX_NS

    def allows(self, base: Base) -> bool:
        """Whether a state includes nothing else."""
        marks = base.marks
        version, position, latest = int(marks.version[0]), int(marks.position[0]), int(marks.latest[0])
        return version == 0 or (version <= self.version and position < self.stop and latest <= self.time)


class Waypoints:
    """States of one aggregate by version, up to `BYTES`.

    Where there is no room for all, they are kept the denser the nearer they are to where one is, so that the way to any
    version from one before it is short beside the way from here.
    """

    def __init__(self) -> None:
        self._versions: list[int] = []
        self._bases: list[Base] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def newest(self, limit: Limit) -> Base | None:
        """The last one that a limit allows."""
        at = bisect_left(self._bases, True, key=lambda base: not limit.allows(base))
        return self._bases[at - 1] if at else None

    def beyond(self, version: int) -> int | None:
        """The first version after this one at which there is a state."""
        at = bisect_right(self._versions, version)
        return self._versions[at] if at < len(self._versions) else None

    def keep(self, base: Base, *, near: int) -> None:
        """Keep a state; where there is no room, those go that are spare at the version `near`."""
        version = version_of(base)
        at = bisect_left(self._versions, version)
        if self.beyond(version - 1) == version:
            return
        self._versions.insert(at, version)
        self._bases.insert(at, base)
        self._size += _size(base)
        while self._size > BYTES:
            gone = self._spare(near)
            del self._versions[gone]
            self._size -= _size(self._bases.pop(gone))

    def _spare(self, near: int) -> int:
        """The one without which the gap is least in relation to how far away it is."""
        versions = np.array([0, *self._versions], np.int64)
        gap = np.append(versions[2:], 2 * versions[-1]) - versions[:-1]
        return int(np.argmin(gap / (1 + np.abs(versions[1:] - near))))


def version_of(base: Base) -> int:
    """The last version that the one state includes."""
    return int(base.marks.version[0])


def _size(base: Base) -> int:
    return _OVERHEAD + int(base.states.nbytes)
