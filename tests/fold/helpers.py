"""Events as a fold sees them, made from event objects, and folds both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eventlab.events.columns import payload_from_objects
from eventlab.events.frame import EventFrame, EventTable
from eventlab.events.types import event_type
from eventlab.fold import fold as drive
from eventlab.fold.declare.layout import digest
from eventlab.fold.declare.reducer import Reducer
from eventlab.fold.fold import fold
from eventlab.fold.result import Folded
from eventlab.fold.stops import Stops, tables_of

T0 = 1_700_000_000_000_000_000
"""The event time of version 1; each version is one second later."""


def seconds(events: Sequence[Any]) -> list[int]:
    """Event times a second apart."""
    return [T0 + number * 1_000_000_000 for number in range(len(events))]


def frame_of(
    aggregates: Sequence[Sequence[Any]],
    names: Sequence[str] | None = None,
    times: Sequence[Sequence[int]] | None = None,
) -> EventFrame:
    """The events of each aggregate, in version order, as one EventFrame: what a store hands to a fold."""
    times = times if times is not None else [seconds(events) for events in aggregates]
    rows: dict[str, list[tuple[int, int, int, Any]]] = {}
    position = 0
    for number, events in enumerate(aggregates):
        for version, event in enumerate(events, start=1):
            rows.setdefault(event_type(event).name, []).append((number, position, version, event))
            position += 1
    tables = {}
    for name, found in rows.items():
        declared = event_type(name)
        payload = payload_from_objects(declared, [event for *_, event in found])
        owner = np.array([number for number, *_ in found], np.int64)
        versions = np.array([v for _, _, v, _ in found], np.int64)
        tables[name] = EventTable(
            declared,
            np.searchsorted(owner, np.arange(len(aggregates) + 1)).astype(np.int64),
            np.array([p for _, p, _, _ in found], np.int64),
            versions,
            np.array([times[number][version - 1] for number, _, version, _ in found], np.int64),
            dict(zip(payload.schema.names, payload.columns, strict=True)),
        )
    ids = list(names) if names is not None else [f"a/{number}" for number in range(len(aggregates))]
    return EventFrame(ids, tables)


def stops_of(reducer: Reducer, frame: EventFrame, cuts: Sequence[Sequence[int]]) -> Stops:
    """Stops at the given versions of each aggregate, ascending."""
    tables = tables_of(reducer, frame)
    offsets = np.cumsum([0, *(len(versions) for versions in cuts)])
    starts = {name: table.offsets[:-1].copy() for name, table in tables.items()}
    bounds: dict[str, list[int]] = {name: [] for name in tables}
    for number, versions in enumerate(cuts):
        for version in versions:
            for name, table in tables.items():
                low, high = table.offsets[number], table.offsets[number + 1]
                bounds[name].append(low + int(np.searchsorted(table.version[low:high], version, side="right")))
    return Stops(offsets, starts, {name: np.array(found, np.int64) for name, found in bounds.items()})


def folded(
    reducer: Reducer,
    aggregates: Sequence[Sequence[Any]],
    *,
    interpret: bool | None,
    cuts: Sequence[Sequence[int]] | None = None,
    states: pa.RecordBatch | None = None,
    times: Sequence[Sequence[int]] | None = None,
) -> Folded:
    """Fold event objects, emitting at the given versions of each aggregate (at its last one where there are none)."""
    frame = frame_of(aggregates, times=times)
    stops = stops_of(reducer, frame, cuts if cuts is not None else [[len(events)] for events in aggregates])
    initial = reducer.layout.initial(len(aggregates)) if states is None else states
    return fold(reducer, frame.aggregates, initial, tables_of(reducer, frame), stops, emit=True, interpret=interpret)


def digests(batch: pa.RecordBatch) -> list[str]:
    return [digest(batch, row) for row in range(batch.num_rows)]


def bits(value: Any) -> Any:
    """Plain values in which NaN equals NaN and -0.0 differs from 0.0."""
    if isinstance(value, float):
        return "nan" if value != value else value.hex()
    if isinstance(value, dict):
        return {name: bits(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return value


def rows(batch: pa.RecordBatch | None) -> list[Any]:
    """A batch's rows with every float as its bits."""
    assert batch is not None
    return [bits(row) for row in batch.to_pylist()]


@contextmanager
def compiled_only() -> Iterator[None]:
    """Fail where a compiled fold is given up for an interpreted one: comparing the two would then prove nothing."""

    def given_up(*_: Any, **__: Any) -> Folded:
        raise AssertionError("the compiled fold fell back to the interpreted one")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drive, "interpreted", given_up)
        yield


def _naive(
    twin: Callable[[], Any], aggregates: Sequence[Sequence[Any]], times: Sequence[Sequence[int]]
) -> tuple[list[Any], list[Any]]:
    """Final states, and the record and properties after every version from 0 on."""
    states, emitted = [], []
    position = 0
    for events, moments in zip(aggregates, times, strict=True):
        told = twin()
        emitted.append(bits({**told.record(), **told.properties()}))
        for version, (event, moment) in enumerate(zip(events, moments, strict=True), start=1):
            told.apply(event, version, position, moment)
            emitted.append(bits({**told.record(), **told.properties()}))
            position += 1
        states.append(bits({**told.record(), **told.tables()}))
    return states, emitted


def check_one_answer(
    reducer: Reducer,
    twin: Callable[[], Any],
    aggregates: Sequence[Sequence[Any]],
    *,
    times: Sequence[Sequence[int]] | None = None,
    may_fall_back: bool = False,
) -> None:
    """Compiled, interpreted and naive folds give the same bits, after every single event."""
    cuts = [list(range(len(events) + 1)) for events in aggregates]
    with nullcontext() if may_fall_back else compiled_only():
        compiled = folded(reducer, aggregates, interpret=False, cuts=cuts, times=times)
    interpreted = folded(reducer, aggregates, interpret=True, cuts=cuts, times=times)
    assert digests(compiled.states) == digests(interpreted.states)
    assert rows(compiled.states) == rows(interpreted.states)
    assert rows(compiled.emitted) == rows(interpreted.emitted)
    states, emitted = _naive(twin, aggregates, times or [seconds(events) for events in aggregates])
    names = reducer.layout.arrow_schema.names
    assert rows(compiled.states) == [{name: state[name] for name in names} for state in states]
    assert rows(compiled.emitted) == emitted
