"""A cursor over the past states of one aggregate: jumps and steps in about 16 ms, the time of a frame on a screen.

A move begins at the nearest known state (the current one, a cached one or a snapshot) and folds the events in between,
which are cached decoded. Caches change how long a move takes, never its answer.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from eventlab.errors import AsOfError
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import derive, expect, runs_interpreted
from eventlab.snapshots.collection import Snapshots
from eventlab.snapshots.states import Base
from eventlab.store.api import EventReader, Head, Selection
from eventlab.timetravel.advance import advance
from eventlab.timetravel.asof import AsOf, AsOfLike
from eventlab.timetravel.asof import as_of as moment_of
from eventlab.timetravel.cursor.event_cache import VERSIONS, EventCache
from eventlab.timetravel.cursor.state_cache import Limit, Waypoints, version_of
from eventlab.timetravel.moments import Bounds, heads_of
from eventlab.timetravel.reconstruct import Reconstructed, reconstruct
from eventlab.timetravel.state import State
from eventlab.timetravel.stream import between

_MEMBER = np.zeros(1, np.int64)

FEWEST = 32
"""Interpreted, folding this many events takes as long as copying a state without rows."""


class Cursor:
    """Moves over the past states of one aggregate. Made by ``lab.cursor``.

    Its states are those that ``lab.state`` gives, bit for bit. It keeps up to 64 MiB of decoded events and 32 MiB of
    states, and is for one thread at a time.

    Attributes
    ----------
    reducer : Reducer
    aggregate_id : str

    Examples
    --------
    >>> import eventlab as el
    >>> lab = el.open(":memory:")
    >>> receipt = lab.append("portfolio/demo", [el.PortfolioChange("BTCUSDT", 1.0, price) for price in (60.0, 61.0)])
    >>> cursor = lab.cursor(el.Portfolio, "portfolio/demo")
    >>> cursor.version, cursor.state.cash
    (2, -121.0)
    >>> cursor.step(-1).cash, cursor.seek(0).cash, cursor.step(2).cash
    (-60.0, 0.0, -121.0)
    """

    def __init__(
        self,
        store: EventReader,
        reducer: Reducer,
        aggregate_id: str,
        as_of: AsOfLike = None,
        *,
        snapshots: Snapshots,
        interpret: bool | None = None,
    ) -> None:
        self.reducer, self.aggregate_id = reducer, aggregate_id
        self._store, self._snapshots, self._interpret = store, snapshots, interpret
        self._events = EventCache(store, reducer, aggregate_id)
        self._waypoints = Waypoints()
        self._initial = Base.initial(reducer, 1)
        self._here: Base | None = None
        self._state = self.seek(as_of)

    @property
    def state(self) -> State:
        """The state where the cursor is."""
        return self._state

    @property
    def version(self) -> int:
        """The version of that state: of the last event that it includes."""
        return self._state.version

    @property
    def head(self) -> int:
        """The newest version that there is now, also after appends of other processes."""
        return self._last().version

    def seek(self, as_of: AsOfLike = None) -> State:
        """Go to a moment.

        Parameters
        ----------
        as_of : None, int, datetime, str, numpy.datetime64 or AsOf
            As in ``lab.state``: the latest; a version; an event time, inclusive; or a combination of bounds.

        Returns
        -------
        State
            Where the cursor now is.

        Raises
        ------
        AsOfError, FoldError, ReducerError
            As from ``lab.state``. The cursor stays where it is.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> changes = [el.BookChange("BTCUSDT", "bid", 100.0 + n, 1.0) for n in range(9)]
        >>> receipt = lab.append("book/BTCUSDT", changes)
        >>> cursor = lab.cursor(el.OrderBook, "book/BTCUSDT", as_of=3)
        >>> cursor.state.best_bid, cursor.seek(el.AsOf(position=6)).best_bid, cursor.seek().best_bid
        (102.0, 106.0, 108.0)
        """
        head, moment = self._last(), moment_of(as_of)
        version = self._version(head, moment)
        if version is not None:
            return self._go(version, head)
        found = reconstruct(
            self._store, self.reducer, [self.aggregate_id], moment,
            snapshots=self._snapshots, interpret=self._interpret,
        )  # fmt: skip
        self._here, self._state = None, State(self.reducer, found)
        return self._state

    def step(self, n: int = 1) -> State:
        """Move by versions: `n` forward, or back where it is negative.

        Returns
        -------
        State
            Where the cursor now is.

        Raises
        ------
        AsOfError
            Not a whole number, or a step before version 0 or past the newest version. The cursor stays where it is.
        FoldError, ReducerError
            As from ``lab.state``. The cursor stays where it is.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("signals/demo", el.TradingSignal("BTCUSDT", "buy", 1.0, "demo"))
        >>> cursor = lab.cursor(el.Signals, "signals/demo")
        >>> receipt = lab.append("signals/demo", el.TradingSignal("BTCUSDT", "sell", 1.0, "demo"))
        >>> cursor.version, cursor.head, cursor.step().version
        (1, 2, 2)
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer):
            raise AsOfError("a step is a whole number of versions", got=n)
        if not n:
            return self._state
        head, version = self._last(), self.version + int(n)
        if not 0 <= version <= head.version:
            raise AsOfError(
                f"a step of {n} from version {self.version} leads "
                + ("before the first state" if version < 0 else f"past the head of {self.aggregate_id!r}"),
                got=version,
                expected=f"a version from 0 to {head.version}",
            )
        return self._go(version, head)

    def __repr__(self) -> str:
        return f"cursor at {self._state!r}"

    def _repr_html_(self) -> str:
        return f"cursor at {self._state._repr_html_()}"

    def _last(self) -> Head:
        return heads_of(self._store, [self.aggregate_id])[0]

    def _version(self, head: Head, moment: AsOf) -> int | None:
        """The version that a moment includes all events up to, and none after; None where it may not include a prefix.

        Positions and commits rise with versions, so bounds on them cut the versions off somewhere. An event time does
        so only while event times rise with versions, too.
        """
        bounds = Bounds.of(self._store, head, [moment])
        if moment.time_ns is not None and not self._store.times_ascend_in(self.aggregate_id):
            return None
        version, time, stop = (int(bound[0]) for bound in (bounds.version, bounds.time, bounds.stop))
        limit = Limit(min(version, head.version), min(stop, head.position + 1), time)
        if limit.stop > head.position and time >= head.timestamp:
            return limit.version
        version = version_of(self._nearest(limit, head))
        while version < limit.version and (block := self._events.in_memory(version, head)) is not None:
            version = block.before + int(bounds.counts(block.before, block.position, block.timestamp)[0])
            if version < block.end:
                return version
        return self._version_read(version, limit) if version < limit.version else limit.version

    def _version_read(self, version: int, limit: Limit) -> int:
        """The last version within a limit, at least `version`, from the envelopes in the store."""
        selection = Selection(
            {}, others=True, aggregates=[self.aggregate_id],
            after_version={self.aggregate_id: version} if version else {},
            stop_position=limit.stop, until_version=limit.version, until_time=limit.time,
        )  # fmt: skip
        for frame in self._store.frames(selection):
            for table in frame.tables.values():
                rows = int(np.searchsorted(table.timestamp, limit.time, side="right"))
                version = max(version, int(table.version[rows - 1]) if rows else 0)
        return min(version, limit.version)

    def _nearest(self, limit: Limit, head: Head) -> Base:
        """The newest known state within a limit."""
        known = [self._initial, self._waypoints.newest(limit), self._here]
        base = max((one for one in known if one is not None and limit.allows(one)), key=version_of)
        version = version_of(base)
        beyond = min(limit.version, self._waypoints.beyond(version) or head.version)
        if beyond - version > 2 * self._spacing(base):
            found = self._snapshots.latest(
                self.reducer, [self.aggregate_id], version=limit.version, time=limit.time, stop_position=limit.stop
            )
            if version_of(found) > version:
                self._waypoints.keep(found, near=limit.version)
                return found
        return base

    def _go(self, version: int, head: Head) -> State:
        """Go to a version; states on the way are cached."""
        base = self._nearest(Limit(version, head.position + 1), head)
        emitted: pa.RecordBatch | None = None
        if self._interpret is None:
            expect(self.reducer, version - version_of(base))
        for block in self._events.after(version_of(base), version, head):
            # Versions to cache a state at, on the way to the end of the block or to the target.
            begin, spacing = version_of(base), self._spacing(base)
            on_the_way = range(begin - begin % spacing + spacing, version, spacing)
            for stop in [block.end] if block.end < version else [*on_the_way, version]:
                frame = between(block.frame, version_of(base), stop)
                base, emitted = advance(
                    self.reducer, base, frame, _MEMBER, emit=stop == version, interpret=self._interpret
                )
                if stop < version:
                    self._waypoints.keep(base, near=version)
        if emitted is None:
            emitted = derive(self.reducer, [self.aggregate_id], base.states, interpret=self._interpret)
        found = Reconstructed([self.aggregate_id], base.states, emitted, base.marks)
        self._here, self._state = base, State(self.reducer, found)
        return self._state

    def _spacing(self, base: Base) -> int:
        """Events from one cached state to the next, a power of two.

        About as many as are folded in the time that copies a state into a fold and out of it, and at most a block.
        Compiled, copying takes from 0.2 ms and an event 2 to 60 ns. Interpreted, a row of a table takes 1.6 us and an
        event 4 to 20.
        """
        if not runs_interpreted(self.reducer, self._interpret):
            return VERSIONS
        rows = sum(len(base.states.column(table.name).flatten()) for table in self.reducer.layout.tables)
        return int(min(1 << (FEWEST + rows // 8).bit_length(), VERSIONS))
