"""Executors: where tasks run, and by how many threads a fold's aggregates are shared. All give the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from eventlab.errors import ReducerError
from eventlab.events.frame import Int64Array
from eventlab.runtime import cores, thread_pools

_WORTH_A_CORE = 65_536
"""Events that take longer to fold than another thread takes to begin."""

Span = tuple[int, int]
"""Aggregates ``first:stop``."""

Outcome_co = TypeVar("Outcome_co", covariant=True)


class Task(Protocol[Outcome_co]):
    """Work as plain data: it can be pickled, as its outcome can, and runs wherever the store can be opened."""

    def run(self, store: Any, snapshots: Any, executor: Executor) -> Outcome_co:
        """Do the work on a store, with the snapshots that belong to it."""


class Executor(Protocol):
    """Runs tasks, and shares the aggregates of a fold out to threads."""

    @property
    def parts(self) -> int:
        """How many parts of a fold can run at once."""

    def run(self, tasks: Sequence[Task[Outcome_co]], store: Any, snapshots: Any) -> list[Outcome_co]:
        """The outcomes of tasks, in their order: one after the other, each with all that the executor has."""
        return [task.run(store, snapshots, self) for task in tasks]

    def fold(self, parts: Sequence[Callable[[], None]]) -> None:
        """Run the parts of a fold; the first error is raised when none is running any more."""


@dataclass(frozen=True, slots=True)
class Serial(Executor):
    """One part after the other, in the calling thread.

    Examples
    --------
    >>> Serial().parts
    1
    """

    @property
    def parts(self) -> int:
        return 1

    def fold(self, parts: Sequence[Callable[[], None]]) -> None:
        for part in parts:
            part()


@dataclass(frozen=True, slots=True)
class Threads(Executor):
    """Parts of a fold side by side, in threads that are kept between folds; kernels run without the GIL.

    Tasks run one after the other: each has all threads, which share its events.

    Parameters
    ----------
    count : int, optional
        By default as many as the cores that this process may use: EVENTLAB_CORES, else what CPU affinity and cgroup
        quota allow.

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
        return self.count or cores.count()

    def fold(self, parts: Sequence[Callable[[], None]]) -> None:
        thread_pools.together(parts, "folds")


def spans(work: Int64Array, executor: Executor) -> list[Span]:
    """Ranges of aggregates of about equal work, no more than are worth a thread each."""
    count = len(work)
    total = int(work.sum())
    parts = min(executor.parts, count, max(total // _WORTH_A_CORE, 1))
    if parts <= 1:
        return [(0, count)]
    done = np.cumsum(work)
    cuts = np.searchsorted(done, total * np.arange(1, parts) / parts, side="left") + 1
    bounds = np.unique(np.concatenate([[0], np.minimum(cuts, count), [count]])).tolist()
    return list(itertools.pairwise(bounds))
