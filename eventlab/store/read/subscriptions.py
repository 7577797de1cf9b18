"""Calling handlers after commits: in position order, one at a time, and never inside an append.

A handler without a start position gets the commits of this process, and goes on after a failure. A handler with a start
position gets all events from there on, earlier ones and those of other processes too, and skips none: when it fails it
is removed, and can be added again from the position of the failure.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from eventlab.errors import HandlerFailed, InvalidEvent
from eventlab.store.blocks import Block

Handler = Callable[[pl.DataFrame], None]


@dataclass(slots=True, eq=False)
class _Subscription:
    name: str
    handler: Handler
    next: int | None
    """With a start position: the first position that it has not handled."""


@dataclass(slots=True)
class _Delivery:
    """A commit of this process: positions ``first:stop`` and its blocks by event type name."""

    first: int
    stop: int
    blocks: Mapping[str, Block]


class Handlers:
    """Handlers by event type name, and the commits that they have not got yet.

    Parameters
    ----------
    frame_of : callable
        Makes the frame that handlers get from a block.
    read : callable
        Gives frames of the events of a type (by name) from one position to another, in bounded pieces.
    """

    def __init__(
        self,
        frame_of: Callable[[Block], pl.DataFrame],
        read: Callable[[str, int, int], Iterator[pl.DataFrame]],
    ) -> None:
        self._frame_of, self._read = frame_of, read
        self._subscriptions: list[_Subscription] = []
        self._queue: deque[_Delivery] = deque()
        self._delivering = threading.Lock()

    def subscribe(self, name: str, handler: Handler, start: int | None, stop: int) -> Callable[[], None]:
        """Add a handler, and return a function that removes it. Call under the store's lock, then call `dispatch`.

        A handler that the type already has begins anew. `stop` is the log's stop position.

        Raises
        ------
        InvalidEvent
            `start` is not a position of the log.
        """
        if start is not None and (isinstance(start, bool) or not isinstance(start, int) or not 0 <= start <= stop):
            raise InvalidEvent("start is not a position of the log", got=start, expected=f"0 to {stop}")
        self._subscriptions = [one for one in self._subscriptions if one.name != name or one.handler != handler]
        if start is not None:
            self._queue.append(_Delivery(stop, stop, {}))
        subscription = _Subscription(name, handler, start)
        self._subscriptions.append(subscription)
        return lambda: self._remove(subscription)

    def _remove(self, subscription: _Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    @property
    def wanted(self) -> bool:
        """Whether there is any handler."""
        return bool(self._subscriptions)

    def enqueue(self, first: int, stop: int, blocks: Collection[Block]) -> None:
        """Queue a commit. Call under the store's lock, so that the queue keeps position order."""
        names = {one.name for one in self._subscriptions}
        if names:
            wanted = sorted((block for block in blocks if block.type.name in names), key=lambda b: int(b.position[0]))
            self._queue.append(_Delivery(first, stop, {block.type.name: block for block in wanted}))

    def dispatch(self) -> None:
        """Call handlers with all queued commits. A handler that appends only lengthens the queue."""
        failures: list[HandlerFailed] = []
        while self._queue and self._delivering.acquire(blocking=False):
            try:
                while self._queue:
                    self._deliver(self._queue.popleft(), failures)
            finally:
                self._delivering.release()
        for failure in failures:  # once the queue is empty: a warning may be raised as an error
            warnings.warn(failure, stacklevel=4)

    def _deliver(self, delivery: _Delivery, failures: list[HandlerFailed]) -> None:
        frames = {}
        for name, block in delivery.blocks.items():
            frames[name] = self._frame_of(block)
            for one in [one for one in self._subscriptions if one.name == name and one.next is None]:
                try:
                    one.handler(frames[name])
                except Exception as error:  # noqa: BLE001  the commit stands whatever a handler does
                    failures.append(_failure(one, int(block.position[0]), error, "It goes on with later commits"))
        for one in [one for one in self._subscriptions if one.next is not None]:
            self._catch_up(one, delivery, frames.get(one.name), failures)

    def _catch_up(
        self, one: _Subscription, delivery: _Delivery, frame: pl.DataFrame | None, failures: list[HandlerFailed]
    ) -> None:
        """Call a handler with all events from its position to the end of a delivery."""
        position = one.next or 0
        if position >= delivery.stop:
            return
        try:
            if position == delivery.first:
                pieces = iter(() if frame is None else (frame,))
            else:  # events before the handler, or of other processes, are read back
                pieces = self._read(one.name, position, delivery.stop)
            for piece in pieces:
                position = int(piece["position"][0])
                one.handler(piece)
                position = int(piece["position"][-1]) + 1
        except Exception as error:  # noqa: BLE001  the commit stands whatever a handler does
            self._remove(one)
            failures.append(_failure(one, position, error, "It was removed"))
        else:
            one.next = delivery.stop


def _failure(one: _Subscription, position: int, error: Exception, then: str) -> HandlerFailed:
    label = getattr(one.handler, "__qualname__", repr(one.handler))
    failure = HandlerFailed(
        f"handler {label} failed on {one.name} at position {position}: {error!r}. The commit stands. {then}; "
        f"lab.on({one.name!r}, start={position}) calls it with everything from there."
    )
    failure.position, failure.__cause__ = position, error
    return failure
