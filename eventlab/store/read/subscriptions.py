"""Calling handlers after commits: in position order, never one inside another, never to the harm of the append.

There are two kinds. One without a start position is called with what this process commits, and goes on after a
failure. One with a start position is called with everything from there on, also what was there before and what other
processes committed, and never skips: where it fails it is taken off, and can be put back from that very position.
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
    """With a start position: all below this one is done."""


@dataclass(slots=True)
class _Delivery:
    """A commit of this process: positions ``first:stop`` and its blocks by event type name."""

    first: int
    stop: int
    blocks: Mapping[str, Block]


class Handlers:
    """Handlers by event type name, and the commits still to be handed to them.

    Parameters
    ----------
    frame_of : callable
        A block as the frame that handlers get.
    read : callable
        Frames of the events of a type (by name) from a position to another, in bounded pieces.
    """

    def __init__(
        self,
        frame_of: Callable[[Block], pl.DataFrame],
        read: Callable[[str, int, int], Iterator[pl.DataFrame]],
    ) -> None:
        self._frame_of, self._read = frame_of, read
        self._subscriptions: list[_Subscription] = []
        self._line: deque[_Delivery] = deque()
        self._turn = threading.Lock()

    def subscribe(self, name: str, handler: Handler, start: int | None, stop: int) -> Callable[[], None]:
        """Add a handler; calling what is returned removes it. Call while commits are locked out, then `dispatch`.

        A handler that is there already for the type begins anew. `stop` is the log's stop position.

        Raises
        ------
        InvalidEvent
            `start` is not a position of the log.
        """
        if start is not None and (isinstance(start, bool) or not isinstance(start, int) or not 0 <= start <= stop):
            raise InvalidEvent("start is not a position of the log", got=start, expected=f"0 to {stop}")
        self._subscriptions = [one for one in self._subscriptions if one.name != name or one.handler != handler]
        if start is not None:
            self._line.append(_Delivery(stop, stop, {}))
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
        """Put a commit in line. Call while commits are still locked out, so that the line keeps position order."""
        names = {one.name for one in self._subscriptions}
        if names:
            wanted = sorted((block for block in blocks if block.type.name in names), key=lambda b: int(b.position[0]))
            self._line.append(_Delivery(first, stop, {block.type.name: block for block in wanted}))

    def dispatch(self) -> None:
        """Hand out what is in line. A handler that appends only lengthens the line: its turn comes after."""
        failures: list[HandlerFailed] = []
        while self._line and self._turn.acquire(blocking=False):
            try:
                while self._line:
                    self._deliver(self._line.popleft(), failures)
            finally:
                self._turn.release()
        for failure in failures:  # after the line is empty: a warning may have been turned into an error
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
            self._bring(one, delivery, frames.get(one.name), failures)

    def _bring(
        self, one: _Subscription, delivery: _Delivery, frame: pl.DataFrame | None, failures: list[HandlerFailed]
    ) -> None:
        """Bring a handler that has a position of its own up to the end of a delivery."""
        position = one.next or 0
        if position >= delivery.stop:
            return
        try:
            if position == delivery.first:
                pieces = iter(() if frame is None else (frame,))
            else:  # what lies between is older than the handler, or another process's: it is read back
                pieces = self._read(one.name, position, delivery.stop)
            for piece in pieces:
                position = int(piece["position"][0])
                one.handler(piece)
                position = int(piece["position"][-1]) + 1
        except Exception as error:  # noqa: BLE001  the commit stands whatever a handler does
            self._remove(one)
            failures.append(_failure(one, position, error, "It was taken off"))
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
