"""From batches to blocks: the checks of an append, and the numbers every event gets, all vectorised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.errors import InvalidEvent, LateEvent, WrongVersion
from eventlab.events.clock import MAX_NS, MIN_NS, format_ns
from eventlab.events.columns import metadata_json
from eventlab.events.rows import Rows
from eventlab.events.types import EventType
from eventlab.store.blocks import Block, Int64Array, cluster_order, running_maxima
from eventlab.store.types import Batch, Late

_LONGEST_ID = 1024

ScalarT = TypeVar("ScalarT", bound=np.generic)


@dataclass(slots=True)
class Stream:
    """An aggregate's head while a commit is being made; version 0 and no position where it is new.

    `timestamp` is its highest event time, which an event that comes late does not lower. `backdated` says whether this
    commit has such events of it, and keeps their times.
    """

    no: int
    name: str
    version: int
    position: int
    timestamp: int
    clock: str | None
    is_new: bool
    backdated: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Incoming:
    """A batch whose aggregates are indices into the commit's list of names."""

    batch: Batch
    payload: pa.RecordBatch
    rows: int
    aggregate: int | Int64Array
    metadata: str | pa.DictionaryArray | None


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """A commit ready to be written; `last_version` is that of the last event.

    `late` tells of events whose time goes back: how many were raised, or below 0, how many were kept.
    """

    blocks: list[Block]
    first_position: int
    last_version: int
    late: int


def check_late(late: object) -> None:
    """Raise InvalidEvent where this is no way to treat late events."""
    if late not in get_args(Late):
        ways = " or ".join(map(repr, get_args(Late)))
        raise InvalidEvent("unknown way to treat late events", got=late, expected=ways)


def check_expected(expected: Mapping[str, int], version_of: Callable[[str], int]) -> None:
    """Raise WrongVersion where an aggregate is not at the version expected; `version_of` gives its version, or 0."""
    for name, version in expected.items():
        if isinstance(version, bool) or not isinstance(version, int):
            raise InvalidEvent("expected_version must be an int", got=version)
        actual = version_of(name)
        if actual != version:
            raise WrongVersion(
                f"{name!r} is at another version than expected",
                got=f"version {actual}",
                expected=f"version {version}",
                hint="Another append came first: read the state again, decide again, append again.",
            )


def commit_time(clock: Callable[[], int], previous: int | None) -> int:
    """`recorded_at` of a commit, ns UTC: later than that of the previous one, however the clock moves."""
    moment = clock()
    if isinstance(moment, bool) or not isinstance(moment, int) or not MIN_NS <= moment <= MAX_NS:
        raise InvalidEvent("the clock must give int nanoseconds", got=moment)
    return moment if previous is None else max(moment, previous + 1)


