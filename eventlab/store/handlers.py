"""Calling handlers after commits: in position order, never one inside another, never to the harm of the append."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence

import polars as pl

from eventlab.errors import HandlerFailed

Handler = Callable[[pl.DataFrame], None]


class Handlers:
    """Handlers by event type name, and the frames still to be handed to them."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Handler]] = {}
        self._queue: deque[tuple[str, int, pl.DataFrame]] = deque()
        self._turn = threading.Lock()

    def subscribe(self, name: str, handler: Handler) -> Callable[[], None]:
        """Add a handler; calling what is returned removes it."""
        self._by_name.setdefault(name, []).append(handler)

        def undo() -> None:
            handlers = self._by_name.get(name, [])
            if handler in handlers:
                handlers.remove(handler)

        return undo

    def wants(self, name: str) -> bool:
        return bool(self._by_name.get(name))

    def enqueue(self, frames: Sequence[tuple[str, pl.DataFrame]]) -> None:
        """Put a commit's frames in line. Call while commits are still locked out, so that lines keep position order."""
        self._queue.extend((name, int(frame["position"][0]), frame) for name, frame in frames)

    def dispatch(self) -> None:
        """Hand out what is in line. A handler that appends only lengthens the line: its turn comes after."""
        failures: list[HandlerFailed] = []
        while self._queue and self._turn.acquire(blocking=False):
            try:
                while self._queue:
                    self._deliver(*self._queue.popleft(), failures)
            finally:
                self._turn.release()
        for failure in failures:  # after the line is empty: a warning may have been turned into an error
            warnings.warn(failure, stacklevel=4)

    def _deliver(self, name: str, position: int, frame: pl.DataFrame, failures: list[HandlerFailed]) -> None:
        for handler in tuple(self._by_name.get(name, ())):
            try:
                handler(frame)
            except Exception as error:  # noqa: BLE001  the commit stands whatever a handler does
                label = getattr(handler, "__qualname__", repr(handler))
                failures.append(
                    HandlerFailed(
                        f"handler {label} failed on {name} at position {position}: {error!r}. The commit stands."
                    )
                )
