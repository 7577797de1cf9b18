"""The facade: a lab is a store with everything that can be done with it. No logic lives here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, overload

import numpy as np
import polars as pl

from eventlab import reducers
from eventlab.errors import AsOfError, InvalidEvent
from eventlab.events.clock import Moment, to_ns
from eventlab.events.columns import Frame
from eventlab.feeds.api import Feed
from eventlab.fold.declare.reducer import ReducerLike, as_reducer
from eventlab.fold.executors import Executor, Threads
from eventlab.lab import scan as _scanning
from eventlab.lab.append import Cause, Group, batch_of_frame, batches_of
from eventlab.lab.info import Info, info
from eventlab.snapshots.collection import Built, Snapshots
from eventlab.store.api import Codec, Late, Receipt
from eventlab.store.catalog.opening import Durability
from eventlab.store.compaction.garbage import Vacuumed
from eventlab.store.event_log import EventLog
from eventlab.store.names import EventClass, aggregate_named, aggregates_named, type_named
from eventlab.store.read import frames as public
from eventlab.store.verify.log import Report
from eventlab.timetravel import state_frames as views
from eventlab.timetravel.asof import AsOfLike
from eventlab.timetravel.asof import as_of as moment_of
from eventlab.timetravel.calibration import calibrated
from eventlab.timetravel.history.history import history
from eventlab.timetravel.marks.routing import MarkWith
from eventlab.timetravel.reconstruct import StatesTask, reconstruct
from eventlab.timetravel.state import State

if TYPE_CHECKING:  # a process that asks for a state need not load what writes files, or shows how far it is
    from eventlab.lab.export import ExportReceipt, Format
    from eventlab.lab.ingest import IngestReceipt
    from eventlab.projections.projection import Projection
    from eventlab.timetravel.cursor.cursor import Cursor
    from eventlab.timetravel.diff.diff import Difference

HandlerT = TypeVar("HandlerT", bound=Callable[[pl.DataFrame], None])


def open(  # noqa: A001  el.open reads as it should
    path: str | Path,
    *,
    clock: Callable[[], int] | None = None,
    read_only: bool = False,
    durability: Durability = "full",
    wait: float = 10.0,
    codec: Codec = "parquet",
    record_reads: bool = False,
) -> Lab:
    """Open a lab, creating it where there is none.

    Parameters
    ----------
    path : str or Path
        A directory, or ``":memory:"``.
    clock : callable, optional
        Gives nanoseconds since the epoch, UTC, for `recorded_at`; the system's clock by default.
    read_only : bool
        Open without writing anything.
    durability : {"full", "relaxed"}
        ``"full"``: an append that returned survives a power failure. ``"relaxed"``: the last ones may be lost then,
        never a part of one; about ten times as many small appends a second.
    wait : float
        Seconds to wait while another process writes.
    codec : {"parquet", "archive"}
        How new segment files are written. ``"archive"`` takes less room, and more time to write and to read; a lab may
        hold both, and answers the same.
    record_reads : bool
        Keep which past states :meth:`Lab.state` is asked for, in the store: reducer, aggregate, version, and the last
        version then; nothing of who asked, or when. :meth:`Lab.read_log` gives them.

    Raises
    ------
    NotAStore, StoreTooOld, StoreTooNew, StoreCorrupt, ReadOnlyStore, StoreLocked, StoreError
        A path that holds something else; another format; damage; no permission; a writer that does not finish; a
        network file system.

    Examples
    --------
    >>> import eventlab as el
    >>> with el.open(":memory:") as lab:
    ...     receipt = lab.append("signals/demo", el.TradingSignal("BTCUSDT", "buy", 1.0, "demo"))
    ...     receipt.version
    1
    """
    return Lab(
        EventLog.open(
            path, clock=clock, read_only=read_only, durability=durability, wait=wait, codec=codec,
            record_reads=record_reads,
        )
    )  # fmt: skip


class Lab:
    """Events, state and research over one store. Made by :func:`eventlab.open`."""

    def __init__(self, store: EventLog) -> None:
        self._store = store
        self._snapshots = Snapshots.beside(store, calibrated)

    @property
    def store(self) -> EventLog:
        """The log underneath."""
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
            Ids of your own. Appending the same events under the same ids again changes nothing and gives the first
            receipt.
        late : {"reject", "clamp", "accept"}
            What to do with an event time before the aggregate's latest one: refuse it; raise it to that and count it;
            or keep it, as a back-dated fact, and count it. A back-dated event is folded in version order like any
            other, but a state as of a time holds it from its own time on: a correction of what was, for all who do not
            ask what was known before it (`known_at`).

        Raises
        ------
        InvalidEvent, LateEvent, WrongVersion, DuplicateEvent
            A value that is no event's; a time that goes back; another version than expected; an id that is there with
            other content.
        StoreLocked, StoreFull, ReadOnlyStore
            Nothing was kept.
        """
        batches = batches_of(
            aggregate_id, events, timestamp=timestamp, metadata=metadata, cause=cause, event_id=event_id
        )
        expected = None if expected_version is None else {aggregate_id: expected_version}
        return self._store.commit(batches, expected=expected, late=late)

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
            The payload columns; beside them, if wanted, `timestamp` (else the time of the commit), `cause`, `event_id`
            and `aggregate_id`.
        aggregate_id : str, optional
            An id, or a template over the text columns such as ``"market/{symbol}"``. Where it is left out, the column
            `aggregate_id`; where there is none either, market events go where the feeds put them, ``market/{symbol}``,
            ``book/{symbol}``, ``quote/{symbol}``, ``bar/{symbol}``, ``funding/{symbol}``.
        expected_version : int, optional
            The version that each aggregate in the frame must have.
        metadata, late
            As in :meth:`append`.

        Returns
        -------
        Receipt
            For a frame without rows: `count` 0, `version` 0, `first_position` the next free position and `position` the
            one before; nothing is recorded.
        """
        batch = batch_of_frame(
            type_named(self._store, event_class), frame, aggregate_id=aggregate_id, metadata=metadata
        )
        expected = None if expected_version is None else dict.fromkeys(batch.names(), expected_version)
        return self._store.commit([batch], expected=expected, late=late)

    def ingest(self, feed: Feed, *, late: Late = "reject", progress: bool = True) -> IngestReceipt:
        """Append all of a source, chunk by chunk; once.

        The same source (feed, parameters and content) is never appended twice: a rerun returns at once, and one that
        was interrupted resumes where it stopped.

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
            A source that cannot be read as the feed says. Chunks before it stay.
        InvalidEvent
            An aggregate that already has event times by another clock.
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
            Look up the one event with this id instead, of whatever type. One that was not supplied but computed takes a
            search through all ids.

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
            raise InvalidEvent("which events?", hint="Name an event class, e.g. lab.events(el.MarketData).")
        declared = type_named(self._store, event_class)
        rows = self._store.rows(
            declared,
            aggregates=aggregates_named(self._store, aggregate_id),
            start=_moment(start, "start"),
            stop=_moment(stop, "stop"),
            columns=columns,
        )
        frames = list(rows) or [pl.DataFrame(schema=public.frame_schema(declared, columns))]
        return frames[0] if len(frames) == 1 else pl.concat(frames)

    def scan(self, event_class: EventClass) -> pl.LazyFrame:
        """Events of one type as a lazy frame, with the columns of :meth:`events`.

        Columns, and conditions on `timestamp` and `aggregate_id`, decide what is read. It reads when collected, and
        sees what the log holds then.
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
        """Write events to files that other programs read, and that ``el.feeds.exported`` brings into another lab.

        A file takes its name when it is complete and durable, and carries a proof of all its bytes. It has everything
        of an event: payload, aggregate, version, position, event time, cause, supplied id, metadata, when it was
        recorded, and the schema of its type. A computed id follows from the store's id, which is there, too. Events are
        as a read gives them: those of older versions of their type as of its newest.

        Parameters
        ----------
        path : str or Path
            ``.pb`` or ``.binpb``: a stream of length-delimited DomainEvents of all types, in position order.
            ``.parquet``, ``.arrow``, ``.feather``: a file of one event type; one that is there is replaced. Without a
            suffix: a new folder with such a file for each type, and a manifest.
        event_class : event class, its name, or EventType, optional
            All types by default.
        aggregate_id, start, stop
            As in :meth:`events`.
        format : {"protobuf", "parquet", "arrow"}, optional
            By the suffix; of a folder's files Parquet by default.
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
        from eventlab.lab.export import Asked, export

        asked = Asked(event_class, aggregate_id, _moment(start, "start"), _moment(stop, "stop"))
        return export(self._store, path, asked, format=format, progress=progress)

    def on(self, event_class: EventClass, start: int | None = None) -> Callable[[HandlerT], HandlerT]:
        """Call a function after each commit of this process with its events of one type, as a frame.

        Handlers run in position order, after the append. One that appends is done before the next frame is handed out.
        A function that is registered again begins anew. One that fails leaves the append as it is, and is reported as
        a `HandlerFailed` warning, whose `position` is that of the frame's first event; it goes on with later commits.

        Parameters
        ----------
        event_class : event class, its name, or EventType
        start : int, optional
            Call it first with all events from this position on, in frames of bounded size, and then also with those
            that other processes committed, each time this one commits. Such a handler meets every event once: where it
            fails, a second time too, it is taken off, and may be registered again from the position reported.

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
            The latest; a version; an event time, inclusive; or a combination of bounds.
        mark_with : str or sequence of str, optional
            An id, a pattern such as ``"market/*"``, or a list of these: aggregates whose events go to the handlers that
            the reducer marked ``@el.on(..., routed="symbol")``, merged with the aggregate's own by
            (timestamp, position). An event is included from where an own event has named its key. `as_of` bounds them
            like own ones, a version by what comes before the own event of that version. `version`, `position` and
            `timestamp` remain those of the last own event. Snapshots are not used. An aggregate whose own events are
            back-dated, as far as the moment knows, is refused: version order and the order of event times differ.
        interpret : bool, optional
            True runs the handlers as plain Python, where a debugger can stop; False compiles them at once. By default
            the quicker: the answer is the same, bit for bit.

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
        if mark_with is None and self._store.read_log.recording:
            (head,) = self._store.heads([aggregate_id])
            self._store.read_log.record(reducer.name, aggregate_id, int(found.marks.version[0]), head.version)
        return views.single(reducer, found)

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
            ``el.executors.Serial()`` or ``el.executors.Threads(n)``: who folds the aggregates. All cores by default;
            the answer is the same, bit for bit.

        Returns
        -------
        polars.DataFrame, or a list of one for each of several reducers
            One row an aggregate, sorted by id: aggregate_id, version, position, timestamp, fields, properties, and
            tables as lists of structs.

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
        frames = [views.frame(one, states) for one, states in zip(reducers, found, strict=True)]
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
        """Put past states beside the rows of a frame: to each row the state as of its own time.

        One pass over the events of each aggregate, however many rows there are.

        Parameters
        ----------
        frame : polars.DataFrame, pyarrow.Table or pyarrow.RecordBatch
            Rows in any order, which is kept.
        reducer : Reducer
        aggregate_id : str
            An id, or a template over columns of text or integers such as ``"market/{symbol}"``: then each row joins
            the aggregate that it names.
        on : str
            The column of moments. Datetimes with a time zone, or ISO strings, are event times, inclusive; integers are
            versions. Where it is null, or a column that names the aggregate is, the state's columns are null.
        suffix : str
            Appended to the names of those state columns that the frame has already.
        mark_with, interpret
            As in :meth:`state`.

        Returns
        -------
        polars.DataFrame
            The frame's columns as they are, then `version`, fields and properties of the state. A moment before the
            first event has the initial state, at version 0.

        Raises
        ------
        UnknownAggregate
            An id that a row names and that has no events.
        AsOfError
            Naive datetimes, a column that holds no moments, or a version past the last.
        InvalidEvent
            Not a frame; no such column; a template of other columns; a name that is there even with the suffix.
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
        """What changed between two moments of an aggregate, and which events did it.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
        a, b : None, int, datetime, str, numpy.datetime64 or AsOf
            The moments, as in :meth:`state`; `b` is the latest by default. The later one may come first: then the
            difference is told backwards. Moments may differ in `known_at` alone: then it is what was learned between.
        interpret : bool, optional
            As in :meth:`state`.

        Returns
        -------
        Difference
            ``.before`` and ``.after``, the states; ``.count`` and ``.events``, what one moment includes and the other
            does not; and ``.changes``, a frame with a row for each value that differs, bit by bit, where NaN equals
            NaN:

            - `field`, a field, property or table. Of a table also `key`, which is a ladder's price, and `column`; of an
              array `place`, the element; of a queue `place`, counted for each key from the oldest row before. The order
              of a table's keys is not compared.
            - `change`: ``changed``, or of a table's rows ``added`` or ``removed``.
            - `before`, `after`: the values as text, which is exact; `delta`: after - before of numbers.
            - `changed_by`, `first_position`, `last_position`: how many of the events changed the value as they were
              folded, and where the first and the last of these are; null for tables.

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
            Moments, in any order; the rows keep it, duplicates too, with a column `at`.
        every : str or timedelta, optional
            E.g. ``"1m"``: moments aligned to the epoch. The row at t is the state after all events up to t, so a bar
            covers (t - every, t].
        mark_with : str or sequence of str, optional
            As in :meth:`state`. Bars then go on to that of the last event, own or routed; a row per handled event is
            one per own event, with all that was routed before it.
        tables : bool
            Also give keyed tables, queues and ladders, as lists of structs.
        interpret : bool, optional
            As in :meth:`state`.

        Returns
        -------
        polars.DataFrame
            `at` where moments were asked for, then version, position, timestamp, fields and properties.

        Raises
        ------
        UnknownAggregate, AsOfError, FoldError, ReducerError
        """
        reducer, aggregate_id = as_reducer(reducer), aggregate_named(aggregate_id)
        return history(
            self._store, reducer, aggregate_id,
            at=at, every=every, mark_with=mark_with, tables=tables, interpret=interpret,
        )  # fmt: skip

    def cursor(
        self, reducer: ReducerLike, aggregate_id: str, as_of: AsOfLike = None, *, interpret: bool | None = None
    ) -> Cursor:
        """A cursor over the past states of an aggregate, for moving on and back through them.

        A move takes a frame of a screen rather than a replay: the events around the cursor are in memory, and so are
        states along the way.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
        as_of
            Where the cursor is at first, as in :meth:`state`.
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
        """A read model: the states of a reducer, kept up to date by folding only what is new.

        It begins at its checkpoint, which lies in the store with its position and is disposable: where it is missing,
        damaged, or of another reducer, states are built anew from the events. A checkpoint that another reducer left
        under the name stays until this one is up to date.

        Parameters
        ----------
        reducer : Reducer
        aggregate_id : str
            An id, or a pattern in which ``*`` stands for any run of characters; also of aggregates that come later.
        name : str, optional
            Of its checkpoint; the reducer's, and the pattern, by default.

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
        reducers.declare()  # also of a reducer that this process did not use yet they can be used
        return self._snapshots

    def snapshot(self, reducer: ReducerLike, aggregate_id: str, version: int | None = None) -> Built:
        """Make one snapshot by hand: of the latest state, or of a version, unless it is there.

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
        """Turn small commits into segment files, and small segments into larger ones; happens by itself in time.

        Readers go on as if nothing happened, in every process.

        Returns
        -------
        int
            The events that were in small commits.

        Raises
        ------
        StoreFull, StoreLocked, ReadOnlyStore, StoreCorrupt
            Everything is as it was before, or as it was to become.

        Warns
        -----
        DamagedSegment
            A segment whose file is damaged is left as it is; the others are merged without it.
        """
        return self._store.seal()

    def archive(self, before: Moment | None = None) -> int:
        """Rewrite what was recorded before a moment with the archive codec, which takes less room; it answers the same.

        Parameters
        ----------
        before : datetime or ISO string, optional
            Segments are rewritten that hold only events recorded before it, by `recorded_at`. Everything by default.

        Returns
        -------
        int
            The events that were rewritten.

        Raises
        ------
        AsOfError
            Not a moment.
        StoreFull, StoreLocked, ReadOnlyStore
            Segments before the one that failed are rewritten, the others are as they were.
        """
        return self._store.archive(_moment(before, "before"))

    def vacuum(self) -> Vacuumed:
        """Remove files that merging and archiving left and nobody is reading, and free pages of the catalog.

        Happens by itself after each merge, so this is for what was still being read then.
        """
        return self._store.vacuum()

    def verify(self) -> Report:
        """Read everything back and prove that nothing was lost or changed.

        Raises
        ------
        StoreCorrupt
            At the first proof of damage: names the file, commit or positions.
        """
        return self._store.verify()

    def backup(self, path: str | Path) -> Report:
        """Copy everything into a new directory, a lab of its own, while others go on reading and writing.

        The copy has all that was appended before; it is proven as :meth:`verify` does, and takes its name when it is
        complete and durable. Snapshots are not copied: they can be built again. A lab in memory can be copied, too.

        Parameters
        ----------
        path : str or Path
            Does not exist yet, or is an empty directory.

        Returns
        -------
        Report
            The proof of the copy. Its `head` is the digest of the last commit that it has.

        Raises
        ------
        NotAStore, ReadOnlyStore, StoreFull, StoreCorrupt, StoreLocked
            Something is there already; it cannot be written; something is damaged; others changed the store too often
            to copy it.

        Examples
        --------
        >>> import eventlab as el, tempfile
        >>> lab = el.open(":memory:")
        >>> receipt = lab.append("signals/demo", el.TradingSignal("BTCUSDT", "buy", 1.0, "demo"))
        >>> lab.backup(f"{tempfile.mkdtemp()}/copy").events
        1
        """
        return self._store.backup(path)

    def info(self) -> Info:
        """What this lab holds."""
        return info(self._store)

    def read_log(self) -> pl.DataFrame:
        """Which past states were asked for, where the lab was opened with ``record_reads=True``, then or earlier.

        Reads by :meth:`state` without `mark_with` are kept, of all processes, the last 262,144 at most. They are
        written each 1,024 reads and when the lab is closed; ``lab.store.read_log`` can write them at once, and forget
        them.

        Returns
        -------
        polars.DataFrame
            A row a read, in the order of their writing: reducer (its name), aggregate_id, version, and head, the last
            version at that time.

        Warns
        -----
        ReadsDropped
            A part of them is damaged, and left out.

        Examples
        --------
        >>> import eventlab as el
        >>> lab = el.open(":memory:", record_reads=True)
        >>> receipt = lab.append("a", [el.TradingSignal("BTC", "buy", 1.0, "demo")] * 3)
        >>> state = lab.state(el.Signals, "a", as_of=2)
        >>> lab.read_log().rows()
        [('Signals', 'a', 2, 3)]
        """
        return self._store.read_log.frame()

    def close(self) -> None:
        """Close the store; a second time does nothing."""
        self._snapshots.close()
        self._store.close()

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
            raise InvalidEvent("event_id names one event by itself", hint="Leave out aggregate_id, start and stop.")
        found = self._store.find(event_id)
        if found is None or (
            event_class is not None and found["event_type"][0] != type_named(self._store, event_class).name
        ):
            raise InvalidEvent("no event has this id", got=event_id)
        if columns is None:
            return found
        return found.select(list(public.frame_schema(type_named(self._store, found["event_type"][0]), columns)))


def _moment(moment: Moment | None, what: str) -> int | None:
    if isinstance(moment, (int, np.integer)) and not isinstance(moment, bool):
        raise AsOfError(f"{what} is a moment, not a number", got=moment, expected="an aware datetime or an ISO string")
    return None if moment is None else to_ns(moment, what=what)