def check_aggregate_id(name: object) -> str:
    """An aggregate id that can be used for writing.

    Raises
    ------
    InvalidEvent
        Not text, empty, longer than 1,024 characters, or with a ``*`` (which asks for many) or a NUL character.
    """
    if not isinstance(name, str) or not name or len(name) > _LONGEST_ID:
        raise InvalidEvent("not an aggregate id", got=name, expected=f"text of 1 to {_LONGEST_ID} characters")
    if "*" in name or "\0" in name:
        raise InvalidEvent(
            "an aggregate id cannot hold '*' or NUL",
            got=name,
            hint="'*' is for patterns, e.g. lab.events(..., 'market/*').",
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent("an aggregate id that is no valid Unicode text", got=name) from error
    return name


def incoming(batches: Sequence[Batch]) -> tuple[list[Incoming], list[str]]:
    """Batches with rows, and the distinct aggregate ids they use, in order of first mention."""
    index: dict[str, int] = {}
    found = []
    for batch in batches:
        rows = batch.payload.num_rows
        for name in ("timestamp", "cause", "cause_row", "event_id", "order", "metadata"):
            given = getattr(batch, name)
            if given is not None and not isinstance(given, Mapping) and len(given) != rows:
                raise InvalidEvent(f"{batch.type.name}: {name} has another length", got=len(given), expected=rows)
        if rows:
            payload = batch.payload.to_batch() if isinstance(batch.payload, Rows) else batch.payload
            found.append(Incoming(batch, payload, rows, _indices(batch, rows, index), _metadata(batch)))
    ordered = [item for item in found if item.batch.order is not None]
    if ordered and len(ordered) < len(found):
        raise InvalidEvent("some batches of the commit have an order and some have none")
    return found, list(index)


def _metadata(batch: Batch) -> str | pa.DictionaryArray | None:
    given = batch.metadata
    return given if isinstance(given, pa.DictionaryArray) else metadata_json(given)


def _indices(batch: Batch, rows: int, index: dict[str, int]) -> int | Int64Array:
    given = batch.aggregate_id
    if not isinstance(given, pa.DictionaryArray):
        return index.setdefault(check_aggregate_id(given), len(index))
    if len(given) != rows:
        raise InvalidEvent(f"{batch.type.name}: aggregate_id has another length", got=len(given), expected=rows)
    if given.null_count or given.dictionary.null_count:
        raise InvalidEvent(f"{batch.type.name}: aggregate_id is null", expected="an id in every row")
    codes = given.indices.to_numpy()
    used = np.zeros(len(given.dictionary), dtype=bool)
    used[codes] = True
    places = np.zeros(len(used), dtype=np.int64)
    for code in np.flatnonzero(used):
        name = check_aggregate_id(given.dictionary[int(code)].as_py())
        places[code] = index.setdefault(name, len(index))
    only = places[used]
    return int(only[0]) if len(only) == 1 else places[codes]


def check_clocks(items: Sequence[Incoming], streams: Sequence[Stream]) -> None:
    """Note whose clock each aggregate's times are by; raise InvalidEvent where one would mix two."""
    for item in items:
        clock = item.batch.clock
        if clock is None:
            continue
        used = [item.aggregate] if isinstance(item.aggregate, int) else np.unique(item.aggregate).tolist()
        for index in used:
            stream = streams[index]
            if stream.clock is not None and stream.clock != clock:
                raise InvalidEvent(
                    f"{stream.name!r} has event times by the {stream.clock} clock; these are by the {clock} clock",
                    hint="Give them another aggregate id.",
                )
            stream.clock = clock


def assign(
    items: Sequence[Incoming], streams: Sequence[Stream], first_position: int, recorded_at: int, late: Late
) -> Assigned:
    """Give positions, versions and times to the events of a commit, and move the heads in `streams` on.

    Raises
    ------
    LateEvent
        An event time that goes back, unless `late` clamps or accepts it.
    InvalidEvent
        A cause that is not before its effect.
    """
    if len(items) == 1 and len(streams) == 1:
        made = _assign_one(items[0], streams[0], first_position, recorded_at)
        if made is not None:
            return made
    rows = sum(item.rows for item in items)
    order = _order(items)
    aggregate = _in_order([_spread(item.aggregate, item.rows) for item in items], order)
    position = np.arange(first_position, first_position + rows, dtype=np.int64)
    auto = [item.batch.timestamp is None for item in items]
    timestamp = _in_order([_times(item, recorded_at) for item in items], order)
    automatic = (
        _in_order([np.full(i.rows, flag) for i, flag in zip(items, auto, strict=True)], order) if any(auto) else None
    )
    version, timestamp, came_late = _number(aggregate, timestamp, automatic, streams, position, late)
    cause = _causes(items, order, position, first_position)
    blocks = _blocks(items, order, np.array([s.no for s in streams])[aggregate], position, version, timestamp, cause)
    return Assigned(blocks, first_position, int(version[-1]), came_late)


def _assign_one(item: Incoming, stream: Stream, first_position: int, recorded_at: int) -> Assigned | None:
    """What `assign` gives for one batch of one aggregate, the usual commit; None where that takes a closer look."""
    batch, rows = item.batch, item.rows
    if batch.timestamp is None:
        at = recorded_at if stream.version == 0 else max(recorded_at, stream.timestamp)
        timestamp = np.full(rows, at, dtype=np.int64)
    else:
        timestamp = batch.timestamp
        if (stream.version and timestamp[0] < stream.timestamp) or (timestamp[1:] < timestamp[:-1]).any():
            return None
    ordered = batch.order is None or bool((batch.order[1:] >= batch.order[:-1]).all())
    if not ordered or batch.cause is not None or batch.cause_row is not None:
        return None
    first_version = stream.version + 1
    stream.version, stream.position = stream.version + rows, first_position + rows - 1
    stream.timestamp = int(timestamp[-1])
    block = Block(
        batch.type,
        np.arange(first_position, first_position + rows),
        np.full(rows, stream.no),
        np.arange(first_version, first_version + rows),
        timestamp,
        None,
        batch.event_id,
        None if item.metadata is None else _text_rows(item.metadata, rows),
        dict(zip(item.payload.schema.names, item.payload.columns, strict=True)),
    )
    return Assigned([block], first_position, stream.version, 0)


def _order(items: Sequence[Incoming]) -> Int64Array | None:
    """Which incoming row stands at each place of the commit; None for one batch after the other."""
    if items[0].batch.order is None:
        return None
    places = np.concatenate([np.asarray(item.batch.order) for item in items])
    if (places[1:] >= places[:-1]).all():
        return None
    return np.argsort(places, kind="stable")


def _spread(value: int | Int64Array, rows: int) -> Int64Array:
    return np.full(rows, value, dtype=np.int64) if isinstance(value, int) else value


def _times(item: Incoming, recorded_at: int) -> Int64Array:
    given = item.batch.timestamp
    return np.full(item.rows, recorded_at, dtype=np.int64) if given is None else np.asarray(given, dtype=np.int64)


def _in_order(parts: Sequence[npt.NDArray[ScalarT]], order: Int64Array | None) -> npt.NDArray[ScalarT]:
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole if order is None else whole[order]


def _number(
    aggregate: Int64Array,
    timestamp: Int64Array,
    automatic: npt.NDArray[np.bool_] | None,
    streams: Sequence[Stream],
    position: Int64Array,
    late: Late,
) -> tuple[Int64Array, Int64Array, int]:
    """Versions, times that go back inside an aggregate only where `late` accepts that, and `Assigned.late`."""
    perm = cluster_order(aggregate) if len(streams) > 1 else None
    grouped = aggregate if perm is None else aggregate[perm]
    times = timestamp if perm is None else timestamp[perm]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1)) if len(streams) > 1 else np.zeros(1, dtype=np.int64)
    stops = np.append(starts[1:], len(grouped))
    members = grouped[starts]
    heads = np.array([streams[int(i)].version for i in members], dtype=np.int64)
    versions = np.arange(1, len(grouped) + 1, dtype=np.int64) + np.repeat(heads - starts, stops - starts)
    floors = np.array([_floor(streams[int(i)]) for i in members], dtype=np.int64)
    raised = running_maxima(times, starts, floors)
    tops = stops - 1
    highest = raised[tops]
    came_late = 0
    if raised is not times:
        given = np.flatnonzero(raised != times)
        if automatic is not None:  # nobody claimed that these are older
            given = given[~(automatic if perm is None else automatic[perm])[given]]
        if len(given) and late == "reject":
            row = int(given[0])
            stream = streams[int(grouped[row])]
            raise _late(stream, row if perm is None else int(perm[row]), times[row], raised[row])
        came_late = -len(given) if late == "accept" else len(given)
        if late == "accept":
            raised[given] = times[given]
            for which in np.unique(grouped[given]):
                streams[int(which)].backdated = True
        times = raised
    last = position[tops] if perm is None else position[perm[tops]]
    for which, head, at, when in zip(members, versions[tops], last, highest, strict=True):
        stream = streams[int(which)]
        stream.version, stream.position, stream.timestamp = int(head), int(at), int(when)
    if perm is None:
        return versions, times, came_late
    version, ordered = np.empty_like(versions), np.empty_like(times)
    version[perm], ordered[perm] = versions, times
    return version, ordered, came_late


