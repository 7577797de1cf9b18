"""A fold in plain Python, event by event: a debugger can stop in it, and it knows which event failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold.declare import bytecode as lower
from eventlab.fold.declare.reducer import ENVELOPE_FIELDS, Reducer
from eventlab.fold.interpreter.state import Event, StateType, failure, property_failure, python_values, routed_failure
from eventlab.fold.result import Folded, emission_schema, without_columns
from eventlab.fold.stops import MERGED, Stops, entries, kind_bits


def _emitted(reducer: Reducer, types: StateType, state: Any, aggregate: str, version: int) -> dict[str, Any]:
    values = types.dump_record(state)
    for name in reducer.properties:
        try:
            values[name] = types.property_value(state, name)
        except Exception as error:
            raise property_failure(reducer, aggregate, version, name, error) from error
    return values


def interpreted(
    reducer: Reducer,
    types: StateType,
    aggregates: Sequence[str],
    states: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    stops: Stops,
    emit: bool,  # noqa: FBT001
) -> Folded:
    """Fold as `fold` does, with the handlers as they were written.

    Raises
    ------
    FoldError
    """
    if stops.order is not None:
        tables, stops = _sequential(tables, stops, list(reducer.handlers))
    readers = {name: _TableEvents(name, tables[name], reducer) for name in reducer.handlers}
    finished, emitted = [], []
    for a, portable in enumerate(states.to_pylist()):
        state = types.load(portable)
        at = {name: int(rows[a]) for name, rows in stops.starts.items()}
        version = 0
        for stop in range(int(stops.offsets[a]), int(stops.offsets[a + 1])):
            ends = {name: int(bounds[stop]) for name, bounds in stops.bounds.items()}
            in_order = _by_version(tables, at, ends) if stops.order is None else _merged(stops.order, readers, at, ends)
            for name, row in in_order:
                if name not in reducer.routed:
                    version = int(tables[name].version[row])
                event = readers[name].event(row)
                try:
                    types.handlers[name](state, event)
                except Exception as error:
                    if name in reducer.routed:
                        position = int(tables[name].position[row])
                        raise routed_failure(reducer, aggregates[a], position, name, event, error) from error
                    raise failure(reducer, aggregates[a], version, name, event, error) from error
            at = {name: max(at[name], end) for name, end in ends.items()}
            if emit:
                emitted.append(_emitted(reducer, types, state, aggregates[a], version))
        finished.append(types.dump(state))
    folded = pa.RecordBatch.from_pylist(finished, schema=reducer.layout.arrow_schema)
    if not emit:
        return Folded(folded)
    schema = emission_schema(reducer)
    if not schema.names:
        return Folded(folded, without_columns(len(emitted)))
    return Folded(folded, pa.RecordBatch.from_pylist(emitted, schema=schema))


def _by_version(
    tables: Mapping[str, EventTable], starts: Mapping[str, int], ends: Mapping[str, int]
) -> Iterator[tuple[str, int]]:
    """Event types and rows, always the lowest version next."""
    at = dict(starts)
    while ready := [(tables[name].version[at[name]], name) for name in at if at[name] < ends[name]]:
        _, name = min(ready)
        yield name, at[name]
        at[name] += 1


def _sequential(
    tables: Mapping[str, EventTable], stops: Stops, names: Sequence[str]
) -> tuple[dict[str, EventTable], Stops]:
    """The same fold with the rows of each table in merged order, since readers convert successive rows together."""
    order = stops.order if stops.order is not None else np.empty(0, np.int64)
    kinds, rows = order & ((1 << kind_bits(len(names))) - 1), order >> kind_bits(len(names))
    taken, sequential = dict(tables), order.copy()
    for kind, name in enumerate(names):
        places = np.flatnonzero(kinds == kind)
        taken[name] = tables[name].take(rows[places], np.array([0, len(places)]))
        sequential[places] = entries(np.arange(len(places)), kind, len(names))
    return taken, replace(stops, order=sequential)


def _merged(
    order: Int64Array, handled: Iterable[str], starts: Mapping[str, int], ends: Mapping[str, int]
) -> Iterator[tuple[str, int]]:
    """Event types and rows as a merged order has them, without those that are not handled."""
    names = list(handled)
    bits = kind_bits(len(names))
    for entry in order[starts[MERGED] : ends[MERGED]].tolist():
        row, kind = entry >> bits, entry & ((1 << bits) - 1)
        if kind < len(names):
            yield names[kind], row


class _TableEvents:
    """The events of a table, one by one; columns are converted a thousand rows at a time."""

    BLOCK = 1024

    def __init__(self, name: str, table: EventTable, reducer: Reducer) -> None:
        mentioned = lower.attributes([reducer.handlers[name]])
        self.table = table
        self.envelope = [field for field in ENVELOPE_FIELDS if field in mentioned]
        self.columns = reducer.columns[name]
        self.names = (*self.envelope, *self.columns)
        self.block = -1
        self.values: dict[str, list[Any]] = {}

    def event(self, row: int) -> Event:
        block, within = divmod(row, self.BLOCK)
        if block != self.block:
            span = slice(block * self.BLOCK, (block + 1) * self.BLOCK)
            for name in self.envelope:
                self.values[name] = python_values(pa.array(getattr(self.table, name)[span]))
            for name in self.columns:
                self.values[name] = python_values(self.table.columns[name][span])
            self.block = block
        return Event({name: self.values[name][within] for name in self.names})
