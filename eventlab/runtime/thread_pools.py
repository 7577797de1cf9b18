"""Work on all cores. What is called here spends its time where the GIL is released: decoding, encoding, copying.

Threads are kept, for memory that a thread gave back is cheap only to itself. There are floors of them, so that
work on files may wait for work on their columns, and never for its own kind.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Literal, TypeVar

Floor = Literal["files", "columns", "folds"]
Found = TypeVar("Found")

COUNT = os.cpu_count() or 1

_pools: dict[Floor, ThreadPoolExecutor] = {}


def _pool(floor: Floor) -> ThreadPoolExecutor:
    if floor not in _pools:
        _pools.setdefault(floor, ThreadPoolExecutor(COUNT, f"eventlab-{floor}"))
    return _pools[floor]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # threads stay with the parent


def together(work: Sequence[Callable[[], Found]], floor: Floor) -> list[Found]:
    """What each piece of work gives. None is left running, also where one fails."""
    return list(ahead(work, floor, len(work)))


def ahead(work: Iterable[Callable[[], Found]], floor: Floor, most: int = COUNT) -> Iterator[Found]:
    """What each piece of work gives, in order, with up to `most` begun that nobody took yet."""
    begun: deque[Future[Found]] = deque()
    try:
        for piece in work:
            begun.append(_pool(floor).submit(piece))
            if len(begun) > most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
        wait(begun)