def _floor(stream: Stream) -> int:
    return np.iinfo(np.int64).min if stream.version == 0 else stream.timestamp


def _late(stream: Stream, row: int, got: np.int64, expected: np.int64) -> LateEvent:
    error = LateEvent(
        f"row {row}: event time goes back in {stream.name!r}",
        got=format_ns(int(got)),
        expected=f"{format_ns(int(expected))} or later",
        hint='Sort by time before appending, or pass late="accept" to keep such events as back-dated ones, '
        'or late="clamp" to raise their times to the latest one.',
    )
    error.row = row
    return error


def _causes(
    items: Sequence[Incoming], order: Int64Array | None, position: Int64Array, first_position: int
) -> Int64Array | None:
    if all(item.batch.cause is None and item.batch.cause_row is None for item in items):
        return None
    cause = _in_order([_cause(item, first_position) for item in items], order)
    wrong = cause >= position
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InvalidEvent(
            f"row {row}: an event cannot be caused by itself or a later one",
            got=f"cause {cause[row]}",
            expected=f"a position below {position[row]}",
        )
    return cause


def _cause(item: Incoming, first_position: int) -> Int64Array:
    cause = np.full(item.rows, -1, dtype=np.int64)
    if item.batch.cause is not None:
        cause = np.maximum(np.asarray(item.batch.cause, dtype=np.int64), -1)
    if item.batch.cause_row is not None:
        rows = np.asarray(item.batch.cause_row, dtype=np.int64)
        cause = np.where(rows >= 0, rows + first_position, cause)
    return cause


