"""Run a reducer over events: compiled or interpreted, with the same bits.

Compiling takes a second or so and interpreting some ten microseconds an event, so a reducer is interpreted until it
has seen as many events as compiling is worth, and compiled from then on: never more than about twice the better choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.errors import FoldError, ReducerError
from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold import lower
from eventlab.fold import scratch as flat
from eventlab.fold.declaration import ENVELOPE_FIELDS, Reducer
from eventlab.fold.interpret import (
    Event,
    StateType,
    failure,
    property_failure,
    python_values,
    routed_failure,
)
from eventlab.fold.layout import Keyed, Ladder, Queue
from eventlab.fold.legs import Legs, empty_table, narrowed

if TYPE_CHECKING:
    from eventlab.fold.kernel import Kernel

WORTH_COMPILING = 100_000
"""Events interpreted before a reducer is compiled: about as long as compiling takes."""

_SPARE = 8
"""Rows a table has beside those its keys can fill, for keys deleted and touched again within one event."""

PROPERTY_TYPES: dict[str, tuple[Any, pa.DataType]] = {
    "float": (np.float64, pa.float64()),
    "int": (np.int64, pa.int64()),
    "bool": (np.bool_, pa.bool_()),
    "str": (np.int32, pa.string()),
}


class _KernelStopped(Exception):
    """A handler raised, or a table outgrew its space, in a kernel, which cannot say at which event."""


@dataclass(frozen=True, slots=True)
class Folded:
    """States after their last leg, and what was emitted at the end of every leg, if that was asked for."""

    states: pa.RecordBatch
    emitted: pa.RecordBatch | None = None
    """Scalar and array fields, then properties; one row a leg."""


@dataclass
class _Compiled:
    interpreted: int = 0
    kernel: Kernel | None = None
    types: StateType | None = field(default=None)


_compiled: WeakKeyDictionary[Reducer, _Compiled] = WeakKeyDictionary()


def fold(
    reducer: Reducer,
    aggregates: Sequence[str],
    states: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    legs: Legs,
    *,
    emit: bool = False,
    interpret: bool | None = None,
) -> Folded:
    """Fold events into states.

    Parameters
    ----------
    reducer : Reducer
    aggregates : sequence of str
        Ids, one a state, named in errors.
    states : pyarrow.RecordBatch
        Portable states to go on from, one row an aggregate.
    tables : mapping of str to EventTable
        A table for every event type the reducer handles.
    legs : Legs
    emit : bool
        Also give the record and the properties at the end of each leg.
    interpret : bool, optional
        True runs the handlers as Python, False compiles at once, None does what is quicker.

    Raises
    ------
    FoldError
        A handler raised: names the aggregate and version.
    ReducerError
        A handler cannot be compiled.
    """
    known = _compiled.setdefault(reducer, _Compiled())
    known.types = known.types or StateType(reducer)
    tables, legs = narrowed(tables, legs)
    if interpret is None and known.kernel is None:
        ends = legs.ends
        work = sum(int(np.maximum(ends[name] - legs.starts[name], 0).sum()) for name in reducer.handlers)
        work += int(legs.offsets[-1]) if emit else states.num_rows
        interpret = known.interpreted + work < WORTH_COMPILING
        known.interpreted += work if interpret else 0
    if interpret:
        return _interpreted(reducer, known.types, aggregates, states, tables, legs, emit)
    if known.kernel is None:
        from eventlab.fold.kernel import compile_kernel

        known.kernel = compile_kernel(reducer)
    try:
        return _run(reducer, known.kernel, states, tables, legs, emit)
    except _KernelStopped as stopped:
        # The plain path says which event failed; where it does not fail (a fold that outgrew the space planned for
        # it), its answer is the answer.
        try:
            return _interpreted(reducer, known.types, aggregates, states, tables, legs, emit)
        except FoldError as located:
            raise located from stopped.__cause__


def _run(
    reducer: Reducer,
    kernel: Kernel,
    states: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    legs: Legs,
    emit: bool,  # noqa: FBT001
) -> Folded:
    layout, dictionary = reducer.layout, flat.Dictionary(reducer.literals)
    count = states.num_rows
    columns = {name: _columns(kernel.event_fields[name], table, dictionary) for name, table in tables.items()}
    records = flat.records_in(layout, states, dictionary)
    for table in layout.tables:
        if isinstance(table, Keyed):  # the states' own keys must have codes before space is made for them
            dictionary.encode(states.column(table.name).flatten().field(table.key))
    held, arguments = _tables_in(reducer, states, tables, legs, dictionary)
    ranks = held.ranks
    leg_count = int(legs.offsets[-1]) if emit else 0
    out_records = np.empty(leg_count, layout.dtype)
    outs = [np.empty(leg_count, PROPERTY_TYPES[_property(reducer, name)][0]) for name in reducer.properties]
    nothing = np.empty(0, np.int32)
    events: list[Any] = []
    for name in reducer.handlers:
        rank = ranks.event.get(name, nothing) if ranks else nothing
        events += [legs.starts[name], legs.bounds[name], flat.writable(tables[name].merged_by), rank, *columns[name]]
    try:
        kernel.run(count, legs.offsets, emit, records, out_records, *outs, *arguments, *events)
    except ReducerError:
        raise
    except Exception as error:
        raise _KernelStopped from error
    portable = flat.batch_of(layout, [*flat.records_out(layout, records, dictionary), *held.out(reducer, dictionary)])
    if not emit:
        return Folded(portable)
    emitted = flat.records_out(layout, out_records, dictionary)
    for name, values in zip(reducer.properties, outs, strict=True):
        text = _property(reducer, name) == "str"
        emitted.append(dictionary.decode(values) if text else pa.array(flat.canonical(values)))
    schema = emission_schema(reducer)
    if not schema.names:
        return Folded(portable, _without_columns(leg_count))
    return Folded(portable, pa.RecordBatch.from_arrays(emitted, schema=schema))


def _without_columns(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _columns(fields: Sequence[str], table: EventTable, dictionary: flat.Dictionary) -> list[npt.NDArray[Any]]:
    made = []
    for name in fields:
        if name in ENVELOPE_FIELDS:
            made.append(flat.writable(getattr(table, name)))
        elif pa.types.is_dictionary(table.columns[name].type):
            made.append(dictionary.encode(table.columns[name]))
        else:
            made.append(flat.numbers(table.columns[name]))
    return made


@dataclass
class _Held:
    ranks: flat.Ranks | None
    tables: list[Any]

    def out(self, reducer: Reducer, dictionary: flat.Dictionary) -> list[Any]:
        columns = []
        for table, held in zip(reducer.layout.tables, self.tables, strict=True):
            if isinstance(table, Queue):
                columns.append(flat.queue_out(table, held, dictionary))
            elif isinstance(table, Keyed):
                columns.append(flat.keyed_out(table, held, dictionary))
            else:
                columns.append(flat.ladder_out(table, held))
        return columns


def _tables_in(
    reducer: Reducer,
    states: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    legs: Legs,
    dictionary: flat.Dictionary,
) -> tuple[_Held, list[npt.NDArray[Any]]]:
    layout = reducer.layout
    ends = legs.ends
    rows = {name: np.maximum(ends[name] - legs.starts[name], 0) for name in reducer.handlers}
    ranks = None
    if layout.of(Ladder):
        levels = [flat.ladder_levels(states.column(ladder.name))[:2] for ladder in layout.of(Ladder)]
        priced = {name: tables[name] for name in reducer.priced}
        ranks = flat.Ranks.of(priced, legs.starts, ends, levels, states.num_rows)
    # A key comes from a constant, from an event's text or from the state: that bounds the rows of a table.
    texts = {name: _text_fields(reducer, name) for name in reducer.handlers}
    touched = sum((rows[name] * texts[name] for name in rows), np.zeros(states.num_rows, np.int64))
    own = len(reducer.literals) + len(layout.scalars) + sum(_lengths(states, table) for table in layout.tables)
    codes = len(dictionary)
    # Rows deleted during an event are used again only after it.
    spare = _SPARE if reducer.removes_rows else 0
    capacity = np.minimum(touched + own, codes) + spare
    pushing = (rows[name] for name in rows if name in reducer.pushes_rows)
    pushes: Int64Array = 2 * sum(pushing, np.zeros(states.num_rows, np.int64))
    held: list[Any] = []
    for table in layout.tables:
        column = states.column(table.name)
        if isinstance(table, Queue):
            from eventlab.fold.tables import INDEX_DTYPE

            held.append(flat.queue_in(table, column, capacity, pushes, dictionary, codes, INDEX_DTYPE))
        elif isinstance(table, Keyed):
            held.append(flat.keyed_in(table, column, capacity, dictionary, codes))
        else:
            held.append(flat.ladder_in(table, column, ranks))  # type: ignore[arg-type]
    return _Held(ranks, held), [argument for one in held for argument in one.arguments]


def _lengths(states: pa.RecordBatch, table: Any) -> Int64Array:
    offsets: Int64Array = states.column(table.name).offsets.to_numpy().astype(np.int64)
    return np.diff(offsets)


def _text_fields(reducer: Reducer, name: str) -> int:
    declared = reducer.event_types[name]
    return sum(1 for field in reducer.columns[name] if declared.field(field).is_text)


def _property(reducer: Reducer, name: str) -> str:
    return reducer.property_kinds[name]


def emission_schema(reducer: Reducer) -> pa.Schema:
    """Columns that an emission has."""
    fields = [f.arrow for f in reducer.layout.record]
    fields += [pa.field(name, PROPERTY_TYPES[_property(reducer, name)][1]) for name in reducer.properties]
    return pa.schema(fields)


def derive(
    reducer: Reducer, aggregates: Sequence[str], states: pa.RecordBatch, *, interpret: bool | None = None
) -> pa.RecordBatch:
    """Records and properties of portable states, one row each."""
    nothing = np.zeros(states.num_rows, np.int64)
    rows = dict.fromkeys(reducer.handlers, nothing)
    tables = {name: empty_table(reducer, name, states.num_rows) for name in reducer.handlers}
    legs = Legs(np.arange(states.num_rows + 1), rows, rows)
    folded = fold(reducer, aggregates, states, tables, legs, emit=True, interpret=interpret)
    return folded.emitted if folded.emitted is not None else states


def _emitted(reducer: Reducer, types: StateType, state: Any, aggregate: str, version: int) -> dict[str, Any]:
    values = types.dump_record(state)
    for name in reducer.properties:
        try:
            values[name] = types.property_value(state, name)
        except Exception as error:
            raise property_failure(reducer, aggregate, version, name, error) from error
    return values


def _interpreted(
    reducer: Reducer,
    types: StateType,
    aggregates: Sequence[str],
    states: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    legs: Legs,
    emit: bool,  # noqa: FBT001
) -> Folded:
    readers = {name: _Reader(name, tables[name], reducer) for name in reducer.handlers}
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
                        raise routed_failure(reducer, aggregates[a], position, name, error) from error
                    raise failure(reducer, aggregates[a], version, name, error) from error
                at[name] += 1
            if emit:
                emitted.append(_emitted(reducer, types, state, aggregates[a], version))
        finished.append(types.dump(state))
    portable = pa.RecordBatch.from_pylist(finished, schema=reducer.layout.arrow_schema)
    if not emit:
        return Folded(portable)
    schema = emission_schema(reducer)
    if not schema.names:
        return Folded(portable, _without_columns(len(emitted)))
    return Folded(portable, pa.RecordBatch.from_pylist(emitted, schema=schema))


class _Reader:
    """Gives one table's events one by one, converting a thousand rows at a time."""

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
