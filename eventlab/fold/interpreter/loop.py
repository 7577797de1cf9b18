"""A fold in plain Python, event by event: a debugger can stop in it, and it knows which event failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from eventlab.events.frame import EventTable
from eventlab.fold.declare import bytecode as lower
from eventlab.fold.declare.reducer import ENVELOPE_FIELDS, Reducer
from eventlab.fold.interpreter.state import Event, StateType, failure, property_failure, python_values, routed_failure
from eventlab.fold.result import Folded, emission_schema, without_columns
from eventlab.fold.stops import Legs


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
    legs: Legs,
    emit: bool,  # noqa: FBT001
) -> Folded:
    """Fold as `fold` does, with the handlers as they were written.

    Raises
    ------
    FoldError
    """
    readers = {name: _EventReader(name, tables[name], reducer) for name in reducer.handlers}
    finished, emitted = [], []
    for a, row in enumerate(states.to_pylist()):
        state = types.load(row)
        at = {name: int(legs.starts[name][a]) for name in readers}
        version = 0
        for leg in range(int(legs.offsets[a]), int(legs.offsets[a + 1])):
            ends = {name: int(legs.bounds[name][leg]) for name in readers}
            while True:
                ready = [(readers[name].place(at[name]), name) for name in readers if at[name] < ends[name]]
                if not ready:
                    break
                _, name = min(ready)
                if name not in reducer.routed:
                    version = int(tables[name].version[at[name]])
                event = readers[name].event(at[name])
                try:
                    types.handlers[name](state, event)
                except Exception as error:
                    if name in reducer.routed:
                        position = int(tables[name].position[at[name]])
                        raise routed_failure(reducer, aggregates[a], position, name, event, error) from error
                    raise failure(reducer, aggregates[a], version, name, event, error) from error
                at[name] += 1
            if emit:
                emitted.append(_emitted(reducer, types, state, aggregates[a], version))
        finished.append(types.dump(state))
    portable = pa.RecordBatch.from_pylist(finished, schema=reducer.layout.arrow_schema)
    if not emit:
        return Folded(portable)
    schema = emission_schema(reducer)
    if not schema.names:
        return Folded(portable, without_columns(len(emitted)))
    return Folded(portable, pa.RecordBatch.from_pylist(emitted, schema=schema))


class _EventReader:
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

    def place(self, row: int) -> int:
        return int(self.table.merged_by[row])

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
