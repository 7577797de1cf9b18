"""When a snapshot is worth making."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eventlab.errors import SnapshotError
from eventlab.events.frame import Int64Array


class Policy(Protocol):
    """Decides at which versions of an aggregate a snapshot is made."""

    def should_snapshot(self, version: int) -> bool:
        """Whether to make one at this version."""

    def versions(self, after: int, upto: int) -> Int64Array:
        """All versions in ``(after, upto]`` at which to make one, ascending."""


@dataclass(frozen=True, slots=True)
class Every:
    """A snapshot every `n` events of an aggregate.

    Raises
    ------
    SnapshotError
        `n` is not a positive integer.

    Examples
    --------
    >>> Every(100).should_snapshot(200), Every(100).should_snapshot(0)
    (True, False)
    """

    n: int = 100

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise SnapshotError("Every takes a positive number of events", got=self.n, expected="e.g. Every(100)")

    def should_snapshot(self, version: int) -> bool:
        """True exactly at the positive multiples of `n`."""
        return version > 0 and version % self.n == 0

    def versions(self, after: int, upto: int) -> Int64Array:
        return np.arange(after // self.n + 1, upto // self.n + 1, dtype=np.int64) * self.n
