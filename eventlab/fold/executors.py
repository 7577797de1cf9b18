"""Who runs the parts of a fold: one core or several, with the same bits. An aggregate is never in two parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eventlab.errors import ReducerError
from eventlab.events.frame import Int64Array
from eventlab.runtime import thread_pools as cores

_WORTH_A_CORE = 65_536
"""Events that take longer to fold than another thread takes to begin."""

Span = tuple[int, int]
"""Aggregates ``first:stop``."""


class Executor(Protocol):
    """Runs the parts of a fold, each a stretch of its aggregates."""

    @property
    def parts(self) -> int:
        """How many parts can run at once."""

    def run(self, work: Sequence[Callable[[], None]]) -> None:
        """Run all of it; the first error of any is raised when none is running any more."""


@dataclass(frozen=True, slots=True)
class Serial:
    """One part after the other, in the calling thread.

    Examples
    --------
    >>> Serial().parts
    1
    """

    @property
    def parts(self) -> int:
        return 1

    def run(self, work: Sequence[Callable[[], None]]) -> None:
        for part in work:
            part()


@dataclass(frozen=True, slots=True)
class Threads:
    """Parts side by side in threads that are kept between folds; kernels run without the GIL.

    Parameters
    ----------
    count : int, optional
        As many as the machine has cores by default.

    Examples
    --------
    >>> Threads(2).parts
    2
    """

    count: int | None = None

    def __post_init__(self) -> None:
        count = self.count
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ReducerError("not a number of threads", got=count, expected="1 or more")

    @property
    def parts(self) -> int:
        return self.count or cores.COUNT

    def run(self, work: Sequence[Callable[[], None]]) -> None:
        cores.together(work, "folds")


def spans(work: Int64Array, executor: Executor) -> list[Span]:
    """Stretches of aggregates of about equal work, no more than are worth having."""
    count = len(work)
    total = int(work.sum())
    parts = min(executor.parts, count, max(total // _WORTH_A_CORE, 1))
    if parts <= 1:
        return [(0, count)]
    done = np.cumsum(work)
    cuts = np.searchsorted(done, total * np.arange(1, parts) / parts, side="left") + 1
    bounds = np.unique(np.concatenate([[0], np.minimum(cuts, count), [count]])).tolist()
    return list(itertools.pairwise(bounds))
