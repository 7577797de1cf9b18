"""Read models: states that each update brings up to date by folding only new events, saved as checkpoints."""

from __future__ import annotations

import hashlib
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import InvalidEvent, StoreError, UnknownAggregate
from eventlab.events.frame import EventFrame
from eventlab.fold.declare.reducer import Reducer
from eventlab.projections.folded_states import FoldedStates
from eventlab.runtime.progress import tqdm
from eventlab.store.api import Mark, Selection, Store
from eventlab.timetravel.state import State, frame_of_states

SHORTEST_PAUSE = 1.0
"""Least seconds between two checkpoints of one catch-up; ten times the time of a save, if that is more."""

_POLL_SECONDS = 60.0
"""A follower polls after this time, since a full notification queue of the system drops notifications."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a projection is behind its log.

    Attributes
    ----------
    events : int
        Events of the log after its position, of all aggregates.
    seconds : float
        Time between the commit of the last event it has (or of the log's first event) and the log's last commit; 0.0
        when it is up to date.
    """

    events: int
    seconds: float


class Projection:
    """States of a reducer in memory and in a checkpoint. Made by :meth:`eventlab.lab.lab.Lab.projection`.

    Its states equal those of :meth:`eventlab.lab.lab.Lab.states` at its position, bit for bit. It is thread-safe.
    """

    def __init__(self, store: Store, reducer: Reducer, aggregate_id: str = "*", name: str | None = None) -> None:
        if not isinstance(aggregate_id, str) or not aggregate_id:
            raise InvalidEvent(
                "aggregate_id must be an id or a pattern", got=aggregate_id, expected="a non-empty string"
            )
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidEvent("name must be the name of a projection", got=name, expected="a non-empty string")
        self._store, self._reducer, self._pattern = store, reducer, aggregate_id
        everything = aggregate_id == "*"
        self._name = name or (reducer.name if everything else f"{reducer.name} of {aggregate_id}")
        # Another pattern is another read model, like another reducer.
        scope = f"{reducer.fingerprint}\0{aggregate_id}".encode()
        self._fingerprint = reducer.fingerprint if everything else hashlib.sha256(scope).hexdigest()
        self._updating = threading.Lock()
        self._discard: Mark | None = None
        loaded = self._load()
        self._folded = FoldedStates.empty(reducer) if loaded is None else loaded
        self._had = self._folded.position > 0
        self._saved = self._folded.position
        self._saved_at, self._cost = time.monotonic(), 0.0
        self._rebuilding = store.checkpoints.others(self._name, self._fingerprint)

    def _load(self) -> FoldedStates | None:
        found = self._store.checkpoints.load(self._name, self._fingerprint)
        if found is None:
            return None
        why = found.unusable
        if why is None:
            try:
                return FoldedStates.decode(self._reducer, found.state, found.mark.position)
            except (pa.ArrowException, KeyError, IndexError, ValueError, TypeError) as error:
                why = f"it cannot be read: {error}"
        self._discard = found.mark
        warnings.warn(f"the checkpoint {self._name!r} is ignored and rebuilt from events: {why}", stacklevel=4)
        return None

    def __repr__(self) -> str:
        return f"<eventlab.Projection {self._name!r} at position {self.position}, {len(self._folded)} aggregates>"

    @property
    def name(self) -> str:
        """The name of its checkpoint."""
        return self._name

    @property
    def reducer(self) -> Reducer:
        """Its reducer."""
        return self._reducer

    @property
    def position(self) -> int:
        """One past the last position folded."""
        return self._folded.position

    @property
    def rebuilding(self) -> bool:
        """Whether another reducer's checkpoint of this name still exists.

        The transaction that saves this projection's first checkpoint at the end of the log removes it.
        """
        return self._rebuilding

    @property
    def lag(self) -> Lag:
        """How far it is behind the log. Does not fold."""
        stop, position = self._store.stop_position, self._folded.position
        if position >= stop:
            return Lag(0, 0.0)
        mine, last = (
            int(self._store.recorded_at(np.array([at], np.int64))[0]) for at in (max(position - 1, 0), stop - 1)
        )
        return Lag(stop - position, (last - mine) / 1e9)

    def update(self, *, progress: bool = True) -> int:
        """Fold new events and save the checkpoint; returns the number of folded events of its aggregates.

        A long catch-up saves checkpoints as it goes, and continues from the last one after a crash.

        Parameters
        ----------
        progress : bool
            Show a progress bar after one second.

        Raises
        ------
        FoldError
            A handler of the reducer failed. States folded before it stay.
        StoreCorrupt
            Events cannot be read.
        StoreLocked, StoreFull
            The checkpoint is not saved; the states in memory are up to date.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 2.0, 100.0))
        >>> projection = lab.projection(el.Portfolio)
        >>> projection.lag.events, projection.update(), projection.lag.events
        (1, 1, 0)
        >>> projection.state("portfolio/demo").cash
        -200.0
        """
        with self._updating:
            count = self._catch_up(progress=progress)
            self._save(finished=True)
        return count

    def _catch_up(self, *, progress: bool) -> int:
        stop, count = self._store.stop_position, 0
        start = self._folded.position
        if start >= stop:
            return 0
        with tqdm(
            total=stop - start, desc=self._name, unit=" events", unit_scale=True, delay=1.0, leave=False,
            disable=not progress,
        ) as bar:  # fmt: skip
            for frame in self._frames(start, stop):
                if count and self._is_due():
                    self._save_before(frame)
                self._folded = self._folded.advanced(self._reducer, frame)
                count += len(frame)
                bar.update(self._folded.position - start - bar.n)
        self._folded = replace(self._folded, position=stop)
        return count

    def _frames(self, start: int, stop: int) -> Iterator[EventFrame]:
        chosen = None if self._pattern == "*" else self._store.aggregate_ids(self._pattern)
        if chosen == []:
            return iter(())
        selection = Selection(
            self._reducer.columns,
            others=True,
            aggregates=chosen,
            start_position=start,
            stop_position=stop,
            types=self._reducer.event_types,
        )
        return self._store.frames(selection)

    # -- checkpoints

    def _is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= max(SHORTEST_PAUSE, 10 * self._cost)

    def _save_before(self, frame: EventFrame) -> None:
        """Save the states at the end of their last commit, if it ends before a frame's events."""
        recorded_at = self._store.recorded_at(np.array([self._folded.position - 1], np.int64))
        end = self._store.position_at(int(recorded_at[0]))
        if end <= min(int(table.position.min()) for table in frame.tables.values() if len(table)):
            self._folded = replace(self._folded, position=end)
            with suppress(StoreError):  # a later save may succeed
                self._save(finished=False)

    def _save(self, *, finished: bool) -> None:
        folded = self._folded
        supersede = finished and self._rebuilding
        if folded.position == 0 or (folded.position == self._saved and not supersede):
            return
        begin = time.monotonic()
        if not self._store.read_only:
            self._had |= self._store.checkpoints.save(
                self._name,
                self._fingerprint,
                folded.position,
                folded.encode(self._reducer),
                had=self._had,
                discard=self._discard,
                supersede=supersede,
            )
            self._discard = None
        self._saved, self._saved_at = folded.position, time.monotonic()
        self._cost = self._saved_at - begin
        if finished:
            self._rebuilding = False

    # -- states

    def state(self, aggregate_id: str) -> State:
        """The state of an aggregate at the projection's position, like :meth:`eventlab.lab.lab.Lab.state`.

        Raises
        ------
        UnknownAggregate
            No event of this aggregate was folded.
        """
        folded = self._folded
        row = folded.row(aggregate_id)
        if row is None:
            raise _unknown(aggregate_id)
        return State(self._reducer, folded.take(self._reducer, [row]))

    def frame(self, aggregate_id: str = "*") -> pl.DataFrame:
        """The states of all or some of its aggregates, like :meth:`eventlab.lab.lab.Lab.states`.

        Parameters
        ----------
        aggregate_id : str
            An id, or a pattern in which ``*`` matches any characters.

        Raises
        ------
        UnknownAggregate
            No event of this aggregate was folded.
        """
        folded = self._folded
        chosen = [folded.row(one) for one in self._store.aggregate_ids(aggregate_id)]
        rows = [row for row in chosen if row is not None]
        if not rows and "*" not in aggregate_id:
            raise _unknown(aggregate_id)
        return frame_of_states(self._reducer, folded.take(self._reducer, rows))

    # -- following

    def follow(self, timeout: float | None = None) -> Follow:
        """Update after every commit of any process. The iterator yields the number of events of each update.

        The first update comes at once if there are new events. Waiting uses no CPU: commits of this process wake it,
        and the operating system reports those of others. It saves checkpoints like a long catch-up, and at the end. It
        ends with ``close()``, which any thread may call, when the lab closes, or after `timeout`.

        Parameters
        ----------
        timeout : float, optional
            Seconds without a new event after which it ends; None never ends.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 2.0, 100.0))
        >>> projection = lab.projection(el.Portfolio)
        >>> for count in projection.follow(timeout=0.1):
        ...     print(count, projection.state("portfolio/demo").cash)
        1 -200.0
        """
        return Follow(self, self._store, timeout)

    def _step(self) -> int:
        with self._updating:
            count = self._catch_up(progress=False)
            if self._rebuilding or self._is_due():
                with suppress(StoreError):
                    self._save(finished=True)
        return count

    def _settle(self) -> None:
        with self._updating, suppress(StoreError):
            self._save(finished=True)


