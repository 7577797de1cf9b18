"""Positions, versions and times of a commit's events: from checked batches to blocks, all vectorised."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.errors import InvalidEvent, LateEvent
from eventlab.events.clock import MAX_NS, MIN_NS, format_ns
from eventlab.store.blocks import Block, Int64Array, cluster_order, concat_blocks, running_maxima
from eventlab.store.commit.validate import CheckedBatch, CheckedRows, PendingHead
from eventlab.store.types import Late, NumberedRows

ScalarT = TypeVar("ScalarT", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class NumberedCommit:
    """A commit ready to be written; `last_version` is that of the last event.

    `late` counts event times that were raised to their aggregate's highest one; below 0, those kept as they are.
    """

    blocks: list[Block]
    first_position: int
    events: int
    last_version: int
    late: int


def commit_time(clock: Callable[[], int], previous: int | None) -> int:
    """`recorded_at` of a commit, ns UTC: later than that of the previous one, however the clock moves."""
    moment = clock()
    if isinstance(moment, bool) or not isinstance(moment, int) or not MIN_NS <= moment <= MAX_NS:
        raise InvalidEvent("the clock must give int nanoseconds", got=moment)
    return moment if previous is None else max(moment, previous + 1)


def number_rows(
    rows: CheckedRows,
    head: PendingHead,
    first_position: int,
    clock: Callable[[], int],
    previous: int | None,
    late: Late,
) -> tuple[NumberedRows, int] | None:
    """Give versions and times to plain events, and move `head` on.

    `clock` and `previous` are those of `commit_time`.

    Returns
    -------
    (numbered, backdated) or None
        The events, and how many of their times go back. None where times or causes must be refused or raised:
        `number_batches` does so.
    """
    count = len(rows.rows)
    recorded_at = commit_time(clock, previous)
    if rows.causes is not None and any(cause >= first_position + row for row, cause in enumerate(rows.causes)):
        return None
    backdated = 0
    if rows.timestamps is None:
        highest = max(recorded_at, head.timestamp) if head.version else recorded_at
        timestamps = [highest] * count
    else:
        timestamps = rows.timestamps
        floor = head.timestamp if head.version else timestamps[0]
        reached = list(itertools.accumulate(timestamps, max, initial=floor))
        highest = reached[-1]
        backdated = sum(map(operator.lt, timestamps, reached))
        if backdated and late != "accept":
            return None
    numbered = NumberedRows(
        rows.type, rows.kind, head.name, head.no, rows.rows, first_position, head.version + 1, recorded_at, timestamps,
        rows.causes, rows.metadata,
    )  # fmt: skip
    head.backdated = backdated > 0
    head.version, head.position, head.timestamp = head.version + count, first_position + count - 1, highest
    return numbered, backdated


def number_batches(
    items: Sequence[CheckedBatch], heads: Sequence[PendingHead], first_position: int, recorded_at: int, late: Late
) -> NumberedCommit:
    """Give positions, versions and times to the events of a commit, and move `heads` on.

    Raises
    ------
    LateEvent
        An event time that goes back, unless `late` clamps or accepts it.
    InvalidEvent
        A cause that is not before its effect.
    """
    if len(items) == 1 and len(heads) == 1:
        made = _number_one(items[0], heads[0], first_position, recorded_at)
        if made is not None:
            return made
    rows = sum(item.rows for item in items)
    order = _order(items)
    aggregate = _in_order([np.broadcast_to(item.aggregate, item.rows) for item in items], order)
    position = np.arange(first_position, first_position + rows, dtype=np.int64)
    auto = [item.batch.timestamp is None for item in items]
    timestamp = _in_order([_times(item, recorded_at) for item in items], order)
    automatic = (
        _in_order([np.full(i.rows, flag) for i, flag in zip(items, auto, strict=True)], order) if any(auto) else None
    )
    version, timestamp, came_late = _versions_and_times(aggregate, timestamp, automatic, heads, position, late)
    cause = _causes(items, order, position, first_position)
    numbers = np.array([head.no for head in heads])[aggregate]
    blocks = _blocks(items, order, numbers, position, version, timestamp, cause)
    return NumberedCommit(blocks, first_position, rows, int(version[-1]), came_late)


def _number_one(item: CheckedBatch, head: PendingHead, first_position: int, recorded_at: int) -> NumberedCommit | None:
    """The same for one batch of one aggregate, the usual commit; None where its times or causes need more checks."""
    batch, rows = item.batch, item.rows
    if batch.timestamp is None:
        at = recorded_at if head.version == 0 else max(recorded_at, head.timestamp)
        timestamp = np.full(rows, at, dtype=np.int64)
    else:
        timestamp = batch.timestamp
        if (head.version and timestamp[0] < head.timestamp) or (timestamp[1:] < timestamp[:-1]).any():
            return None
    ordered = batch.order is None or bool((batch.order[1:] >= batch.order[:-1]).all())
    if not ordered or batch.cause is not None or batch.cause_row is not None:
        return None
    first_version = head.version + 1
    head.version, head.position = head.version + rows, first_position + rows - 1
    head.timestamp = int(timestamp[-1])
    position, version = np.arange(first_position, first_position + rows), np.arange(first_version, first_version + rows)
    block = _block(item, position, np.full(rows, head.no), version, timestamp, None)
    return NumberedCommit([block], first_position, rows, head.version, 0)


def _order(items: Sequence[CheckedBatch]) -> Int64Array | None:
    """The row of the batches at each place of the commit; None for one batch after the other."""
    if items[0].batch.order is None:
        return None
    places = np.concatenate([np.asarray(item.batch.order) for item in items])
    if (places[1:] >= places[:-1]).all():
        return None
    return np.argsort(places, kind="stable")


def _times(item: CheckedBatch, recorded_at: int) -> Int64Array:
    given = item.batch.timestamp
    return np.full(item.rows, recorded_at, dtype=np.int64) if given is None else np.asarray(given, dtype=np.int64)


def _in_order(parts: Sequence[npt.NDArray[ScalarT]], order: Int64Array | None) -> npt.NDArray[ScalarT]:
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return rows if order is None else rows[order]


def _versions_and_times(
    aggregate: Int64Array,
    timestamp: Int64Array,
    automatic: npt.NDArray[np.bool_] | None,
    pending: Sequence[PendingHead],
    position: Int64Array,
    late: Late,
) -> tuple[Int64Array, Int64Array, int]:
    """Versions, times that go back inside an aggregate only where `late` accepts that, and `NumberedCommit.late`."""
    perm = cluster_order(aggregate) if len(pending) > 1 else None
    grouped = aggregate if perm is None else aggregate[perm]
    times = timestamp if perm is None else timestamp[perm]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1)) if len(pending) > 1 else np.zeros(1, dtype=np.int64)
    stops = np.append(starts[1:], len(grouped))
    members = grouped[starts]
    heads = np.array([pending[int(i)].version for i in members], dtype=np.int64)
    versions = np.arange(1, len(grouped) + 1, dtype=np.int64) + np.repeat(heads - starts, stops - starts)
    floors = np.where(heads > 0, [pending[int(i)].timestamp for i in members], np.iinfo(np.int64).min)
    raised = running_maxima(times, starts, floors)
    tops = stops - 1
    highest = raised[tops]
    came_late = 0
    if raised is not times:
        given = np.flatnonzero(raised != times)
        if automatic is not None:  # the caller did not claim that these are older
            given = given[~(automatic if perm is None else automatic[perm])[given]]
        if len(given) and late == "reject":
            row = int(given[0])
            raise _late_event(
                pending[int(grouped[row])], row if perm is None else int(perm[row]), times[row], raised[row]
            )
        came_late = -len(given) if late == "accept" else len(given)
        if late == "accept":
            raised[given] = times[given]
            for which in np.unique(grouped[given]):
                pending[int(which)].backdated = True
        times = raised
    last = position[tops] if perm is None else position[perm[tops]]
    for which, version, at, when in zip(members, versions[tops], last, highest, strict=True):
        head = pending[int(which)]
        head.version, head.position, head.timestamp = int(version), int(at), int(when)
    if perm is None:
        return versions, times, came_late
    unclustered, ordered = np.empty_like(versions), np.empty_like(times)
    unclustered[perm], ordered[perm] = versions, times
    return unclustered, ordered, came_late


def _late_event(head: PendingHead, row: int, got: np.int64, expected: np.int64) -> LateEvent:
    error = LateEvent(
        f"row {row}: event time goes back in {head.name!r}",
        got=format_ns(int(got)),
        expected=f"{format_ns(int(expected))} or later",
        hint='Sort by time before appending, or pass late="accept" to keep such events as back-dated ones, '
        'or late="clamp" to raise their times to the latest one.',
    )
    error.row = row
    return error


def _causes(
    items: Sequence[CheckedBatch], order: Int64Array | None, position: Int64Array, first_position: int
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


def _cause(item: CheckedBatch, first_position: int) -> Int64Array:
    cause = np.full(item.rows, -1, dtype=np.int64)
    if item.batch.cause is not None:
        cause = np.maximum(np.asarray(item.batch.cause, dtype=np.int64), -1)
    if item.batch.cause_row is not None:
        rows = np.asarray(item.batch.cause_row, dtype=np.int64)
        cause = np.where(rows >= 0, rows + first_position, cause)
    return cause


def _blocks(
    items: Sequence[CheckedBatch],
    order: Int64Array | None,
    aggregate: Int64Array,
    position: Int64Array,
    version: Int64Array,
    timestamp: Int64Array,
    cause: Int64Array | None,
) -> list[Block]:
    place = None
    if order is not None:
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
    grouped: dict[str, list[Block]] = {}
    first = 0
    for item in items:
        at = slice(first, first + item.rows) if place is None else place[first : first + item.rows]
        causes = None if cause is None else cause[at]
        made = _block(item, position[at], aggregate[at], version[at], timestamp[at], causes)
        grouped.setdefault(item.batch.type.name, []).append(made)
        first += item.rows
    blocks = []
    for parts in grouped.values():
        block = concat_blocks(parts)
        in_order = place is None or len(parts) == 1
        blocks.append(block if in_order else block.take(np.argsort(block.position, kind="stable")))
    return blocks


def _block(
    item: CheckedBatch,
    position: Int64Array,
    aggregate: Int64Array,
    version: Int64Array,
    timestamp: Int64Array,
    cause: Int64Array | None,
) -> Block:
    """A batch with its numbers."""
    text, metadata = item.metadata, None
    if isinstance(text, pa.DictionaryArray):
        metadata = text
    elif text is not None:
        codes = pa.array(np.zeros(item.rows, dtype=np.int32))
        metadata = pa.DictionaryArray.from_arrays(codes, pa.array([text], pa.string()))
    columns = dict(zip(item.payload.schema.names, item.payload.columns, strict=True))
    return Block(
        item.batch.type, position, aggregate, version, timestamp, cause, item.batch.event_id, metadata, columns
    )
