"""Checks of the batches of a commit, before any event gets a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pyarrow as pa

from eventlab.errors import InvalidEvent, WrongVersion
from eventlab.events.columns import metadata_json
from eventlab.events.rows import Row, Rows
from eventlab.events.types import EventType
from eventlab.store.blocks import Int64Array
from eventlab.store.journal.rows_codec import MOST_FIELDS
from eventlab.store.types import Batch, Late

_LONGEST_ID = 1024


@dataclass(slots=True)
class PendingHead:
    """An aggregate's head while a commit is being made; version 0 and position -1 where it is new.

    `timestamp` is its highest event time, which a late event does not lower. `backdated` says whether this commit has
    events of it with earlier times.
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
class CheckedBatch:
    """A batch whose aggregates are indices into the commit's list of ids."""

    batch: Batch
    payload: pa.RecordBatch
    rows: int
    aggregate: int | Int64Array
    metadata: str | pa.DictionaryArray | None


@dataclass(slots=True, eq=False)
class CheckedRows:
    """A few plain events of one aggregate and of one type, whose number is `kind`."""

    type: EventType
    kind: int
    aggregate_id: str
    rows: Sequence[Row]
    timestamps: list[int] | None
    causes: list[int] | None
    metadata: str | None


def check_rows(
    batches: Sequence[Batch], numbers: Mapping[tuple[str, int], int], newest: Mapping[str, EventType]
) -> CheckedRows | None:
    """The events of a commit where they are a few plain rows; None where they need `check_batches`.

    Parameters
    ----------
    numbers : mapping
        Number of each event type in the store, by name and version.
    newest : mapping of str to EventType
        The newest version of each type.
    """
    if len(batches) != 1 or not isinstance(batches[0].payload, Rows):
        return None
    batch = batches[0]
    declared, rows = batch.type, batch.payload.values
    kind = numbers.get((declared.name, declared.schema_version))
    known = newest.get(declared.name)
    if kind is None or (known is not declared and known != declared) or len(declared.fields) > MOST_FIELDS:
        return None
    if batch.event_id is not None or batch.cause_row is not None or batch.clock is not None:
        return None
    if not rows or not isinstance(batch.aggregate_id, str):
        return None
    if batch.order is not None and (batch.order[1:] < batch.order[:-1]).any():
        return None
    if any(given is not None and len(given) != len(rows) for given in (batch.timestamp, batch.cause, batch.order)):
        return None
    return CheckedRows(
        declared,
        kind,
        check_aggregate_id(batch.aggregate_id),
        rows,
        None if batch.timestamp is None else batch.timestamp.tolist(),
        None if batch.cause is None else [max(cause, -1) for cause in batch.cause.tolist()],
        metadata_json(batch.metadata) if batch.metadata else None,
    )


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


def check_batches(batches: Sequence[Batch]) -> tuple[list[CheckedBatch], list[str]]:
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
            found.append(CheckedBatch(batch, payload, rows, _indices(batch, rows, index), _metadata(batch)))
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


def check_clocks(items: Sequence[CheckedBatch], heads: Sequence[PendingHead]) -> None:
    """Note whose clock each aggregate's times are by; raise InvalidEvent where one would mix two."""
    for item in items:
        clock = item.batch.clock
        if clock is None:
            continue
        used = [item.aggregate] if isinstance(item.aggregate, int) else np.unique(item.aggregate).tolist()
        for index in used:
            head = heads[index]
            if head.clock is not None and head.clock != clock:
                raise InvalidEvent(
                    f"{head.name!r} has event times by the {head.clock} clock; these are by the {clock} clock",
                    hint="Give them another aggregate id.",
                )
            head.clock = clock
