"""A read model: states kept up to date by folding only what is new, and a checkpoint to go on from."""

from __future__ import annotations

import hashlib
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa

from eventlab.errors import InvalidEvent, StoreError, UnknownAggregate
from eventlab.events.frame import EventFrame
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import derive
from eventlab.projections.held import Held
from eventlab.runtime.progress import tqdm
from eventlab.store.api import Mark, Selection, Store
from eventlab.timetravel import state_frames as views
from eventlab.timetravel.reconstruct import Reconstructed
from eventlab.timetravel.state import State

SHORTEST_PAUSE = 1.0
"""Seconds between two checkpoints of one catch-up, at least; ten times as long as saving one takes, if that is more."""

_UNHEARD = 60.0
"""Seconds after which a follower looks without a hint: a system whose queue of notifications overflows drops some."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a projection is behind its log.

    Attributes
    ----------
    events : int
        Events of the log that come after its position, of whatever aggregate.
    seconds : float
        From the commit of the last event below its position (of the log's first event, where there is none) to the
        log's last commit: 0.0 when it is up to date.
    """

    events: int
    seconds: float


class Projection:
    """States of a reducer, kept in memory and in a checkpoint. Made by :meth:`eventlab.lab.lab.Lab.projection`.

    Its states are those of :meth:`eventlab.lab.lab.Lab.states` at its position, bit for bit. Any thread may use it.
    """

    def __init__(self, store: Store, reducer: Reducer, aggregate_id: str = "*", name: str | None = None) -> None:
        if not isinstance(aggregate_id, str) or not aggregate_id:
            raise InvalidEvent("not an aggregate id or pattern", got=aggregate_id, expected="text")
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidEvent("not a projection's name", got=name, expected="text")
        self._store, self._reducer, self._pattern = store, reducer, aggregate_id
        everything = aggregate_id == "*"
        self._name = name or (reducer.name if everything else f"{reducer.name} of {aggregate_id}")
        # What is folded from other aggregates is another read model, as what another reducer folds.
        scope = f"{reducer.fingerprint}\0{aggregate_id}".encode()
        self._fingerprint = reducer.fingerprint if everything else hashlib.sha256(scope).hexdigest()
        self._updating = threading.Lock()
        self._discard: Mark | None = None
        self._held = self._load() or Held.empty(reducer)
        self._had = self._held.position > 0
        self._saved = self._held.position
        self._saved_at, self._cost = time.monotonic(), 0.0
        self._rebuilding = store.checkpoints.others(self._name, self._fingerprint)

    def _load(self) -> Held | None:
        found = self._store.checkpoints.load(self._name, self._fingerprint)
        if found is None:
            return None
        why = found.unusable
        if why is None:
            try:
                return Held.decode(self._reducer, found.state, found.mark.position)
            except (pa.ArrowException, KeyError, IndexError, ValueError, TypeError) as error:
                why = f"it cannot be read: {error}"
        self._discard = found.mark
        warnings.warn(f"the checkpoint {self._name!r} is left aside, and built anew from events: {why}", stacklevel=4)
        return None

    def __repr__(self) -> str:
        return f"<eventlab.Projection {self._name!r} at position {self.position}, {len(self._held)} aggregates>"

    @property
    def name(self) -> str:
        """Under which its checkpoint is kept."""
        return self._name

    @property
    def reducer(self) -> Reducer:
        """What folds."""
        return self._reducer

    @property
    def position(self) -> int:
        """One past the last position folded."""
        return self._held.position

    @property
    def rebuilding(self) -> bool:
        """Whether a checkpoint that another reducer left under this name still stands.

        It is removed with the transaction that saves this projection's first one at the end of the log.
        """
        return self._rebuilding

    @property
    def lag(self) -> Lag:
        """How far it is behind the log; folds nothing."""
        stop, position = self._store.stop_position, self._held.position
        if position >= stop:
            return Lag(0, 0.0)
        mine, last = (
            int(self._store.recorded_at(np.array([at], np.int64))[0]) for at in (max(position - 1, 0), stop - 1)
        )
        return Lag(stop - position, (last - mine) / 1e9)

    def update(self, *, progress: bool = True) -> int:
        """Fold the events that came since, and save the checkpoint; returns how many of its aggregates' that were.

        A long catch-up saves checkpoints on its way, and goes on from the last one after a crash.

        Parameters
        ----------
        progress : bool
            Show a bar when it takes longer than a second.

        Raises
        ------
        FoldError
            A handler of the reducer failed. What was folded before stays.
        StoreCorrupt
            Events that cannot be read.
        StoreLocked, StoreFull
            The checkpoint was not saved; the states in memory are up to date.

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
        start = self._held.position
        if start >= stop:
            return 0
        with tqdm(
            total=stop - start, desc=self._name, unit=" events", unit_scale=True, delay=1.0, leave=False,
            disable=not progress,
        ) as bar:  # fmt: skip
            for frame in self._frames(start, stop):
                if count and self._is_due():
                    self._save_before(frame)
                self._held = self._held.advanced(self._reducer, frame)
                count += len(frame)
                bar.update(self._held.position - start - bar.n)
        self._held = self._held.at(stop)
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
        """Save what is folded, as far as the end of its last commit, if that lies before a frame's events."""
        recorded_at = self._store.recorded_at(np.array([self._held.position - 1], np.int64))
        end = self._store.position_at(int(recorded_at[0]))
        if end <= min(int(table.position.min()) for table in frame.tables.values() if len(table)):
            self._held = self._held.at(end)
            with suppress(StoreError):  # the next one, or the last, will be
                self._save(finished=False)

    def _save(self, *, finished: bool) -> None:
        held = self._held
        supersede = finished and self._rebuilding
        if held.position == 0 or (held.position == self._saved and not supersede):
            return
        begin = time.monotonic()
        if not self._store.read_only:
            self._had |= self._store.checkpoints.save(
                self._name,
                self._fingerprint,
                held.position,
                held.encode(self._reducer),
                had=self._had,
                discard=self._discard,
                supersede=supersede,
            )
            self._discard = None
        self._saved, self._saved_at = held.position, time.monotonic()
        self._cost = self._saved_at - begin
        if finished:
            self._rebuilding = False

    # -- states

    def state(self, aggregate_id: str) -> State:
        """The state of an aggregate at the projection's position, as :meth:`eventlab.lab.lab.Lab.state` gives it.

        Raises
        ------
        UnknownAggregate
            No event of this aggregate was folded.
        """
        held = self._held
        row = held.row(aggregate_id)
        if row is None:
            raise UnknownAggregate(
                "the projection has no event of this aggregate", got=aggregate_id, hint="Is it up to date? See .lag."
            )
        return views.single(self._reducer, self._found(held, [row]))

    def frame(self, aggregate_id: str = "*") -> pl.DataFrame:
        """The states of all aggregates it has events of, or of some, as :meth:`eventlab.lab.lab.Lab.states` gives them.

        Parameters
        ----------
        aggregate_id : str
            An id, or a pattern in which ``*`` stands for any run of characters.

        Raises
        ------
        UnknownAggregate
            No event of this aggregate was folded.
        """
        held = self._held
        chosen = [held.row(one) for one in self._store.aggregate_ids(aggregate_id)]
        rows = [row for row in chosen if row is not None]
        if not rows and "*" not in aggregate_id:
            raise UnknownAggregate(
                "the projection has no event of this aggregate", got=aggregate_id, hint="Is it up to date? See .lag."
            )
        return views.frame(self._reducer, self._found(held, rows))

    def _found(self, held: Held, rows: list[int]) -> Reconstructed:
        aggregates, base = held.take(rows)
        return Reconstructed(aggregates, base.states, derive(self._reducer, aggregates, base.states), base.marks)

    # -- following

    def follow(self, timeout: float | None = None) -> Follow:
        """Update whenever a process commits; iterating gives the number of events of each update.

        The first comes at once where there is something to catch up with. Waiting costs nothing: commits of this
        process wake it, and the system reports those of others. Checkpoints are saved as in a long catch-up, and at
        the end. It ends with ``close()``, which any thread may call, when the lab is closed, and after `timeout`.

        Parameters
        ----------
        timeout : float, optional
            Seconds without a new event after which it ends; never by default.

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


class Follow(Iterator[int]):
    """A live tail, made by :meth:`Projection.follow`. Closing it wakes who iterates; it is a context manager, too."""

    def __init__(self, projection: Projection, store: Store, timeout: float | None) -> None:
        self._projection, self._store, self._timeout = projection, store, timeout
        self._woken = threading.Event()
        self._deaf = store.listen(self._woken.set)
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
                self._woken.clear()  # before looking: a hint that comes while looking is kept for the next turn
                if self._closed:
                    raise StopIteration
                count = self._projection._step()  # noqa: SLF001  its other half
                if count:
                    return count
                left = _UNHEARD if quiet_until is None else min(quiet_until - time.monotonic(), _UNHEARD)
                if left <= 0 or (not self._woken.wait(left) and left < _UNHEARD):
                    raise StopIteration
        except BaseException as error:
            ended = isinstance(error, StoreError) and self._store.closed
            self.close()
            if ended:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """End it and save the checkpoint; a second time does nothing."""
        if self._closed:
            return
        self._closed = True
        self._woken.set()
        self._deaf()
        if not self._store.closed:
            self._projection._settle()  # noqa: SLF001