def _blocks(
    items: Sequence[Incoming],
    order: Int64Array | None,
    aggregate: Int64Array,
    position: Int64Array,
    version: Int64Array,
    timestamp: Int64Array,
    cause: Int64Array | None,
) -> list[Block]:
    grouped: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        grouped.setdefault(item.batch.type.name, []).append(index)
    starts = np.cumsum([0, *(item.rows for item in items)])
    blocks = []
    for members in grouped.values():
        mine = [items[index] for index in members]
        at: slice | Int64Array = slice(None)
        shuffle = None
        if len(mine) < len(items) or order is not None:
            rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in members])
            if order is not None:  # places of these rows, and these rows by place
                place = np.empty(len(order), dtype=np.int64)
                place[order] = np.arange(len(order))
                rows = place[rows]
                if len(mine) > 1:
                    shuffle = np.argsort(rows, kind="stable")
                    rows = rows[shuffle]
            at = rows
        event_id, metadata, columns = _payload(mine, shuffle)
        blocks.append(
            Block(
                mine[0].batch.type, position[at], aggregate[at], version[at], timestamp[at],
                None if cause is None else cause[at], event_id, metadata, columns,
            )
        )  # fmt: skip
    return blocks


def _payload(
    items: Sequence[Incoming], shuffle: Int64Array | None
) -> tuple[pa.StringArray | None, pa.DictionaryArray | None, dict[str, pa.Array]]:
    declared: EventType = items[0].batch.type
    columns = {
        field.name: _joined([item.payload.column(index) for item in items], shuffle)
        for index, field in enumerate(declared)
    }
    event_id = metadata = None
    if any(item.batch.event_id is not None for item in items):
        ids = [i.batch.event_id if i.batch.event_id is not None else pa.nulls(i.rows, pa.string()) for i in items]
        event_id = _joined(ids, shuffle)
    if any(item.metadata is not None for item in items):
        metadata = _joined([_text_rows(item.metadata, item.rows) for item in items], shuffle)
    return event_id, metadata, columns


def _joined(arrays: Sequence[pa.Array], shuffle: Int64Array | None) -> pa.Array:
    whole = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
    return whole if shuffle is None else whole.take(pa.array(shuffle))


def _text_rows(text: str | pa.DictionaryArray | None, rows: int) -> pa.DictionaryArray:
    if isinstance(text, pa.DictionaryArray):
        return text
    if text is None:
        return pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()), pa.array([], pa.string()))
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([text], pa.string()))
