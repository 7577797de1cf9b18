"""Run a reducer over events: compiled or interpreted, with the same bits.

Compiling takes a second or so and interpreting some ten microseconds an event, so a reducer is interpreted until it
has seen as many events as compiling is worth, and compiled from then on: never more than about twice the better choice.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eventlab.errors import NotCompiled, ReducerError
from eventlab.events.frame import EventTable, Int64Array
from eventlab.fold import lower
from eventlab.fold import scratch as flat
from eventlab.fold.cache import keep, kept, key_of
from eventlab.fold.declaration import ENVELOPE_FIELDS, Reducer
from eventlab.fold.executors import Executor, Span, Threads, spans
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
from eventlab.fold.native import Argument, KernelRaised, Native, Types, types_of, words_of
from eventlab.fold.ranks import Ranks
from eventlab.fold.words import INDEX_DTYPE

WORTH_LOADING, WORTH_COMPILING = 3_000, 100_000
"""Events interpreted before a kernel that an earlier process kept is loaded, and before one is compiled: about as many
as take as long."""

_SPARE = 8
"""Rows a table has beside those its keys can fill, for keys deleted and touched again within one event."""

PROPERTY_TYPES: dict[str, tuple[Any, pa.DataType]] = {
    "float": (np.float64, pa.float64()),
    "int": (np.int64, pa.int64()),
    "bool": (np.bool_, pa.bool_()),
    "str": (np.int32, pa.string()),
}


@dataclass(frozen=True, slots=True)
class Folded:
    """States after their last leg, and what was emitted at the end of every leg, if that was asked for."""

    states: pa.RecordBatch
    emitted: pa.RecordBatch | None = None
    """Scalar and array fields, then properties; one row a leg."""


@dataclass
class _Known:
    """What this process has of a reducer's code: how it is interpreted, how often it was, and its kernels."""

    types: StateType
    interpreted: int = 0
    kernels: dict[Types, Native] = field(default_factory=dict)
    not_kept: set[Types] = field(default_factory=set)
    refused: bool = False
    """By the compiler."""

    def kernel(self, reducer: Reducer, types: Types, work: int, interpret: bool | None) -> Native | None:  # noqa: FBT001
        """The kernel to fold so many more events with; None to interpret them."""
        native = self.kernels.get(types)
        if native is not None:
            return native
        total = self.interpreted + work
        key = key_of([reducer.code_key], types)
        if types not in self.not_kept:
            native = kept(key)
            if native is None:
                self.not_kept.add(types)
        if native is None and (interpret is not None or (total >= WORTH_COMPILING and not self.refused)):
            from eventlab.fold.kernel import compile_kernel

            try:
                native, code = compile_kernel(reducer, types)
            except ReducerError as error:
                if interpret is not None:
                    raise
                self.refused = True
                warnings.warn(NotCompiled(f"{error} Its folds go on as plain Python, slowly."), stacklevel=2)
                return None
            if code is not None:
                keep(key, code)
        if native is not None:
            self.kernels[types] = native
        return native


_known: dict[str, _Known] = {}


def _known_of(reducer: Reducer) -> _Known:
    known = _known.get(reducer.code_key)
    return _known.setdefault(reducer.code_key, _Known(StateType(reducer))) if known is None else known


