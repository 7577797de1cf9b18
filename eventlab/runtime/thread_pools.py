"""Threads for all cores. They run work that releases the GIL: decoding, encoding, copying, folding.

Threads are kept between calls, because memory that a thread freed is cheap to that thread alone. There is a pool per
kind of work, so that work on files may wait for work on their columns, and never for other files.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Literal, TypeVar

from eventlab.runtime import cores

Kind = Literal["files", "columns", "folds"]
Found = TypeVar("Found")

_pools: dict[Kind, ThreadPoolExecutor] = {}


def _pool(kind: Kind) -> ThreadPoolExecutor:
    if kind not in _pools:
        _pools.setdefault(kind, ThreadPoolExecutor(cores.count(), f"eventlab-{kind}"))
    return _pools[kind]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # threads stay with the parent


def together(work: Sequence[Callable[[], Found]], kind: Kind) -> list[Found]:
    """The results of all pieces of work. When one fails, none is left running."""
    return list(ahead(work, kind, len(work)))


def ahead(work: Iterable[Callable[[], Found]], kind: Kind, most: int | None = None) -> Iterator[Found]:
    """The results of pieces of work, in order; up to `most` are begun ahead of the one taken, by default one a core."""
    most = cores.count() if most is None else most
    begun: deque[Future[Found]] = deque()
    try:
        for piece in work:
            begun.append(_pool(kind).submit(piece))
            if len(begun) > most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
        wait(begun)