def _unknown(aggregate_id: str) -> UnknownAggregate:
    return UnknownAggregate(
        "the projection has no event of this aggregate", got=aggregate_id, hint="Is it up to date? See .lag."
    )


class Follow(Iterator[int]):
    """An iterator over live updates, made by :meth:`Projection.follow`; also a context manager. `close` ends it."""

    def __init__(self, projection: Projection, store: Store, timeout: float | None) -> None:
        self._projection, self._store, self._timeout = projection, store, timeout
        self._woken = threading.Event()
        self._stop_listening = store.listen(self._woken.set)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __next__(self) -> int:
        quiet_until = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            while True:
                self._woken.clear()  # before the update, so that a notification during it is not lost
                if self._closed:
                    raise StopIteration
                count = self._projection._step()  # noqa: SLF001  same module
                if count:
                    return count
                left = _POLL_SECONDS if quiet_until is None else min(quiet_until - time.monotonic(), _POLL_SECONDS)
                if left <= 0 or (not self._woken.wait(left) and left < _POLL_SECONDS):
                    raise StopIteration
        except BaseException as error:
            ended = isinstance(error, StoreError) and self._store.closed
            self.close()
            if ended:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """End the iteration and save the checkpoint. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._woken.set()
        self._stop_listening()
        if not self._store.closed:
            self._projection._settle()  # noqa: SLF001