def fold(
    reducer: Reducer,
    aggregates: Sequence[str],
    states: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    legs: Legs,
    *,
    emit: bool = False,
    interpret: bool | None = None,
    executor: Executor | None = None,
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
    executor : Executor, optional
        All cores by default.

    Raises
    ------
    FoldError
        A handler raised: names the aggregate and version.
    ReducerError
        With ``interpret=False``, a handler cannot be compiled.

    Warns
    -----
    NotCompiled
        The same, where either way was free: the fold goes on interpreted.
    """
    known, executor = _known_of(reducer), executor or Threads()
    tables, legs = narrowed(tables, legs)
    ends = legs.ends
    work = sum((np.maximum(ends[name] - legs.starts[name], 0) for name in reducer.handlers), np.diff(legs.offsets))
    total = int(work.sum())
    few = interpret is None and not known.kernels and known.interpreted + total < WORTH_LOADING
    if few:
        known.interpreted += total
    elif not interpret:
        made = _Run(reducer, states, tables, legs, emit)
        native = known.kernel(reducer, types_of(made.arguments(0, 0)), total, interpret)
        if native is not None:
            # The plain path says which event failed; where it does not fail (a fold that outgrew the space planned for
            # it), its answer is the answer.
            with contextlib.suppress(KernelRaised):
                return made.run(native, spans(work, executor), executor)
        else:
            known.interpreted += total
    return _interpreted(reducer, known.types, aggregates, states, tables, legs, emit)


def expect(reducer: Reducer, events: int) -> None:
    """Have events that are about to be folded in pieces treated as one fold of them would be: compiled if worth it."""
    known = _known_of(reducer)
    known.interpreted = max(known.interpreted, events)


def runs_interpreted(reducer: Reducer, interpret: bool | None) -> bool:  # noqa: FBT001
    """Whether a fold of a few events would run as plain Python now."""
    return bool(interpret) or (interpret is None and not _known_of(reducer).kernels)


def fold_through(
    reducer: Reducer,
    aggregate: str,
    state: pa.RecordBatch,
    tables: Mapping[str, EventTable],
    legs: Legs,
    *,
    emit: bool = False,
    interpret: bool | None = None,
) -> Folded:
    """Fold as `fold` does, but the events of one aggregate, and give its states at the end of each leg, a row a leg.

    Raises
    ------
    FoldError, ReducerError
    """
    known, (count,) = _known_of(reducer), np.diff(legs.offsets)
    tables, legs = narrowed(tables, legs)
    total = int(sum(int((ends - legs.starts[name]).sum()) for name, ends in legs.ends.items())) + int(count)
    compiles = interpret is False or known.kernels or known.interpreted + total >= WORTH_LOADING
    if count and compiles and not interpret:
        made = _Run(reducer, state, tables, legs, emit)
        native = known.kernel(reducer, types_of(made.arguments(0, 0)), total, interpret)
        if native is not None:
            with contextlib.suppress(KernelRaised):
                return made.through(native)
    found = []
    for leg in legs.of_aggregate(0):
        found.append(fold(reducer, [aggregate], state, tables, leg, emit=emit, interpret=interpret))
        state = found[-1].states
    states = joined([state.slice(0, 0), *(one.states for one in found)])
    emitted = [one.emitted for one in found if one.emitted is not None]
    return Folded(states, joined(emitted) if emitted else None)


class _Run:
    """A fold laid out for a kernel, and its outcome."""

    def __init__(
        self,
        reducer: Reducer,
        states: pa.RecordBatch,
        tables: Mapping[str, EventTable],
        legs: Legs,
        emit: bool,  # noqa: FBT001
    ) -> None:
        layout, dictionary = reducer.layout, flat.Dictionary(reducer.literals)
        self._reducer, self._dictionary, self._emit = reducer, dictionary, emit
        columns = {name: _columns(reducer.event_fields[name], table, dictionary) for name, table in tables.items()}
        self._records = flat.records_in(layout, states, dictionary)
        for table in layout.tables:
            if isinstance(table, Keyed):  # the states' own keys must have codes before space is made for them
                dictionary.encode(states.column(table.name).flatten().field(table.key))
        self._held = _tables_in(reducer, states, tables, legs, dictionary)
        ranks = self._held.ranks
        self._leg_count = int(legs.offsets[-1]) if emit else 0
        count = self._leg_count
        self._out_fields = [np.empty(count, layout.dtype[field.name]).reshape(-1) for field in layout.record]
        self._out_properties = [np.empty(count, _property_type(reducer, name)[0]) for name in reducer.properties]
        self._offsets = flat.writable(legs.offsets)
        nothing = np.empty(0, np.int32)
        self._starts: list[Int64Array] = []
        self._bounds: list[Int64Array] = []
        self._events: list[list[Argument]] = []
        for name in reducer.handlers:
            rank = ranks.event.get(name, nothing) if ranks else nothing
            self._starts.append(flat.writable(np.asarray(legs.starts[name])))
            self._bounds.append(flat.writable(np.asarray(legs.bounds[name])))
            self._events.append([self._bounds[-1], flat.writable(tables[name].merged_by), rank, *columns[name]])

    def arguments(self, first: int, stop: int) -> list[Argument]:
        """What the kernel takes to fold the aggregates ``first:stop``, beside others that do the rest.

        It counts them from zero: an index that may be any number costs el.Trades two fifths of its rate.
        """
        tables = [argument for table in self._held.tables for argument in table.arguments(first)]
        emitted = (int(self._emit), self._records[first:stop], *self._out_fields, *self._out_properties)
        events = [
            argument
            for starts, rest in zip(self._starts, self._events, strict=True)
            for argument in (starts[first:stop], *rest)
        ]
        return [stop - first, self._offsets[first : stop + 1], *emitted, *tables, *events]

    def run(self, native: Native, parts: Sequence[Span], executor: Executor) -> Folded:
        work: list[Callable[[], None]] = [partial(native, *self.arguments(*part)) for part in parts]
        work[0]() if len(work) == 1 else executor.run(work)
        columns = self._columns_out(self._records)
        # Where each aggregate has one leg, what is emitted at its end is the state.
        one_each = self._leg_count == len(self._offsets) - 1 and bool((np.diff(self._offsets) == 1).all())
        return self._folded(columns, emitted=columns if one_each else None)

    def through(self, native: Native) -> Folded:
        """States of the one aggregate at the end of each of its legs: what a kernel left is gone on from."""
        count, held = int(self._offsets[-1]), self._held.tables
        records = np.empty(count, self._records.dtype)
        copies: list[list[Any]] = [[] for _ in held]
        one_leg, arrays = np.array([0, 1]), [argument for table in held for argument in table.arguments(0)]
        begin, tables = words_of([1, one_leg, int(self._emit), self._records]), words_of(arrays)
        events = [words_of(rest[1:]) for rest in self._events]
        starts, out = self._starts, [*self._out_fields, *self._out_properties]
        sizes = [len(values) // count for values in out]
        for leg in range(count):
            bounds = [bounds[leg : leg + 1] for bounds in self._bounds]
            told = [values[leg * size : (leg + 1) * size] for values, size in zip(out, sizes, strict=True)]
            words = [*begin, *words_of(told), *tables]
            for start, bound, rest in zip(starts, bounds, events, strict=True):
                words += words_of([start, bound])
                words += rest
            native.run(words)
            starts = bounds
            records[leg] = self._records[0]
            for table, several in zip(held, copies, strict=True):
                several.append(table.copied())
        self._held.tables = [type(table).joined(several) for table, several in zip(held, copies, strict=True)]
        columns = self._columns_out(records)
        return self._folded(columns, emitted=columns)

    def _columns_out(self, records: npt.NDArray[Any]) -> list[pa.Array]:
        layout, dictionary = self._reducer.layout, self._dictionary
        fields = flat.fields_out(layout, (records[field.name] for field in layout.record), dictionary)
        return [*fields, *self._held.out(self._reducer, dictionary)]

    def _folded(self, columns: list[pa.Array], *, emitted: list[pa.Array] | None) -> Folded:
        """States of these columns, which are also what was emitted, as far as that is given."""
        reducer, dictionary, layout = self._reducer, self._dictionary, self._reducer.layout
        portable = flat.batch_of(layout, columns)
        if not self._emit:
            return Folded(portable)
        fields = flat.fields_out(layout, self._out_fields, dictionary) if emitted is None else emitted
        told = fields[: len(layout.record)]
        for name, values in zip(reducer.properties, self._out_properties, strict=True):
            text = reducer.property_kinds[name] == "str"
            told.append(dictionary.decode(values) if text else pa.array(flat.canonical(values)))
        schema = emission_schema(reducer)
        if not schema.names:
            return Folded(portable, _without_columns(self._leg_count))
        return Folded(portable, pa.RecordBatch.from_arrays(told, schema=schema))


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema, as one."""
    if not batches[0].schema.names:
        return _without_columns(sum(batch.num_rows for batch in batches))
    batches = [batch for batch in batches if batch.num_rows] or batches[:1]
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _without_columns(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _columns(fields: Sequence[str], table: EventTable, dictionary: flat.Dictionary) -> list[Argument]:
    made: list[Argument] = []
    for name in fields:
        if name in ENVELOPE_FIELDS:
            made.append(flat.writable(getattr(table, name)))
        elif pa.types.is_dictionary(table.columns[name].type):
            made += dictionary.shifted(table.columns[name])
        else:
            made.append(flat.numbers(table.columns[name]))
    return made


@dataclass
class _Held:
    ranks: Ranks | None
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
) -> _Held:
    layout = reducer.layout
    if not layout.tables:
        return _Held(None, [])
    ends = legs.ends
    rows = {name: np.maximum(ends[name] - legs.starts[name], 0) for name in reducer.handlers}
    ranks = None
    if layout.of(Ladder):
        levels = [flat.ladder_levels(states.column(ladder.name))[:2] for ladder in layout.of(Ladder)]
        prices = {name: flat.numbers(tables[name].columns["price"]) for name in sorted(reducer.priced)}
        ranks = Ranks.of(prices, legs.starts, ends, levels)
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
            held.append(flat.queue_in(table, column, capacity, pushes, dictionary, codes, INDEX_DTYPE))
        elif isinstance(table, Keyed):
            held.append(flat.keyed_in(table, column, capacity, dictionary, codes))
        else:
            held.append(flat.ladder_in(table, column, ranks))  # type: ignore[arg-type]
    return _Held(ranks, held)


def _lengths(states: pa.RecordBatch, table: Any) -> Int64Array:
    offsets: Int64Array = states.column(table.name).offsets.to_numpy().astype(np.int64)
    return np.diff(offsets)


def _text_fields(reducer: Reducer, name: str) -> int:
    declared = reducer.event_types[name]
    return sum(1 for field in reducer.columns[name] if declared.field(field).is_text)


def _property_type(reducer: Reducer, name: str) -> tuple[Any, pa.DataType]:
    return PROPERTY_TYPES[reducer.property_kinds[name]]


_schemas: WeakKeyDictionary[Reducer, pa.Schema] = WeakKeyDictionary()


def emission_schema(reducer: Reducer) -> pa.Schema:
    """Columns that an emission has."""
    found = _schemas.get(reducer)
    if found is None:
        fields = [f.arrow for f in reducer.layout.record]
        fields += [pa.field(name, _property_type(reducer, name)[1]) for name in reducer.properties]
        found = _schemas[reducer] = pa.schema(fields)
    return found


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


def warm(reducer: Reducer) -> None:
    """Have what a reducer's folds need compiled and kept, with its routed handlers and without.

    Raises
    ------
    ReducerError
        A handler cannot be compiled.
    """
    for one in (reducer, reducer.with_routed) if reducer.routed else (reducer,):
        derive(one, ["none"], one.layout.initial(1), interpret=False)


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
