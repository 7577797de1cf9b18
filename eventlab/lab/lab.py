"""The facade: everything that can be done with a store, as methods of `Lab`. No logic lives here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, overload

import numpy as np
import polars as pl

from eventlab import reducers
from eventlab.errors import AsOfError, InvalidEvent, StoreError
from eventlab.events.clock import Moment, to_ns
from eventlab.events.columns import Frame
from eventlab.fold.declare.reducer import ReducerLike, as_reducer
from eventlab.fold.executors import Executor, Threads
from eventlab.lab import scan as _scanning
from eventlab.lab.append import Cause, Group, batch_of_frame
from eventlab.lab.info import Info, info
from eventlab.snapshots.collection import Built, Snapshots
from eventlab.store.api import SupportsBackup, SupportsReadLog, SupportsSeal, SupportsVerify, frame_schema
from eventlab.store.names import EventClass, aggregate_named, aggregates_named, type_named
from eventlab.timetravel.asof import AsOfLike
from eventlab.timetravel.asof import as_of as moment_of
from eventlab.timetravel.calibration import calibrated
from eventlab.timetravel.reconstruct import StatesTask, reconstruct
from eventlab.timetravel.state import State, frame_of_states

if TYPE_CHECKING:  # a process that asks for a state need not load what writes files, or shows how far it is
    from eventlab.feeds.api import Feed
    from eventlab.lab.export import ExportReceipt, Format
    from eventlab.lab.ingest import IngestReceipt
    from eventlab.projections.projection import Projection
    from eventlab.store.api import Late, Receipt, Report, Store, Vacuumed
    from eventlab.timetravel.cursor.cursor import Cursor
    from eventlab.timetravel.diff.diff import Difference
    from eventlab.timetravel.marks.routing import MarkWith

HandlerT = TypeVar("HandlerT", bound=Callable[[pl.DataFrame], None])


class Lab:
    """Events, state and research over one store: that of :func:`eventlab.open`, or any other `Store`.

    Methods that need an optional ability, such as :meth:`verify`, raise StoreError where the store lacks it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshots = Snapshots.beside(store, calibrated)
        self._read_log = store.read_log if isinstance(store, SupportsReadLog) else None

    @property
    def store(self) -> Store:
        """The store of this lab."""
        return self._store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<eventlab.Lab {self._store.path!r}>"

    # -- events in

    def append(
        self,
        aggregate_id: str,
        events: object,
        *,
        expected_version: int | None = None,
        timestamp: Moment | Sequence[Moment] | None = None,
        metadata: Mapping[str, str] | None = None,
        cause: Cause | Sequence[Cause] = None,
        event_id: str | Sequence[str | None] | None = None,
        late: Late = "reject",
    ) -> Receipt:
        """Append one event or a list of events, of any types, to one aggregate; all of them or none.

        Parameters
        ----------
        aggregate_id : str
        events : event or sequence of events
            Instances of event classes, kept in this order.
        expected_version : int, optional
            The version the aggregate must have now; 0 means that it must not exist.
        timestamp : moment or sequence of moments, optional
            Event time: aware datetime, ISO string or int ns; one for all or one each. The commit's time by default.
        metadata : mapping of str to str, optional
            Kept with each of these events.
        cause : int or sequence of int, optional
            Position of the event that caused this one; one for all or one each.
        event_id : str or sequence of str, optional
            Your ids for the events. Appending the same events with the same ids again changes nothing and returns the
            first receipt.
        late : {"reject", "clamp", "accept"}
            How to treat an event time before the aggregate's latest one: refuse it; raise it to the latest one and
            count it; or keep it as a back-dated fact and count it. A back-dated event is folded in version order like
            any other, but a state as of a time includes it from its event time on: it corrects the past, except for
            states with an earlier `known_at`.

        Raises
        ------
        InvalidEvent, LateEvent, WrongVersion, DuplicateEvent
            A value that an event cannot have; a time that goes back; another version than expected; a known id with
            other content.
        StoreLocked, StoreFull, ReadOnlyStore
            Nothing was kept.
        """
        group = Group(self._store, late)
        group.append(
            aggregate_id, events, expected_version=expected_version, timestamp=timestamp, metadata=metadata,
            cause=cause, event_id=event_id,
        )  # fmt: skip
        return group.commit()

    def append_frame(
        self,
        event_class: EventClass,
        frame: Frame,
        *,
        aggregate_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        late: Late = "reject",
        expected_version: int | None = None,
    ) -> Receipt:
        """Append the rows of a Polars or Arrow frame in one atomic commit.

        Parameters
        ----------
        event_class : event class, its name, or EventType
        frame : polars.DataFrame, pyarrow.Table or pyarrow.RecordBatch
            The payload columns, and optionally `timestamp` (the commit's time by default), `cause`, `event_id` and
            `aggregate_id`.
        aggregate_id : str, optional
            An id, or a template over the text columns such as ``"market/{symbol}"``. The default is the column
            `aggregate_id`; without such a column, market events go to the aggregates of the feeds, ``market/{symbol}``,
            ``book/{symbol}``, ``quote/{symbol}``, ``bar/{symbol}``, ``funding/{symbol}``.
        expected_version : int, optional
            The version that each aggregate in the frame must have.
        metadata, late
            As in :meth:`append`.

        Returns
        -------
        Receipt
            For a frame without rows: `count` and `version` 0, `first_position` the next free position and `position`
            the one before; nothing is recorded.
        """
        batch = batch_of_frame(
            type_named(self._store, event_class), frame, aggregate_id=aggregate_id, metadata=metadata
        )
        expected = None if expected_version is None else dict.fromkeys(batch.names(), expected_version)
        return self._store.commit([batch], expected=expected, late=late)

    def ingest(self, feed: Feed, *, late: Late = "reject", progress: bool = True) -> IngestReceipt:
        """Append all of a source once, chunk by chunk.

        The same source (feed, parameters and content) is never appended twice: a rerun returns at once, and resumes
        where an interrupted one stopped.

        Parameters
        ----------
        feed : Feed
            From `el.feeds`.
        late : {"reject", "clamp", "accept"}
            As in :meth:`append`.
        progress : bool
            Show a bar.

        Raises
        ------
        FeedError
            The feed cannot read the source. Chunks before the error stay.
        InvalidEvent
            An aggregate already has event times of another clock.
        """
        from eventlab.lab.ingest import ingest

        return ingest(self._store, feed, late=late, progress=progress)

    def commit(self, *, late: Late = "reject") -> Group:
        """Group appends to several aggregates into one atomic commit.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> with lab.commit() as c:
        ...     signal = c.append("signals/demo", el.TradingSignal("BTCUSDT", "buy", 1.0, "demo"))
        ...     fill = c.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 1.0, 61_000.0), cause=signal)
        >>> fill.position
        1
        """
        return Group(self._store, late)

    # -- events out

    def events(
        self,
        event_class: EventClass | None = None,
        aggregate_id: str | None = None,
        start: Moment | None = None,
        stop: Moment | None = None,
        columns: Sequence[str] | None = None,
        *,
        event_id: str | None = None,
    ) -> pl.DataFrame:
        """Events of one type in position order.

        Parameters
        ----------
        event_class : event class, its name, or EventType
        aggregate_id : str, optional
            An id, or a pattern in which ``*`` stands for any run of characters. All by default.
        start, stop : moment, optional
            Event times; `start` inclusive, `stop` exclusive.
        columns : sequence of str, optional
            Payload fields and any of position, aggregate_id, version, timestamp, cause, event_id, metadata,
            recorded_at, event_type. By default the first four, the payload and cause.
        event_id : str, optional
            Look up the one event with this id instead, of any type. A computed id takes a search through all ids.

        Returns
        -------
        polars.DataFrame

        Raises
        ------
        UnknownAggregate, UnknownEventType, AsOfError, InvalidEvent
        """
        if event_id is not None:
            return self._event(event_id, event_class, aggregate_id, start, stop, columns)
        if event_class is None:
            raise InvalidEvent("no event class is given", hint="Name an event class, e.g. lab.events(el.MarketData).")
        declared = type_named(self._store, event_class)
        rows = self._store.rows(
            declared,
            aggregates=aggregates_named(self._store, aggregate_id),
            start=_moment(start, "start"),
            stop=_moment(stop, "stop"),
            columns=columns,
        )
        frames = list(rows) or [pl.DataFrame(schema=frame_schema(declared, columns))]
        return frames[0] if len(frames) == 1 else pl.concat(frames)

    def scan(self, event_class: EventClass) -> pl.LazyFrame:
        """Events of one type as a lazy frame, with the columns of :meth:`events`.

        Only the selected columns are read, and only events that conditions on `timestamp`, `position` and
        `aggregate_id` allow. It reads when collected, and sees the log as it is then.
        """
        return _scanning.scan(self._store, type_named(self._store, event_class))

    def export(
        self,
        path: str | Path,
        event_class: EventClass | None = None,
        aggregate_id: str | None = None,
        start: Moment | None = None,
        stop: Moment | None = None,
        *,
        format: Format | None = None,  # noqa: A002  the word a caller expects
        progress: bool = True,
    ) -> ExportReceipt:
        """Write events to files for other programs; ``el.feeds.exported`` reads them into another lab.

        A file gets its name when it is complete and durable, and carries a proof of all its bytes. It has the whole
        event: payload, aggregate, version, position, event time, cause, supplied id, metadata, commit time, and the
        schema of its type; and the store's id, from which computed ids follow. Events of older versions of a type are
        written in its newest version, as reads give them.

        Parameters
        ----------
        path : str or Path
            ``.pb`` or ``.binpb``: a stream of length-delimited DomainEvents of all types, in position order.
            ``.parquet``, ``.arrow``, ``.feather``: a file of one event type. Both replace an existing file. Without a
            suffix: a new folder with such a file for each type, and a manifest.
        event_class : event class, its name, or EventType, optional
            All types by default.
        aggregate_id, start, stop
            As in :meth:`events`.
        format : {"protobuf", "parquet", "arrow"}, optional
            By the suffix; Parquet for the files of a folder by default.
        progress : bool
            Show a bar.

        Raises
        ------
        InvalidEvent, UnknownAggregate, UnknownEventType, AsOfError
            No event to export, or several types for a file that takes one.
        StoreFull
            Nothing was left of it.

        Examples
        --------
        >>> import eventlab as el, tempfile
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("signals/demo", el.TradingSignal("BTCUSDT", "buy", 1.0, "demo"))
        >>> lab.export(f"{tempfile.mkdtemp()}/signals.parquet", progress=False).counts
        {'trading_signal': 1}
        """
        from eventlab.lab.export import Scope, export

        scope = Scope(event_class, aggregate_id, _moment(start, "start"), _moment(stop, "stop"))
        return export(self._store, path, scope, format=format, progress=progress)

    def on(self, event_class: EventClass, start: int | None = None) -> Callable[[HandlerT], HandlerT]:
        """Call a function after each commit of this process with its events of one type, as a frame.

        Handlers run in position order, after the append, one at a time: the commits of a handler come after the frame
        it is called with. A function that is registered again begins anew. If a handler fails, the append stands, and a
        `HandlerFailed` warning has the position of the frame's first event; the handler goes on with later commits.

        Parameters
        ----------
        event_class : event class, its name, or EventType
        start : int, optional
            Call it first with all events from this position on, in frames of bounded size, and after each commit of
            this process also with the commits of other processes. Such a handler gets every event once: if it fails, it
            is removed, and can be registered again from the reported position.

        Raises
        ------
        UnknownEventType, InvalidEvent
            `start` is not a position of the log.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 2.0, 100.0))
        >>> @lab.on(el.PortfolioChange, start=0)
        ... def show(frame):
        ...     print(frame["quantity"].to_list())
        [2.0]
        >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", -1.0, 110.0))
        [-1.0]
        """
        name = type_named(self._store, event_class).name

        def register(handler: HandlerT) -> HandlerT:
            self._store.subscribe(name, handler, start)
            return handler

        return register

    # -- state

    def state(
        self,
        reducer: ReducerLike,
        aggregate_id: str,
        as_of: AsOfLike = None,
        *,
        mark_with: MarkWith | None = None,
        interpret: bool | None = None,
    ) -> State:
        """The state of an aggregate at a moment.

        Parameters
        ----------
        reducer : Reducer
            One of eventlab's, or declared with ``@el.reducer``.
        aggregate_id : str
        as_of : None, int, datetime, str, numpy.datetime64 or AsOf
            None is the latest; or a version; an event time, inclusive; a combination of bounds.
        mark_with : str or sequence of str, optional
            An id, a pattern such as ``"market/*"``, or a list of these: events of these aggregates go to the handlers
            that the reducer marks ``@el.on(..., routed="symbol")``, merged with the aggregate's own events by
            (timestamp, position). They count from the first own event that names their key. `as_of` bounds them like
            own events; a version bounds them by the own event of that version. `version`, `position` and `timestamp`
            remain those of the last own event. Snapshots are not used. An aggregate with back-dated events, as far as
            the moment knows, is refused: version order and the order of event times differ.
        interpret : bool, optional
            True runs the handlers as plain Python, for a debugger; False compiles them at once. The default is the
            quicker way; the answer is the same, bit for bit.

        Raises
        ------
        UnknownAggregate, AsOfError, FoldError, ReducerError

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 2.0, 100.0, fee=1.0))
        >>> state = lab.state(el.Portfolio, "portfolio/demo")
        >>> state.cash, state.version
        (-201.0, 1)
        >>> receipt = lab.append("market/BTCUSDT", el.MarketData("BTCUSDT", 110.0, 0.5))
        >>> marked = lab.state(el.Portfolio, "portfolio/demo", mark_with="market/*")
        >>> state.equity, marked.equity, marked.version
        (-1.0, 19.0, 1)
        """
        reducer, aggregate_id, moment = as_reducer(reducer), aggregate_named(aggregate_id), moment_of(as_of)
        found = reconstruct(
            self._store, reducer, [aggregate_id], moment,
            mark_with=mark_with, snapshots=self._snapshots, interpret=interpret,
        )  # fmt: skip
        if mark_with is None and self._read_log is not None and self._read_log.recording:
            (head,) = self._store.heads([aggregate_id])
            self._read_log.record(reducer.name, aggregate_id, int(found.marks.version[0]), head.version)
        return State(reducer, found)

    @overload
    def states(  # type: ignore[overload-overlap]  # to a type checker a sequence might be a reducer
        self,
        reducer: Sequence[ReducerLike],
        aggregate_id: str = "*",
        as_of: AsOfLike = None,
        *,
        interpret: bool | None = None,
        executor: Executor | None = None,
    ) -> list[pl.DataFrame]: ...

    @overload
    def states(
        self,
        reducer: ReducerLike,
        aggregate_id: str = "*",
        as_of: AsOfLike = None,
        *,
        interpret: bool | None = None,
        executor: Executor | None = None,
    ) -> pl.DataFrame: ...

    def states(
        self,
        reducer: ReducerLike | Sequence[ReducerLike],
        aggregate_id: str = "*",
        as_of: AsOfLike = None,
        *,
        interpret: bool | None = None,
        executor: Executor | None = None,
    ) -> pl.DataFrame | list[pl.DataFrame]:
        """The states of many aggregates at a moment, in one pass over the events.

        Parameters
        ----------
        reducer : Reducer or sequence of Reducer
            Several are folded in the same pass; so are many settings of one, e.g. ``[Ewma(alpha=a) for a in grid]``.
        aggregate_id : str
            An id, or a pattern in which ``*`` stands for any run of characters.
        as_of, interpret
            As in :meth:`state`.
        executor : Executor, optional
            ``el.executors.Serial()`` or ``el.executors.Threads(n)``. All cores by default; the answer is the same, bit
            for bit.

        Returns
        -------
        polars.DataFrame, or a list of one for each of several reducers
            One row for each aggregate, sorted by id: aggregate_id, version, position, timestamp, fields, properties,
            and tables as lists of structs.

        Raises
        ------
        UnknownAggregate, AsOfError, FoldError, ReducerError
        """
        several = isinstance(reducer, Sequence)
        reducers = [as_reducer(one) for one in (reducer if isinstance(reducer, Sequence) else [reducer])]
        aggregates = aggregates_named(self._store, aggregate_id)
        chosen = self._store.aggregate_ids() if aggregates is None else aggregates
        task = StatesTask.of(self._store, reducers, chosen, moment_of(as_of), interpret=interpret)
        (found,) = (executor or Threads()).run([task], self._store, self._snapshots)
        frames = [frame_of_states(one, states) for one, states in zip(reducers, found, strict=True)]
        return frames if several else frames[0]

    def join_asof(
        self,
        frame: Frame,
        reducer: ReducerLike,
        aggregate_id: str,
        on: str = "timestamp",
        *,
        suffix: str = "_right",
        mark_with: MarkWith | None = None,
        interpret: bool | None = None,
    ) -> pl.DataFrame:
        """Join past states to the rows of a frame: to each row the state as of its time.

        It takes one pass over the events of each aggregate, however many rows there are.

        Parameters
        ----------
        frame : polars.DataFrame, pyarrow.Table or pyarrow.RecordBatch
            Rows in any order, which is kept.
        reducer : Reducer
        aggregate_id : str
            An id, or a template over columns of text or integers such as ``"market/{symbol}"``: each row then joins the
            aggregate that it names.
        on : str
            The column of moments. Datetimes with a time zone, or ISO strings, are event times, inclusive; integers are
            versions. Where it is null, or a column of the template is, the state's columns are null.
        suffix : str
            Appended to the names of state columns that the frame already has.
        mark_with, interpret
            As in :meth:`state`.

        Returns
        -------
        polars.DataFrame
            The frame's columns, then `version`, fields and properties of the state. A moment before the first event has
            the initial state, at version 0.

        Raises
        ------
        UnknownAggregate
            A row names an aggregate without events.
        AsOfError
            Naive datetimes, a column that holds no moments, or a version past the last.
        InvalidEvent
            Not a frame; no such column; a template of other columns; a name that is taken even with the suffix.
        FoldError, ReducerError

        Examples
        --------
        >>> import eventlab as el, polars as pl
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append(
        ...     "market/BTC", [el.MarketData("BTC", price, 1.0) for price in (100.0, 103.0)],
        ...     timestamp=["2024-01-01T00:00:00Z", "2024-01-01T00:00:02Z"],
        ... )
        >>> signals = pl.DataFrame({
        ...     "symbol": ["BTC", "BTC"],
        ...     "timestamp": ["2024-01-01T00:00:02Z", "2024-01-01T00:00:01Z"],
        ... })
        >>> lab.join_asof(signals, el.Trades, "market/{symbol}")["last"].to_list()
        [103.0, 100.0]
        """
        from eventlab.timetravel.join_asof import join_asof

        return join_asof(
            self._store, as_reducer(reducer), frame, aggregate_id,
            on=on, suffix=suffix, mark_with=mark_with, interpret=interpret,
        )  # fmt: skip

    def diff(
        self,
        reducer: ReducerLike,
        aggregate_id: str,
        a: AsOfLike,
        b: AsOfLike = None,
        *,
        interpret: bool | None = None,
    ) -> Difference:
        """What changed between two moments of an aggregate, and which events changed it.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
        a, b : None, int, datetime, str, numpy.datetime64 or AsOf
            The moments, as in :meth:`state`; `b` is the latest by default. If the later one comes first, the difference
            runs backwards. Moments may differ in `known_at` alone: the difference is then what was learned between.
        interpret : bool, optional
            As in :meth:`state`.

        Returns
        -------
        Difference
            ``.before`` and ``.after``, the states; ``.count`` and ``.events``, the events that only one moment
            includes; and ``.changes``, a frame with a row for each value that differs, bit by bit, where NaN equals
            NaN:

            - `field`, a field, property or table. Of a table also `key`, which is a ladder's price, and `column`; of an
              array `place`, the element; of a queue `place`, counted for each key from the oldest row of `before`. The
              order of a table's keys is not compared.
            - `change`: ``changed``, or of a table's rows ``added`` or ``removed``.
            - `before`, `after`: the values as exact text; `delta`: after - before of numbers.
            - `changed_by`, `first_position`, `last_position`: how many of the events changed the value, and the
              positions of the first and last of these; null for tables.

        Raises
        ------
        UnknownAggregate, AsOfError, FoldError, ReducerError

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> fills = [el.PortfolioChange("BTC", 2.0, 100.0), el.PortfolioChange("BTC", -1.0, 110.0)]
        >>> receipt = lab.append("portfolio/demo", fills)
        >>> difference = lab.diff(el.Portfolio, "portfolio/demo", 1, 2)
        >>> difference.changes.select("field", "before", "after", "delta", "changed_by").row(0)
        ('cash', '-200.0', '-90.0', 110.0, 1)
        >>> difference.events["quantity"].to_list()
        [-1.0]
        """
        from eventlab.timetravel.diff.diff import diff

        return diff(
            self._store, as_reducer(reducer), aggregate_named(aggregate_id), moment_of(a), moment_of(b),
            snapshots=self._snapshots, interpret=interpret,
        )  # fmt: skip

    def history(
        self,
        reducer: ReducerLike,
        aggregate_id: str,
        at: Iterable[AsOfLike] | pl.Series | None = None,
        every: str | dt.timedelta | None = None,
        *,
        mark_with: MarkWith | None = None,
        tables: bool = False,
        interpret: bool | None = None,
    ) -> pl.DataFrame:
        """How a state developed: a row per handled event, per moment in `at`, or per bar of `every`.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
        at : iterable of as_of, optional
            Moments in any order; the rows keep order and duplicates, with a column `at`.
        every : str or timedelta, optional
            E.g. ``"1m"``: moments aligned to the epoch. The row at t is the state after all events up to t, so a bar
            covers (t - every, t].
        mark_with : str or sequence of str, optional
            As in :meth:`state`. Bars then run to that of the last event, own or routed; otherwise there is a row for
            each handled own event, with everything routed before it.
        tables : bool
            Also return keyed tables, queues and ladders, as lists of structs.
        interpret : bool, optional
            As in :meth:`state`.

        Returns
        -------
        polars.DataFrame
            `at` if moments were given, then version, position, timestamp, fields and properties.

        Raises
        ------
        UnknownAggregate, AsOfError, FoldError, ReducerError
        """
        from eventlab.timetravel.history.history import history

        reducer, aggregate_id = as_reducer(reducer), aggregate_named(aggregate_id)
        return history(
            self._store, reducer, aggregate_id,
            at=at, every=every, mark_with=mark_with, tables=tables, interpret=interpret,
        )  # fmt: skip

    def cursor(
        self, reducer: ReducerLike, aggregate_id: str, as_of: AsOfLike = None, *, interpret: bool | None = None
    ) -> Cursor:
        """A cursor that moves forward and back through the past states of an aggregate.

        A move takes milliseconds instead of a replay: the events around the cursor are in memory, and so are states
        along the way.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
        as_of
            The first position of the cursor, as in :meth:`state`.
        interpret : bool, optional
            As in :meth:`state`.

        Returns
        -------
        Cursor
            ``.seek(as_of)``, ``.step(n)``, ``.state``, ``.version``, ``.head``

        Raises
        ------
        UnknownAggregate, AsOfError, FoldError, ReducerError

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> prices = (100.0, 101.0, 102.0)
        >>> receipt = lab.append("book/BTCUSDT", [el.BookChange("BTCUSDT", "bid", price, 1.0) for price in prices])
        >>> cursor = lab.cursor(el.OrderBook, "book/BTCUSDT")
        >>> cursor.state.best_bid, cursor.step(-1).best_bid, cursor.seek(1).best_bid
        (102.0, 101.0, 100.0)
        """
        from eventlab.timetravel.cursor.cursor import Cursor

        reducer, aggregate_id = as_reducer(reducer), aggregate_named(aggregate_id)
        return Cursor(self._store, reducer, aggregate_id, as_of, snapshots=self._snapshots, interpret=interpret)

    def projection(self, reducer: ReducerLike, aggregate_id: str = "*", name: str | None = None) -> Projection:
        """A read model: the states of a reducer, brought up to date by folding only new events.

        It begins at its checkpoint, which is in the store and disposable: if it is missing, damaged, or of another
        reducer, states are rebuilt from events. Another reducer's checkpoint of the same name stays until this one is
        up to date.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
            An id, or a pattern in which ``*`` stands for any run of characters; later aggregates are included.
        name : str, optional
            The name of its checkpoint; by default the reducer's, and the pattern.

        Returns
        -------
        Projection
            ``.update()``, ``.lag``, ``.state(id)``, ``.frame()``, ``.follow()``

        Raises
        ------
        ReducerError, InvalidEvent

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 2.0, 100.0))
        >>> portfolios = lab.projection(el.Portfolio)
        >>> portfolios.update()
        1
        >>> portfolios.frame()["cash"].to_list()
        [-200.0]
        """
        from eventlab.projections.projection import Projection

        return Projection(self._store, as_reducer(reducer), aggregate_id, name)

    @property
    def snapshots(self) -> Snapshots:
        """States kept at chosen versions: policy, build, table, drop, verify."""
        reducers.declare()  # so that snapshots of built-in reducers are known before these are used
        return self._snapshots

    def snapshot(self, reducer: ReducerLike, aggregate_id: str, version: int | None = None) -> Built:
        """Make one snapshot now, of the latest state or of a version, unless it exists.

        Raises
        ------
        UnknownAggregate, SnapshotError, ReadOnlyStore, StoreFull, FoldError, ReducerError

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("portfolio/demo", el.PortfolioChange("BTCUSDT", 2.0, 100.0))
        >>> lab.snapshot(el.Portfolio, "portfolio/demo").snapshots
        1
        """
        return self._snapshots.take(reducer, aggregate_id, version)

    # -- audit and care

    def seal(self) -> int:
        """Turn small commits into segment files, and small segments into larger ones. It also happens automatically.

        Readers in all processes go on meanwhile.

        Returns
        -------
        int
            How many events were in small commits.

        Raises
        ------
        StoreFull, StoreLocked, ReadOnlyStore, StoreCorrupt
            Either nothing has changed, or all of it is done.

        Warns
        -----
        DamagedSegment
            A segment with a damaged file stays as it is; the others are merged without it.
        """
        return self._sealed.seal()

    def archive(self, before: Moment | None = None) -> int:
        """Rewrite events recorded before a moment with the archive codec, which takes less room.

        Parameters
        ----------
        before : datetime or ISO string, optional
            Only segments whose events were all recorded before it are rewritten. Everything by default.

        Returns
        -------
        int
            How many events were rewritten.

        Raises
        ------
        AsOfError
            Not a moment.
        StoreFull, StoreLocked, ReadOnlyStore
            Segments before the one that failed are rewritten, the others are unchanged.
        """
        return self._sealed.archive(_moment(before, "before"))

    def vacuum(self) -> Vacuumed:
        """Remove files that merging and archiving replaced and that no reader uses, and free pages of the catalog.

        Each merge does so, too; this removes files that were still being read then.
        """
        return self._sealed.vacuum()

    def verify(self) -> Report:
        """Read everything back and prove that nothing was lost or changed.

        Raises
        ------
        StoreCorrupt
            Something is damaged; the message names the first file, commit or positions.
        """
        if not isinstance(self._store, SupportsVerify):
            raise self._unsupported("be verified", SupportsVerify)
        return self._store.verify()

    def backup(self, path: str | Path) -> Report:
        """Copy the lab into a new directory while others go on reading and writing.

        The copy has everything appended before. It is verified like :meth:`verify` does, and gets its name when it is
        complete and durable. Snapshots are not copied: they can be built again. A lab in memory can be copied, too.

        Parameters
        ----------
        path : str or Path
            A new path or an empty directory.

        Returns
        -------
        Report
            The proof of the copy. Its `head` is the digest of the last commit in it.

        Raises
        ------
        NotAStore, ReadOnlyStore, StoreFull, StoreCorrupt, StoreLocked
            The path is taken; it cannot be written; something is damaged; others changed the store too often to copy
            it.

        Examples
        --------
        >>> import eventlab as el, tempfile
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("signals/demo", el.TradingSignal("BTCUSDT", "buy", 1.0, "demo"))
        >>> lab.backup(f"{tempfile.mkdtemp()}/copy").events
        1
        """
        if not isinstance(self._store, SupportsBackup):
            raise self._unsupported("be backed up", SupportsBackup)
        return self._store.backup(path)

    def info(self) -> Info:
        """A summary of this lab: events, commits, aggregates, event types, bytes, digest."""
        return info(self._store)

    def read_log(self) -> pl.DataFrame:
        """The recorded reads of :meth:`state`, now or earlier, by processes that opened with ``record_reads=True``.

        Reads without `mark_with` are recorded, the last 262,144 at most. They are written every 1,024 reads and when
        the lab is closed; ``lab.store.read_log`` can write them at once, and clear them.

        Returns
        -------
        polars.DataFrame
            One row for each read, in the order of writing: reducer (its name), aggregate_id, version, and head, the
            last version at that time.

        Warns
        -----
        ReadsDropped
            Some recorded reads are damaged and left out.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:", record_reads=True)
        >>> receipt = lab.append("a", [el.TradingSignal("BTC", "buy", 1.0, "demo")] * 3)
        >>> state = lab.state(el.Signals, "a", as_of=2)
        >>> lab.read_log().rows()
        [('Signals', 'a', 2, 3)]
        """
        if self._read_log is None:
            raise self._unsupported("record reads", SupportsReadLog)
        return self._read_log.frame()

    def close(self) -> None:
        """Close the store; a second time does nothing."""
        self._snapshots.close()
        self._store.close()

    @property
    def _sealed(self) -> SupportsSeal:
        if not isinstance(self._store, SupportsSeal):
            raise self._unsupported("be sealed", SupportsSeal)
        return self._store

    def _unsupported(self, what: str, ability: type) -> StoreError:
        return StoreError(
            f"{self._store.path}: this store cannot {what}",
            got=type(self._store).__name__,
            expected=f"a store with the methods of {ability.__module__}.{ability.__name__}",
        )

    def _event(
        self,
        event_id: str,
        event_class: EventClass | None,
        aggregate_id: str | None,
        start: Moment | None,
        stop: Moment | None,
        columns: Sequence[str] | None,
    ) -> pl.DataFrame:
        if any(value is not None for value in (aggregate_id, start, stop)):
            raise InvalidEvent("event_id alone identifies one event", hint="Leave out aggregate_id, start and stop.")
        found = self._store.find(event_id)
        if found is None or (
            event_class is not None and found["event_type"][0] != type_named(self._store, event_class).name
        ):
            raise InvalidEvent("no event has this id", got=event_id)
        if columns is None:
            return found
        return found.select(list(frame_schema(type_named(self._store, found["event_type"][0]), columns)))


def _moment(moment: Moment | None, what: str) -> int | None:
    if isinstance(moment, (int, np.integer)) and not isinstance(moment, bool):
        raise AsOfError(f"{what} is a moment, not a number", got=moment, expected="an aware datetime or an ISO string")
    return None if moment is None else to_ns(moment, what=what)
